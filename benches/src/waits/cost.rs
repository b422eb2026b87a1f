//! What the kernel's programs cost: a request of hello at full load, and a run of a program.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::programs::{Program, Statistics};
use super::start;
use crate::BenchError;
use crate::bench::Setup;
use crate::load::{Bound, Load, request};
use crate::server::{Ebpf, Server};
use crate::stats::{Summary, paired_ratio};

/// As in `hello-unix-traced`.
const CLIENTS: NonZeroU32 = NonZeroU32::new(4).expect("is not 0");
const WARM_UP: f64 = 0.5;

/// What the programs cost.
#[derive(Debug, Clone, Serialize)]
pub struct CostResult {
    /// CPU time of the worker per request without the programs, microseconds, each round.
    pub off_us: Vec<Option<f64>>,
    /// The same with them.
    pub on_us: Vec<Option<f64>>,
    /// Requests per second without, each round.
    pub off_per_second: Vec<Option<f64>>,
    /// The same with them.
    pub on_per_second: Vec<Option<f64>>,
    /// Requests that failed, of both.
    pub errors: u64,
    /// What a run of a program takes.
    pub runs: Vec<Runs>,
    /// Why some are missing.
    pub not_measured: Vec<String>,
}

/// Runs of one program under one load, for all tasks of the host.
#[derive(Debug, Clone, Serialize)]
pub struct Runs {
    /// What the load was.
    pub load: &'static str,
    /// Which program.
    pub program: &'static str,
    /// How often.
    pub runs: u64,
    /// For each request.
    pub per_request: f64,
    /// How long each time, with the measuring, nanoseconds.
    pub each_ns: f64,
}

impl CostResult {
    /// CPU time of the worker with the programs to that without, round by round.
    pub fn worker_cpu(&self) -> Option<Summary> {
        paired_ratio(&self.off_us, &self.on_us)
    }

    /// Requests per second likewise.
    pub fn per_second(&self) -> Option<Summary> {
        paired_ratio(&self.off_per_second, &self.on_per_second)
    }
}

/// Measures both. The programs run for every task of the host, so only one server lives at a time.
///
/// # Errors
/// The server does not start, or not with the programs; or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<CostResult, BenchError> {
    let mut result = CostResult {
        off_us: Vec::new(),
        on_us: Vec::new(),
        off_per_second: Vec::new(),
        on_per_second: Vec::new(),
        errors: 0,
        runs: Vec::new(),
        not_measured: Vec::new(),
    };
    for round in 0..setup.rounds {
        // Who comes first changes, as machines get faster and slower by themselves.
        for first in [true, false] {
            result.round(setup, first == (round % 2 == 0))?;
        }
    }
    result.runs_of(setup, "hello", 1, |_| ())?;
    match setup.wordpress {
        Some(root) => result.runs_of(setup, "wordpress", 2, |load| front_page(load, root))?,
        None => result
            .not_measured
            .push("wordpress: no --wordpress TOOL given (or GLASSPOOL_BENCH_WORDPRESS)".to_owned()),
    }
    Ok(result)
}

/// As a web server asks for it, which looks for an index.
fn front_page(load: &mut Load, root: &Path) {
    load.params = request::params(root, "/index.php", "");
    for (name, value) in &mut load.params {
        if name == "REQUEST_URI" {
            "/".clone_into(value);
        }
    }
    load.expect = b"Sample post 24".to_vec();
}

impl CostResult {
    fn round(&mut self, setup: &Setup<'_>, on: bool) -> Result<(), BenchError> {
        let mut server = start(setup, 1, if on { Ebpf::Required } else { Ebpf::Off })?;
        let mut load = hello(&server, 1);
        load.bound = Bound::Time(setup.time.mul_f64(WARM_UP));
        server.load(&load, setup.stop)?;
        server.digest();
        load.bound = Bound::Time(setup.time);
        let before = server.cpu();
        let outcome = server.load(&load, setup.stop)?;
        let after = server.cpu();
        self.errors += outcome.errors.total();
        let used = before
            .zip(after)
            .map(|(before, after)| after.workers.saturating_sub(before.workers));
        let each = used.and_then(|used| per(used.as_secs_f64() * 1e6, outcome.sent));
        let (us, per_second) = if on {
            (&mut self.on_us, &mut self.on_per_second)
        } else {
            (&mut self.off_us, &mut self.off_per_second)
        };
        us.push(each);
        per_second.push(Some(outcome.per_second()));
        Ok(())
    }

    fn runs_of(
        &mut self,
        setup: &Setup<'_>,
        name: &'static str,
        workers: u32,
        page: impl Fn(&mut Load),
    ) -> Result<(), BenchError> {
        let _statistics = match Statistics::on() {
            Ok(statistics) => statistics,
            Err(error) => {
                self.not_measured
                    .push(format!("{name}: runs of programs: {error}"));
                return Ok(());
            }
        };
        let mut server = start(setup, workers, Ebpf::Required)?;
        let mut load = hello(&server, workers);
        page(&mut load);
        load.bound = Bound::Time(setup.time.mul_f64(WARM_UP));
        server.load(&load, setup.stop)?;
        server.digest();
        let known = ["on_switch", "on_wakeup"].map(|program| (program, Program::of(server.pid(), program)));
        let spent = || known.map(|(_, program)| program.and_then(Program::spent));
        load.bound = Bound::Time(setup.time.max(Duration::from_secs(2)));
        let before = spent();
        let outcome = server.load(&load, setup.stop)?;
        let after = spent();
        self.errors += outcome.errors.total();
        for (index, (program, _)) in known.into_iter().enumerate() {
            let Some(((runs, time), (then_runs, then_time))) = after[index].zip(before[index]) else {
                self.not_measured
                    .push(format!("{name}: {program} is not in the kernel"));
                continue;
            };
            let runs = runs.saturating_sub(then_runs);
            #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
            self.runs.push(Runs {
                load: name,
                program,
                runs,
                per_request: per(runs as f64, outcome.sent).unwrap_or(0.0),
                each_ns: per(time.saturating_sub(then_time) as f64, runs).unwrap_or(0.0),
            });
        }
        Ok(())
    }
}

fn hello(server: &Server, workers: u32) -> Load {
    Load {
        clients: CLIENTS.max(NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN)),
        ..server.load_of("/hello.php", "", "hello world")
    }
}

/// A share; `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn per(total: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| total / count as f64)
}
