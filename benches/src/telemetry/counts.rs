//! Whether everything that counts requests counts the same: clients, spans, metrics, access log; and whether what
//! names a request names the right one: lines of PHP's error log as log records, exemplars of the metric.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::{Losses, mix};
use crate::BenchError;
use crate::bench::Setup;
use crate::load::Address;
use crate::report::Verdict;
use crate::server::{More, Side, Tracing};
use crate::sink::Names;

/// As many clients as workers: a kept connection holds one.
const WORKERS: u32 = 8;

/// Requests by status (or `killed`), as each side counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CountsResult {
    /// As the clients asked for them.
    pub sent: BTreeMap<String, u64>,
    /// SERVER spans at the collector.
    pub spans: BTreeMap<String, u64>,
    /// `http.server.request.duration`, its count.
    pub metrics: BTreeMap<String, u64>,
    /// Lines of the access log. A worker that dies writes none.
    pub access_log: BTreeMap<String, u64>,
    /// Requests that wrote a line into PHP's error log.
    pub lines_sent: u64,
    /// What became of those lines, and of exemplars.
    pub names: Names,
    /// Early spans of slow requests.
    pub early_spans: u64,
    /// What the observer says is missing.
    pub losses: Losses,
    /// Requests that ended otherwise than they were to.
    pub wrong: u64,
    /// The first of them in words.
    pub first_wrong: Option<String>,
}

/// Sends `setup.requests` requests and counts.
///
/// # Errors
/// The server does not start or end, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<CountsResult, BenchError> {
    let access_log = setup.dir.join("counts.access");
    let pool = format!(
        "request_terminate_timeout = 1s\naccess.log = {}\naccess.format = \"%s\"\n",
        access_log.display()
    );
    let more = More {
        pool: &pool,
        overlay: "\n[slow]\nafter = \"200ms\"\n",
    };
    let mut server = super::start(setup, Side::Candidate, WORKERS, Tracing::All, more)?;
    server.judge_names();
    let Address::Unix(socket) = server.address().clone() else {
        unreachable!("it was started on a socket")
    };
    let mixed = mix::run(
        &socket,
        setup.scripts,
        setup.requests,
        u64::from(WORKERS),
        setup.stop,
    )?;
    let mut sent = mixed.by_status;
    // What found out who the workers are.
    *sent.entry("200".to_owned()).or_default() += server.sent();
    server.add_sent(setup.requests);
    // What the time for ending would not allow is not what is asked here.
    server.exported(setup.stop)?;
    let log = server.finish(setup.stop)?;
    let received = server.exported(setup.stop)?.unwrap_or_default();
    Ok(CountsResult {
        sent,
        spans: received.by_outcome,
        metrics: received.durations,
        access_log: statuses(&access_log)?,
        lines_sent: mixed.lines,
        names: server.names(),
        early_spans: received.other_spans,
        losses: Losses::told_in(&log),
        wrong: mixed.wrong,
        first_wrong: mixed.first_wrong,
    })
}

/// How often each line stands in the access log.
fn statuses(path: &Path) -> Result<BTreeMap<String, u64>, BenchError> {
    let file = File::open(path).map_err(BenchError::file("open", path))?;
    let mut counts = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(BenchError::file("read", path))?;
        *counts.entry(line).or_default() += 1;
    }
    Ok(counts)
}

impl CountsResult {
    /// All requests of one account.
    fn total(counts: &BTreeMap<String, u64>) -> u64 {
        counts.values().sum()
    }

