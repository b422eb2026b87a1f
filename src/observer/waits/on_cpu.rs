//! What requests past their limit do while they do not wait: the clocks of the CPUs run as
//! long as one of them does not, and no longer; and what they find is counted by its place.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;

use glasspool_otel::rollup::{self, OnCpu};
use glasspool_waits::run_clocks;

use super::words;

/// The clocks run on for so long after the last such request was seen to run. It may wait
/// now and then, and to stop a clock costs its CPU an interrupt.
const QUIET_NS: u64 = 100_000_000;
/// Places kept of a request.
const MOST_PLACES: usize = 128;

/// The clocks of the CPUs.
pub(in crate::observer) trait Clocks: Debug + Send {
    /// Has them run or stand still.
    fn run(&self, run: bool) -> io::Result<()>;
    /// Takes more of them.
    fn add(&mut self, more: Vec<OwnedFd>);
}

impl Clocks for Vec<OwnedFd> {
    fn run(&self, run: bool) -> io::Result<()> {
        run_clocks(self, run)
    }

    fn add(&mut self, more: Vec<OwnedFd>) {
        self.extend(more);
    }
}

/// Whether they run.
#[derive(Debug)]
pub(super) struct Keeper {
    clocks: Box<dyn Clocks>,
    /// Not known of clocks that another observer had before.
    running: Option<bool>,
    /// Nobody needs them from then on, monotonic nanoseconds.
    until: u64,
}

impl Default for Keeper {
    fn default() -> Keeper {
        Keeper::of(Box::new(Vec::new()))
    }
}

impl Keeper {
    pub(super) fn of(clocks: Box<dyn Clocks>) -> Keeper {
        Keeper {
            clocks,
            running: None,
            until: 0,
        }
    }

    pub(super) fn add(&mut self, more: Vec<OwnedFd>) {
        self.clocks.add(more);
        self.running = None;
    }

    /// A request past its limit runs at `now`.
    pub(super) fn want(&mut self, now: u64) {
        self.until = now.saturating_add(QUIET_NS);
    }

    /// Has them run if somebody needs them at `now`, else stand still. System calls only
    /// where that changes.
    ///
    /// # Errors
    /// They do neither. Not tried again: they are forgotten.
    pub(super) fn keep(&mut self, now: u64) -> io::Result<()> {
        let run = now < self.until;
        if self.running.replace(run) == Some(run) {
            return Ok(());
        }
        self.clocks
            .run(run)
            .inspect_err(|_| self.clocks = Box::new(Vec::new()))
    }
}

/// The request of a worker that is past its limit, and where it was found since then.
#[derive(Debug)]
pub(super) struct Looks {
    number: u64,
    /// Past its limit since, monotonic nanoseconds.
    since_ns: u64,
    found: OnCpu,
}

impl Looks {
    pub(super) fn new(number: u64, since_ns: u64) -> Looks {
        Looks {
            number,
            since_ns,
            found: OnCpu::default(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn into_found(self) -> OnCpu {
        self.found
    }

    /// Counts a look, if it is one at this request past its limit. The clocks run for all
    /// workers, so most may be at others.
    pub(super) fn add(&mut self, look: &glasspool_waits::OnCpu) {
        if look.request != self.number || look.at_ns < self.since_ns {
            return;
        }
        self.found.samples = self.found.samples.saturating_add(1);
        let Some(place) = place(&look.frames) else {
            return;
        };
        let places = &mut self.found.places;
        if let Some((_, count)) = places.iter_mut().find(|(known, _)| *known == place) {
            *count = count.saturating_add(1);
        } else if places.len() < MOST_PLACES {
            places.push((place, 1));
        } else if let Some(once) = places.iter_mut().rfind(|(_, count)| *count == 1) {
            // One where it often is comes again, and then stays.
            *once = (place, 1);
        }
    }
}

/// The innermost function, and the innermost line of PHP.
fn place(frames: &[glasspool_waits::Frame]) -> Option<String> {
    let function = frames.first()?.name();
    let (file, line) = words::line(frames);
    Some(rollup::place(&function, file, line))
}

#[cfg(test)]
#[path = "on_cpu_tests.rs"]
mod tests;
