//! From finished request records to OpenTelemetry: spans, log records, metrics, and their
//! way to a collector or the terminal.
//!
//! Spans are built after the fact with given ids and times ([`span`]), so the SDK's
//! tracer has no part in it. A [`export::Pipeline`] takes them, never blocks the caller,
//! and counts all that it could not deliver. It runs inside the caller's tokio runtime.
//!
//! This room knows nothing of PHP's memory and nothing of processes; it reads neither
//! the environment nor files, it is given both as values ([`options`]); but for the
//! certificates that those name.
//! Start reading at [`span`] and [`wait_span`], then [`export`].

#![forbid(unsafe_code)]

pub mod env;
pub mod export;
pub mod line;
pub mod metrics;
pub mod options;
pub mod queue;
pub mod resource;
pub mod rollup;
pub mod saturation;
pub mod semconv;
pub mod slow;
pub mod span;
pub mod still_running;
pub mod tcp;
pub mod times;
pub mod wait_span;
