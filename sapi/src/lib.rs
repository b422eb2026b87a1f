//! Engine and worker: what runs inside PHP's own executable.
//!
//! The shared object is preloaded into a stock php executable and supplies
//! `__libc_start_main`, so that PHP's `main` never runs: see [`ffi`]. The engine
//! ([`engine`]) starts PHP once and forks workers ([`worker`]) on the supervisor's
//! request. It stays single-threaded for life.
//!
//! **PHP leaves by `longjmp`.** Every `zend_try` is in `shim/`; Rust calls only shim
//! functions that return a status, and PHP calls only Rust leaves that never call
//! back. So no jump ever passes a Rust frame.

#[cfg(not(test))]
mod engine;
#[cfg(not(test))]
mod ffi;
mod worker;
