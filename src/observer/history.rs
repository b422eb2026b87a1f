//! The last of what happened, in a bounded ring, for readers that come later or read slowly.
//!
//! Requests are kept as the records that their workers wrote, which costs a copy of some
//! 300 bytes each; they are made sense of when somebody reads them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use glasspool_abi::control::Ended;
use glasspool_abi::record::{ABORTED, Begin, End, FATAL, Text};
use glasspool_otel::line::Line;
use glasspool_otel::slow::{Cause, SlowEvent};
use glasspool_otel::span::Facts;
use jiff::Timestamp;

use super::sighting::signal_name;
use crate::tail::{Entry, Filter, Kind, MAX_MESSAGE_BYTES};

/// Longest text of an entry that is no message, bytes.
const MAX_TEXT_BYTES: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    ring: VecDeque<Kept>,
    bytes: usize,
    /// Most bytes; 0 keeps nothing.
    most: usize,
    /// Number of the first entry of the ring, or of the next one if it is empty.
    first: u64,
}

/// An entry as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pool: Arc<str>,
    pid: i32,
    what: What,
}

#[derive(Debug)]
enum What {
    /// An end record, and whether the request was slow.
    Record(Box<[u8]>, bool),
    Entry(Box<Entry>),
}

impl History {
    pub(super) fn new(most: u64) -> History {
        History {
            ring: VecDeque::new(),
            bytes: 0,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            first: 0,
        }
    }

    /// Whether anything is kept.
    pub(super) fn is_on(&self) -> bool {
        self.most > 0
    }

    /// Number of the oldest entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// The entry of that number, if it is kept.
    pub(super) fn get(&self, number: u64) -> Option<&Kept> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.ring.get(index)
    }

    /// A request has ended; `record` is its end record. One copy.
    pub(super) fn request(&mut self, pool: &Arc<str>, pid: u32, record: &[u8], slow: bool) {
        if self.is_on() {
            self.keep(pool, pid, What::Record(record.into(), slow));
        }
    }

    /// A worker has ended before its request did.
    pub(super) fn killed(&mut self, begin: &Begin, facts: &Facts, ended: Ended, mono_ns: u64) {
        if !self.is_on() {
            return;
        }
        let how = match ended {
            Ended::Exited(code) => format!("the worker exited with status {code}"),
            Ended::Killed { signal, .. } => format!("the worker ended by {}", signal_name(signal)),
        };
        let ran_ns = mono_ns.saturating_sub(begin.start_mono_ns);
        let entry = Entry {
            time: time(begin.start_unix_ns.saturating_add(ran_ns)),
            kind: Kind::Killed,
            duration_s: Some(seconds(ran_ns)),
            severity: Some("ERROR".to_owned()),
            message: Some(how),
            ..of_begin(begin)
        };
        self.entry(&facts.pool, facts.pid, entry);
    }

    /// A request was looked at that still runs.
    pub(super) fn seen(&mut self, begin: &Begin, event: &SlowEvent, facts: &Facts) {
        if !self.is_on() {
            return;
        }
        let (kind, reason, severity) = match &event.cause {
            Cause::Slow => (Kind::Slow, None, "WARN"),
            Cause::Terminated(reason) => (Kind::Terminated, Some(reason.clone()), "WARN"),
            Cause::Crashed(signal) => (Kind::Crashed, Some(signal.clone()), "ERROR"),
        };
        let place = match (&event.file, event.line) {
            (Some(file), Some(line)) => Some(format!("{file}:{line}")),
            (file, _) => file.clone(),
        };
        let wait = event
            .waiting
            .alike
            .as_ref()
            .map(|wait| format!("waiting: {wait}"));
        let words: Vec<_> = [reason, event.function.clone(), place, wait]
            .into_iter()
            .flatten()
            .collect();
        let entry = Entry {
            time: time(event.time_unix_ns),
            kind,
            duration_s: Some(event.elapsed.as_secs_f64()),
            slow: true,
            severity: Some(severity.to_owned()),
            message: Some(words.join(", ")).filter(|words| !words.is_empty()),
            stack: Some(event.stacktrace.clone()).filter(|stack| !stack.is_empty()),
            ..of_begin(begin)
        };
        self.entry(&facts.pool, facts.pid, entry);
    }

    /// A worker wrote a line, or the supervisor.
    pub(super) fn line(&mut self, kind: Kind, line: &Line) {
        if !self.is_on() {
            return;
        }
        let some = |count: u64| Some(count).filter(|count| *count > 0);
        let entry = Entry {
            time: time(unix_ns(line.time)),
            kind,
            trace_id: line.owner.map(|owner| owner.trace_id.to_string()),
            span_id: line.owner.map(|owner| owner.span_id.to_string()),
            stream: line.stream.map(str::to_owned),
            severity: Some(line.weight.name().to_owned()),
            message: Some(line.text.clone()),
            cut_bytes: some(line.cut),
            dropped_lines: some(line.dropped),
            ..Entry::default()
        };
        self.entry(&line.pool, line.pid, entry);
    }

    /// All workers of a pool are busy.
    pub(super) fn saturated(&mut self, pool: &str, line: &str) {
        if !self.is_on() {
            return;
        }
        let entry = Entry {
            time: time(unix_ns(SystemTime::now())),
            kind: Kind::Saturated,
            severity: Some("WARN".to_owned()),
            message: Some(line.to_owned()),
            ..Entry::default()
        };
        self.entry(pool, 0, entry);
    }

    fn entry(&mut self, pool: &str, pid: u32, mut entry: Entry) {
        for text in [&mut entry.path, &mut entry.method, &mut entry.stack]
            .into_iter()
            .flatten()
        {
            cut(text, MAX_TEXT_BYTES);
        }
        if let Some(message) = &mut entry.message {
            let missing = cut(message, MAX_MESSAGE_BYTES) as u64;
            if missing > 0 {
                entry.cut_bytes = Some(entry.cut_bytes.unwrap_or(0).saturating_add(missing));
            }
        }
        self.keep(&Arc::from(pool), pid, What::Entry(Box::new(entry)));
    }

    fn keep(&mut self, pool: &Arc<str>, pid: u32, what: What) {
        let kept = Kept {
            pool: Arc::clone(pool),
            pid: i32::try_from(pid).unwrap_or(0),
            what,
        };
        self.bytes += kept.bytes();
        self.ring.push_back(kept);
        while self.bytes > self.most
            && let Some(oldest) = self.ring.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }
}

