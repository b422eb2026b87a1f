//! `glasspool waits`: which lines of PHP wait, for what, and how long.
//!
//! The kernel tells each wait as it ends ([`glasspool_waits`]); here they are added up and
//! shown. Start reading at [`run_waits`]; `tally`, for the table, and `stacks` are pure.

mod stacks;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::{Access, OpenError, Process};
use glasspool_waits::times::State;
use glasspool_waits::{Settings, SlotIndex, Wait, Waits, WorkerId};

use super::args::{WaitsArguments, WaitsFormat};
use super::console::Console;
use super::crew::chain;
use super::record::{Output, Stop, draw_flamegraph, empty, open};
use super::targets::{Processes, Selector};
use stacks::Stacks;
use tally::Tally;

/// Processes that can be watched: those that are found, and as many that come later.
const ROOM: usize = 64;
/// Time from one look at the ring to the next; it wakes nobody before a quarter is full.
const TURN: Duration = Duration::from_millis(100);
/// From one table to the next on a terminal.
const REDRAW: Duration = Duration::from_secs(1);
/// How often new workers are looked for: it costs a look at every process of the machine.
const REFRESH: Duration = Duration::from_secs(2);
/// Records of one turn.
const MOST: usize = 4096;
/// What is kept of a stack for the table: the innermost frames, of which one line is shown.
const FRAMES: u32 = 12;
/// The same for whole stacks: all that the programs can.
const ALL_FRAMES: u32 = 32;

/// Watches for as long as was asked for, and tells where the time went.
pub fn run_waits(arguments: &WaitsArguments, console: &mut Console<'_>) -> ExitCode {
    let table = arguments.format == WaitsFormat::Table;
    if arguments.output.is_none() && console.out_is_terminal && arguments.format == WaitsFormat::Flamegraph {
        console.complain("a picture is nothing for a terminal: give a file with -o FILE");
        return ExitCode::from(super::USAGE);
    }
    let output = match open(arguments.output.as_deref()) {
        Ok(output) => output,
        Err(message) => {
            console.complain(message);
            return ExitCode::from(super::INCOMPLETE);
        }
    };
    let processes = Processes::here();
    let (found, errors) = processes.find(&arguments.targets);
    for error in &errors {
        console.complain(chain(error));
    }
    let slots = u32::try_from(found.len() * 2 + ROOM).unwrap_or(u32::MAX);
    let loaded = Waits::load(&Settings {
        slots,
        frames: if table { FRAMES } else { ALL_FRAMES },
        ..Settings::default()
    });
    let mut watch = match loaded {
        Ok(waits) => Watch::new(waits, arguments, output),
        Err(reason) => {
            console.complain(format_args!("cannot watch waits: {reason}"));
            return ExitCode::from(super::INCOMPLETE);
        }
    };
    let mut problems = watch.add(&processes, &arguments.targets);
    for problem in &problems {
        console.complain(problem);
    }
    problems.extend(errors.iter().map(chain));
    if watch.watched.is_empty() {
        if problems.is_empty() {
            console.complain("no process runs PHP, as far as can be seen from here");
        }
        return ExitCode::from(super::INCOMPLETE);
    }
    let time = Duration::from_secs(u64::from(arguments.seconds));
    match watch.run(&processes, &arguments.targets, time, console) {
        Ok(true) if problems.is_empty() => ExitCode::from(super::DONE),
        Ok(_) => ExitCode::from(super::INCOMPLETE),
        Err(e) => {
            console.complain(format_args!("cannot show the waits: {e}"));
            ExitCode::from(super::INCOMPLETE)
        }
    }
}

/// The programs, whom they watch, and what they told.
struct Watch {
    waits: Waits,
    watched: BTreeMap<Pid, Watched>,
    /// Not tried again: they were refused or are no PHP.
    refused: BTreeSet<Pid>,
    /// The next worker's number, and its slot: none is used twice.
    next: u32,
    kept: Kept,
    output: Output,
}

struct Watched {
    process: Process,
    slot: SlotIndex,
}

/// What is kept of the waits.
enum Kept {
    Table(Tally),
    Stacks {
        stacks: Stacks,
        format: WaitsFormat,
        /// The pools of the workers, by number; `php` of one that belongs to none.
        groups: Vec<String>,
        title: String,
    },
}

impl Kept {
    fn add(&mut self, wait: &Wait, blocked: Duration) {
        match self {
            Kept::Table(tally) => tally.add(wait, blocked),
            Kept::Stacks { stacks, groups, .. } => {
                let number = usize::try_from(wait.worker.0).unwrap_or(usize::MAX);
                stacks.add(groups.get(number).map_or("php", String::as_str), wait, blocked);
            }
        }
    }
}

impl Watch {
    fn new(waits: Waits, arguments: &WaitsArguments, output: Output) -> Watch {
        let kept = match arguments.format {
            WaitsFormat::Table => Kept::Table(Tally::default()),
            format => {
                let targets: Vec<_> = arguments.targets.iter().map(ToString::to_string).collect();
                Kept::Stacks {
                    stacks: Stacks::default(),
                    format,
                    groups: Vec::new(),
                    title: super::console::plain(&targets.join(", ")),
                }
            }
        };
        Watch {
            waits,
            watched: BTreeMap::new(),
            refused: BTreeSet::new(),
            next: 0,
            kept,
            output,
        }
    }

