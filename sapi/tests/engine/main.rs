//! The engine and its workers inside a real PHP executable, without the supervisor.

mod crash;
mod harness;
mod logs;
mod opcache;
mod pages;
mod requests;
mod rights;
mod settings;
mod slot;
mod starting;
mod stock;
mod times;
