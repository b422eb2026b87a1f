//! Ctrl-C, and waits that it ends.
//!
//! Children run in process groups of their own, so a terminal's Ctrl-C reaches only this program; it
//! then stops them by pid while values are dropped, which a default SIGINT would prevent.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::BenchError;

/// Becomes and stays readable at the first SIGINT, SIGTERM or SIGHUP.
#[derive(Debug)]
pub struct Stop {
    requested: UnixStream,
    /// Keeps the pair connected while no signal has come; the handlers own duplicates.
    _writer: UnixStream,
}

/// How a wait ended, if not by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The descriptor is ready.
    Ready,
    /// Time ran out.
    TimedOut,
}

impl Stop {
    /// Takes the three signals over for the rest of the process's life.
    ///
    /// # Errors
    /// The system refuses a socket pair or a handler.
    pub fn on_signals() -> Result<Self, BenchError> {
        let stop = Self::never()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let writer = stop._writer.try_clone().map_err(BenchError::system("dup"))?;
            signal_hook::low_level::pipe::register(signal, writer)
                .map_err(BenchError::system("install a signal handler"))?;
        }
        Ok(stop)
    }

    /// One that no signal triggers.
    ///
    /// # Errors
    /// The system refuses a socket pair.
    pub fn never() -> Result<Self, BenchError> {
        let (requested, writer) = UnixStream::pair().map_err(BenchError::system("socketpair"))?;
        Ok(Self {
            requested,
            _writer: writer,
        })
    }

    /// Readable once a signal has come.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.requested.as_fd()
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn check(&self) -> Result<(), BenchError> {
        self.pause(Duration::ZERO)
    }

    /// Lets `time` pass.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn pause(&self, time: Duration) -> Result<(), BenchError> {
        match wait_any(&[self.as_fd()], time)? {
            Some(_) => Err(BenchError::Interrupted),
            None => Ok(()),
        }
    }

    /// Waits until `fd` is readable.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`], or poll(2) failed.
    pub fn wait(&self, fd: BorrowedFd<'_>, limit: Duration) -> Result<Waited, BenchError> {
        match wait_any(&[self.as_fd(), fd], limit)? {
            Some(0) => Err(BenchError::Interrupted),
            Some(_) => Ok(Waited::Ready),
            None => Ok(Waited::TimedOut),
        }
    }
}

/// The first of `fds` that is readable or hung up; `None` when `limit` passed.
///
/// # Errors
/// poll(2) failed.
pub fn wait_any(fds: &[BorrowedFd<'_>], limit: Duration) -> Result<Option<usize>, BenchError> {
    let deadline = Instant::now() + limit;
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))
            .expect("limits are far below 2^63 seconds");
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(polled.iter().position(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(BenchError::system("poll")(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_signal_ends_waits_and_stays() {
        let stop = Stop::never().unwrap();
        let (ready, other) = UnixStream::pair().unwrap();
        assert_eq!(
            stop.wait(ready.as_fd(), Duration::ZERO).unwrap(),
            Waited::TimedOut
        );
        drop(other);
        assert_eq!(
            stop.wait(ready.as_fd(), Duration::from_secs(5)).unwrap(),
            Waited::Ready
        );
        (&stop._writer).write_all(b"x").unwrap();
        for _ in 0..2 {
            let ended = stop.wait(ready.as_fd(), Duration::from_secs(5));
            assert!(matches!(ended, Err(BenchError::Interrupted)));
        }
        assert!(stop.check().is_err());
    }
}
