//! What it costs to watch for long: the CPU of `top`, and what `record` takes from the script that is recorded.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::script::{Script, spawn};
use crate::BenchError;
use crate::bench::Setup;
use crate::measure::proc;
use crate::process::Process;
use crate::stats::Summary;

/// Processes under `top`.
pub const WATCHED: usize = 200;
/// One in so many of them wakes 20 times a second; the others are blocked all the time.
pub const AWAKE: usize = 10;
/// `top` opens all of them first.
const SETTLE: Duration = Duration::from_secs(3);
/// `record` has opened the script by then.
const OPEN: Duration = Duration::from_millis(300);
/// One half of a round under `record`.
const HALF: Duration = Duration::from_secs(2);
/// Frames of each stack.
const DEPTH: usize = 24;

/// What watching costs.
#[derive(Debug, Clone, Serialize)]
pub struct WatchResult {
    /// CPU of `top` at 2 Hz, percent of a core, each round.
    pub top_percent: Vec<f64>,
    /// CPU time of the same work with `record` at 99 Hz, as a multiple of that without, each round.
    pub record_cpu: Vec<f64>,
    /// The same for the time that passed.
    pub record_wall: Vec<f64>,
}

impl WatchResult {
    /// Over the rounds.
    #[must_use]
    pub fn top(&self) -> Option<Summary> {
        Summary::of(self.top_percent.iter().copied())
    }

    /// Over the rounds, of the CPU time.
    #[must_use]
    pub fn record(&self) -> Option<Summary> {
        Summary::of(self.record_cpu.iter().copied())
    }
}

pub(super) fn measure(setup: &Setup<'_>) -> Result<WatchResult, BenchError> {
    let (record_cpu, record_wall) = record(setup)?;
    Ok(WatchResult {
        top_percent: top(setup)?,
        record_cpu,
        record_wall,
    })
}

fn top(setup: &Setup<'_>) -> Result<Vec<f64>, BenchError> {
    let depth = DEPTH.to_string();
    let scripts: Vec<Process> = (0..WATCHED)
        .map(|number| {
            let how = if number % AWAKE == 0 { "wake" } else { "sleep" };
            spawn(setup, &[], "deep.php", &[&depth, how, &number.to_string()])
        })
        .collect::<Result<_, _>>()?;
    for script in &scripts {
        while !script.output().contains("ready") {
            setup.stop.pause(Duration::from_millis(10))?;
        }
    }
    let mut command = Command::new(setup.candidate);
    command.args(["top", "--interval", "500ms"]);
    command.args(scripts.iter().map(|script| script.pid().to_string()));
    let top = Process::spawn(command, &setup.dir.join("top.output"), Signal::TERM)?;
    setup.stop.pause(SETTLE)?;
    let mut percent = Vec::new();
    for _ in 0..setup.rounds {
        let (before, began) = (cpu_of(&top)?, std::time::Instant::now());
        setup.stop.pause(HALF)?;
        let used = cpu_of(&top)?.saturating_sub(before);
        percent.push(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
    }
    Ok(percent)
}

fn cpu_of(process: &Process) -> Result<Duration, BenchError> {
    proc::cpu_time(process.pid()).ok_or_else(|| process.fault("has ended"))
}

/// One script all the time; `record` comes and goes.
fn record(setup: &Setup<'_>) -> Result<(Vec<f64>, Vec<f64>), BenchError> {
    let seconds = (HALF + OPEN).as_secs_f64() * 2.0 * f64::from(setup.rounds) + 60.0;
    let script = Script::start(setup, &[], "chunks.php", &[&format!("{seconds:.0}")], false)?;
    let mut halves = Vec::new();
    for _ in 0..setup.rounds {
        let alone = span(setup)?;
        let mut command = Command::new(setup.candidate);
        let recording = (OPEN + HALF).as_secs() + 2;
        command.args(["record", "--rate", "99", "--format", "collapsed", "-o"]);
        command.arg(setup.dir.join("record.collapsed"));
        command.args([
            "--seconds",
            &recording.to_string(),
            &script.process.pid().to_string(),
        ]);
        let recorder = Process::spawn(command, &setup.dir.join("record.output"), Signal::INT)?;
        setup.stop.pause(OPEN)?;
        let recorded = span(setup)?;
        drop(recorder);
        halves.push((alone, recorded));
    }
    // What was written a moment ago is there: the script writes after each piece of work.
    let output = std::fs::read_to_string(script.process.output_path()).unwrap_or_default();
    let pieces: Vec<Piece> = output.lines().filter_map(Piece::parse).collect();
    let ratio = |of: fn(&Piece) -> f64| {
        let median = |(from, until): (u64, u64)| {
            let inside = pieces
                .iter()
                .filter(|piece| (from..until).contains(&piece.start_ns));
            Summary::of(inside.map(of)).map(|summary| summary.median)
        };
        let pairs = halves
            .iter()
            .filter_map(|(alone, recorded)| Some(median(*recorded)? / median(*alone)?));
        pairs.collect::<Vec<_>>()
    };
    Ok((ratio(|piece| piece.cpu_ns), ratio(|piece| piece.wall_ns)))
}

/// Begin and end of a while, on the clock of PHP's `hrtime`.
fn span(setup: &Setup<'_>) -> Result<(u64, u64), BenchError> {
    let begin = now_ns();
    setup.stop.pause(HALF)?;
    Ok((begin, now_ns()))
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let [seconds, nanos] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// A line of `chunks.php`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    start_ns: u64,
    cpu_ns: f64,
    wall_ns: f64,
}

impl Piece {
    fn parse(line: &str) -> Option<Piece> {
        let mut fields = line.split(' ');
        Some(Piece {
            start_ns: fields.next()?.parse().ok()?,
            cpu_ns: fields.next()?.parse().ok()?,
            wall_ns: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_three_numbers() {
        let piece = Piece::parse("12 3000 4000").unwrap();
        assert_eq!(
            (piece.start_ns, piece.cpu_ns, piece.wall_ns),
            (12, 3000.0, 4000.0)
        );
        assert_eq!(Piece::parse("ready"), None);
        assert_eq!(Piece::parse("12 3000"), None);
    }
}
