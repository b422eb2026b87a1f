//! `catch_workers_output`: what a worker's scripts print to its standard streams goes
//! to the error log, line by line, in php-fpm's words.

use std::io;
use std::os::fd::OwnedFd;

use glasspool_abi::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::config::LogLevel;
use crate::logs::{ErrorLog, LINE_LIMIT};

/// Bytes of a log line around the text: time, level, the longest pool and pid, quotes.
const AROUND_BYTES: usize = 128;
/// Longest piece of text in one line; longer lines go on in the next.
const PIECE_BYTES: usize = LINE_LIMIT - AROUND_BYTES;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Our ends of a worker's two pipes, to be drained from its start on.
#[derive(Debug)]
pub(super) struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    /// Two pipes: ours, and the worker's standard output and error.
    pub(super) fn create() -> io::Result<(Pipes, [OwnedFd; 2])> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
        Ok((Pipes { stdout, stderr }, [to_stdout, to_stderr]))
    }

    /// Copies both to the log until the last writer has closed them, which a program
    /// that the worker leaves behind may do long after it.
    pub(super) fn drain_into(self, log: &ErrorLog, pool: &str, pid: Pid) -> io::Result<()> {
        for (fd, stream) in [(self.stdout, Stream::Stdout), (self.stderr, Stream::Stderr)] {
            let receiver = pipe::Receiver::from_owned_fd(fd)?;
            tokio::spawn(drain(receiver, log.clone(), pool.to_owned(), pid, stream));
        }
        Ok(())
    }
}

async fn drain(mut pipe: pipe::Receiver, log: ErrorLog, pool: String, pid: Pid, stream: Stream) {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let say = |text: &[u8], suffix: &str| {
        let mut line = format!("[pool {pool}] child {pid} said into {name}: \"").into_bytes();
        line.extend(text);
        line.push(b'"');
        line.extend(suffix.as_bytes());
        log.bytes(LogLevel::Warning, &line);
    };
    let mut lines = Lines::default();
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => lines.push(&buffer[..count], |line| say(line, "")),
            Err(e) => {
                log.error(format_args!(
                    "unable to read what child {pid} said into {name}: {e}"
                ));
                break;
            }
        }
    }
    if !lines.pending.is_empty() {
        say(&lines.pending, ", pipe is closed");
    }
}

/// Cuts a stream into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    /// The start of a line whose end has not come yet, at most [`PIECE_BYTES`] long.
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            while self.pending.len() + text.len() > PIECE_BYTES {
                let (head, rest) = text.split_at(PIECE_BYTES - self.pending.len());
                self.pending.extend(head);
                each(&self.pending);
                self.pending.clear();
                text = rest;
            }
            self.pending.extend(text);
            if ended {
                each(&self.pending);
                self.pending.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(parts: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |line| seen.push(line.to_vec()));
        }
        (seen, lines.pending)
    }

    #[test]
    fn lines_are_put_together_from_their_parts() {
        let (seen, pending) = cut(&[b"one\ntw", b"o", b"\n\nthree"]);
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b"".to_vec()]);
        assert_eq!(pending, b"three");
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_the_log_allows_and_nothing_is_lost(
            parts in proptest::collection::vec(proptest::collection::vec(prop_oneof![9 => Just(b'x'), 1 => Just(b'\n')], 0..3000), 0..5)
        ) {
            let refs: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let (seen, pending) = cut(&refs);
            prop_assert!(seen.iter().chain([&pending]).all(|line| line.len() <= PIECE_BYTES));
            let kept: usize = seen.iter().chain([&pending]).map(Vec::len).sum();
            let given = parts.concat().iter().filter(|byte| **byte != b'\n').count();
            prop_assert_eq!(kept, given);
        }
    }
}
