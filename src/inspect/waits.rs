//! `glasspool waits`: which lines of PHP wait, for what, and how long.
//!
//! The kernel tells each wait as it ends ([`glasspool_waits`]); here they are added up and
//! shown. Start reading at [`run_waits`]; `Tally` is pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::{Access, OpenError, Process};
use glasspool_waits::record::Kind;
use glasspool_waits::times::State;
use glasspool_waits::{Cause, Settings, SlotIndex, Wait, Waits, WorkerId};

use super::args::WaitsArguments;
use super::console::{Console, plain};
use super::crew::chain;
use super::record::Stop;
use super::targets::{Processes, Selector};

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
/// Different places that are kept. A program has some hundred lines that wait.
const MOST_PLACES: usize = 10_000;
/// Lines of the table.
const LINES: usize = 30;
/// What is kept of a stack: the innermost frames, of which one line is shown.
const FRAMES: u32 = 12;

/// Watches for as long as was asked for, and tells where the time went.
pub fn run_waits(arguments: &WaitsArguments, console: &mut Console<'_>) -> ExitCode {
    let processes = Processes::here();
    let (found, errors) = processes.find(&arguments.targets);
    for error in &errors {
        console.complain(chain(error));
    }
    let slots = u32::try_from(found.len() * 2 + ROOM).unwrap_or(u32::MAX);
    let loaded = Waits::load(&Settings {
        slots,
        frames: FRAMES,
        ..Settings::default()
    });
    let mut watch = match loaded {
        Ok(waits) => Watch::new(waits),
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
        Ok(()) if problems.is_empty() => ExitCode::from(super::DONE),
        Ok(()) => ExitCode::from(super::INCOMPLETE),
        Err(e) => {
            console.complain(format_args!("cannot show the waits: {e}"));
            ExitCode::from(super::INCOMPLETE)
        }
    }
}

/// The programs, and whom they watch.
struct Watch {
    waits: Waits,
    watched: BTreeMap<Pid, Watched>,
    /// Not tried again: they were refused or are no PHP.
    refused: BTreeSet<Pid>,
    /// The next worker's number, and its slot: none is used twice.
    next: u32,
    tally: Tally,
}

struct Watched {
    process: Process,
    slot: SlotIndex,
}

impl Watch {
    fn new(waits: Waits) -> Watch {
        Watch {
            waits,
            watched: BTreeMap::new(),
            refused: BTreeSet::new(),
            next: 0,
            tally: Tally::default(),
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
    ) -> io::Result<()> {
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
            if console.out_is_terminal && now.duration_since(drawn) >= REDRAW {
                drawn = now;
                let table = self.tally.table(now.duration_since(began), self.watched.len());
                // Home, and clear what is below (ECMA-48).
                console.result(format!("\x1b[H\x1b[J{table}").as_bytes())?;
            }
        }
        self.turn();
        let silent = self.add_going_on();
        let mut text = self.tally.table(began.elapsed(), self.watched.len());
        if silent > 0 {
            writeln!(
                text,
                "{silent} of them did not run at all meanwhile: what they wait for began before (glasspool dump shows it)"
            )
            .unwrap_or_default();
        }
        let lost = self.waits.lost();
        if lost > 0 {
            writeln!(
                text,
                "{lost} waits are missing: they came faster than they could be read"
            )
            .unwrap_or_default();
        }
        if console.out_is_terminal {
            text.insert_str(0, "\x1b[H\x1b[J");
        }
        console.result(text.as_bytes())
    }

    fn turn(&mut self) {
        let Watch { waits, tally, .. } = self;
        while waits
            .drain(MOST, |wait| {
                if let Some(blocked) = wait.blocked {
                    tally.add(&wait, blocked);
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
                self.tally.add(&wait, so_far);
            }
        }
        silent
    }
}

/// What waits are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    cause: Cause,
    /// The peer, or the file.
    with: String,
    /// The builtin, and the line that called it.
    whence: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    waits: u64,
    total: Duration,
    longest: Duration,
}

/// Waits added up by place.
#[derive(Debug, Default)]
struct Tally {
    places: HashMap<Place, Sum>,
    /// Of places beyond [`MOST_PLACES`].
    others: u64,
}

impl Tally {
    fn add(&mut self, wait: &Wait, blocked: Duration) {
        let place = Place {
            cause: wait.cause,
            with: with(wait),
            whence: whence(wait),
        };
        if self.places.len() >= MOST_PLACES && !self.places.contains_key(&place) {
            self.others += 1;
            return;
        }
        let sum = self.places.entry(place).or_default();
        sum.waits += 1;
        sum.total += blocked;
        sum.longest = sum.longest.max(blocked);
    }

