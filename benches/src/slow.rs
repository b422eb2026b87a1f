//! How long a worker is stopped for one backtrace of a slow request.
//!
//! Seen from inside the worker, the same way for both servers: a script runs past the slow limit reading the
//! clock all the time, and reports the longest gap between two readings. That gap also holds what else can
//! take the CPU away (an interrupt, another process), so the same script is measured without a slow log
//! as well: the difference is the look, and on a busy machine there is none to be told. Two other ways were
//! tried and do not do: strace on the server's ptrace calls turns 0.3 ms into 3 ms and more; wall time
//! minus CPU time minus run delay (`/proc/PID/schedstat`) counts time stopped as run delay on Linux 6.18.
//!
//! A worker that sleeps in the kernel cannot watch itself. Glasspool's own events say what looking at it cost;
//! what php-fpm's look costs there is not measured (it stops the worker in the same way as a running one).

use std::num::NonZeroU32;

use serde::Serialize;

use crate::BenchError;
use crate::bench::Setup;
use crate::server::{Ebpf, Server, Side, Spec, Tracing};
use crate::sink::Sample;
use crate::stats::Summary;

/// php-fpm knows whole seconds only.
const SLOW_AFTER_S: u32 = 1;
/// Gaps before this age of the script are not counted: start-up, compilation.
const FROM_S: &str = "0.95";
/// php-fpm looks for slow requests every third of the limit (`fpm_pctl_heartbeat` of php-src's
/// `fpm_process_ctl.c`), so the look comes at 1.0 to 1.34 s.
const UNTIL_S: &str = "1.5";

/// What one server does to its workers.
#[derive(Debug, Clone, Serialize)]
pub struct SideResult {
    /// Longest gap of a running script that was looked at, microseconds, each run.
    pub gaps_us: Vec<f64>,
    /// Longest gap without a slow log, microseconds, each run.
    pub undisturbed_us: Vec<f64>,
    /// Entries in the slow log; fewer than runs mean that some gaps are not those of a look.
    pub slowlog_entries: usize,
    /// What the server itself says of its looks at running workers.
    pub own_running: Vec<Sample>,
    /// What the server itself says of its looks at workers that sleep in the kernel.
    pub own_blocked: Vec<Sample>,
}

impl SideResult {
    /// Longest gaps with a look.
    pub fn gap(&self) -> Option<Summary> {
        Summary::of(self.gaps_us.iter().copied())
    }

    /// Longest gaps without.
    pub fn undisturbed(&self) -> Option<Summary> {
        Summary::of(self.undisturbed_us.iter().copied())
    }

    /// Whether a look makes a difference that the machine's own noise does not explain: every gap with one is
    /// longer than every gap without.
    pub fn is_resolved(&self) -> bool {
        let pair = self.gap().zip(self.undisturbed());
        pair.is_some_and(|(gap, undisturbed)| gap.min > undisturbed.max)
    }
}

/// Both servers.
#[derive(Debug, Clone, Serialize)]
pub struct SlowResult {
    /// Stock php-fpm.
    pub stock: SideResult,
    /// The candidate.
    pub candidate: SideResult,
}

/// Measures both, `setup.rounds` looks each.
///
/// # Errors
/// A server does not start or answer, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<SlowResult, BenchError> {
    let stock = measure_side(Side::Stock, setup)?;
    let candidate = measure_side(Side::Candidate, setup)?;
    Ok(SlowResult { stock, candidate })
}

fn measure_side(side: Side, setup: &Setup<'_>) -> Result<SideResult, BenchError> {
    let mut plain = start(side, setup, None, false)?;
    let undisturbed_us = gaps(&mut plain, setup)?;
    drop(plain);

    let mut server = start(side, setup, Some(SLOW_AFTER_S), false)?;
    let gaps_us = gaps(&mut server, setup)?;
    let slowlog_entries = server.slowlog_entries();
    let own_running = samples(&server, setup)?;
    let wait = server.load_of("/slow-wait.php", &format!("until={UNTIL_S}"), "end of work");
    server.load(&wait, setup.stop)?;
    let own_blocked = samples(&server, setup)?.split_off(own_running.len());
    Ok(SideResult {
        gaps_us,
        undisturbed_us,
        slowlog_entries,
        own_running,
        own_blocked,
    })
}

/// A server with a slow log, told to hold the workers that it looks at.
pub(crate) fn start_held(side: Side, setup: &Setup<'_>) -> Result<Server, BenchError> {
    start(side, setup, Some(SLOW_AFTER_S), true)
}

fn start(side: Side, setup: &Setup<'_>, slow_after_s: Option<u32>, hold: bool) -> Result<Server, BenchError> {
    let spec = Spec {
        side,
        program: match side {
            Side::Stock => setup.stock,
            Side::Candidate => setup.candidate,
        },
        php: setup.stock,
        ini: setup.ini,
        dir: setup.dir,
        scripts: setup.scripts,
        tcp: false,
        workers: NonZeroU32::MIN,
        tracing: Tracing::All,
        slow_after_s,
        hold,
        more: crate::server::More::default(),
        ebpf: Ebpf::Auto,
    };
    Server::start(&spec, setup.stop)
}

/// Runs the busy script `rounds` times; the longest gap of each, microseconds.
fn gaps(server: &mut Server, setup: &Setup<'_>) -> Result<Vec<f64>, BenchError> {
    let mut gaps = Vec::new();
    for _ in 0..setup.rounds {
        gaps.extend(gap(server, setup, 0)?);
    }
    Ok(gaps)
}

/// Runs the busy script once, so many calls deep; its longest gap, microseconds.
pub(crate) fn gap(server: &mut Server, setup: &Setup<'_>, calls: usize) -> Result<Option<f64>, BenchError> {
    let query = format!("from={FROM_S}&until={UNTIL_S}&calls={calls}");
    let load = server.load_of("/slow-busy.php", &query, "end of work");
    let mut gap = None;
    let outcome = server.load_each(&load, setup.stop, &mut |answer| gap = parse_gap_us(answer))?;
    match outcome.errors.first {
        Some(error) => Err(server.fault(format!("did not answer slow-busy.php: {error}"))),
        None => Ok(gap),
    }
}

/// The looks that the server has told of so far. There may be several per request.
fn samples(server: &Server, setup: &Setup<'_>) -> Result<Vec<Sample>, BenchError> {
    Ok(server
        .exported(setup.stop)?
        .map(|received| received.samples)
        .unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "gaps stay below 2^53 ns")]
fn parse_gap_us(answer: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(answer).ok()?;
    let ns = text
        .lines()
        .find_map(|line| line.strip_prefix("longest gap ")?.strip_suffix(" ns"))?;
    ns.parse::<u64>().ok().map(|ns| ns as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_read_from_the_answer() {
        let answer = b"Content-type: text/html\r\n\r\nlongest gap 229500 ns\nturns 9\nend of work\n";
        assert_eq!(parse_gap_us(answer), Some(229.5));
        assert_eq!(parse_gap_us(b"longest gap x ns\n"), None);
    }
}
