//! What engines and observers write to their standard output and error, above all PHP's
//! own messages while it starts, goes to the error log through us.
//!
//! What has php-fpm's form already is logged as such a line, the rest as it is. Were the
//! descriptors simply inherited, a child would wait for a terminal that is stopped,
//! and would keep the launcher's terminal or a rotated log file open for life.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;

use crate::config::LogLevel;
use crate::logs::ErrorLog;
use crate::readiness;

/// Longest line that is kept together.
const LINE_BYTES: usize = 4096;
/// How a line of php-fpm's form begins where nobody has put the time in front.
const LEVELS: [(&str, LogLevel); 5] = [
    ("DEBUG", LogLevel::Debug),
    ("NOTICE", LogLevel::Notice),
    ("WARNING", LogLevel::Warning),
    ("ERROR", LogLevel::Error),
    ("ALERT", LogLevel::Alert),
];
/// More than a time and the bracket behind it have.
const TIME_BYTES: usize = 32;
/// Reads until everybody else has a turn.
const READS: usize = 16;

/// Our end. When it is dropped, what has been written so far is still copied.
#[derive(Debug)]
pub(super) struct Relay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reader: Arc<OwnedFd>,
    log: ErrorLog,
    /// The start of a line whose end has not come yet.
    pending: Mutex<Vec<u8>>,
}

/// Whether there may be more to read.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Perhaps,
    /// Nobody can write any more.
    Ended,
}

impl Relay {
    /// A relay, and the end to write to.
    pub(super) fn start(log: &ErrorLog) -> io::Result<(Relay, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // Ours alone: the two ends of a pipe do not share their flags.
        rustix::io::ioctl_fionbio(&reader, true)?;
        let reader = Arc::new(reader);
        let ready = readiness::ready(Arc::clone(&reader), Interest::READABLE)?;
        let shared = Arc::new(Shared {
            reader,
            log: log.clone(),
            pending: Mutex::default(),
        });
        let copying = Arc::clone(&shared);
        tokio::spawn(async move {
            // An error says that the runtime ends.
            while let Ok(mut guard) = ready.readable().await {
                match copying.copy() {
                    Left::Nothing => guard.clear_ready(),
                    Left::Perhaps => tokio::task::yield_now().await,
                    Left::Ended => return,
                }
            }
        });
        Ok((Relay(shared), writer))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.copy();
        // A process that is being started may hold the pipe for a moment more, so its end
        // is not always seen.
        self.0.end_line(&mut self.0.pending());
    }
}

impl Shared {
    fn copy(&self) -> Left {
        let mut pending = self.pending();
        let mut buffer = [0; LINE_BYTES];
        for _ in 0..READS {
            match rustix::io::read(&self.reader, &mut buffer) {
                Ok(0) => {
                    self.end_line(&mut pending);
                    return Left::Ended;
                }
                Ok(count) => {
                    pending.extend(&buffer[..count]);
                    let whole = pending.iter().rposition(|byte| *byte == b'\n');
                    let end = whole.map_or(0, |last| last + 1);
                    let lines: Vec<u8> = pending.drain(..end).collect();
                    lines
                        .split_inclusive(|byte| *byte == b'\n')
                        .for_each(|line| self.say(line));
                    if pending.len() > LINE_BYTES {
                        self.log.raw(&std::mem::take(&mut *pending));
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Left::Nothing,
                Err(_) => return Left::Ended,
            }
        }
        Left::Perhaps
    }

    fn pending(&self) -> MutexGuard<'_, Vec<u8>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_line(&self, pending: &mut Vec<u8>) {
        if !pending.is_empty() {
            pending.push(b'\n');
            self.say(&std::mem::take(pending));
        }
    }

    fn say(&self, line: &[u8]) {
        let untimed = without_time(line);
        let named = LEVELS.iter().find_map(|(name, level)| {
            let message = untimed.strip_prefix(name.as_bytes())?.strip_prefix(b": ")?;
            Some((*level, message.strip_suffix(b"\n").unwrap_or(message)))
        });
        match named {
            Some((level, message)) => self.log.whole(level, String::from_utf8_lossy(message)),
            None => self.log.raw(line),
        }
    }
}

/// The line behind `[dd-Mon-yyyy hh:mm:ss] `, if it has that.
fn without_time(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"[") else {
        return line;
    };
    let end = rest.iter().take(TIME_BYTES).position(|byte| *byte == b']');
    end.and_then(|end| rest[end..].strip_prefix(b"] "))
        .unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_together_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = ErrorLog::file(&path, LogLevel::Notice).expect("opens");
        let read = || std::fs::read_to_string(&path).expect("reads");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (relay, writer) = Relay::start(&log).expect("starts");
            rustix::io::write(&writer, b"one\ntwo\nthr").expect("writes");
            assert_eq!(relay.0.copy(), Left::Nothing);
            assert_eq!(read(), "one\ntwo\n");
            rustix::io::write(
                &writer,
                b"ee\n[x] DEBUG: quiet\nERROR: PHP message: no\n[x] y\nlast",
            )
            .expect("writes");
            drop(writer);
            drop(relay);
            let text = read();
            assert!(text.starts_with("one\ntwo\nthree\n["), "{text}");
            assert!(
                text.ends_with("] ERROR: PHP message: no\n[x] y\nlast\n") && !text.contains("quiet"),
                "{text}"
            );
        });
    }
}
