//! The error log as everybody holds it: one handle, cloned at will.
//!
//! Log tools match these lines, hence the exact words of php-fpm wherever it has a
//! message for what happened. No rotation: SIGUSR1 has the file opened anew.

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::Location;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::audience::Listener;
use super::destinations::{Destinations, Rules};
use super::json::RequestIds;
use crate::config::{DEFAULT_LOG_LIMIT, Global, LogLevel, LogTarget};

/// Longest line in bytes, without its newline; php-fpm's default `log_limit`.
pub const LINE_LIMIT: usize = DEFAULT_LOG_LIMIT;

/// A handle on the error log; clones write to the same place. No call ever waits for
/// whoever reads the log, see `sink`.
#[derive(Debug, Clone)]
pub struct ErrorLog {
    to: Arc<Mutex<Destinations>>,
    /// Whether messages are told to the listener too.
    told: bool,
}

/// Where standard error stands in what the program was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the program stays in the foreground.
    pub foreground: bool,
    /// Whether standard error gets the log although it is no terminal (`-O`).
    pub force_stderr: bool,
}

/// What a new configuration says of the log, opened and not in use yet.
#[derive(Debug)]
pub struct Prepared(Rules);

impl ErrorLog {
    /// Lines from `level` on go to standard error.
    pub fn stderr(level: LogLevel) -> Self {
        let global = Global {
            log_level: level,
            ..Global::default()
        };
        let rules = Rules::open(&global).expect("without a destination there is nothing to open");
        Self::of(Destinations::new(rules, true, true))
    }

    /// Lines go to the file, and those from NOTICE on also to standard error until
    /// [`ErrorLog::start_is_over`].
    ///
    /// # Errors
    /// When the file cannot be opened or created.
    pub fn file(path: &Path, level: LogLevel) -> io::Result<Self> {
        let global = Global {
            error_log: Some(LogTarget::File(path.to_path_buf())),
            log_level: level,
            ..Global::default()
        };
        Ok(Self::of(Destinations::new(Rules::open(&global)?, false, false)))
    }

    /// The log as configured. In the foreground standard error is the log when it is a
    /// terminal or when that is forced; a file is opened all the same, as php-fpm does.
    ///
    /// # Errors
    /// When the file cannot be opened or created.
    pub fn open(global: &Global, standing: Standing) -> io::Result<Self> {
        let rules = Rules::open(global)?;
        let on_stderr = standing.foreground && (standing.force_stderr || io::stderr().is_terminal());
        Ok(Self::of(Destinations::new(rules, on_stderr, standing.foreground)))
    }

    fn of(destinations: Destinations) -> Self {
        Self {
            to: Arc::new(Mutex::new(destinations)),
            told: true,
        }
    }

    /// Nobody can leave it half-changed: each change is one assignment.
    fn locked(&self) -> MutexGuard<'_, Destinations> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === Where lines go ===

    /// From now on the log alone gets the lines; standard error is tied to it (to nothing
    /// with syslog), so that what children inherit as theirs ends there too. In the
    /// background nothing holds the original any more.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated; the log itself keeps working.
    pub fn start_is_over(&self) -> io::Result<()> {
        self.locked().start_is_over()
    }

    /// Opens the log's file anew (SIGUSR1), and says how that went. `others` runs while
    /// standard error is the original one, so that logs that are `/dev/stderr` can be
    /// opened anew as well.
    pub fn reopen(&self, others: impl FnOnce()) {
        self.with_original_stderr(|| {
            let opened = self.locked().open_again();
            match opened {
                Ok(()) => self.notice("error log file re-opened"),
                Err(e) => self.error(format_args!("unable to re-opened error log file: {}", Errno(&e))),
            }
            others();
        });
    }

    /// Runs something while standard error is the one that the program was started with,
    /// where it still is known.
    pub fn with_original_stderr<T>(&self, run: impl FnOnce() -> T) -> T {
        let untied = self.locked().untie();
        let result = run();
        let tied = untied.and(self.locked().tie());
        if let Err(e) = tied {
            // The log itself works on either way, so there is nothing to stop for.
            self.error(format_args!(
                "failed to tie stderr fd with error_log fd: dup2(): {}",
                Errno(&e)
            ));
        }
        result
    }

    /// Opens what a new configuration wants, changing nothing yet.
    ///
    /// # Errors
    /// When a file cannot be opened or created.
    pub fn prepare(&self, global: &Global) -> io::Result<Prepared> {
        Rules::open(global).map(Prepared)
    }

    /// Changes over to it.
    ///
    /// # Errors
    /// When standard error cannot be tied to it; the log itself has changed over.
    pub fn adopt(&self, prepared: Prepared) -> io::Result<()> {
        self.locked().adopt(prepared.0)
    }

    // === Who else is told ===

    /// From now on each message that is logged is told to this one as well; not the lines of
    /// [`ErrorLog::raw`]. What it cannot take waits, some hundred lines of it.
    pub fn tell(&self, listener: Box<dyn Listener>) {
        self.locked().tell(listener);
    }

    /// Tells the listener what it could not take before. Cheap if there is nothing.
    pub fn hand_on(&self) {
        self.locked().hand_on();
    }

    /// The same log for messages of which the listener is told nothing, because they are its
    /// own.
    pub fn untold(&self) -> ErrorLog {
        ErrorLog {
            told: false,
            ..self.clone()
        }
    }

    // === Lines ===

    /// What happens all the time; written with its place in the source.
    #[track_caller]
    pub fn debug(&self, message: impl fmt::Display) {
        self.at(LogLevel::Debug, message);
    }

