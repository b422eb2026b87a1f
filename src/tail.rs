//! What `glasspool tail` and the observer say to each other: one question, then entries,
//! each a packet of JSON on a SOCK_SEQPACKET socket.
//!
//! The field names are what `--json` prints, and documented in `docs/logs.md`. Each side
//! takes the other's packets as hostile: lengths are bounded, and nothing panics.

use std::fmt;
use std::str::FromStr;

use glasspool_abi::trace::sampling::Glob;
use serde::{Deserialize, Serialize};

/// Longest packet of an entry, bytes: the longest message with every character escaped,
/// and all else.
pub(crate) const MAX_ENTRY_BYTES: usize = 96 * 1024;
/// Longest message of an entry, bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 * 1024;
/// Most earlier entries that can be asked for.
pub(crate) const MOST_EARLIER: u32 = 100_000;
/// Most pools, or statuses, that a question names.
const MOST_NAMES: usize = 32;

/// What somebody wants to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Question {
    /// So many that have happened before, at most.
    pub(crate) earlier: u32,
    /// And all that happen from now on.
    pub(crate) follow: bool,
    pub(crate) filter: Filter,
}

/// Which entries; those without what is asked for are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    /// One of these; all if there is none.
    pub(crate) pools: Vec<String>,
    /// Likewise.
    pub(crate) statuses: Vec<Statuses>,
    /// Slow requests and looks at them.
    pub(crate) slow: bool,
    pub(crate) path: Option<Glob>,
    /// A trace id or the beginning of one, in lower-case hexadecimal digits.
    pub(crate) trace: Option<String>,
    pub(crate) worker: Option<i32>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A request has ended.
    #[default]
    Request,
    /// A worker ended before its request did.
    Killed,
    /// A look at a request that still runs.
    Slow,
    /// A look before a kill.
    Terminated,
    /// A look at a worker that crashes.
    Crashed,
    /// A worker wrote a line.
    Line,
    /// The supervisor wrote a line into the error log.
    Log,
    /// All workers of a pool are busy.
    Saturated,
    /// Entries that the reader was too slow for.
    Missed,
    /// The question is not answered; `message` says why.
    Refused,
}

/// An entry. What is absent is unknown, or makes no sense for its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Without the query, which may hold secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u32>,
    /// Seconds from the first byte of the request to the end of the response, or until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_s: Option<f64>,
    /// CPU time, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_s: Option<f64>,
    /// PHP's peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) span_id: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) slow: bool,
    /// A fatal error of PHP ended it.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) fatal: bool,
    /// The client went away.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) aborted: bool,
    /// `stdout` or `stderr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    /// `DEBUG`, `INFO`, `WARN` or `ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity: Option<String>,
    /// A line, an error, or what happened in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// PHP frames, one per line, innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack: Option<String>,
    /// Bytes that are missing at the end of `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut_bytes: Option<u64>,
    /// Lines of this worker, or of the supervisor, before this one that are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped_lines: Option<u64>,
    /// How many entries were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missed: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Statuses: `404`, or all of a class, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Statuses {
    first: u32,
    last: u32,
}

// === impl Question ===

impl Question {
    /// Reads a question of anybody; says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Question, String> {
        if bytes.len() > glasspool_abi::control::MAX_QUESTION_BYTES {
            return Err("the question is too long".to_owned());
        }
        let question: Question =
            serde_json::from_slice(bytes).map_err(|e| format!("the question makes no sense: {e}"))?;
        let Filter { pools, statuses, .. } = &question.filter;
        if pools.len() > MOST_NAMES || statuses.len() > MOST_NAMES {
            return Err(format!("at most {MOST_NAMES} pools and statuses can be named"));
        }
        Ok(question)
    }
}

// === impl Filter ===

impl Filter {
    /// Whether the entry is asked for.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        let matches = |wanted: &Statuses| entry.status.is_some_and(|status| wanted.holds(status));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let path = entry.path.as_deref().map(str::as_bytes);
        self.takes_worker(entry.pool.as_deref().unwrap_or_default(), entry.pid)
            && (self.statuses.is_empty() || self.statuses.iter().any(matches))
            && (!self.slow || entry.slow)
            && self
                .path
                .as_ref()
                .is_none_or(|glob| path.is_some_and(|path| glob.matches(path)))
            && self
                .trace
                .as_ref()
                .is_none_or(|trace| text(&entry.trace_id).starts_with(trace.as_str()))
    }

    /// The part of it that is told without looking at what happened.
    pub(crate) fn takes_worker(&self, pool: &str, pid: Option<i32>) -> bool {
        (self.pools.is_empty() || self.pools.iter().any(|wanted| wanted == pool))
            && self.worker.is_none_or(|worker| pid == Some(worker))
    }
}