    /// Whether all accounts agree, what is said to be lost included.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let mut logged = self.sent.clone();
        logged.remove(mix::KILLED);
        let sent = Self::total(&self.sent);
        let exact = self.losses.total() > 0 || self.spans == self.sent && self.metrics == self.sent;
        self.wrong == 0
            && exact
            && self.access_log == logged
            && Self::total(&self.spans) + self.losses.undelivered == Self::total(&self.metrics)
            && self.names_agree(sent.checked_sub(Self::total(&self.metrics)))
    }

    /// What was overwritten is so many requests, and else lines. A log record that is lost may be
    /// none of a line. An exemplar may be of a span that is lost.
    fn names_agree(&self, requests: Option<u64>) -> bool {
        let names = &self.names;
        let told = names.lines + names.missing_lines;
        let lines = requests.and_then(|requests| self.losses.overwritten.checked_sub(requests));
        let exact = lines.is_some_and(|lines| {
            (told + lines..=told + lines + self.losses.lines).contains(&self.lines_sent)
        });
        exact && names.wrong_lines == 0 && names.wrong_exemplars <= self.losses.undelivered
    }

    /// The promise.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let sent = Self::total(&self.sent);
        Verdict {
            promise: format!("{sent} requests: clients, spans, metrics, logs"),
            wanted: "agree".to_owned(),
            measured: format!(
                "{} lost and counted, {} wrong answers",
                self.losses.total(),
                self.wrong
            ),
            met: Some(self.agrees()),
        }
    }
}

impl fmt::Display for CountsResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "telemetry-counts: every outcome, {WORKERS} workers, {WORKERS} clients, half of them keep their connection\n  \
             {:<12}{:>12}{:>12}{:>12}{:>12}",
            "status", "sent", "spans", "metrics", "access log"
        )?;
        let accounts = [&self.sent, &self.spans, &self.metrics, &self.access_log];
        let all: BTreeSet<_> = accounts.iter().flat_map(|counts| counts.keys()).collect();
        for status in all {
            write!(f, "  {status:<12}")?;
            for counts in accounts {
                write!(f, "{:>12}", counts.get(status).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        write!(f, "  {:<12}", "all")?;
        for counts in accounts {
            write!(f, "{:>12}", Self::total(counts))?;
        }
        writeln!(
            f,
            "\n  lost and counted: {} records overwritten, {} spans not delivered; {} early spans of slow requests",
            self.losses.overwritten, self.losses.undelivered, self.early_spans
        )?;
        let names = &self.names;
        writeln!(
            f,
            "  lines of PHP's error log: {} written, {} log records, {} told as missing, {} of another trace or twice\n  \
             exemplars: {}, {} of them not of a span that took as long",
            self.lines_sent,
            names.lines,
            names.missing_lines + self.losses.lines,
            names.wrong_lines,
            names.exemplars,
            names.wrong_exemplars
        )?;
        if let Some(first) = &names.first_wrong {
            writeln!(f, "  the first of these: {first}")?;
        }
        if let Some(first) = &self.first_wrong {
            writeln!(
                f,
                "  {} ended otherwise than they were to, the first: {first}",
                self.wrong
            )?;
        }
        writeln!(
            f,
            "  {}",
            if self.agrees() {
                "all agree"
            } else {
                "THEY DISAGREE"
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(status, count)| ((*status).to_owned(), *count))
            .collect()
    }

    #[test]
    fn a_loss_that_is_counted_is_agreement_and_one_that_is_not_is_none() {
        let sent = counts(&[("200", 90), ("killed", 10)]);
        let mut result = CountsResult {
            sent: sent.clone(),
            spans: sent.clone(),
            metrics: sent,
            access_log: counts(&[("200", 90)]),
            ..CountsResult::default()
        };
        assert!(result.agrees());
        result.spans = counts(&[("200", 87), ("killed", 10)]);
        assert!(!result.agrees());
        result.losses.undelivered = 3;
        assert!(result.agrees());
        result.lines_sent = 4;
        result.names.lines = 4;
        assert!(result.agrees());
        result.names.wrong_lines = 1;
        assert!(!result.agrees());
        result.names = Names::default();
        assert!(!result.agrees(), "lines are missing and nobody says so");
        result.losses.lines = 4;
        assert!(result.agrees());
        // One of them was overwritten before it was read; and a request as well.
        result.losses.lines = 3;
        assert!(!result.agrees());
        result.losses.overwritten = 1;
        assert!(result.agrees());
        result.metrics = counts(&[("200", 89), ("killed", 10)]);
        result.spans = counts(&[("200", 86), ("killed", 10)]);
        assert!(!result.agrees());
        result.losses.overwritten = 2;
        assert!(result.agrees());
        result.access_log = counts(&[("200", 89)]);
        assert!(!result.agrees());
    }
}
