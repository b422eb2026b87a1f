//! What one look at a PHP process costs the reader, and, where it must be stopped, the process.
//!
//! The reader is called directly, on scripts of known depth: a look is short enough that starting a program for
//! each would measure the start. Scripts that are asleep are read as they are and never notice: once only the
//! stack, once with the proof that they slept all the while and what they wait in. One that runs is read while it
//! runs, and then held for each look. Of a held script the time counts from the request to stop it to its release,
//! as the reader sees it; `crate::slow` sees the same from inside a worker.
//!
//! Every stack is compared with the one that the script is known to have: a cheap look at the wrong thing is none.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::stop::with_stopped;
use glasspool_probes::{
    Access, Arguments, How, Options, Process as Target, Stack, Stop as Hold, Want, read_held, read_stack,
};
use rustix::process::Signal;
use serde::Serialize;

use crate::BenchError;
use crate::bench::Setup;
use crate::process::{Process, find_program};

/// Frames of the sleeping scripts.
const DEPTHS: [usize; 3] = [9, 24, 104];
/// Frames of the running one.
const SPINNING: usize = 24;
/// More than any of them has.
const MAX_FRAMES: usize = 128;
/// Longest wait for a script to stop.
const MAX_HOLD: Duration = Duration::from_millis(100);
/// Looks in each round.
const LOOKS: u32 = 2_000;
/// Looks that hold the script, in each round; they slow it down.
const HOLDS: u32 = 200;
/// Longest wait for a script.
const PATIENCE: Duration = Duration::from_secs(20);
/// The command line's PHP, by its usual names.
const PHP: [&str; 2] = ["php8.2", "php"];

/// One kind of look.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What is looked at, and how.
    pub what: &'static str,
    /// Frames of its stack.
    pub frames: usize,
    /// Looks that were made.
    pub looks: usize,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// Looks that gave only the outer frames.
    pub partial: usize,
    /// Looks that gave another stack than the script has. There must be none.
    pub wrong: usize,
}

/// All kinds.
#[derive(Debug, Clone, Serialize)]
pub struct LookResult {
    /// In the order that they were measured in.
    pub rows: Vec<Row>,
}

/// One look: the stack, and the time that counts.
type Look = fn(&Target) -> Result<(Stack, Duration), String>;

/// A kind of look and its name.
#[derive(Debug, Clone, Copy)]
struct Kind {
    what: &'static str,
    look: Look,
}

const STACK: Kind = Kind {
    what: "asleep, the stack alone",
    look: |target| {
        let began = Instant::now();
        let stack = read_stack(target.memory(), target.build(), MAX_FRAMES);
        let took = began.elapsed();
        Ok((stack.map_err(|error| error.to_string())?, took))
    },
};
const ASLEEP: Kind = Kind {
    what: "asleep, and whether it still is",
    look: |target| sample(target, Arguments::Off),
};
const TYPES: Kind = Kind {
    what: "the same with types of arguments",
    look: |target| sample(target, Arguments::Types),
};
const RUNNING: Kind = Kind {
    what: "running, unstopped",
    look: |target| sample(target, Arguments::Off),
};
const HELD: Kind = Kind {
    what: "running, held: time it is stopped",
    look: |target| {
        let want = Want {
            max_frames: MAX_FRAMES,
            arguments: Arguments::Off,
        };
        let held = with_stopped(target.pid(), MAX_HOLD, |registers| {
            read_held(target.memory(), target.build(), &want, registers)
        });
        let (stack, stopped) = held.map_err(|error| error.to_string())?;
        Ok((stack.map_err(|error| error.to_string())?, stopped))
    },
};

fn sample(target: &Target, arguments: Arguments) -> Result<(Stack, Duration), String> {
    let options = Options {
        max_frames: MAX_FRAMES,
        stop: Hold::Never,
        arguments,
        ..Options::default()
    };
    let began = Instant::now();
    let sample = target.sample(&options);
    let took = began.elapsed();
    Ok((sample.map_err(|error| error.to_string())?.stack, took))
}

