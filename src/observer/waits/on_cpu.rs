//! What requests past their limit do while they do not wait: the clocks of the CPUs run as
//! long as one of them does not, and no longer; and what they find is counted by its place.
//!
//! The supervisor has the clocks, and stops them if it is not told again and again that they
//! are to run: it is still there if this process is stopped or hangs.

use std::time::Duration;

use glasspool_abi::control::CLOCK_LEASE;
use glasspool_otel::rollup::{self, OnCpu};

use super::words;

/// The clocks run on for so long after the last such request was seen to run. It may wait
/// now and then, and to stop a clock costs its CPU an interrupt.
const QUIET_NS: u64 = 100_000_000;
/// After that it is said again that they are to run.
const RENEWED: Duration = CLOCK_LEASE.checked_div(3).expect("is not zero");
/// Places kept of a request.
const MOST_PLACES: usize = 128;

/// What is wanted of the CPUs' clocks, which the supervisor has.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// When it was last said that they are to run, monotonic nanoseconds; `None` while they
    /// stand still.
    said: Option<u64>,
    /// Nobody needs them from then on.
    until: u64,
}

impl Keeper {
    /// A request past its limit runs at `now`.
    pub(super) fn want(&mut self, now: u64) {
        self.until = now.saturating_add(QUIET_NS);
    }

    /// Whether they are to run at `now`, where that has to be said.
    pub(super) fn keep(&mut self, now: u64) -> Option<bool> {
        let run = now < self.until;
        let is_known = match self.said {
            Some(said) => run && now.saturating_sub(said) < super::nanoseconds(RENEWED),
            None => !run,
        };
        if is_known {
            return None;
        }
        self.said = run.then_some(now);
        Some(run)
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
