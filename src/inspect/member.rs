//! One process, open to be looked at.

use std::time::{Duration, Instant};

use glasspool_probes::native::{Modules, Natives, Unwinder, weave};
use glasspool_probes::process::{self, RunCounters};
use glasspool_probes::{Access, Arguments, OpenError, Options, Process, Sample, SampleError, Stop};

use super::crew::{Fate, Trouble, Want, chain};
use super::look::{self, Request, Seen, State, Waiting};
use super::targets::Found;

/// Unstopped reads of a running process before only its outer frames are taken: half a
/// millisecond, after which fewer than one in 500 have failed even in the worst script.
const TRIES: u32 = 50;

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

impl Member {
    /// Opens it: 5 to 40 ms for the first process of a binary, below a millisecond for
    /// others.
    pub(super) fn open(found: Found) -> Result<Member, OpenError> {
        let pid = found.pid;
        Ok(Member {
            process: Process::open(pid, Access::default())?,
            found,
            started: process::started(pid),
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
        let sample = self.sample(want, modules)?;
        let (lines, native) = match &sample.native {
            Some(native) => look::woven(&weave(&sample.stack, native)),
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
            wait: sample.wait.as_ref().map(Waiting::from),
            native,
        };
        if want.request && seen.state() != State::Idle {
            self.add_request(&mut seen);
        }
        Ok(seen)
    }

    fn sample(&mut self, want: Want, modules: &mut Modules) -> Result<Sample, Trouble> {
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
        let sample = if want.native {
            let unwinder = &mut self.unwinder;
            self.process
                .sample_with_native(&options, Natives { unwinder, modules })
        } else {
            self.process.sample(&options)
        };
        sample.map_err(|error| match error {
            SampleError::Gone { pid } => Trouble::Gone {
                pid,
                fate: self.fate(),
            },
            error => Trouble::Failed(chain(&error)),
        })
    }

    fn fate(&self) -> Fate {
        let fate = Fate::of(self.found.pid);
        // In this order: until it has ended, its number is its own.
        if self.is_alive() { fate } else { Fate::Ended }
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
        if seen.request.is_some() {
            let began = request.and_then(|request| request.began);
            seen.age = began.and_then(|began| began.elapsed().ok());
        }
        // Of a script on the command line the process is the request.
        if seen.request.is_none() && seen.pool.is_none() {
            seen.age = self
                .started
                .and_then(|started| process::since_boot().checked_sub(started));
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