// === impl Statuses ===

impl Statuses {
    fn holds(self, status: u32) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Statuses, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let (first, last) = match text.to_ascii_lowercase().strip_suffix("xx").map(number) {
            Some(class) => (
                class.map(|class| class * 100),
                class.map(|class| class * 100 + 99),
            ),
            None => (number(text), number(text)),
        };
        first
            .zip(last)
            .filter(|(first, last)| text.len() == 3 && *first >= 100 && *last <= 599)
            .map(|(first, last)| Statuses { first, last })
            .ok_or_else(|| "expected a status such as 404, or a class such as 5xx".to_owned())
    }
}

impl From<Statuses> for String {
    fn from(statuses: Statuses) -> String {
        if statuses.first == statuses.last {
            statuses.first.to_string()
        } else {
            format!("{}xx", statuses.first / 100)
        }
    }
}

impl TryFrom<String> for Statuses {
    type Error = String;

    fn try_from(text: String) -> Result<Statuses, String> {
        text.parse()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Request => "request",
            Kind::Killed => "killed",
            Kind::Slow => "slow",
            Kind::Terminated => "terminated",
            Kind::Crashed => "crashed",
            Kind::Line => "line",
            Kind::Log => "log",
            Kind::Saturated => "saturated",
            Kind::Missed => "missed",
            Kind::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_are_one_or_a_class() {
        for (text, inside, outside) in [("5xx", 599, 499), ("404", 404, 405), ("2XX", 200, 300)] {
            let statuses: Statuses = text.parse().expect("is one");
            assert!(statuses.holds(inside) && !statuses.holds(outside));
            assert_eq!(String::from(statuses), text.to_ascii_lowercase());
        }
        for wrong in ["", "5x", "xxx", "99", "600", "6xx", "0xx", "5xxx", "+404", "+4xx"] {
            assert!(wrong.parse::<Statuses>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_condition_is_asked_for() {
        let entry = Entry {
            pool: Some("www".to_owned()),
            pid: Some(7),
            status: Some(503),
            path: Some("/checkout".to_owned()),
            trace_id: Some("0af7".to_owned()),
            ..Entry::default()
        };
        let takes = |json: &str| {
            serde_json::from_str::<Filter>(json)
                .expect("is one")
                .takes(&entry)
        };
        for json in [
            "{}",
            r#"{"pools":["api","www"]}"#,
            r#"{"statuses":["404","5xx"]}"#,
            r#"{"path":"/check*"}"#,
            r#"{"trace":"0af"}"#,
            r#"{"worker":7}"#,
        ] {
            assert!(takes(json), "{json}");
        }
        for json in [
            r#"{"pools":["api"]}"#,
            r#"{"statuses":["404"]}"#,
            r#"{"path":"/cart"}"#,
            r#"{"trace":"1af"}"#,
            r#"{"worker":8}"#,
            r#"{"slow":true}"#,
        ] {
            assert!(!takes(json), "{json}");
        }
    }

    proptest! {
        #[test]
        fn a_hostile_question_is_refused_or_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(question) = Question::parse(&bytes) {
                prop_assert!(question.filter.pools.len() <= MOST_NAMES);
            }
        }
    }

    #[test]
    fn a_question_survives_the_way() {
        let question = Question {
            earlier: 5,
            follow: true,
            filter: Filter {
                statuses: vec!["5xx".parse().expect("is one")],
                path: Some(Glob::new("/a*").expect("a pattern")),
                ..Filter::default()
            },
        };
        let bytes = serde_json::to_vec(&question).expect("is JSON");
        assert_eq!(Question::parse(&bytes), Ok(question));
        assert!(Question::parse(&[b' '; 5000]).is_err());
        assert!(Question::parse(br#"{"filter":{"status":1}}"#).is_err());
        assert!(Question::parse(br#"{"filter":{"path":""}}"#).is_err());
    }
}
