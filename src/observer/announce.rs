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
/// Lines about kills per second. A stop at once may kill a thousand workers, and a client
/// can have as many requests killed by `request_terminate_timeout`.
const MOST_KILLS: u32 = 20;
const SECOND_NS: u64 = 1_000_000_000;

/// Writes to the logs. May block for as long as nobody reads a log that is a pipe.
#[derive(Debug)]
pub(super) struct Announcer {
    log: ErrorLog,
    complaints: Throttle,
    kills: Throttle,
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
            kills: Throttle::new(MOST_KILLS, SECOND_NS),
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
                entry: if rules.json {
                    slowlog::json(&Zoned::now(), &head, frames, rules.depth)
                } else {
                    slowlog::entry(&Zoned::now(), &head, frames, rules.depth)
                },
            }
        })
    }

    /// Tells it. Lines about kills beyond so many per second are only counted.
    pub(super) fn announce(&mut self, announcement: &Announcement, rules: &Rules, now: u64) {
        let Announcement {
            line,
            is_notice,
            entry,
        } = announcement;
        // They have the query, and those who read along have the look itself.
        let log = self.log.untold();
        if !*is_notice {
            log.warning(line);
        } else if let Some(more) = self.kills.pass(now) {
            self.tell_more(more);
            log.notice(line);
        }
        self.append(rules, entry);
    }

    /// When [`Announcer::catch_up`] has something to tell, monotonic.
    pub(super) fn due(&self) -> Option<u64> {
        self.kills.due()
    }

    /// Tells how many lines about kills were held back.
    pub(super) fn catch_up(&mut self) {
        let more = self.kills.rest();
        self.tell_more(more);
    }

    fn tell_more(&self, more: u64) {
        if more > 0 {
            self.log.notice(format_args!(
                "{more} more children were about to be killed in a request; at most {MOST_KILLS} per second are told of \
                 here, all of them in slow logs and on spans"
            ));
        }
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
    use std::fs::File;

    use glasspool_otel::slow::Waiting;
    use glasspool_probes::sample::Stop;

    use super::super::testing::{begin, event};
    use super::*;
    use crate::config::LogLevel;

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
    fn a_thousand_kills_at_once_are_few_lines_and_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let [path, slow] = ["error.log", "slow.log"].map(|name| folder.path().join(name));
        let log = ErrorLog::file(&path, LogLevel::Notice).unwrap();
        let mut announcer = Announcer::new(log);
        let rules = Rules {
            pool: "www".to_owned(),
            after: None,
            depth: 20,
            looks: 1,
            json: false,
            stop: Stop::Never,
            controllers: [].into(),
            still_running: true,
            log: Some(File::create(&slow).unwrap().into()),
        };
        let told = |is_notice| Announcement {
            line: if is_notice { "a kill" } else { "a crash" }.to_owned(),
            is_notice,
            entry: "entry\n".to_owned(),
        };
        let lines = |text: &str| {
            let log = std::fs::read_to_string(&path).unwrap();
            log.lines().filter(|line| line.contains(text)).count()
        };
        for i in 0..1000 {
            announcer.announce(&told(true), &rules, 5 + i);
        }
        announcer.announce(&told(false), &rules, 2000);
        assert_eq!(
            (lines("NOTICE: a kill"), lines("more"), lines("a crash")),
            (20, 0, 1)
        );
        assert_eq!(announcer.due(), Some(5 + SECOND_NS));
        announcer.catch_up();
        announcer.catch_up();
        assert_eq!((lines("NOTICE: 980 more children"), lines("more")), (1, 1));
        // The next second has room again, and says first what the last one had not.
        for i in 0..22 {
            announcer.announce(&told(true), &rules, 5 + SECOND_NS + i);
        }
        announcer.announce(&told(true), &rules, 5 + 2 * SECOND_NS);
        assert_eq!((lines("NOTICE: a kill"), lines("NOTICE: 2 more")), (41, 1));
        assert_eq!(announcer.due(), None);
        let entries = std::fs::read_to_string(&slow).unwrap();
        assert_eq!(entries.lines().count(), 1024, "the slow log has them all");
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
