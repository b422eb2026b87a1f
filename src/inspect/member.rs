//! One process, open to be looked at.

use std::fs;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::native::{Modules, NativeStack, Seams, StackCopy, Unwinder, weave};
use glasspool_probes::process::{self, RunCounters};
use glasspool_probes::wait::Blocked;
use glasspool_probes::{Access, Arguments, OpenError, Options, Process, Sample, SampleError, Stop};
use rustix::time::{ClockId, clock_gettime};

use super::crew::{Trouble, Want, chain};
use super::look::{self, Request, Seen, State, Waiting};
use super::targets::Found;

/// Unstopped reads of a running process before only its outer frames are taken: half a
/// millisecond, after which fewer than one in 500 have failed even in the worst script.
const TRIES: u32 = 50;

/// A process that wakes and sleeps again while one looks is asked so often what it waits
/// in.
const STILL_TRIES: u32 = 3;

/// How exact the start of a process is told.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// A process, and what was seen of it last.
#[derive(Debug)]
pub(super) struct Member {
    found: Found,
    process: Process,
    /// When the process started, time since boot.
    started: Option<Duration>,
    unwinder: Unwinder,
    last: Option<Still>,
}

/// A look at a process that slept. As long as it has not run since, it needs no other:
/// that makes the many workers that are idle or blocked cost next to nothing.
#[derive(Debug)]
struct Still {
    counters: RunCounters,
    seen: Seen,
    at: Instant,
}

/// What a look gave, all of one moment where the process slept.
struct Looked {
    sample: Sample,
    wait: Option<Waiting>,
    native: Option<NativeStack>,
}

