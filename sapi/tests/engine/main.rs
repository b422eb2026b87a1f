//! The engine and its workers inside a real PHP executable, without the supervisor.

#![expect(missing_docs, clippy::unwrap_used, reason = "a test")]

mod harness;
mod requests;
mod stock;