    /// What an operator wants to see in an ordinary day's log.
    #[track_caller]
    pub fn notice(&self, message: impl fmt::Display) {
        self.at(LogLevel::Notice, message);
    }

    /// Something is wrong and has been dealt with.
    #[track_caller]
    pub fn warning(&self, message: impl fmt::Display) {
        self.at(LogLevel::Warning, message);
    }

    /// Something could not be done.
    #[track_caller]
    pub fn error(&self, message: impl fmt::Display) {
        self.at(LogLevel::Error, message);
    }

    /// Why the program ends. Never cut, because what to do stands at its end.
    #[track_caller]
    pub fn fatal(&self, message: impl fmt::Display) {
        self.whole(LogLevel::Error, message);
    }

    /// A line that is never cut.
    #[track_caller]
    pub fn whole(&self, level: LogLevel, message: impl fmt::Display) {
        self.say(level, message.to_string().as_bytes(), Location::caller(), false);
    }

    /// With a level that is known only at run time.
    #[track_caller]
    pub fn at(&self, level: LogLevel, message: impl fmt::Display) {
        if self.takes(level) {
            self.bytes(level, message.to_string().as_bytes());
        }
    }

    /// Bytes that need not be text, such as what a script printed. Cut at `log_limit`.
    #[track_caller]
    pub fn bytes(&self, level: LogLevel, message: &[u8]) {
        self.say(level, message, Location::caller(), true);
    }

    fn say(&self, level: LogLevel, message: &[u8], place: &Location<'_>, cut: bool) {
        let mut destinations = self.locked();
        if self.told {
            destinations.tell_of(level, message);
        }
        destinations.say(level, message, place, cut);
    }

    /// Whether lines of this level are written.
    pub fn takes(&self, level: LogLevel) -> bool {
        level >= self.locked().rules.level
    }

    /// Longest line in bytes, without its newline (`log_limit`).
    pub fn limit(&self) -> usize {
        self.locked().rules.limit
    }

    /// What stands in front of a message of this level that is logged now, for lines that
    /// are put together elsewhere and given to [`ErrorLog::raw`].
    #[track_caller]
    pub fn head(&self, level: LogLevel) -> Vec<u8> {
        self.locked().head(level, Location::caller())
    }

    /// Complete lines as they are, of any length: what others have put together, or what a
    /// child wrote to its standard error.
    pub fn raw(&self, lines: &[u8]) {
        self.said(lines, None);
    }

    /// The same for what a worker said in this request, if one is named, which a log in JSON
    /// says.
    pub fn said(&self, lines: &[u8], writer: Option<RequestIds>) {
        self.locked().put(lines, writer);
    }

    /// Whether the log has a place for a request's ids.
    pub fn names_requests(&self) -> bool {
        self.locked().names_requests()
    }
}

/// An error of the system in php-fpm's words: `No such file or directory (2)`.
#[derive(Debug, Clone, Copy)]
pub struct Errno<'a>(pub &'a io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => {
                let text = self.0.to_string();
                let text = text
                    .strip_suffix(&format!(" (os error {number})"))
                    .unwrap_or(&text);
                write!(f, "{text} ({number})")
            }
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_least_that_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("error.log");
        let log = ErrorLog::file(&path, LogLevel::Warning).expect("opens");
        assert!(log.takes(LogLevel::Warning) && !log.takes(LogLevel::Notice));
        log.notice("not this");
        log.warning("but this");
        log.bytes(LogLevel::Error, b"and \xff this");
        log.raw(b"and this as it is\n");
        let text = std::fs::read(&path).expect("reads");
        let text = String::from_utf8_lossy(&text);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("WARNING: but this") && text.contains("ERROR: and \u{fffd} this"));
        assert!(text.ends_with("\nand this as it is\n"));
    }

    #[test]
    fn a_moved_file_is_left_and_a_new_one_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = ErrorLog::file(&path, LogLevel::Notice).expect("opens");
        log.notice("before");
        std::fs::rename(&path, &moved).expect("moves");
        let mut ran = false;
        log.reopen(|| ran = true);
        assert!(ran);
        let read = |path| std::fs::read_to_string(path).expect("reads");
        assert!(read(&moved).ends_with("NOTICE: before\n"));
        assert!(read(&path).ends_with("NOTICE: error log file re-opened\n"));
        // Without its folder it cannot be opened: the one there is stays in use.
        let gone = folder.path().join("gone");
        std::fs::create_dir(&gone).expect("makes");
        let log = ErrorLog::file(&gone.join("log"), LogLevel::Notice).expect("opens");
        std::fs::rename(&gone, folder.path().join("kept")).expect("moves");
        log.reopen(|| ());
        let text = read(&folder.path().join("kept/log"));
        assert!(
            text.ends_with("ERROR: unable to re-opened error log file: No such file or directory (2)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_new_configuration_takes_effect_when_it_is_adopted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let log = ErrorLog::file(&old, LogLevel::Notice).expect("opens");
        let global = Global {
            error_log: Some(LogTarget::File(new.clone())),
            log_level: LogLevel::Error,
            log_limit: 512,
            ..Global::default()
        };
        let prepared = log.prepare(&global).expect("opens");
        log.notice("still the old one");
        log.adopt(prepared).expect("changes over");
        log.warning("below the new level");
        log.error("x".repeat(5000));
        let read = |path| std::fs::read_to_string(path).expect("reads");
        assert_eq!(read(old).lines().count(), 1);
        let text = read(new);
        assert_eq!((text.lines().count(), text.len()), (1, 513));
        let nowhere = Global {
            error_log: Some(LogTarget::File(folder.path().join("no/log"))),
            ..Global::default()
        };
        assert!(log.prepare(&nowhere).is_err());
    }
}
