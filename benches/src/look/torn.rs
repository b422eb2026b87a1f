//! Whether an unstopped look is ever wrong, on a script made to make it so: `chains.php` enters and leaves two deep
//! chains of calls as fast as PHP can. Each function, each caller and each line of it is known, so every stack is
//! judged, not a sample of them.

use std::time::Instant;

use glasspool_probes::php::check::{Checked, read_checked};
use glasspool_probes::{Kind, Stack};
use serde::Serialize;

use super::percentile_us;
use super::script::Script;
use crate::BenchError;
use crate::bench::Setup;

/// Reads of each look, after which it is given up: about 2 ms. While the script is on a CPU none of them can pass,
/// so what counts is not their number but whether the script loses its CPU meanwhile.
const TRIES: u32 = 400;
/// More than the script has.
const MAX_FRAMES: usize = 64;
/// Looks between two questions whether to go on.
const CHUNK: u64 = 1_000;
/// Wrong stacks that are shown.
const SHOWN: usize = 3;
/// Line of `a0` and of its caller; of `b0` and of its.
const CHAINS: [(&str, u32, u32); 2] = [("a", 5, 50), ("b", 27, 51)];

/// One script, looked at many times.
#[derive(Debug, Clone, Serialize)]
pub struct TornRun {
    /// With which PHP.
    pub what: &'static str,
    /// Looks.
    pub traces: u64,
    /// Those that gave a stack that the script cannot have. There must be none.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Vec<String>,
    /// Looks that gave no stack.
    pub given_up: u64,
    /// Reads that were made, over all looks that gave a stack.
    pub tries: u64,
    /// Median of all looks, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// The deepest stack that was seen: that the judge saw whole chains.
    pub deepest: usize,
}

/// Without opcache and with it.
#[derive(Debug, Clone, Serialize)]
pub struct TornResult {
    /// In that order.
    pub runs: Vec<TornRun>,
}

impl TornResult {
    /// Over all runs: looks, wrong ones, given up.
    pub fn totals(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&TornRun) -> u64| self.runs.iter().map(of).sum();
        (
            sum(|run| run.traces),
            sum(|run| run.wrong),
            sum(|run| run.given_up),
        )
    }
}

/// Looks `setup.traces` times at the script without opcache, and as often with it.
///
/// # Errors
/// The script does not start or cannot be looked into, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<TornResult, BenchError> {
    let opcache = [
        "-d",
        "zend_extension=opcache",
        "-d",
        "opcache.enable_cli=1",
        "-d",
        "opcache.jit=off",
    ];
    let runs = [
        run(setup, "without opcache", &[])?,
        run(setup, "with opcache", &opcache)?,
    ];
    Ok(TornResult { runs: runs.into() })
}

fn run(setup: &Setup<'_>, what: &'static str, options: &[&str]) -> Result<TornRun, BenchError> {
    let script = Script::start(setup, options, "chains.php", &[], false)?;
    let target = &script.target;
    let mut run = TornRun {
        what,
        traces: 0,
        wrong: 0,
        first_wrong: Vec::new(),
        given_up: 0,
        tries: 0,
        p50_us: 0.0,
        p99_us: 0.0,
        deepest: 0,
    };
    let mut times = Vec::new();
    while run.traces < setup.traces {
        if run.traces.is_multiple_of(CHUNK) {
            setup.stop.check()?;
        }
        run.traces += 1;
        let began = Instant::now();
        let checked = read_checked(target.memory(), target.build(), MAX_FRAMES, TRIES);
        times.push(began.elapsed());
        match checked.map_err(|error| script.process.fault(error.to_string()))? {
            Checked::GaveUp { .. } => run.given_up += 1,
            Checked::Stack(stack) => {
                run.deepest = run.deepest.max(stack.frames.len());
                if let glasspool_probes::How::Checked { tries } = stack.how {
                    run.tries += u64::from(tries);
                }
                if let Err(why) = judge(&stack) {
                    run.wrong += 1;
                    if run.first_wrong.len() < SHOWN {
                        run.first_wrong.push(why);
                    }
                }
            }
        }
    }
    times.sort_unstable();
    (run.p50_us, run.p99_us) = (percentile_us(&times, 50), percentile_us(&times, 99));
    Ok(run)
}

