//! How long a running worker stands still while its stack is read for the slow log, seen from inside: the longest
//! time between two readings of the clock around the look, as in `crate::slow`, with a stack of 24 frames, and with
//! Glasspool told to hold the worker (`slow.stop = "always"`), which it does not do by default. The servers take
//! turns. What else takes the CPU away makes a gap longer, never shorter: the least gap is the look itself.

use serde::Serialize;

use crate::BenchError;
use crate::bench::Setup;
use crate::server::Side;
use crate::slow;
use crate::stats::Summary;

/// Frames: the script, `spin` and so many `down`.
const CALLS: usize = 22;

/// Longest gaps, microseconds, each run.
#[derive(Debug, Clone, Serialize)]
pub struct PauseResult {
    /// Of stock php-fpm's worker.
    pub stock_us: Vec<f64>,
    /// Of the candidate's.
    pub candidate_us: Vec<f64>,
    /// Entries in the slow logs, stock's and the candidate's: fewer than runs mean that some gaps are not a look's.
    pub entries: (usize, usize),
}

impl PauseResult {
    /// Stock's gaps and the candidate's.
    #[must_use]
    pub fn summaries(&self) -> Option<(Summary, Summary)> {
        let of = |gaps: &[f64]| Summary::of(gaps.iter().copied());
        of(&self.stock_us).zip(of(&self.candidate_us))
    }
}

pub(super) fn measure(setup: &Setup<'_>) -> Result<PauseResult, BenchError> {
    let mut stock = slow::start_held(Side::Stock, setup)?;
    let mut candidate = slow::start_held(Side::Candidate, setup)?;
    let mut result = PauseResult {
        stock_us: Vec::new(),
        candidate_us: Vec::new(),
        entries: (0, 0),
    };
    for _ in 0..setup.rounds {
        result.stock_us.extend(slow::gap(&mut stock, setup, CALLS)?);
        result
            .candidate_us
            .extend(slow::gap(&mut candidate, setup, CALLS)?);
    }
    result.entries = (stock.slowlog_entries(), candidate.slowlog_entries());
    Ok(result)
}