    /// Watches those that are meant and are not watched yet. Returns what could not be,
    /// each only once.
    fn add(&mut self, processes: &Processes, selectors: &[Selector]) -> Vec<String> {
        let mut problems = Vec::new();
        self.watched.retain(|_, watched| watched.process.is_alive());
        for found in processes.find(selectors).0 {
            let pid = found.pid;
            if self.watched.contains_key(&pid) || self.refused.contains(&pid) {
                continue;
            }
            let process = match Process::open(pid, Access::default()) {
                Ok(process) => process,
                Err(OpenError::Gone { .. } | OpenError::NotPhp { .. }) if !found.asked_for => {
                    self.refused.insert(pid);
                    continue;
                }
                Err(error) => {
                    self.refused.insert(pid);
                    problems.push(chain(&error));
                    continue;
                }
            };
            let slot = SlotIndex(self.next);
            let worker = WorkerId(u64::from(self.next));
            match self
                .waits
                .register(process.pidfd(), worker, slot, Some(process.build()))
            {
                Ok(()) => {
                    self.next += 1;
                    if let Kept::Stacks { groups, .. } = &mut self.kept {
                        groups.push(found.pool.unwrap_or_else(|| "php".to_owned()));
                    }
                    self.watched.insert(pid, Watched { process, slot });
                }
                Err(error) => {
                    self.refused.insert(pid);
                    problems.push(chain(&error));
                }
            }
        }
        problems
    }

    fn run(
        &mut self,
        processes: &Processes,
        selectors: &[Selector],
        time: Duration,
        console: &mut Console<'_>,
    ) -> io::Result<bool> {
        if matches!(self.kept, Kept::Stacks { .. }) {
            // Loading the programs takes a second or two.
            let count = self.watched.len();
            let processes = if count == 1 { "process" } else { "processes" };
            console.complain(format_args!(
                "watching {count} {processes} for {} s",
                time.as_secs()
            ));
        }
        let stop = Stop::on_signals()?;
        let began = Instant::now();
        let (mut drawn, mut refreshed) = (began, began);
        loop {
            self.turn();
            let now = Instant::now();
            let left = (began + time).saturating_duration_since(now);
            if left.is_zero() || stop.wait(TURN.min(left))? {
                break;
            }
            if now.duration_since(refreshed) >= REFRESH {
                refreshed = now;
                // Refusals were told at the start; later ones come with new processes.
                for problem in self.add(processes, selectors) {
                    console.complain(problem);
                }
            }
            if console.out_is_screen
                && now.duration_since(drawn) >= REDRAW
                && let (Kept::Table(tally), Output::Console) = (&self.kept, &self.output)
            {
                drawn = now;
                let table = tally.table(now.duration_since(began), self.watched.len());
                // Home, and clear what is below (ECMA-48).
                console.result(format!("\x1b[H\x1b[J{table}").as_bytes())?;
            }
        }
        self.turn();
        let silent = self.add_going_on();
        let mut remarks = String::new();
        if silent > 0 {
            writeln!(
                remarks,
                "{silent} of them did not run at all meanwhile: what they wait for began before (glasspool dump shows it)"
            )
            .unwrap_or_default();
        }
        let lost = self.waits.lost();
        if lost > 0 {
            writeln!(
                remarks,
                "{lost} waits are missing: they came faster than they could be read"
            )
            .unwrap_or_default();
        }
        self.show(began.elapsed(), remarks, console)
    }

    /// Writes what there is, and says whether there is anything; remarks into the table, or beside
    /// what programs read.
    fn show(&mut self, took: Duration, remarks: String, console: &mut Console<'_>) -> io::Result<bool> {
        let mut bytes = Vec::new();
        match &self.kept {
            Kept::Table(tally) => {
                if console.out_is_screen && matches!(self.output, Output::Console) {
                    bytes.extend(b"\x1b[H\x1b[J");
                }
                bytes.extend(tally.table(took, self.watched.len()).bytes());
                bytes.extend(remarks.bytes());
            }
            Kept::Stacks {
                stacks,
                format,
                title,
                ..
            } => {
                for remark in remarks.lines() {
                    console.complain(remark);
                }
                let lines = stacks.lines();
                if lines.is_empty() {
                    console.complain(
                        "nothing to write: no wait of a millisecond or longer in PHP began while it was watched",
                    );
                    return Ok(false);
                }
                if *format == WaitsFormat::Flamegraph {
                    let title = format!("{title}: {:.0} s", took.as_secs_f64());
                    let subtitle = "time off a CPU, in waits of a millisecond and longer; [..] is what for";
                    draw_flamegraph(&lines, &title, subtitle, "us", &mut bytes)?;
                } else {
                    bytes.extend(lines.iter().flat_map(|line| line.bytes().chain(*b"\n")));
                }
            }
        }
        match &mut self.output {
            Output::Console => console.result(&bytes),
            Output::File(file) => empty(file).and_then(|()| file.write_all(&bytes)),
        }?;
        Ok(true)
    }

    fn turn(&mut self) {
        let Watch { waits, kept, .. } = self;
        while waits
            .drain(MOST, |wait| {
                if let Some(blocked) = wait.blocked {
                    kept.add(&wait, blocked);
                }
            })
            .more
        {}
    }

    /// Adds the waits that go on. Returns of how many processes nothing is known, because
    /// they have slept all the while.
    fn add_going_on(&mut self) -> usize {
        let mut silent = 0;
        for watched in self.watched.values() {
            let Some(times) = self.waits.times(watched.slot) else {
                continue;
            };
            if times.state == State::Unknown && watched.process.is_alive() {
                silent += 1;
            }
            let wait = self.waits.going_on(watched.process.pidfd());
            if let Some(wait) = wait.filter(|wait| !wait.frames.is_empty()) {
                let so_far = Duration::from_nanos(times.at_ns.saturating_sub(wait.began_ns));
                self.kept.add(&wait, so_far);
            }
        }
        silent
    }
}
