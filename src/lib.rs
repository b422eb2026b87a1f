//! Glasspool: a PHP FastCGI process manager that explains every slow request.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod front;
pub mod inspect;
pub mod loader;
pub mod logs;
pub mod observer;
mod raise;
mod readiness;
pub mod supervisor;
mod tail;
