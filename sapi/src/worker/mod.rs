//! PROCESS: the worker. Forked by the engine, it becomes what its pool asks
//! ([`become_worker`]), then accepts connections and serves one request at a time
//! ([`serve`]). How it dies of a signal is in `crash`.
//!
//! What can be decided without PHP is in modules that need none: `script` (path
//! fix-ups), `head` (status lines), `recorder` (the slot), `account` (where a request's
//! time went), `connection`, `admission` (who may connect), `access_log`, `log` (lines on
//! standard error).

#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
mod access_log;
mod account;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
mod admission;
#[cfg(not(test))]
pub(crate) mod become_worker;
mod clock;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
mod connection;
#[cfg(not(test))]
mod crash;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
pub(crate) mod exchange;
mod head;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
pub(crate) mod log;
pub(crate) mod pages;
mod pending;
pub(crate) mod php_error;
mod random;
#[cfg_attr(test, expect(dead_code, reason = "its caller needs PHP"))]
pub(crate) mod recorder;
#[cfg(not(test))]
mod rights;
mod script;
#[cfg(not(test))]
pub(crate) mod serve;
#[cfg(not(test))]
mod signals;
mod time_zone;