/// What is wrong with a stack of the script, if anything.
fn judge(stack: &Stack) -> Result<(), String> {
    let wrong = |why: &str| {
        let frames = stack.frames.iter().map(|frame| match frame.line {
            Some(line) => format!("{}:{line}", frame.function),
            None => frame.function.clone(),
        });
        Err(format!("{why}: {}", frames.collect::<Vec<_>>().join(" < ")))
    };
    let Some((main, calls)) = stack.frames.split_last() else {
        return wrong("empty");
    };
    if main.kind != Kind::Main {
        return wrong("does not end in the script");
    }
    let Some(outermost) = calls.last() else {
        return Ok(());
    };
    let chain = CHAINS
        .iter()
        .find(|(name, ..)| outermost.function == format!("{name}0"));
    let Some((name, first_line, caller)) = chain else {
        return wrong("the script calls another function");
    };
    if main.line != Some(*caller) {
        return wrong("the script calls from another line");
    }
    for (line, (depth, frame)) in (*first_line..).zip(calls.iter().rev().enumerate()) {
        if frame.function != format!("{name}{depth}") || frame.class.is_some() {
            return wrong("another function");
        }
        // Also the innermost one, guess or not: each function is on one line.
        if frame.line != Some(line) {
            return wrong("another line");
        }
        if depth + 1 < calls.len() && !frame.line_exact {
            return wrong("the line of a caller is a guess");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use glasspool_probes::{Frame, How, TargetAddr};

    use super::*;

    fn frame(kind: Kind, function: &str, line: u32) -> Frame {
        Frame {
            addr: TargetAddr(8),
            kind,
            function: function.to_owned(),
            class: None,
            on_object: false,
            file: Some("chains.php".to_owned()),
            line: Some(line),
            line_exact: true,
            internal: false,
            handler: None,
            arguments: None,
        }
    }

    fn judged(calls: &[(&str, u32)], main: u32) -> Result<(), String> {
        let calls = calls
            .iter()
            .map(|(name, line)| frame(Kind::Function, name, *line));
        judge(&Stack {
            frames: calls.chain([frame(Kind::Main, "{main}", main)]).collect(),
            cut: false,
            how: How::Checked { tries: 1 },
        })
    }

    #[test]
    fn the_judge_knows_the_script() {
        let text = include_str!("../../php/chains.php");
        let line = |wanted: &str| {
            text.lines()
                .position(|line| line.contains(wanted))
                .map_or(0, |at| at + 1)
        };
        assert_eq!((line("function a0("), line("function b0(")), (5, 27));
        assert_eq!((line("{ a0(1);"), line(" b0(1);")), (50, 51));
    }

    #[test]
    fn right_stacks_pass_and_each_kind_of_mixture_fails() {
        for (calls, main) in [
            (&[][..], 50),
            (&[("a0", 5)][..], 50),
            (&[("a2", 7), ("a1", 6), ("a0", 5)][..], 50),
            (&[("b1", 28), ("b0", 27)][..], 51),
        ] {
            assert_eq!(judged(calls, main), Ok(()));
        }
        for (calls, main) in [
            (&[("a0", 5)][..], 51),
            (&[("b1", 28), ("a0", 5)][..], 50),
            (&[("a2", 7), ("a0", 5)][..], 50),
            (&[("a1", 6)][..], 50),
            (&[("a1", 5), ("a0", 5)][..], 50),
        ] {
            assert!(judged(calls, main).is_err(), "{calls:?}");
        }
    }
}
