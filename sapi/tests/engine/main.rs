//! The engine and its workers inside a real PHP executable, without the supervisor.

mod harness;
mod logs;
mod pages;
mod requests;
mod rights;
mod settings;
mod slot;
mod stock;