impl Kept {
    /// The entry, if the filter takes it. What costs nothing to tell comes first.
    pub(super) fn if_taken(&self, filter: &Filter) -> Option<Entry> {
        if !filter.takes_worker(&self.pool, Some(self.pid)) {
            return None;
        }
        if let What::Record(_, slow) = self.what
            && filter.slow
            && !slow
        {
            return None;
        }
        self.entry().filter(|entry| filter.takes(entry))
    }

    /// `None` for a record that makes no sense.
    fn entry(&self) -> Option<Entry> {
        let entry = match &self.what {
            What::Record(record, slow) => Entry {
                slow: *slow,
                ..of_end(&End::decode(record)?)
            },
            What::Entry(entry) => (**entry).clone(),
        };
        Some(Entry {
            pool: Some(self.pool.to_string()).filter(|pool| !pool.is_empty()),
            pid: Some(self.pid).filter(|pid| *pid > 0),
            ..entry
        })
    }

    /// What it takes of memory, allocations included.
    fn bytes(&self) -> usize {
        const ALLOCATION: usize = 16;
        let what = match &self.what {
            What::Record(record, _) => record.len(),
            What::Entry(entry) => {
                let texts = [
                    Some(&entry.time),
                    entry.method.as_ref(),
                    entry.path.as_ref(),
                    entry.trace_id.as_ref(),
                    entry.span_id.as_ref(),
                    entry.stream.as_ref(),
                    entry.severity.as_ref(),
                    entry.message.as_ref(),
                    entry.stack.as_ref(),
                ];
                let texts = texts.into_iter().flatten();
                let texts: usize = texts.map(|text| text.capacity() + ALLOCATION).sum();
                // The pool's name is this entry's own.
                texts + size_of::<Entry>() + self.pool.len() + ALLOCATION
            }
        };
        what + ALLOCATION + size_of::<Kept>()
    }
}

fn of_end(end: &End) -> Entry {
    let ran_ns = end.end_mono_ns.saturating_sub(end.begin.start_mono_ns);
    let responded_ns = end.responded_mono_ns.checked_sub(end.begin.start_mono_ns);
    let text = |text| end.begin.texts.text(text);
    let error = text(Text::ErrorMessage).map(|message| {
        let (kind, file) = (text(Text::ErrorType), text(Text::ErrorFile));
        let mut error = format!(
            "{}: {message} in {}:{}",
            kind.unwrap_or_default(),
            file.unwrap_or_default(),
            end.error_line
        );
        cut(&mut error, MAX_MESSAGE_BYTES);
        error
    });
    let is_fatal = end.flags & FATAL != 0;
    Entry {
        time: time(end.begin.start_unix_ns.saturating_add(ran_ns)),
        kind: Kind::Request,
        status: Some(end.status).filter(|status| *status > 0),
        duration_s: Some(seconds(responded_ns.unwrap_or(ran_ns))),
        cpu_s: Some(seconds(end.cpu_user_ns.saturating_add(end.cpu_system_ns))),
        memory_bytes: Some(end.memory_peak),
        fatal: is_fatal,
        aborted: end.flags & ABORTED != 0,
        message: error.filter(|_| is_fatal),
        ..of_begin(&end.begin)
    }
}

