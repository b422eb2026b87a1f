//! A collector that takes connections and never answers: no request may notice, memory is bounded, and what is
//! dropped is counted to the number.
//!
//! Windows with a collector that answers and windows with one that does not, in turn, on one server at full load.

use std::fmt;
use std::num::NonZeroU32;

use serde::Serialize;

use super::Losses;
use crate::BenchError;
use crate::bench::Setup;
use crate::load::{Bound, Load, Outcome};
use crate::report::Verdict;
use crate::server::{More, Server, Side, Tracing};
use crate::stats::{Summary, paired_ratio};

const WORKERS: u32 = 2;
const CLIENTS: NonZeroU32 = NonZeroU32::new(8).expect("eight");

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct BlackHoleResult {
    /// Requests per second of each window with a collector.
    pub answered: Vec<f64>,
    /// Without, each right after the one above.
    pub swallowed: Vec<f64>,
    /// Requests that failed.
    pub errors: u64,
    /// Memory of the observer (RSS) before, kilobytes.
    pub before_kb: u64,
    /// The most of it after a window without a collector.
    pub most_kb: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// SERVER spans that arrived.
    pub received: u64,
    /// What the observer says is missing.
    pub losses: Losses,
}

/// Measures `setup.rounds` pairs of windows of `setup.time`.
///
/// # Errors
/// The server does not start or end, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<BlackHoleResult, BenchError> {
    let mut server = super::start(setup, Side::Candidate, WORKERS, Tracing::All, More::default())?;
    let load = Load {
        clients: CLIENTS,
        bound: Bound::Time(setup.time),
        ..server.load_of("/hello.php", "", "hello world")
    };
    server.load(&load, setup.stop)?;
    let observer = server.observer()?;
    let rss = |server: &Server| server.resident_kb(observer);
    let mut result = BlackHoleResult {
        answered: Vec::new(),
        swallowed: Vec::new(),
        errors: 0,
        before_kb: rss(&server),
        most_kb: 0,
        requests: 0,
        received: 0,
        losses: Losses::default(),
    };
    for _ in 0..setup.rounds {
        for hole in [false, true] {
            server.swallow(hole);
            let outcome: Outcome = server.load(&load, setup.stop)?;
            result.errors += outcome.errors.total();
            if hole {
                result.swallowed.push(outcome.per_second());
                result.most_kb = result.most_kb.max(rss(&server));
            } else {
                result.answered.push(outcome.per_second());
            }
        }
    }
    server.swallow(false);
    let log = server.finish(setup.stop)?;
    result.received = server.exported(setup.stop)?.unwrap_or_default().spans;
    (result.requests, result.losses) = (server.sent(), Losses::told_in(&log));
    Ok(result)
}

impl BlackHoleResult {
    /// Requests per second without a collector to those with one.
    fn ratio(&self) -> Option<Summary> {
        let some = |rates: &[f64]| rates.iter().copied().map(Some).collect::<Vec<_>>();
        paired_ratio(&some(&self.answered), &some(&self.swallowed))
    }

    /// The promises.
    #[must_use]
    pub fn verdicts(&self) -> [Verdict; 2] {
        let ratio = self.ratio();
        let shown = |ratio: Summary| format!("{:.3} [{:.3}-{:.3}]", ratio.median, ratio.min, ratio.max);
        let accounted = self.received + self.losses.total();
        [
            Verdict {
                promise: "requests/s while the collector never answers, to before".to_owned(),
                wanted: "≥ 0.98".to_owned(),
                measured: ratio.map_or_else(|| "not measured".to_owned(), shown),
                met: ratio.map(|ratio| ratio.median >= 0.98 && self.errors == 0),
            },
            Verdict {
                promise: "and each of its spans arrived or is counted".to_owned(),
                wanted: self.requests.to_string(),
                measured: accounted.to_string(),
                met: Some(accounted == self.requests),
            },
        ]
    }
}

impl fmt::Display for BlackHoleResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |rates: &[f64]| {
            Summary::of(rates.iter().copied()).map_or_else(
                || "-".to_owned(),
                |rates| format!("{:.0} [{:.0}-{:.0}]", rates.median, rates.min, rates.max),
            )
        };
        writeln!(
            f,
            "telemetry-black-hole: hello, unix socket, {WORKERS} workers, {CLIENTS} clients, 100 % exported\n  \
             requests/s      collector answers {}, never answers {}\n  \
             observer's RSS  {} KB before, at most {} KB\n  \
             spans           {} requests = {} received + {} overwritten + {} not delivered; {} failed requests",
            shown(&self.answered),
            shown(&self.swallowed),
            self.before_kb,
            self.most_kb,
            self.requests,
            self.received,
            self.losses.overwritten,
            self.losses.undelivered,
            self.errors
        )
    }
}