/// Measures all kinds, `setup.rounds` times so many looks.
///
/// # Errors
/// No PHP on the command line, a script that does not start or cannot be looked into, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<LookResult, BenchError> {
    let mut rows = Vec::new();
    for depth in DEPTHS {
        let script = Script::start(setup, depth, "sleep")?;
        for kind in [STACK, ASLEEP, TYPES] {
            rows.push(script.row(setup, kind, depth, LOOKS)?);
        }
    }
    let script = Script::start(setup, SPINNING, "spin")?;
    rows.push(script.row(setup, RUNNING, SPINNING, LOOKS)?);
    rows.push(script.row(setup, HELD, SPINNING, HOLDS)?);
    Ok(LookResult { rows })
}

/// A script that is looked at; killed when dropped.
struct Script {
    process: Process,
    target: Target,
}

impl Script {
    fn start(setup: &Setup<'_>, depth: usize, how: &str) -> Result<Script, BenchError> {
        let php = PHP.iter().find_map(|name| find_program(name));
        let php = php.ok_or_else(|| BenchError::Spawn {
            program: PHP.join(" or "),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let mut command = Command::new(php);
        command.args(["-n", "-f"]).arg(setup.scripts.join("deep.php"));
        command.args([depth.to_string().as_str(), how]);
        let output = setup.dir.join(format!("look-{how}-{depth}.output"));
        let process = Process::spawn(command, &output, Signal::KILL)?;
        wait_for(setup, &process, &output, how)?;
        let pid = i32::try_from(process.pid()).map_or(Pid(0), Pid);
        let target =
            Target::open(pid, Access::default()).map_err(|error| process.fault(error.to_string()))?;
        Ok(Script { process, target })
    }

    fn row(&self, setup: &Setup<'_>, kind: Kind, frames: usize, looks: u32) -> Result<Row, BenchError> {
        let mut times = Vec::new();
        let (mut partial, mut wrong) = (0, 0);
        // The first ones find the caches cold, of the kernel too.
        for warm in [false, true] {
            let looks = if warm { looks * setup.rounds } else { looks / 10 };
            for _ in 0..looks {
                setup.stop.check()?;
                let (stack, took) = (kind.look)(&self.target).map_err(|error| self.process.fault(error))?;
                match &stack.how {
                    _ if !warm => {}
                    How::Partial(_) => partial += 1,
                    _ => {
                        wrong += usize::from(!is_right(&stack, frames));
                        times.push(took);
                    }
                }
            }
        }
        times.sort_unstable();
        Ok(Row {
            what: kind.what,
            frames,
            looks: times.len() + partial,
            p50_us: percentile_us(&times, 50),
            p99_us: percentile_us(&times, 99),
            partial,
            wrong,
        })
    }
}

/// Waits until the script has said that it is there, and, if it is to sleep, sleeps.
fn wait_for(setup: &Setup<'_>, process: &Process, output: &Path, how: &str) -> Result<(), BenchError> {
    let began = Instant::now();
    let asleep =
        || std::fs::read_to_string(format!("/proc/{}/wchan", process.pid())).is_ok_and(|name| name != "0");
    while !crate::process::read_text(output).contains("ready") || (how == "sleep" && !asleep()) {
        if began.elapsed() > PATIENCE {
            return Err(process.fault("did not get ready"));
        }
        setup.stop.pause(Duration::from_millis(5))?;
    }
    Ok(())
}

/// `sleep` or nothing, `stay`, `down` again and again, the script.
fn is_right(stack: &Stack, frames: usize) -> bool {
    let mut names = stack
        .frames
        .iter()
        .map(|frame| frame.function.as_str())
        .peekable();
    names.next_if_eq(&"sleep");
    let inner = names.next() == Some("stay");
    let outer = names.next_back() == Some("{main}");
    stack.frames.len() == frames && inner && outer && names.all(|name| name == "down")
}

/// Of sorted times; 0 if there is none.
fn percentile_us(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(
            (percentile_us(&times, 50), percentile_us(&times, 99)),
            (51.0, 100.0)
        );
        assert_eq!(
            (percentile_us(&times[..1], 99), percentile_us(&[], 50)),
            (1.0, 0.0)
        );
    }
}
