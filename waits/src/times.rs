//! Where a worker's time went so far.

use std::mem::offset_of;
use std::time::Duration;

use crate::record::Cause;
use crate::types::{self, RawTimes};

/// What a worker does at the moment of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not been switched since it was registered; nothing is accounted for yet.
    Unknown,
    /// On a CPU.
    OnCpu,
    /// Could go on, and waits for a CPU; or has one already, in the rare case that the
    /// kernel did not tell (`Waits::missed`).
    RunQueue,
    /// Blocked.
    Blocked(Cause),
}

/// A worker's time since its first switch, up to a moment. All of it is somewhere:
/// [`Times::total`] is `at_ns - began_ns`.
///
/// On-CPU time includes what interrupts and the hypervisor took while the worker had the
/// CPU, which the worker's own CPU clock leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Since when, nanoseconds of `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// Until when.
    pub at_ns: u64,
    /// What it does then.
    pub state: State,
    /// On a CPU.
    pub on_cpu: Duration,
    /// Runnable, waiting for a CPU.
    pub runqueue: Duration,
    blocked: [Duration; types::CAUSES as usize],
    /// Times it has blocked.
    pub waits: u64,
    /// Records written.
    pub written: u64,
    /// Records for which the ring had no room.
    pub lost: u64,
}

impl Times {
    /// Blocked for that reason.
    #[must_use]
    pub fn blocked(&self, cause: Cause) -> Duration {
        self.blocked[cause.index()]
    }

    /// Blocked for any reason.
    #[must_use]
    pub fn blocked_total(&self) -> Duration {
        self.blocked.iter().sum()
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.on_cpu + self.runqueue + self.blocked_total()
    }

    /// What has been added since an earlier snapshot of the same worker. Of snapshots
    /// that do not follow each other, zeros.
    #[must_use]
    pub fn since(&self, earlier: &Times) -> Times {
        let mut blocked = self.blocked;
        for (now, then) in blocked.iter_mut().zip(earlier.blocked) {
            *now = now.saturating_sub(then);
        }
        Times {
            began_ns: earlier.at_ns,
            at_ns: self.at_ns,
            state: self.state,
            on_cpu: self.on_cpu.saturating_sub(earlier.on_cpu),
            runqueue: self.runqueue.saturating_sub(earlier.runqueue),
            blocked,
            waits: self.waits.saturating_sub(earlier.waits),
            written: self.written.saturating_sub(earlier.written),
            lost: self.lost.saturating_sub(earlier.lost),
        }
    }

    /// From the bytes of `struct gp_times`, continued until `now_ns`. The bytes may be
    /// anything: sums saturate.
    #[cfg_attr(
        not(feature = "ebpf"),
        expect(dead_code, reason = "nothing is read without programs")
    )]
    pub(crate) fn parse(bytes: &[u8; types::TIMES_BYTES as usize], now_ns: u64) -> Times {
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
            word.map_or(0, |word| u64::from_ne_bytes(*word))
        };
        let nanos = |at: usize| Duration::from_nanos(word(at));
        let half = |at: usize| {
            let half = bytes.get(at..).and_then(<[u8]>::first_chunk);
            half.map_or(0, |half| u32::from_ne_bytes(*half))
        };
        let cause = half(offset_of!(RawTimes, cause));
        let cause = usize::try_from(cause).ok().and_then(|at| Cause::ALL.get(at));
        let state = match half(offset_of!(RawTimes, state)) {
            types::STATE_ON_CPU => State::OnCpu,
            types::STATE_RUNQUEUE => State::RunQueue,
            types::STATE_BLOCKED => State::Blocked(*cause.unwrap_or(&Cause::Other)),
            _ => State::Unknown,
        };
        let began_ns = word(offset_of!(RawTimes, began_ns));
        let since_ns = word(offset_of!(RawTimes, since_ns));
        let mut times = Times {
            began_ns,
            at_ns: now_ns.max(since_ns),
            state,
            on_cpu: nanos(offset_of!(RawTimes, on_cpu_ns)),
            runqueue: nanos(offset_of!(RawTimes, runqueue_ns)),
            blocked: std::array::from_fn(|index| nanos(offset_of!(RawTimes, blocked_ns) + index * 8)),
            waits: word(offset_of!(RawTimes, waits)),
            written: word(offset_of!(RawTimes, written)),
            lost: word(offset_of!(RawTimes, lost)),
        };
        let passed = Duration::from_nanos(now_ns.saturating_sub(since_ns));
        match state {
            State::Unknown => times.began_ns = times.at_ns,
            State::OnCpu => times.on_cpu = times.on_cpu.saturating_add(passed),
            State::RunQueue => times.runqueue = times.runqueue.saturating_add(passed),
            State::Blocked(cause) => {
                let blocked = &mut times.blocked[cause.index()];
                *blocked = blocked.saturating_add(passed);
            }
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [u64; 14]) -> [u8; types::TIMES_BYTES as usize] {
        let mut bytes = [0; types::TIMES_BYTES as usize];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn what_goes_on_is_counted_until_now() {
        let blocked_on_disk = 3 | 1 << 32;
        let raw = bytes([
            1000,
            5000,
            blocked_on_disk,
            100,
            200,
            700,
            3000,
            0,
            0,
            0,
            0,
            9,
            2,
            1,
        ]);
        let times = Times::parse(&raw, 5400);
        assert_eq!(times.state, State::Blocked(Cause::Disk));
        assert_eq!(times.blocked(Cause::Disk), Duration::from_nanos(3400));
        assert_eq!(times.blocked(Cause::Network), Duration::from_nanos(700));
        assert_eq!(times.total(), Duration::from_nanos(5400 - 1000));
        assert_eq!((times.waits, times.written, times.lost), (9, 2, 1));
        let later = Times::parse(&raw, 6000).since(&times);
        assert_eq!(later.total(), Duration::from_nanos(600));
        assert_eq!(later.blocked_total(), later.blocked(Cause::Disk));
    }

    #[test]
    fn a_worker_that_was_not_switched_yet_has_no_time() {
        let times = Times::parse(&bytes([0; 14]), 777);
        assert_eq!((times.state, times.total()), (State::Unknown, Duration::ZERO));
        assert_eq!(times.began_ns, 777);
    }

    #[test]
    fn numbers_that_make_no_sense_saturate() {
        let times = Times::parse(&bytes([u64::MAX; 14]), 3);
        assert_eq!(times.state, State::Unknown);
        let mut words = [u64::MAX; 14];
        words[2] = 3 | 77 << 32;
        words[1] = 0;
        let times = Times::parse(&bytes(words), u64::MAX);
        assert_eq!(times.state, State::Blocked(Cause::Other));
        assert!(times.blocked(Cause::Other) >= Duration::from_nanos(u64::MAX));
        assert_eq!(times.since(&times).total(), Duration::ZERO);
    }
}
