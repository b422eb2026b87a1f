//! Where the lines of the error log go at the moment: the log, standard error, or both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::Location;

use jiff::{Timestamp, Zoned};

use super::audience::{Audience, Listener};
use super::json::{self, RequestIds};
use super::line::{self, Form};
use super::sink::Sink;
use super::syslog::Syslog;
use crate::config::{self, Global, LogForm, LogLevel, LogTarget};

/// What a configuration says of the error log, with its destination opened.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) level: LogLevel,
    /// Longest line in bytes, without its newline.
    pub(super) limit: usize,
    target: Option<LogTarget>,
    syslog: config::Syslog,
    form: LogForm,
    /// `None` writes to standard error only.
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    sink: Sink,
    form: Form,
    /// Lines become JSON objects.
    json: bool,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Destinations {
    pub(super) rules: Rules,
    /// Standard error as it was at the start; let go of in the background.
    stderr: Option<Stderr>,
    /// Whether the program still starts: standard error is the original one.
    starting: bool,
    /// Whether whoever watches the start is somebody else than the log.
    echo: bool,
    /// In the foreground standard error is kept, for logs that name it.
    foreground: bool,
    /// Who else is told messages.
    audience: Option<Audience>,
}

#[derive(Debug)]
struct Stderr {
    sink: Sink,
    /// To put it back in its place.
    original: OwnedFd,
}

// === impl Rules ===

impl Rules {
    /// Opens what is configured.
    pub(super) fn open(global: &Global) -> io::Result<Rules> {
        Ok(Rules {
            level: global.log_level,
            limit: global.log_limit,
            target: global.error_log.clone(),
            syslog: global.syslog.clone(),
            log: open_target(global.error_log.as_ref(), &global.syslog, global.error_form)?,
            form: global.error_form,
        })
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().and_then(|log| log.sink.descriptor())
    }
}

// === impl Destinations ===

impl Destinations {
    /// At the start of the program. With `on_stderr` standard error is the log, whatever
    /// is configured.
    pub(super) fn new(mut rules: Rules, on_stderr: bool, foreground: bool) -> Destinations {
        // `error_log = /dev/stderr` would show each line twice, as it does in php-fpm 8.2.
        let same = rules
            .file()
            .is_some_and(|file| same_file(file, rustix::stdio::stderr()));
        if on_stderr {
            rules.log = None;
        }
        Destinations {
            rules,
            stderr: Stderr::take(),
            starting: true,
            echo: !same,
            foreground,
            audience: None,
        }
    }

    /// From now on this one is told messages too.
    pub(super) fn tell(&mut self, listener: Box<dyn Listener>) {
        self.audience = Some(Audience::new(listener));
    }

    /// Tells him what he could not take before.
    pub(super) fn hand_on(&mut self) {
        if let Some(audience) = &mut self.audience {
            audience.hand_on();
        }
    }

    /// Ties standard error to the log, as long as the program runs.
    pub(super) fn start_is_over(&mut self) -> io::Result<()> {
        self.starting = false;
        self.tie()?;
        if self.rules.log.is_some() && !self.foreground {
            self.stderr = None;
        }
        Ok(())
    }

    /// Changes over to other rules; what is on standard error stays there.
    pub(super) fn adopt(&mut self, mut rules: Rules) -> io::Result<()> {
        match (&mut self.rules.log, &mut rules.log) {
            (Some(old), Some(new)) => new.sink.succeed(&mut old.sink),
            (None, log) => *log = None,
            (Some(_), None) => {}
        }
        self.rules = rules;
        self.tie()
    }

    /// Opens the configured destination anew. One that cannot be opened leaves the old
    /// one in use.
    pub(super) fn open_again(&mut self) -> io::Result<()> {
        let opened = open_target(self.rules.target.as_ref(), &self.rules.syslog, self.rules.form)?;
        if let (Some(log), Some(mut opened)) = (&mut self.rules.log, opened) {
            opened.sink.succeed(&mut log.sink);
            *log = opened;
        }
        Ok(())
    }

    /// Puts the log in the place of standard error, once the start is over.
    pub(super) fn tie(&self) -> io::Result<()> {
        if self.starting || self.rules.log.is_none() {
            return Ok(());
        }
        match self.rules.file() {
            Some(file) => Ok(rustix::stdio::dup2_stderr(file)?),
            None => {
                let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
                Ok(rustix::stdio::dup2_stderr(null)?)
            }
        }
    }

