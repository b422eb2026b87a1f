//! Whether all of a request's time is somewhere, over many requests.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use super::start;
use crate::BenchError;
use crate::bench::Setup;
use crate::load::{Bound, Load};
use crate::server::Ebpf;
use crate::sink::Sums;

const WORKERS: u32 = 2;
/// Twice as many, so that some wait.
const CLIENTS: NonZeroU32 = NonZeroU32::new(4).expect("is not 0");

/// How far something is off, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Off {
    /// Half are closer.
    pub p50_us: f64,
    /// 99 of 100 are.
    pub p99_us: f64,
    /// 999 of 1000 are.
    pub p999_us: f64,
    /// The farthest.
    pub most_us: f64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct SumResult {
    /// Requests that were sent.
    pub requests: u64,
    /// Those that were not answered rightly.
    pub errors: u64,
    /// Those whose span came and says where the time went.
    pub told: u64,
    /// Those whose span came and does not.
    pub untold: u64,
    /// The parts from the whole.
    pub parts: Off,
    /// Requests whose parts are more than 0.1 ms off.
    pub beyond_close: u64,
    /// More than 1 ms.
    pub beyond_far: u64,
    /// The causes from the time blocked.
    pub causes: Off,
    /// Time on a CPU from what getrusage(2) says of the request, which leaves out what interrupts and the hypervisor
    /// took.
    pub cpu: Off,
    /// On a CPU, waiting for one, blocked: of all requests, seconds.
    pub totals_s: [f64; 3],
    /// The first that are more than 0.1 ms off, in words.
    pub examples: Vec<String>,
    /// CPU time of the workers meanwhile, as the scheduler counts it, between requests too; seconds.
    pub workers_cpu_s: Option<f64>,
    /// How long all of it took, seconds.
    pub elapsed_s: f64,
}

/// Sends `setup.traces` requests.
///
/// # Errors
/// The server does not start, or not with the programs; or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<SumResult, BenchError> {
    let mut server = start(setup, WORKERS, Ebpf::Required)?;
    let load = Load {
        clients: CLIENTS,
        bound: Bound::Count(setup.traces),
        ..server.load_of("/waits.php", "", "hello world")
    };
    let warm = Load {
        bound: Bound::Count(100),
        ..load.clone()
    };
    server.load(&warm, setup.stop)?;
    // Of a worker that is new the programs know nothing before it has slept once.
    server.forget_sums(setup.stop)?;
    let cpu = |server: &crate::server::Server| server.cpu().map(|cpu| cpu.workers);
    let before = cpu(&server);
    let outcome = server.load(&load, setup.stop)?;
    let after = cpu(&server);
    let received = server.exported(setup.stop)?.unwrap_or_default();
    let Sums {
        told,
        untold,
        parts,
        beyond_close,
        beyond_far,
        causes,
        cpu,
        totals_s,
        examples,
    } = received.sums;
    Ok(SumResult {
        requests: outcome.sent,
        errors: outcome.errors.total(),
        told,
        untold,
        parts: off(&parts),
        beyond_close,
        beyond_far,
        causes: off(&causes),
        cpu: off(&cpu),
        totals_s,
        examples,
        workers_cpu_s: before
            .zip(after)
            .map(|(before, after)| after.saturating_sub(before))
            .as_ref()
            .map(Duration::as_secs_f64),
        elapsed_s: outcome.elapsed.as_secs_f64(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "less than 2^53 ns")]
fn off(of: &hdrhistogram::Histogram<u64>) -> Off {
    let at = |percentile| of.value_at_percentile(percentile) as f64 / 1e3;
    Off {
        p50_us: at(50.0),
        p99_us: at(99.0),
        p999_us: at(99.9),
        most_us: of.max() as f64 / 1e3,
    }
}
