//! What came out: text for people, JSON for machines, the bar for this promises.

mod look;
mod table;
mod verdict;
mod waits;

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::BenchError;
use crate::bench::{CaseResult, Sample};
use crate::look::LookResult;
use crate::look::torn::TornResult;
use crate::machine::Machine;
use crate::slow::SlowResult;
use crate::stats::{Summary, paired_ratio};
use crate::telemetry::{black_hole::BlackHoleResult, cost::CostResult, counts::CountsResult};
use crate::waits::{cost::CostResult as EbpfCost, sum::SumResult};

pub use verdict::Verdict;

/// One value of a sample.
pub(crate) type Measure = fn(&Sample) -> Option<f64>;

/// Requests per second.
pub(crate) const PER_SECOND: Measure = |sample| Some(sample.per_second);
/// Median latency.
pub(crate) const P50: Measure = |sample| Some(sample.p50_us);
/// 99th percentile.
pub(crate) const P99: Measure = |sample| Some(sample.p99_us);
/// CPU of the workers per request.
pub(crate) const WORKER_CPU: Measure = |sample| sample.worker_cpu_us;
/// CPU of the server's other processes per request.
pub(crate) const OTHER_CPU: Measure = |sample| sample.other_cpu_us;

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// How: the command line as it was understood.
    pub options: Options,
    /// What was measured.
    pub cases: Vec<CaseReport>,
    /// Time that workers were stopped.
    pub slow_stop: Option<SlowResult>,
    /// What looks cost.
    pub look: Option<LookResult>,
    /// Whether they are right.
    pub torn: Option<TornResult>,
    /// Whether all that counts requests agrees.
    pub counts: Option<CountsResult>,
    /// What a collector that never answers does.
    pub black_hole: Option<BlackHoleResult>,
    /// What tracing costs.
    pub cost: Option<CostResult>,
    /// What programs in the kernel cost.
    pub hello_ebpf: Option<EbpfCost>,
    /// Whether what they tell adds up.
    pub waits_sum: Option<SumResult>,
    /// What was left out, and why.
    pub skipped: Vec<Note>,
    /// What should have been measured but could not be.
    pub failed: Vec<Note>,
    /// The promises.
    pub bar: Vec<Verdict>,
}

/// How the run was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// Rounds per case.
    pub rounds: u32,
    /// Seconds per round and side.
    pub seconds: u64,
    /// Stock php-fpm.
    pub stock: String,
    /// What is compared with it.
    pub candidate: String,
}

/// A case or measurement without a result.
#[derive(Debug, Clone, Serialize)]
pub struct Note {
    /// Which.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A case with its ratios.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// As measured.
    #[serde(flatten)]
    pub result: CaseResult,
    /// Candidate to stock, median of the rounds' ratios.
    pub ratios: Ratios,
}

/// Paired ratios, candidate to stock.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratios {
    /// Of requests per second.
    pub per_second: Option<Summary>,
    /// Of the median latency.
    pub p50: Option<Summary>,
    /// Of the 99th percentile.
    pub p99: Option<Summary>,
    /// Of the workers' CPU time per request.
    pub worker_cpu: Option<Summary>,
}

impl CaseReport {
    /// Computes the ratios.
    pub fn new(result: CaseResult) -> Self {
        let ratios = Ratios {
            per_second: ratio(&result, PER_SECOND),
            p50: ratio(&result, P50),
            p99: ratio(&result, P99),
            worker_cpu: ratio(&result, WORKER_CPU),
        };
        Self { result, ratios }
    }
}

impl Report {
    /// Writes everything as JSON, making the folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(BenchError::file("make", folder))?;
        }
        let mut text = serde_json::to_string_pretty(self).expect("plain data with text keys");
        text.push('\n');
        fs::write(path, text).map_err(BenchError::file("write", path))
    }
}

fn ratio(result: &CaseResult, measure: Measure) -> Option<Summary> {
    let series = |rounds: &[Sample]| rounds.iter().map(measure).collect::<Vec<_>>();
    paired_ratio(&series(&result.stock.rounds), &series(&result.candidate.rounds))
}
