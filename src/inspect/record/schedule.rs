//! When to look: at an even pace, until it is over or somebody stops it.
//!
//! The pace is the kernel's (timerfd_create(2), absolute on the monotonic clock), so
//! that the time a look takes does not add up. A tick that comes while the last round is
//! under way is missed, and counted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Part of a core that looking may take. A profile of many processes at a high rate
/// would otherwise compete with those it is about.
const MOST_OF_A_CORE: f64 = 0.5;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Look now.
    Look {
        /// Ticks that passed unused since the last look.
        missed: u64,
    },
    /// The time is over.
    Over,
    /// Somebody sent SIGINT, SIGTERM or SIGHUP.
    Stopped,
}

/// Ticks, and what ends them.
#[derive(Debug)]
pub(super) struct Schedule {
    timer: OwnedFd,
    period: Duration,
    end: Instant,
    /// Ticks to leave out.
    skip: u64,
    stop: Stop,
}

/// Readable from the first signal on; gives the signals back when dropped.
#[derive(Debug)]
pub(in crate::inspect) struct Stop {
    requested: UnixStream,
    handlers: Vec<SigId>,
    /// Keeps the pair connected while no signal has come.
    _writer: UnixStream,
}

impl Stop {
    /// Takes over the signals by which people and systems end a program.
    pub(in crate::inspect) fn on_signals() -> io::Result<Stop> {
        let (requested, writer) = UnixStream::pair()?;
        let mut stop = Stop {
            requested,
            handlers: Vec::new(),
            _writer: writer,
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let writer = stop._writer.try_clone()?;
            stop.handlers
                .push(signal_hook::low_level::pipe::register(signal, writer)?);
        }
        Ok(stop)
    }

    /// Waits for a signal at most so long; whether one has come.
    pub(in crate::inspect) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = timespec(end.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(&self.requested, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

impl Schedule {
    /// `rate` ticks a second for `time`, the first at once.
    pub(super) fn start(rate: u32, time: Duration, stop: Stop) -> io::Result<Schedule> {
        let period = Duration::from_secs(1) / rate.max(1);
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let spec = Itimerspec {
            it_interval: timespec(period),
            // Zero would disarm it.
            it_value: timespec(Duration::from_nanos(1)),
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(Schedule {
            timer,
            period,
            end: Instant::now() + time,
            skip: 0,
            stop,
        })
    }

    /// From one tick to the next.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Waits for what comes next.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let mut missed = 0;
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Next::Over);
            }
            let mut fds = [
                PollFd::new(&self.stop.requested, PollFlags::IN),
                PollFd::new(&self.timer, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            if !fds[0].revents().is_empty() {
                return Ok(Next::Stopped);
            }
            let Some(ticks) = self.ticks()? else { continue };
            let unused = ticks - 1;
            missed += unused;
            self.skip = self.skip.saturating_sub(unused);
            if self.skip == 0 {
                return Ok(Next::Look { missed });
            }
            self.skip -= 1;
            missed += 1;
        }
    }

    /// Tells what the round of the last tick took; ticks may be left out for it.
    pub(super) fn cost(&mut self, round: Duration) {
        self.skip = ticks_to_skip(round, self.period);
    }

    /// Ticks since the last call, at least one; `None` if there was none.
    fn ticks(&self) -> io::Result<Option<u64>> {
        let mut count = [0; 8];
        match rustix::io::read(self.timer.as_fd(), &mut count) {
            Ok(8) => Ok(Some(u64::from_ne_bytes(count).max(1))),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// How many ticks after this round must go unused, so that looking stays within its part
/// of a core.
fn ticks_to_skip(round: Duration, period: Duration) -> u64 {
    let due = period.mul_f64(MOST_OF_A_CORE);
    let rounds = round.as_nanos().div_ceil(due.as_nanos().max(1));
    u64::try_from(rounds).unwrap_or(u64::MAX).saturating_sub(1)
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn never() -> Stop {
        let (requested, writer) = UnixStream::pair().unwrap();
        Stop {
            requested,
            handlers: Vec::new(),
            _writer: writer,
        }
    }

    #[test]
    fn the_pace_is_kept_and_every_tick_is_accounted_for() {
        let before = Instant::now();
        let mut schedule = Schedule::start(500, Duration::from_millis(400), never()).unwrap();
        let started = Instant::now();
        let (mut looks, mut missed) = (0, 0);
        // When the last look was asked for, and when it came: on a machine that stands still
        // between two of them, nobody can say more.
        let (mut asked, mut came) = (started, started);
        loop {
            let asking = Instant::now();
            match schedule.next().unwrap() {
                Next::Look { missed: more } => {
                    looks += 1;
                    missed += more;
                    (asked, came) = (asking, Instant::now());
                }
                Next::Over => break,
                Next::Stopped => panic!("nobody stopped it"),
            }
        }
        let ticks = |from, to: Instant| to.duration_since(from).as_micros() / 2000;
        let (least, most) = (ticks(started, asked), ticks(before, came) + 1);
        assert!(looks > 0);
        assert!(
            (least..=most).contains(&u128::from(looks + missed)),
            "{looks} and {missed} of {least} to {most}"
        );
    }

    #[test]
    fn a_round_that_takes_long_costs_ticks() {
        let period = Duration::from_millis(10);
        let skip = |ms| ticks_to_skip(Duration::from_millis(ms), period);
        assert_eq!((skip(0), skip(4), skip(5)), (0, 0, 0));
        assert_eq!((skip(6), skip(10), skip(50)), (1, 1, 9));
    }

    #[test]
    fn left_out_ticks_are_missed_ticks() {
        let mut schedule = Schedule::start(1000, Duration::from_secs(20), never()).unwrap();
        assert!(matches!(schedule.next().unwrap(), Next::Look { .. }));
        schedule.cost(Duration::from_millis(5));
        let Next::Look { missed } = schedule.next().unwrap() else {
            panic!("is not over")
        };
        assert!(missed >= 9, "{missed}");
    }

    #[test]
    fn a_request_to_stop_comes_before_a_tick() {
        let stop = never();
        (&stop._writer).write_all(b"x").unwrap();
        let mut schedule = Schedule::start(1000, Duration::from_secs(20), stop).unwrap();
        assert_eq!(schedule.next().unwrap(), Next::Stopped);
        assert_eq!(schedule.next().unwrap(), Next::Stopped);
    }
}
