//! Where a worker's time went so far.

use std::time::Duration;

use glasspool_abi::times as words;
#[cfg(any(feature = "ebpf", test))]
use glasspool_abi::times::RAW_WORDS;

use crate::record::Cause;

/// What a worker does at the moment of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not been switched since it was registered; nothing is accounted for yet.
    Unknown,
    /// On a CPU.
    OnCpu,
    /// Could go on, and waits for a CPU; or has one already, in the rare case that the
    /// kernel did not tell (`Eye::missed`).
    RunQueue,
    /// Blocked.
    Blocked(Cause),
}

impl State {
    /// From the raw words of a page, which may be any.
    #[cfg(any(feature = "ebpf", test))]
    pub(crate) fn of_raw(raw: &[u64; RAW_WORDS]) -> State {
        let [state @ .., _, _, _, _] = raw[words::STATE].to_ne_bytes();
        let [_, _, _, _, cause @ ..] = raw[words::STATE].to_ne_bytes();
        match u32::from_ne_bytes(state) {
            words::STATE_ON_CPU => State::OnCpu,
            words::STATE_RUNQUEUE => State::RunQueue,
            words::STATE_BLOCKED => State::Blocked(Cause::from_number(u32::from_ne_bytes(cause))),
            _ => State::Unknown,
        }
    }
}

/// A worker's time since its first switch, or its registration, up to a moment. All of it is somewhere:
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
    /// How much of what.
    pub totals: words::Times,
}

impl Times {
    /// On a CPU.
    #[must_use]
    pub fn on_cpu(&self) -> Duration {
        Duration::from_nanos(self.totals.on_cpu_ns)
    }

    /// Runnable, waiting for a CPU.
    #[must_use]
    pub fn runqueue(&self) -> Duration {
        Duration::from_nanos(self.totals.runqueue_ns)
    }

    /// Blocked for that reason.
    #[must_use]
    pub fn blocked(&self, cause: Cause) -> Duration {
        Duration::from_nanos(self.totals.blocked_ns[cause.index()])
    }

    /// Blocked for any reason.
    #[must_use]
    pub fn blocked_total(&self) -> Duration {
        Duration::from_nanos(self.totals.blocked_total_ns())
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.totals.total_ns())
    }

    /// What has been added since an earlier snapshot of the same worker. Of snapshots
    /// that do not follow each other, zeros.
    #[must_use]
    pub fn since(&self, earlier: &Times) -> Times {
        Times {
            began_ns: earlier.at_ns,
            at_ns: self.at_ns,
            state: self.state,
            totals: self.totals.since(&earlier.totals),
        }
    }

    /// From the raw words of a page, continued until `now_ns`. They may be anything.
    #[cfg(any(feature = "ebpf", test))]
    pub(crate) fn of_raw(raw: &[u64; RAW_WORDS], now_ns: u64) -> Times {
        let at_ns = now_ns.max(raw[words::SINCE]);
        // Somebody else's times: whether it runs nevertheless is not known here.
        let read = words::Times::of_raw(raw, now_ns, || None);
        let (totals, began_ns) = read.unwrap_or((words::Times::default(), at_ns));
        Times {
            began_ns,
            at_ns,
            state: State::of_raw(raw),
            totals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_says_what_goes_on() {
        let mut raw = [0; RAW_WORDS];
        (raw[words::BEGAN], raw[words::SINCE]) = (1000, 5000);
        let [a, b, c, d] = 3_u32.to_ne_bytes();
        let [e, f, g, h] = 1_u32.to_ne_bytes();
        raw[words::STATE] = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        (raw[words::ON_CPU], raw[words::BLOCKED], raw[words::BLOCKED + 1]) = (300, 700, 3000);
        let times = Times::of_raw(&raw, 5400);
        assert_eq!(times.state, State::Blocked(Cause::Disk));
        assert_eq!(times.blocked(Cause::Disk), Duration::from_nanos(3400));
        assert_eq!(times.blocked(Cause::Network), Duration::from_nanos(700));
        assert_eq!(times.total(), Duration::from_nanos(5400 - 1000));
        let later = Times::of_raw(&raw, 6000).since(&times);
        assert_eq!(later.total(), Duration::from_nanos(600));
        assert_eq!(later.blocked_total(), later.blocked(Cause::Disk));
    }

    #[test]
    fn a_worker_that_was_not_switched_yet_has_no_time() {
        let times = Times::of_raw(&[0; RAW_WORDS], 777);
        assert_eq!((times.state, times.total()), (State::Unknown, Duration::ZERO));
        assert_eq!(times.began_ns, 777);
        assert_eq!(Times::of_raw(&[u64::MAX; RAW_WORDS], 3).state, State::Unknown);
    }
}
