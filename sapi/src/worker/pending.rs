//! What a worker does when no connection is waiting: it lets others run once before it
//! sleeps in accept(2).
//!
//! A web server that shares the processor is about to connect and to write. A worker
//! that sleeps is woken by the connect, finds nothing to read, sleeps again, and is
//! woken a second time; each of these costs more than the page `hello world`. One
//! sched_yield(2) lets the web server do both first. Nobody else to run: the call
//! returns at once, and the worker sleeps. See `docs/adr/002-scheduling-policy.md`.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Accepts that go by unasked after a connection was found waiting: a worker under full
/// load need not ask each time.
const UNASKED: u8 = 3;

/// Whether connections wait, as far as was asked lately.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    unasked: u8,
}

impl Pending {
    /// Call before accept(2). Costs one system call, or two when nothing waits.
    pub(crate) fn let_others_run(&mut self, listener: impl AsFd) {
        if self.unasked > 0 {
            self.unasked -= 1;
            return;
        }
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        // An error is for accept(2) to find.
        match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) => rustix::thread::sched_yield(),
            Ok(_) | Err(_) => self.unasked = UNASKED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn who_finds_a_connection_does_not_ask_again_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("binds");
        let mut pending = Pending::default();
        pending.let_others_run(&listener);
        assert_eq!(pending.unasked, 0);
        let _client = UnixStream::connect(folder.path().join("s")).expect("connects");
        let seen: Vec<u8> = (0..5)
            .map(|_| {
                pending.let_others_run(&listener);
                pending.unasked
            })
            .collect();
        assert_eq!(seen, [3, 2, 1, 0, 3]);
    }
}
