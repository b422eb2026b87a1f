//! The real supervisor with a fake engine: no PHP, no root, no network.

mod harness;
mod replaces;
mod starts;
mod stops;
