//! What one look costs, by what is looked at and how.

use std::time::{Duration, Instant};

use glasspool_probes::php::check::{Checked, read_checked};
use glasspool_probes::php::held::HeldReader;
use glasspool_probes::stop::with_stopped;
use glasspool_probes::{Arguments, How, Options, Process as Target, Stack, Stop as Hold, read_stack};
use serde::Serialize;

use super::script::Script;
use super::{percentile_us, words};
use crate::BenchError;
use crate::bench::Setup;

/// Frames of the sleeping scripts.
pub const DEPTHS: [usize; 3] = [9, 24, 104];
/// Frames of the running one.
pub const SPINNING: usize = 24;
/// More than any of them has.
const MAX_FRAMES: usize = 128;
/// Longest wait for a script to stop.
const MAX_HOLD: Duration = Duration::from_millis(100);
/// Before each hold, so that the script has been running for a while.
const PAUSE: Duration = Duration::from_millis(1);
/// Looks in each round.
const LOOKS: u32 = 2_000;
/// Looks that hold the script, in each round; they slow it down.
const HOLDS: u32 = 200;

/// One kind of look.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What is looked at, and how.
    pub what: &'static str,
    /// Frames of its stack.
    pub frames: usize,
    /// Looks that were made.
    pub looks: usize,
    /// Least, microseconds.
    pub min_us: f64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// Looks that gave only the outer frames, or none.
    pub partial: usize,
    /// Looks that gave another stack than the script has. There must be none.
    pub wrong: usize,
}

/// What a look gave: whether it is the right stack (`None`: not whole), and the time that counts.
type Look = fn(&Target, usize) -> Result<(Option<bool>, Duration), String>;

/// A kind of look and its name.
#[derive(Debug, Clone, Copy)]
struct Kind {
    what: &'static str,
    look: Look,
    looks: u32,
    /// Before each look.
    pause: Duration,
}

/// The stack of a script that sleeps, read once.
pub const STACK: &str = "asleep, the stack alone";
/// The same with the check that a running script needs.
pub const CHECKED: &str = "asleep, the stack with the check";
/// The same, a struct at a time.
pub const WORDS: &str = "asleep, a struct at a time (phpspy)";
/// A script held for a look.
pub const HELD: &str = "running, held: time it is stopped";

const KINDS: [Kind; 5] = [
    Kind {
        what: STACK,
        looks: LOOKS,
        pause: Duration::ZERO,
        look: |target, frames| {
            let began = Instant::now();
            let stack = read_stack(target.memory(), target.build(), MAX_FRAMES);
            let took = began.elapsed();
            Ok((judged(&stack.map_err(text)?, frames), took))
        },
    },
    Kind {
        what: CHECKED,
        looks: LOOKS,
        pause: Duration::ZERO,
        look: checked,
    },
    Kind {
        what: WORDS,
        looks: LOOKS / 4,
        pause: Duration::ZERO,
        look: |target, frames| {
            let began = Instant::now();
            let stack = words::read(target, MAX_FRAMES);
            let took = began.elapsed();
            let stack = stack.ok_or_else(|| "process_vm_readv failed".to_owned())?;
            let names = stack.iter().map(|frame| match frame.function.as_str() {
                "" => "{main}",
                name => name,
            });
            Ok((Some(stack.len() == frames && is_right(names)), took))
        },
    },
    Kind {
        what: "asleep, and whether it still is",
        looks: LOOKS / 2,
        pause: Duration::ZERO,
        look: |target, frames| sample(target, frames, Arguments::Off),
    },
    Kind {
        what: "the same with types of arguments",
        looks: LOOKS / 2,
        pause: Duration::ZERO,
        look: |target, frames| sample(target, frames, Arguments::Types),
    },
];
const RUNNING: [Kind; 3] = [
    Kind {
        what: "running, the stack with the check",
        looks: LOOKS,
        pause: Duration::ZERO,
        look: checked,
    },
    Kind {
        what: "running, and whether it is",
        looks: LOOKS,
        pause: Duration::ZERO,
        look: |target, frames| sample(target, frames, Arguments::Off),
    },
    Kind {
        what: HELD,
        looks: HOLDS,
        pause: PAUSE,
        look: |target, frames| {
            let reader = HeldReader::new(target.memory(), target.build(), MAX_FRAMES).map_err(text)?;
            let held = with_stopped(target.pid(), MAX_HOLD, |registers| {
                reader.read(target.pid(), registers)
            });
            let (read, stopped) = held.map_err(text)?;
            let stack = read.and_then(|read| read.into_stack());
            Ok((judged(&stack.map_err(text)?, frames), stopped))
        },
    },
];

