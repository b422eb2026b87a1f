//! `emergency_restart_*`: workers that crash one after the other mean that what they
//! share, such as opcache's memory, is broken; then their engine is started anew.

use std::collections::VecDeque;
use std::time::Instant;

use glasspool_abi::control::Ended;
use rustix::process::Signal;

use crate::config::EmergencyRestart;

/// The last crashes of one engine's workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::supervisor) struct Crashes(VecDeque<Instant>);

impl Crashes {
    /// A worker has ended. Returns php-fpm's words when a new engine is due; the count
    /// then begins anew.
    pub(in crate::supervisor) fn on_end(
        &mut self,
        ended: Ended,
        limit: &EmergencyRestart,
        now: Instant,
    ) -> Option<String> {
        if !is_crash(ended) {
            return None;
        }
        // Those that lie too far back can never count again, so at most `threshold` stay.
        self.0.push_back(now);
        while let Some(first) = self.0.front()
            && now.saturating_duration_since(*first) > limit.interval
        {
            self.0.pop_front();
        }
        let threshold = limit.threshold.get();
        if self.0.len() < usize::try_from(threshold).unwrap_or(usize::MAX) {
            return None;
        }
        self.0.clear();
        let seconds = limit.interval.as_secs();
        Some(format!(
            "failed processes threshold ({threshold} in {seconds} sec) is reached, initiating reload"
        ))
    }
}

fn is_crash(ended: Ended) -> bool {
    match ended {
        Ended::Killed { signal, .. } => [Signal::SEGV, Signal::BUS].map(Signal::as_raw).contains(&signal),
        Ended::Exited(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    #[test]
    fn enough_crashes_in_the_interval_and_no_other_deaths() {
        let limit = EmergencyRestart {
            threshold: NonZeroU32::new(3).expect("three"),
            interval: Duration::from_secs(60),
        };
        let killed = |signal: Signal| Ended::Killed {
            signal: signal.as_raw(),
            core: false,
        };
        let (segv, bus) = (killed(Signal::SEGV), killed(Signal::BUS));
        // Seconds, how it ended, whether the engine is to be replaced.
        let table = [
            (0, segv, false),
            (1, Ended::Exited(255), false),
            (2, killed(Signal::KILL), false),
            (3, bus, false),
            // The first one is no longer within the interval.
            (61, segv, false),
            (63, segv, true),
            // Counted anew.
            (64, segv, false),
            (65, segv, false),
            (66, bus, true),
        ];
        let (start, mut crashes) = (Instant::now(), Crashes::default());
        for (second, ended, expected) in table {
            let said = crashes.on_end(ended, &limit, start + Duration::from_secs(second));
            assert_eq!(said.is_some(), expected, "{second}");
            if let Some(said) = said {
                let words = "failed processes threshold (3 in 60 sec) is reached, initiating reload";
                assert_eq!(said, words);
            }
        }
    }
}