    /// Puts standard error back in its place, where it is still known.
    pub(super) fn untie(&self) -> io::Result<()> {
        match &self.stderr {
            Some(stderr) if self.rules.log.is_some() && !self.starting => {
                Ok(rustix::stdio::dup2_stderr(&stderr.original)?)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What stands in front of a message that is logged now.
    pub(super) fn head(&self, level: LogLevel, place: &Location<'_>) -> Vec<u8> {
        line::head(self.form(), &Zoned::now(), level, self.place(place))
    }

    /// Tells the audience a message that the log has, or leaves out by its level.
    pub(super) fn tell_of(&mut self, level: LogLevel, message: &[u8]) {
        if level >= self.rules.level
            && let Some(audience) = &mut self.audience
        {
            audience.tell(level, message);
        }
    }

    /// Writes a message as a line, `cut` at the limit or whole.
    pub(super) fn say(&mut self, level: LogLevel, message: &[u8], place: &Location<'_>, cut: bool) {
        if level < self.rules.level {
            return;
        }
        let (now, place) = (Zoned::now(), self.place(place));
        let limit = cut.then_some(self.rules.limit);
        let in_form = |form| line::line(line::head(form, &now, level, place), message, limit);
        let form = self.form();
        self.put_log(level, &in_form(form), None);
        if self.is_echoed() && level >= LogLevel::Notice {
            self.put_stderr(&in_form(Form::File));
        }
    }

    /// Writes complete lines as they are; `writer` wrote them, where there is a place for that.
    pub(super) fn put(&mut self, lines: &[u8], writer: Option<RequestIds>) {
        self.put_log(LogLevel::Notice, lines, writer);
        if self.is_echoed() {
            self.put_stderr(lines);
        }
    }

    /// Whether lines have a place for who wrote them.
    pub(super) fn names_requests(&self) -> bool {
        self.rules.log.as_ref().is_some_and(|log| log.json)
    }

    fn put_log(&mut self, level: LogLevel, lines: &[u8], writer: Option<RequestIds>) {
        match &mut self.rules.log {
            Some(Log { sink, json: true, .. }) => {
                let now = Timestamp::now();
                let report = |text: &str| json::objects(&lost(Form::File, text), None, now);
                sink.write(level, &json::objects(lines, writer, now), report);
            }
            Some(Log { sink, form, .. }) => sink.write(level, lines, |text| lost(*form, text)),
            None => self.put_stderr(lines),
        }
    }

    fn put_stderr(&mut self, lines: &[u8]) {
        if let Some(stderr) = &mut self.stderr {
            let report = |text: &str| lost(Form::File, text);
            stderr.sink.write(LogLevel::Notice, lines, report);
        }
    }

    fn is_echoed(&self) -> bool {
        self.starting && self.echo && self.rules.log.is_some()
    }

    fn form(&self) -> Form {
        self.rules.log.as_ref().map_or(Form::File, |log| log.form)
    }

    fn place<'a>(&self, place: &'a Location<'a>) -> Option<&'a Location<'a>> {
        (self.rules.level == LogLevel::Debug).then_some(place)
    }
}

impl Stderr {
    /// `None` where the program was started without one.
    fn take() -> Option<Stderr> {
        let clone = || rustix::stdio::stderr().try_clone_to_owned();
        let (original, own) = (clone().ok()?, clone().ok()?);
        let sink = Sink::to(own).ok()?;
        Some(Stderr { sink, original })
    }
}

/// Opens a log. JSON is for files: the system's log daemon has a form of its own.
fn open_target(
    target: Option<&LogTarget>,
    syslog: &config::Syslog,
    wanted: LogForm,
) -> io::Result<Option<Log>> {
    let (sink, form) = match target {
        None => return Ok(None),
        Some(LogTarget::File(path)) => (Sink::to(super::open_log(path)?.into())?, Form::File),
        Some(LogTarget::Syslog) => (Sink::syslog(Syslog::new(syslog)), Form::Syslog),
    };
    let json = wanted == LogForm::Json && form == Form::File;
    Ok(Some(Log { sink, form, json }))
}

fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

fn lost(form: Form, text: &str) -> Vec<u8> {
    let head = line::head(form, &Zoned::now(), LogLevel::Warning, None);
    line::line(head, text.as_bytes(), None)
}