    /// The places with the most time first.
    fn table(&self, time: Duration, processes: usize) -> String {
        let total: Duration = self.places.values().map(|sum| sum.total).sum();
        let mut text = format!(
            "{processes} {}, {:.1} s: {:.1} s blocked in PHP, in waits of a millisecond and longer\n",
            if processes == 1 { "process" } else { "processes" },
            time.as_secs_f64(),
            total.as_secs_f64()
        );
        if self.places.is_empty() {
            return text;
        }
        let mut rows: Vec<_> = self.places.iter().collect();
        rows.sort_by(|(place, sum), (other, its)| its.total.cmp(&sum.total).then_with(|| place.cmp(other)));
        let mut cells =
            vec![["BLOCKED", "SHARE", "WAITS", "LONGEST", "CAUSE", "WITH", "WHERE"].map(str::to_owned)];
        cells.extend(rows.iter().take(LINES).map(|(place, sum)| {
            let share = sum.total.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
            [
                seconds(sum.total),
                format!("{:.0} %", share * 100.0),
                sum.waits.to_string(),
                seconds(sum.longest),
                place.cause.to_string(),
                if place.with.is_empty() {
                    "-".to_owned()
                } else {
                    place.with.clone()
                },
                place.whence.clone(),
            ]
        }));
        for row in &cells {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = cells
                    .iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0);
                write!(line, "{cell:<width$}  ").unwrap_or_default();
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if rows.len() > LINES {
            writeln!(text, "and {} more places", rows.len() - LINES).unwrap_or_default();
        }
        if self.others > 0 {
            writeln!(text, "{} waits at further places were not kept", self.others).unwrap_or_default();
        }
        text
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn with(wait: &Wait) -> String {
    let text = match wait.descriptor.as_ref().map(|descriptor| &descriptor.kind) {
        Some(Kind::Socket { peer: Some(peer), .. }) => peer.to_string(),
        Some(Kind::File { name, .. }) => name.clone(),
        _ => String::new(),
    };
    plain(&text)
}

fn whence(wait: &Wait) -> String {
    let (builtin, caller) = wait.place();
    let mut parts = Vec::new();
    if let Some(builtin) = builtin {
        parts.push(format!("{}()", builtin.name()));
    }
    if let Some(caller) = caller {
        let file = caller.file.as_deref().unwrap_or_default();
        let file = Path::new(file)
            .file_name()
            .map_or(file.into(), |name| name.to_string_lossy());
        let mark = if caller.line_exact { "" } else { "~" };
        let line = caller.line.unwrap_or(0);
        parts.push(format!("{}() {file}:{mark}{line}", caller.name()).replace("}()", "}"));
    }
    if parts.is_empty() {
        parts.push("outside of PHP code".to_owned());
    }
    plain(&parts.join(" < "))
}

#[cfg(test)]
mod tests {
    use glasspool_waits::{Address, Descriptor, Frame};

    use super::*;

    fn wait(cause: Cause, peer: Option<&str>, line: u32) -> Wait {
        let frame = |name: &str, line: Option<u32>| Frame {
            class: None,
            function: name.to_owned(),
            file: line.map(|_| "/srv/app/Repo.php".to_owned()),
            line,
            line_exact: line.is_some(),
            internal: line.is_none(),
        };
        Wait {
            worker: WorkerId(1),
            slot: SlotIndex(1),
            request: 0,
            began_ns: 0,
            blocked: None,
            runqueue: Duration::ZERO,
            cause,
            call: None,
            descriptor: peer.map(|peer| Descriptor {
                number: 4,
                kind: Kind::Socket {
                    peer: Some(Address::Ip(peer.parse().unwrap())),
                    protocol: 6,
                    tcp: None,
                },
            }),
            futex: None,
            io_wait: false,
            frames: vec![
                frame("mysqli_query", None),
                frame("find", Some(line)),
                frame("{main}", Some(3)),
            ],
            cut: false,
            fault: false,
        }
    }

    #[test]
    fn places_are_added_up_and_the_longest_comes_first() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        tally.add(&wait(Cause::Sleep, None, 7), ms(300));
        tally.add(&wait(Cause::Network, Some("10.0.3.7:3306"), 42), ms(400));
        tally.add(&wait(Cause::Network, Some("10.0.3.7:3306"), 42), ms(800));
        let expected = "\
2 processes, 10.0 s: 1.5 s blocked in PHP, in waits of a millisecond and longer
BLOCKED   SHARE  WAITS  LONGEST   CAUSE    WITH           WHERE
1.20 s    80 %   2      800.0 ms  network  10.0.3.7:3306  mysqli_query() < find() Repo.php:42
300.0 ms  20 %   1      300.0 ms  sleep    -              mysqli_query() < find() Repo.php:7
";
        assert_eq!(tally.table(Duration::from_secs(10), 2), expected);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut tally = Tally::default();
        for line in 0..u32::try_from(MOST_PLACES).unwrap() + 5 {
            tally.add(&wait(Cause::Sleep, None, line), Duration::from_millis(1));
        }
        assert_eq!((tally.places.len(), tally.others), (MOST_PLACES, 5));
        let table = tally.table(Duration::from_secs(1), 1);
        assert!(
            table.contains("and 9970 more places\n5 waits at further places were not kept"),
            "{table}"
        );
        assert_eq!(
            Tally::default().table(Duration::from_secs(1), 1).lines().count(),
            1
        );
    }
}