impl Member {
    /// Opens it: 5 to 40 ms for the first process of a binary, below a millisecond for
    /// others.
    pub(super) fn open(found: Found) -> Result<Member, OpenError> {
        let pid = found.pid;
        Ok(Member {
            process: Process::open(pid, Access::default())?,
            found,
            started: started(pid),
            unwinder: Unwinder::new(pid),
            last: None,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// The last look, if the process has not run since; a new one otherwise.
    pub(super) fn look_again(&mut self, want: Want, modules: &mut Modules) -> Result<Seen, Trouble> {
        let before = self.counters_asleep();
        if let Some(still) = self.last.as_ref().filter(|still| Some(still.counters) == before) {
            return Ok(still.now());
        }
        self.last = None;
        let seen = self.look(want, modules)?;
        // One that woke in between may have gone on while its stack was read.
        if let Some(counters) = before.filter(|_| seen.wait.is_some() && self.counters_asleep() == before) {
            self.last = Some(Still {
                counters,
                seen: seen.clone(),
                at: Instant::now(),
            });
        }
        Ok(seen)
    }

    /// How much it has run; `None` if it is not asleep. Neither file needs any right, and
    /// a process that is put on a CPU has other counters for good.
    fn counters_asleep(&self) -> Option<RunCounters> {
        let counters = process::run_counters(self.found.pid);
        let state = process::state(self.found.pid)?;
        counters.filter(|_| state.is_still())
    }

    /// A new look, whatever is known.
    pub(super) fn look(&mut self, want: Want, modules: &mut Modules) -> Result<Seen, Trouble> {
        let Looked { sample, wait, native } = self.sample(want, modules)?;
        let (lines, native) = match native {
            Some(native) => look::woven(&weave(&sample.stack, &native)),
            None => (
                sample.stack.frames.iter().map(look::Line::from).collect(),
                Vec::new(),
            ),
        };
        let mut seen = Seen {
            pid: self.found.pid,
            pool: self.found.pool.clone(),
            php: self.process.build().version.clone(),
            request: None,
            age: None,
            lines,
            cut: sample.stack.cut,
            doubt: look::doubt(&sample.stack.how),
            wait,
            native,
        };
        if want.request && seen.state() != State::Idle {
            self.add_request(&mut seen);
        }
        Ok(seen)
    }

    /// A stack, and what the process waits in with it. They belong together if it has
    /// been blocked in one wait all the while.
    fn sample(&mut self, want: Want, modules: &mut Modules) -> Result<Looked, Trouble> {
        let options = Options {
            max_frames: want.frames,
            tries: TRIES,
            stop: Stop::Never,
            arguments: if want.types {
                Arguments::Types
            } else {
                Arguments::Off
            },
        };
        let mut tries = STILL_TRIES;
        loop {
            let blocked = Blocked::read(self.found.pid);
            let sample = self.process.sample(&options).map_err(|error| match error {
                SampleError::Gone { pid } => Trouble::Gone { pid },
                error => Trouble::Failed(chain(&error)),
            })?;
            let mut looked = Looked {
                sample,
                wait: None,
                native: None,
            };
            if looked.sample.wait.is_none() {
                return Ok(looked);
            }
            if let Some(blocked) = blocked {
                if want.native {
                    looked.native = self.native(&looked.sample, &blocked, modules);
                }
                let innermost = looked.native.as_ref().and_then(NativeStack::innermost);
                let mut wait = blocked.wait(self.process.memory(), innermost);
                wait.so_far = blocked.asleep_for().filter(|asleep| self.may_be(*asleep));
                if blocked.is_unchanged() {
                    looked.wait = Some(Waiting::from(&wait));
                    return Ok(looked);
                }
            }
            tries -= 1;
            if tries == 0 {
                looked.wait = Some(Waiting::briefly());
                looked.native = None;
                return Ok(looked);
            }
        }
    }

    /// Whether the process is old enough to have slept so long. The clocks of two CPUs can
    /// be hours apart on a virtual machine, and the answer is then no time at all.
    fn may_be(&self, asleep: Duration) -> bool {
        let started = self.started.unwrap_or_default();
        asleep <= since_boot().saturating_sub(started) + CLOCK_TICK
    }

    /// The C functions of a blocked process. `None` if the kernel does not tell where it
    /// is; then PHP's frames are shown without.
    fn native(&mut self, sample: &Sample, blocked: &Blocked, modules: &mut Modules) -> Option<NativeStack> {
        let memory = self.process.memory();
        let copy = StackCopy::read(memory, blocked.position().ok()?).ok()?;
        let seams = Seams::read(memory, &self.process.build().layout, &sample.stack).ok()?;
        Some(self.unwinder.unwind(modules, memory, &copy, seams))
    }

    fn add_request(&self, seen: &mut Seen) {
        let request = self.process.request();
        seen.request = request
            .as_ref()
            .filter(|request| !request.stale)
            .and_then(|request| {
                Some((
                    request.method.as_deref().unwrap_or_default(),
                    request.uri.as_deref()?,
                ))
            })
            .map(|(method, uri)| Request::new(method, uri));
        // Of a script on the command line the process is the request.
        if seen.request.is_none() && seen.pool.is_none() {
            seen.age = self.started.and_then(|started| since_boot().checked_sub(started));
        }
    }
}

impl Still {
    /// The same look, so much later.
    fn now(&self) -> Seen {
        let later = self.at.elapsed();
        let mut seen = self.seen.clone();
        seen.age = seen.age.map(|age| age + later);
        if let Some(wait) = &mut seen.wait {
            wait.since = wait.since.map(|since| since + later);
        }
        seen
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// When a process started, time since boot (`starttime` of proc_pid_stat(5)).
fn started(pid: Pid) -> Option<Duration> {
    parse_started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd field; the second, a name, may hold spaces and parentheses, the third is the
/// first after the last parenthesis.
fn parse_started(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let millis = ticks.checked_mul(1000)? / per_second;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_the_22nd_field_whatever_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 1 0 4242 9 8 7";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(
            parse_started(stat),
            Some(Duration::from_millis(4242 * 1000 / ticks))
        );
        assert_eq!(parse_started("7 (a) S 1"), None);
        let own = Pid(i32::try_from(std::process::id()).unwrap());
        assert!(started(own).unwrap() <= since_boot());
    }
}
