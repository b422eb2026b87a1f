//! A request with a trace of its own, on a thread of its own, so that its span can be
//! found and something can be done while it runs.

use std::hash::{BuildHasher as _, RandomState};
use std::thread::JoinHandle;

use anyhow::Result;

use super::http::{Client, Reply};

/// A caller's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 of them.
    pub span: String,
}

impl Caller {
    pub(super) fn new() -> Caller {
        // Each state has other keys, from the system's random source at first.
        let random = || RandomState::new().hash_one(0_u8) | 1;
        Caller {
            trace: format!("{:016x}{:016x}", random(), random()),
            span: format!("{:016x}", random()),
        }
    }

    /// Asks for a page as a part of this trace.
    pub(super) fn get(&self, client: &mut Client, path: &str) -> Result<Reply> {
        let header = format!("00-{}-{}-01", self.trace, self.span);
        client.send("GET", path, &[("traceparent", &header)], Vec::new())
    }

    /// The same on a thread.
    pub(super) fn get_meanwhile(&self, mut client: Client, path: &str) -> JoinHandle<Result<Reply>> {
        let (caller, path) = (self.clone(), path.to_owned());
        std::thread::spawn(move || caller.get(&mut client, &path))
    }
}

/// The thread's result.
pub(super) fn join(thread: JoinHandle<Result<Reply>>) -> Result<Reply> {
    thread.join().expect("the client does not panic")
}
