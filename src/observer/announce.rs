//! What of a look is told in the error log and in the pool's slow log: the first look at a
//! slow request, in php-fpm's words, and each look before a kill and at a crash.

use std::io::Write;

use glasspool_abi::record::{Begin, Text};
use glasspool_otel::slow::{Cause, SlowEvent};
use glasspool_probes::Frame;
use jiff::Zoned;

use super::monotonic_ns;
use super::sampler::{Order, Rules, Seen, Why};
use super::slowlog;
use super::text::Plain;
use super::throttle::Throttle;
use crate::logs::ErrorLog;

/// One complaint about a slow log per minute.
const COMPLAINT_NS: u64 = 60_000_000_000;

/// Writes to the logs. May block for as long as nobody reads a log that is a pipe.
#[derive(Debug)]
pub(super) struct Announcer {
    log: ErrorLog,
    complaints: Throttle,
}

/// What is to be told.
#[derive(Debug)]
pub(super) struct Announcement {
    line: String,
    is_notice: bool,
    entry: String,
}

impl Announcer {
    pub(super) fn new(log: ErrorLog) -> Announcer {
        Announcer {
            log,
            complaints: Throttle::new(1, COMPLAINT_NS),
        }
    }

    /// What is to be told of a look, if anything. Pure but for the time of day.
    pub(super) fn prepare(
        &self,
        order: &Order,
        seen: &Seen,
        frames: Option<&[Frame]>,
    ) -> Option<Announcement> {
        let is_told = match order.why {
            Why::Slow { first } => first,
            Why::Doomed(_) | Why::Crashed(_) => true,
            Why::Saturated => false,
        };
        is_told.then(|| {
            let Seen { begin, event, .. } = seen;
            let (rules, pid) = (&order.rules, order.process.pid);
            let head = slowlog::Head {
                pool: &rules.pool,
                pid,
                begin,
                event,
            };
            Announcement {
                line: format!("[pool {}] child {pid}{}", rules.pool, sentence(begin, event)),
                is_notice: matches!(order.why, Why::Doomed(_)),
                entry: slowlog::entry(&Zoned::now(), &head, frames, rules.depth),
            }
        })
    }

    /// Tells it.
    pub(super) fn announce(&mut self, announcement: &Announcement, rules: &Rules) {
        let Announcement {
            line,
            is_notice,
            entry,
        } = announcement;
        if *is_notice {
            self.log.notice(line);
        } else {
            self.log.warning(line);
        }
        self.append(rules, entry);
    }

    /// One write(2) for the whole entry, so that entries of several observers and php-fpm
    /// masters do not mix.
    fn append(&mut self, rules: &Rules, entry: &str) {
        let Some(mut file) = rules.log.as_deref() else {
            return;
        };
        if let Err(e) = file.write_all(entry.as_bytes())
            && self.complaints.pass(monotonic_ns()).is_some()
        {
            self.log.warning(format_args!(
                "[pool {}] cannot write to the slow log: {e}",
                rules.pool
            ));
        }
    }
}

/// The line after the worker's name. Of a slow request php-fpm's
/// (`sapi/fpm/fpm/fpm_request.c`, `fpm_request_check_timed_out`).
fn sentence(begin: &Begin, event: &SlowEvent) -> String {
    let text = |text| begin.texts.text(text).unwrap_or_default();
    let (query, age) = (text(Text::Query), event.elapsed);
    let request = format!(
        "script '{}' (request: \"{} {}{}{}\")",
        Plain(text(Text::Script)),
        Plain(text(Text::Method)),
        Plain(text(Text::Path)),
        if query.is_empty() { "" } else { "?" },
        Plain(query),
    );
    let place = Plain(place(event));
    match &event.cause {
        Cause::Slow => format!(
            ", {request} executing too slow ({}.{:06} sec), logging",
            age.as_secs(),
            age.subsec_micros()
        ),
        Cause::Terminated(reason) => format!(" is about to be killed ({reason}) {place}, {request}"),
        Cause::Crashed(signal) => format!(" crashed with {signal} {place}, {request}"),
    }
}

/// `in mysqli_query() (/srv/db.php:42), waiting: poll on tcp 10.0.3.7:3306`.
fn place(event: &SlowEvent) -> String {
    let mut place = match &event.function {
        Some(function) if function.starts_with('{') => format!("in {function}"),
        Some(function) => format!("in {function}()"),
        None => format!("at a place that could not be read ({})", event.how),
    };
    match (&event.file, event.line) {
        (Some(file), Some(line)) => place += &format!(" ({file}:{line})"),
        (Some(file), None) => place += &format!(" ({file})"),
        (None, _) => {}
    }
    if let Some(wait) = &event.waiting.alike {
        place += &format!(", waiting: {wait}");
    }
    place
}

#[cfg(test)]
mod tests {
    use glasspool_otel::slow::Waiting;

    use super::super::testing::{begin, event};
    use super::*;

    fn query(cause: Cause) -> SlowEvent {
        SlowEvent {
            cause,
            function: Some("mysqli_query".to_owned()),
            file: Some("/srv/db.php".to_owned()),
            line: Some(42),
            waiting: Waiting {
                alike: Some("poll on tcp 10.0.3.7:3306".to_owned()),
                ..Waiting::default()
            },
            ..event()
        }
    }

    const REQUEST: &str = "script '/srv/index.php' (request: \"GET /page3?q=\\x1b\")";

    #[test]
    fn a_kill_and_a_crash_are_placed_in_one_line() {
        let killed = query(Cause::Terminated("request_terminate_timeout".to_owned()));
        assert_eq!(
            sentence(&begin(3), &killed),
            format!(
                " is about to be killed (request_terminate_timeout) in mysqli_query() (/srv/db.php:42), waiting: poll \
                 on tcp 10.0.3.7:3306, {REQUEST}"
            )
        );
        let crashed = SlowEvent {
            waiting: Waiting::default(),
            ..query(Cause::Crashed("SIGSEGV".to_owned()))
        };
        assert_eq!(
            sentence(&begin(3), &crashed),
            format!(" crashed with SIGSEGV in mysqli_query() (/srv/db.php:42), {REQUEST}")
        );
        let slow = sentence(&begin(3), &query(Cause::Slow));
        let expected = format!(", {REQUEST} executing too slow (1.000000 sec), logging");
        assert_eq!(slow, expected);
    }

    #[test]
    fn a_place_that_could_not_be_read_and_a_hostile_one_are_one_line() {
        let crashed = SlowEvent {
            cause: Cause::Crashed("SIGBUS".to_owned()),
            ..event()
        };
        let line = sentence(&begin(3), &crashed);
        assert!(
            line.contains("crashed with SIGBUS at a place that could not be read (failed: a test)"),
            "{line}"
        );
        let hostile = SlowEvent {
            file: Some("/srv/\n[pool x] \x1b[2J".to_owned()),
            ..query(Cause::Crashed("SIGSEGV".to_owned()))
        };
        let line = sentence(&begin(3), &hostile);
        assert!(!line.contains(char::is_control), "{line}");
    }
}