fn of_begin(begin: &Begin) -> Entry {
    let text = |text| begin.texts.text(text).map(std::borrow::Cow::into_owned);
    Entry {
        method: text(Text::Method),
        path: text(Text::Path),
        trace_id: Some(begin.trace_id.to_string()),
        span_id: Some(begin.span_id.to_string()),
        ..Entry::default()
    }
}

/// Shortens a text to so many bytes or a little less; returns how many are missing.
fn cut(text: &mut String, most: usize) -> usize {
    let before = text.len();
    if before > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    before - text.len()
}

fn time(unix_ns: u64) -> String {
    // A worker can name any time; years are bounded to four digits.
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.6}")
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use glasspool_abi::record::{Encoder, EndScalars};

    use super::super::testing::{begin, begin_bytes, event, scalars};
    use super::*;

    fn record(number: u64, status: u32) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let end = EndScalars {
            status,
            responded_mono_ns: 1_000_000_005,
            end_mono_ns: 2_000_000_005,
            ..EndScalars::default()
        };
        encoder.end(&end, begin_bytes(&scalars(number, 5, true)).bytes());
        encoder.bytes().to_vec()
    }

    fn www() -> Arc<str> {
        Arc::from("www")
    }

    #[test]
    fn the_ring_keeps_to_its_bound_and_the_newest() {
        let mut history = History::new(64 * 1024);
        for number in 1..=10_000 {
            history.request(&www(), 7, &record(number, 200), false);
            history.saturated("www", &"x".repeat(20_000));
            assert!(history.bytes <= 64 * 1024);
        }
        assert_eq!(history.next(), 20_000);
        assert!(history.first() > 19_900 && history.get(history.first()).is_some());
        assert!(history.get(history.first() - 1).is_none() && history.get(20_000).is_none());
        let actual: usize = history.ring.iter().map(Kept::bytes).sum();
        assert_eq!(actual, history.bytes);
        let mut off = History::new(0);
        off.request(&www(), 7, &record(1, 200), false);
        assert_eq!(off.next(), 0);
    }

    #[test]
    fn a_request_is_told_as_its_record_says() {
        let mut history = History::new(64 * 1024);
        history.request(&www(), 7, &record(3, 404), true);
        let entry = history.get(0).and_then(|kept| kept.if_taken(&Filter::default()));
        let entry = entry.expect("is kept");
        assert_eq!(entry.time, "2023-11-14T22:13:22.000000Z");
        assert_eq!(
            (entry.status, entry.duration_s, entry.slow),
            (Some(404), Some(1.0), true)
        );
        assert_eq!(
            (entry.method.as_deref(), entry.path.as_deref()),
            (Some("GET"), Some("/page3"))
        );
        assert_eq!(entry.trace_id, Some("01".repeat(16)));
        assert_eq!((entry.pool.as_deref(), entry.pid), (Some("www"), Some(7)));
        history.request(&www(), 7, b"nonsense", false);
        assert!(
            history
                .get(1)
                .is_some_and(|kept| kept.if_taken(&Filter::default()).is_none())
        );
    }

    #[test]
    fn a_look_says_where_it_was() {
        let mut history = History::new(64 * 1024);
        let facts = Facts {
            pid: 7,
            pool: "www".to_owned(),
            worker: 1,
            born_mono_ns: 0,
            server_name: None,
        };
        let event = SlowEvent {
            function: Some("mysqli_query".to_owned()),
            file: Some("/srv/db.php".to_owned()),
            line: Some(42),
            stacktrace: "é".repeat(5000),
            ..event()
        };
        history.seen(&begin(3), &event, &facts);
        let only_slow = Filter {
            slow: true,
            ..Filter::default()
        };
        let entry = history
            .get(0)
            .and_then(|kept| kept.if_taken(&only_slow))
            .expect("is slow");
        assert_eq!(entry.message.as_deref(), Some("mysqli_query, /srv/db.php:42"));
        assert!(entry.stack.is_some_and(|stack| stack.len() <= MAX_TEXT_BYTES));
    }
}
