//! How long to wait before trying again what keeps failing.

use std::time::{Duration, Instant};

/// Wait after the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(15);

/// Failures in a row, and when the next attempt is due. php-fpm tries again at once and
/// without end; a permanent mistake (a chroot that is gone) costs it a whole core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// It worked: the next failure is a first one again.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It failed; returns how long to wait.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + wait);
        wait
    }

    /// Whether an attempt may be made.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// When to look again, if waiting.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_success() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(now));
        let waits: Vec<u128> = (0..9).map(|_| backoff.failed(now).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000]);
        assert!(!backoff.is_over(now));
        assert_eq!(backoff.due(now), Some(now + LONGEST));
        assert!(backoff.is_over(now + LONGEST));
        (0..100).for_each(|_| assert!(backoff.failed(now) <= LONGEST));
        backoff.succeeded();
        assert_eq!(backoff.failed(now), FIRST);
    }
}
