//! php-fpm's error log: `[dd-Mon-yyyy HH:MM:SS] LEVEL: message`, local time, one
//! write(2) per line so that lines of several processes never mix.
//!
//! Log tools match these lines, hence the exact words of php-fpm wherever it has a
//! message for what happened. No rotation and no buffering.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Zoned;

use crate::config::LogLevel;

/// Longest line in bytes, without its newline; php-fpm's default `log_limit`.
pub const LINE_LIMIT: usize = 1024;

/// A handle on the error log; clones write to the same place.
#[derive(Debug, Clone)]
pub struct ErrorLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` writes to standard error.
    file: Option<File>,
    level: LogLevel,
    /// Whether what goes to the file is also for whoever watches the start.
    echo: AtomicBool,
}

impl ErrorLog {
    /// Lines from `level` on go to standard error.
    pub fn stderr(level: LogLevel) -> Self {
        Self(Arc::new(Inner {
            file: None,
            level,
            echo: AtomicBool::new(false),
        }))
    }

    /// Lines go to the file, and those from NOTICE on also to standard error until
    /// [`ErrorLog::start_is_over`].
    ///
    /// # Errors
    /// When the file cannot be opened or created.
    pub fn file(path: &Path, level: LogLevel) -> io::Result<Self> {
        let file = Some(super::open_log(path)?);
        Ok(Self(Arc::new(Inner {
            file,
            level,
            echo: AtomicBool::new(true),
        })))
    }

    /// From now on the file alone gets the lines; standard error is tied to it, so that
    /// what children inherit as theirs ends there too.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated; the log itself keeps working.
    pub fn start_is_over(&self) -> io::Result<()> {
        self.0.echo.store(false, Ordering::Relaxed);
        match &self.0.file {
            Some(file) => Ok(rustix::stdio::dup2_stderr(file)?),
            None => Ok(()),
        }
    }

    /// The descriptor behind the log, for a child's standard error.
    ///
    /// # Errors
    /// When it cannot be duplicated.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        match &self.0.file {
            Some(file) => file.as_fd().try_clone_to_owned(),
            None => rustix::stdio::stderr().try_clone_to_owned(),
        }
    }

    /// What happens all the time; written with its place in the source.
    #[track_caller]
    pub fn debug(&self, message: impl fmt::Display) {
        self.write(LogLevel::Debug, message, Location::caller());
    }

    /// What an operator wants to see in an ordinary day's log.
    #[track_caller]
    pub fn notice(&self, message: impl fmt::Display) {
        self.write(LogLevel::Notice, message, Location::caller());
    }

    /// Something is wrong and has been dealt with.
    #[track_caller]
    pub fn warning(&self, message: impl fmt::Display) {
        self.write(LogLevel::Warning, message, Location::caller());
    }

    /// Something could not be done.
    #[track_caller]
    pub fn error(&self, message: impl fmt::Display) {
        self.write(LogLevel::Error, message, Location::caller());
    }

    /// Why the program ends. Never cut, because what to do stands at its end.
    pub fn fatal(&self, message: impl fmt::Display) {
        let mut line = format_line(&Zoned::now(), LogLevel::Error, None, b"");
        line.pop();
        line.extend(message.to_string().replace('\n', " ").bytes());
        line.push(b'\n');
        if let Some(file) = &self.0.file {
            put(file.as_fd(), &line);
        }
        if self.0.file.is_none() || self.0.echo.load(Ordering::Relaxed) {
            put(rustix::stdio::stderr(), &line);
        }
    }

    /// With a level that is known only at run time.
    #[track_caller]
    pub fn at(&self, level: LogLevel, message: impl fmt::Display) {
        self.write(level, message, Location::caller());
    }

    /// Bytes that need not be text, such as what a script printed.
    #[track_caller]
    pub fn bytes(&self, level: LogLevel, message: &[u8]) {
        self.line(level, message, Location::caller());
    }

    fn write(&self, level: LogLevel, message: impl fmt::Display, place: &Location<'_>) {
        if level >= self.0.level {
            self.line(level, message.to_string().as_bytes(), place);
        }
    }

    fn line(&self, level: LogLevel, message: &[u8], place: &Location<'_>) {
        if level < self.0.level {
            return;
        }
        let place = (self.0.level == LogLevel::Debug).then_some(place);
        let line = format_line(&Zoned::now(), level, place, message);
        // A log that cannot be written (disk full, pipe closed) is no reason to stop
        // serving, and there is nowhere left to say so.
        match &self.0.file {
            None => put(rustix::stdio::stderr(), &line),
            Some(file) => {
                put(file.as_fd(), &line);
                if level >= LogLevel::Notice && self.0.echo.load(Ordering::Relaxed) {
                    put(rustix::stdio::stderr(), &line);
                }
            }
        }
    }
}

fn put(to: BorrowedFd<'_>, mut line: &[u8]) {
    while !line.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, line)) {
            Ok(written) if written > 0 => line = &line[written..],
            Ok(_) | Err(_) => return,
        }
    }
}

/// One line with its newline. `place` is given when the log is at debug level, which
/// adds microseconds and the place, as php-fpm does.
fn format_line(now: &Zoned, level: LogLevel, place: Option<&Location<'_>>, message: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(64 + message.len().min(LINE_LIMIT));
    let time = now.strftime(if place.is_some() {
        "%d-%b-%Y %H:%M:%S%.6f"
    } else {
        "%d-%b-%Y %H:%M:%S"
    });
    let mut head = || -> io::Result<()> {
        write!(line, "[{time}] {}: ", name(level))?;
        let Some(place) = place else { return Ok(()) };
        let stem = Path::new(place.file())
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        write!(
            line,
            "pid {}, {stem}(), line {}: ",
            std::process::id(),
            place.line()
        )
    };
    head().expect("writing to a vector does not fail");
    line.extend(
        message
            .iter()
            .map(|byte| if *byte == b'\n' { b' ' } else { *byte }),
    );
    if line.len() > LINE_LIMIT {
        line.truncate(LINE_LIMIT - 3);
        line.extend(b"...");
    }
    line.push(b'\n');
    line
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Notice => "NOTICE",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
        LogLevel::Alert => "ALERT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Zoned {
        "2026-03-01T04:05:06.000789+01:00[+01:00]"
            .parse()
            .expect("a time")
    }

    fn line(place: Option<&Location<'_>>, message: &[u8]) -> String {
        String::from_utf8(format_line(&moment(), LogLevel::Warning, place, message)).expect("text")
    }

    #[test]
    fn lines_are_php_fpms() {
        assert_eq!(line(None, b"ready"), "[01-Mar-2026 04:05:06] WARNING: ready\n");
        let place = Location::caller();
        let expected = format!(
            "[01-Mar-2026 04:05:06.000789] WARNING: pid {}, error_log(), line {}: ready\n",
            std::process::id(),
            place.line()
        );
        assert_eq!(line(Some(place), b"ready"), expected);
    }

    #[test]
    fn a_message_stays_one_line_of_bounded_length() {
        assert!(line(None, b"a\nb").ends_with("WARNING: a b\n"));
        let long = line(None, &[b'x'; 5000]);
        assert_eq!(long.len(), LINE_LIMIT + 1);
        assert!(long.ends_with("xxx...\n"));
    }

    #[test]
    fn the_level_is_the_least_that_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("error.log");
        let log = ErrorLog::file(&path, LogLevel::Warning).expect("opens");
        log.notice("not this");
        log.warning("but this");
        log.bytes(LogLevel::Error, b"and \xff this");
        let text = std::fs::read(&path).expect("reads");
        let text = String::from_utf8_lossy(&text);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("WARNING: but this") && text.contains("ERROR: and \u{fffd} this"));
    }
}
