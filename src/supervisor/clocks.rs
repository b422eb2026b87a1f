//! The CPUs' clocks of the kernel programs: they run as long as the observer says again and
//! again that they are to.
//!
//! So none runs on for an observer that is stopped, hangs or has died. The kernel could end
//! them by itself, after so many looks (PERF_EVENT_IOC_REFRESH, perf_event_open(2)). But there
//! Linux 6.17 hangs as a whole (fixed by commit eb3182ef0405, "perf/core: Fix system hang caused
//! by cpu-clock usage"), and an idle CPU, which is not looked at, would never come to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use glasspool_abi::control::CLOCK_LEASE;
use glasspool_waits::run_clocks;

/// Those of one observer.
#[derive(Debug)]
pub(super) struct Clocks {
    clocks: Vec<Arc<OwnedFd>>,
    /// They are stopped then; `None` while they stand still.
    until: Option<Instant>,
}

impl Clocks {
    /// They stand still.
    pub(super) fn new(clocks: &[Arc<OwnedFd>]) -> Clocks {
        Clocks {
            clocks: clocks.to_vec(),
            until: None,
        }
    }

    /// What the observer says at `now`. System calls, one for each CPU, only where they are
    /// to do something else than they do.
    ///
    /// # Errors
    /// They do not hear. Those that cannot be run are forgotten.
    pub(super) fn run(&mut self, run: bool, now: Instant) -> io::Result<()> {
        let before = std::mem::replace(&mut self.until, run.then(|| now + CLOCK_LEASE));
        if before.is_some() == run {
            return Ok(());
        }
        let outcome = run_clocks(&self.clocks, run);
        if outcome.is_err() && run {
            self.clocks.clear();
        }
        outcome
    }

    /// Stops them if it was not said again in time.
    ///
    /// # Errors
    /// See [`Clocks::run`].
    pub(super) fn keep(&mut self, now: Instant) -> io::Result<()> {
        match self.until {
            Some(until) if until <= now => self.run(false, now),
            Some(_) | None => Ok(()),
        }
    }

    /// When they are stopped.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use glasspool_abi::create_slot_memory;

    use super::*;

    #[test]
    fn they_run_for_as_long_as_that_is_said_again_in_time() {
        let mut clocks = Clocks::new(&[]);
        let now = Instant::now();
        let later = now + CLOCK_LEASE - Duration::from_millis(1);
        assert_eq!(clocks.due(), None);
        clocks.run(true, now).expect("there are none");
        clocks.keep(later).expect("there are none");
        assert_eq!(clocks.due(), Some(now + CLOCK_LEASE));
        clocks.run(true, later).expect("there are none");
        clocks.keep(now + CLOCK_LEASE).expect("there are none");
        assert_eq!(clocks.due(), Some(later + CLOCK_LEASE));
        clocks.keep(later + CLOCK_LEASE).expect("there are none");
        assert_eq!(clocks.due(), None);
        clocks.run(true, later).expect("there are none");
        clocks.run(false, later).expect("there are none");
        assert_eq!(clocks.due(), None);
    }

    #[test]
    fn those_that_do_not_hear_are_told_of_once() {
        let no_clock = create_slot_memory(4096).expect("a memory file");
        let mut clocks = Clocks::new(&[Arc::new(no_clock)]);
        let now = Instant::now();
        clocks.run(false, now).expect("they stand still");
        clocks.run(true, now).expect_err("it is none");
        clocks.run(false, now).expect("it is forgotten");
        clocks.run(true, now).expect("it is forgotten");
    }
}