fn checked(target: &Target, frames: usize) -> Result<(Option<bool>, Duration), String> {
    let began = Instant::now();
    let checked = read_checked(
        target.memory(),
        target.build(),
        MAX_FRAMES,
        Options::default().tries,
    );
    let took = began.elapsed();
    Ok(match checked.map_err(text)? {
        Checked::Stack(stack) => (judged(&stack, frames), took),
        Checked::GaveUp { .. } => (None, took),
    })
}

fn sample(target: &Target, frames: usize, arguments: Arguments) -> Result<(Option<bool>, Duration), String> {
    let options = Options {
        max_frames: MAX_FRAMES,
        stop: Hold::Never,
        arguments,
        ..Options::default()
    };
    let began = Instant::now();
    let sample = target.sample(&options);
    let took = began.elapsed();
    Ok((judged(&sample.map_err(text)?.stack, frames), took))
}

/// Measures all kinds, `setup.rounds` times so many looks, kind after kind in each round.
pub(super) fn measure(setup: &Setup<'_>) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for depth in DEPTHS {
        rows.extend(rows_of(
            setup,
            &Script::deep(setup, depth, "sleep")?,
            &KINDS,
            depth,
        )?);
    }
    let script = Script::deep(setup, SPINNING, "spin")?;
    rows.extend(rows_of(setup, &script, &RUNNING, SPINNING)?);
    Ok(rows)
}

fn rows_of(
    setup: &Setup<'_>,
    script: &Script,
    kinds: &[Kind],
    frames: usize,
) -> Result<Vec<Row>, BenchError> {
    let mut seen = vec![(Vec::new(), 0, 0); kinds.len()];
    // The first round finds the caches cold, of the kernel too, and does not count.
    for round in 0..=setup.rounds {
        for (kind, (times, partial, wrong)) in kinds.iter().zip(&mut seen) {
            let looks = if round == 0 { kind.looks / 10 } else { kind.looks };
            for _ in 0..looks {
                setup.stop.pause(kind.pause)?;
                let look = (kind.look)(&script.target, frames);
                let (right, took) = look.map_err(|error| script.process.fault(error))?;
                match right {
                    _ if round == 0 => {}
                    None => *partial += 1,
                    Some(right) => {
                        *wrong += usize::from(!right);
                        times.push(took);
                    }
                }
            }
        }
    }
    let rows = kinds.iter().zip(seen).map(|(kind, (mut times, partial, wrong))| {
        times.sort_unstable();
        Row {
            what: kind.what,
            frames,
            looks: times.len() + partial,
            min_us: percentile_us(&times, 0),
            p50_us: percentile_us(&times, 50),
            p99_us: percentile_us(&times, 99),
            partial,
            wrong,
        }
    });
    Ok(rows.collect())
}

fn judged(stack: &Stack, frames: usize) -> Option<bool> {
    if matches!(stack.how, How::Partial(_)) {
        return None;
    }
    let names = stack.frames.iter().map(|frame| frame.function.as_str());
    Some(stack.frames.len() == frames && is_right(names))
}

/// `sleep` or nothing, `stay`, `down` again and again, the script.
fn is_right<'a>(names: impl DoubleEndedIterator<Item = &'a str>) -> bool {
    let mut names = names.peekable();
    names.next_if_eq(&"sleep");
    let inner = names.next() == Some("stay");
    let outer = names.next_back() == Some("{main}");
    inner && outer && names.all(|name| name == "down")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
