//! The engine and its workers inside a real PHP executable, without the supervisor.

mod harness;
mod requests;
mod stock;
