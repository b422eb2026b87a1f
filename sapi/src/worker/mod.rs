//! PROCESS: the worker. Forked by the engine, it becomes what its pool asks
//! ([`become_worker`]), then accepts connections and serves one request at a time
//! ([`serve`]).
//!
//! What can be decided without PHP is in modules that need none: `script` (path
//! fix-ups), `head` (status lines), `recorder` (the slot), `connection`.

#[cfg(not(test))]
pub(crate) mod become_worker;
mod clock;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
mod connection;
#[cfg_attr(test, expect(dead_code, reason = "its callers need PHP"))]
pub(crate) mod exchange;
mod head;
#[cfg_attr(test, expect(dead_code, reason = "its caller needs PHP"))]
mod recorder;
mod script;
#[cfg(not(test))]
pub(crate) mod serve;
#[cfg(not(test))]
mod signals;
