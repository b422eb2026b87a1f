//! What tracing costs: everything exported against nothing, and the observer's share of a processor at given rates.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::BenchError;
use crate::bench::Setup;
use crate::load::{Bound, Load};
use crate::measure::proc;
use crate::server::{More, Server, Side, Tracing};
use crate::stats::{Summary, paired_ratio};

const WORKERS: u32 = 2;
const CLIENTS: NonZeroU32 = NonZeroU32::new(8).expect("eight");
/// Requests per second; none is as many as there can be.
const RATES: [Option<u32>; 3] = [Some(1_000), Some(10_000), None];
/// Bursts per second, of which a rate is made.
const BURSTS: u32 = 100;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct CostResult {
    /// Requests per second round by round, with tracing off and with everything exported.
    pub per_second: [Vec<f64>; 2],
    /// CPU time of the workers per request, microseconds, likewise.
    pub worker_us: [Vec<f64>; 2],
    /// The observer at each rate.
    pub shares: Vec<Share>,
}

/// The observer at one rate.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Share {
    /// Requests per second that were wanted.
    pub wanted: Option<u32>,
    /// Those that there were.
    pub per_second: f64,
    /// Part of one processor that the observer used.
    pub share: f64,
    /// Its CPU time per request, microseconds.
    pub us_per_request: f64,
}

/// Measures both.
///
/// # Errors
/// A server does not start, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<CostResult, BenchError> {
    let start = |side, tracing| super::start(setup, side, WORKERS, tracing, More::default());
    let mut servers = [
        start(Side::Stock, Tracing::Off)?,
        start(Side::Candidate, Tracing::All)?,
    ];
    let mut result = CostResult {
        per_second: [Vec::new(), Vec::new()],
        worker_us: [Vec::new(), Vec::new()],
        shares: Vec::new(),
    };
    for server in &mut servers {
        let load = load(server, Bound::Time(setup.time));
        server.load(&load, setup.stop)?;
    }
    for _ in 0..setup.rounds {
        for (index, server) in servers.iter_mut().enumerate() {
            let load = load(server, Bound::Time(setup.time));
            let before = server.cpu();
            let outcome = server.load(&load, setup.stop)?;
            let after = server.cpu();
            result.per_second[index].push(outcome.per_second());
            if let (Some(before), Some(after)) = (before, after) {
                let used = after.workers.saturating_sub(before.workers);
                result.worker_us[index].push(per(used, outcome.sent));
            }
            server.digest();
        }
    }
    let [_, traced] = &mut servers;
    for wanted in RATES {
        result.shares.push(share(traced, wanted, setup)?);
        traced.digest();
    }
    Ok(result)
}

fn load(server: &Server, bound: Bound) -> Load {
    Load {
        clients: CLIENTS,
        bound,
        ..server.load_of("/hello.php", "", "hello world")
    }
}

fn share(server: &mut Server, wanted: Option<u32>, setup: &Setup<'_>) -> Result<Share, BenchError> {
    let observer = server.observer()?;
    let cpu = || proc::cpu_time(observer).unwrap_or_default();
    let (began, before, mut sent) = (Instant::now(), cpu(), 0);
    match wanted {
        None => {
            sent += server
                .load(&load(server, Bound::Time(setup.time)), setup.stop)?
                .sent
        }
        Some(rate) => {
            let burst = load(server, Bound::Count((rate / BURSTS).into()));
            let mut next = began;
            while began.elapsed() < setup.time {
                sent += server.load(&burst, setup.stop)?.sent;
                next += Duration::from_secs(1) / BURSTS;
                setup.stop.pause(next.saturating_duration_since(Instant::now()))?;
            }
        }
    }
    let (took, used) = (began.elapsed(), cpu().saturating_sub(before));
    Ok(Share {
        wanted,
        #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
        per_second: sent as f64 / took.as_secs_f64(),
        share: used.as_secs_f64() / took.as_secs_f64(),
        us_per_request: per(used, sent),
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn per(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

impl fmt::Display for CostResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "telemetry-cost: hello, unix socket, {WORKERS} workers, {CLIENTS} clients; tracing off, 100 % exported, ratio"
        )?;
        for (what, [off, all]) in [
            ("requests/s", &self.per_second),
            ("worker CPU us/request", &self.worker_us),
        ] {
            let median = |values: &[f64]| Summary::of(values.iter().copied()).map_or(f64::NAN, |s| s.median);
            let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
            let ratio = paired_ratio(&some(off), &some(all));
            let ratio = ratio.map_or_else(String::new, |r| {
                format!("{:.3} [{:.3}-{:.3}]", r.median, r.min, r.max)
            });
            writeln!(
                f,
                "  {what:<24}{:>12.1}{:>12.1}   {ratio}",
                median(off),
                median(all)
            )?;
        }
        for share in &self.shares {
            let wanted = share
                .wanted
                .map_or_else(|| "full load".to_owned(), |rate| format!("{rate}/s wanted"));
            writeln!(
                f,
                "  observer at {:<14} {:>8.0} requests/s: {:>5.1} % of a core, {:.1} us/request",
                wanted,
                share.per_second,
                share.share * 100.0,
                share.us_per_request
            )?;
        }
        Ok(())
    }
}
