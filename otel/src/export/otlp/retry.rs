//! How long to wait before the same request is sent again. Pure.

use std::time::Duration;

/// The first wait, without its random part.
const FIRST: Duration = Duration::from_millis(250);
/// The longest one that nobody asked for, likewise.
const LONGEST: Duration = Duration::from_secs(8);

/// Exponential back-off with jitter: half of each wait is random, so that the exporters of
/// many machines do not come back to a restarted collector all at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The wait after one more failed try; never shorter than what the collector `asked`
    /// for. `random` is anything from 0 to `u32::MAX`.
    pub(crate) fn next(&mut self, asked: Option<Duration>, random: u32) -> Duration {
        let step = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries += 1;
        let least = asked.unwrap_or_default().max(step);
        least.saturating_add(step.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }

    /// Failed tries so far.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(None, 0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(backoff.tries(), 8);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_shorter_than_asked_and_hardly_longer(
            asked in 0u64..100_000, random: u32, tries in 0u32..100,
        ) {
            let asked = Duration::from_millis(asked);
            let wait = Backoff { tries }.next(Some(asked), random);
            prop_assert!(wait >= asked.max(FIRST));
            prop_assert!(wait <= asked.max(LONGEST) + LONGEST);
        }
    }

    #[test]
    fn two_exporters_do_not_wait_equally_long() {
        assert_ne!(
            Backoff::default().next(None, 1 << 30),
            Backoff::default().next(None, 1 << 31)
        );
        let forever = Backoff { tries: u32::MAX - 1 }.next(Some(Duration::MAX), u32::MAX);
        assert_eq!(forever, Duration::MAX);
    }
}
