//! What looks into workers may cost. Pure.
//!
//! Two things are bounded, over all workers together: looks per second, which are time of
//! the observer, and the time for which workers are stopped, which is theirs. Looks that
//! somebody waits for, before a kill, are not counted: there is one for each kill.

use std::time::Duration;

use glasspool_abi::control::LookBudget;

const SECOND_NS: u64 = 1_000_000_000;
/// What a look that stops its worker costs it at most in the usual case; see
/// `docs/specification.md`. Looks that are under way are taken for such until they tell.
const USUAL_STOP_NS: u64 = 100_000;
/// Looks at crashing workers per second. Each costs what any look does, but a thousand
/// that crash together die of one cause, and each of them waits for its turn.
const CRASHES_PER_SECOND: u64 = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    looks: Bucket,
    stops_ns: Bucket,
    crashes: Bucket,
}

impl Budget {
    pub(super) fn new(limits: &LookBudget) -> Budget {
        Budget {
            looks: Bucket::new(u64::from(limits.samples_per_second)),
            stops_ns: Bucket::new(nanos(limits.stop_per_second)),
            crashes: Bucket::new(CRASHES_PER_SECOND),
        }
    }

    /// Whether one more look is allowed at `now` (monotonic nanoseconds), and if so,
    /// whether it may stop its worker while so many others are under way.
    pub(super) fn leave(&self, under_way: usize, now: u64) -> Option<bool> {
        let reserved = u64::try_from(under_way).unwrap_or(u64::MAX);
        let reserved = reserved.saturating_add(1).saturating_mul(USUAL_STOP_NS);
        // One stop is allowed within any budget but none at all: what it costs is made up
        // for by the time until the next.
        let stop = reserved.min(self.stops_ns.per_second);
        self.looks.has(1, now).then(|| self.stops_ns.has(stop, now))
    }

    /// A look was ordered.
    pub(super) fn spend_look(&mut self, now: u64) {
        self.looks.spend(1, now);
    }

    /// A look has stopped its worker for so long.
    pub(super) fn spend_stop(&mut self, stop: Duration, now: u64) {
        self.stops_ns.spend(nanos(stop), now);
    }

    /// Takes a look at a crashing worker, if there is one left.
    pub(super) fn take_crash(&mut self, now: u64) -> bool {
        let some = self.crashes.has(1, now);
        if some {
            self.crashes.spend(1, now);
        }
        some
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Lets through so many units per second; what is not used is kept for one second.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// The time whose units are spent, monotonic nanoseconds.
    spent_until: u64,
}

impl Bucket {
    fn new(per_second: u64) -> Bucket {
        Bucket {
            per_second,
            spent_until: 0,
        }
    }

    fn has(&self, units: u64, now: u64) -> bool {
        self.per_second > 0 && self.after(units, now) <= now
    }

    fn spend(&mut self, units: u64, now: u64) {
        self.spent_until = self.after(units, now);
    }

    fn after(&self, units: u64, now: u64) -> u64 {
        let time = u128::from(units) * u128::from(SECOND_NS) / u128::from(self.per_second.max(1));
        let from = self.spent_until.max(now.saturating_sub(SECOND_NS));
        from.saturating_add(u64::try_from(time).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_NS;

    fn budget(looks: u32, stop: Duration) -> Budget {
        Budget::new(&LookBudget {
            samples_per_second: looks,
            stop_per_second: stop,
        })
    }

    /// Asks every millisecond; returns the looks that were had, and those of them that
    /// might stop, each of which takes so long.
    fn spend(budget: &mut Budget, from: u64, millis: u64, stop: Duration) -> (u64, u64) {
        let (mut looks, mut stops) = (0, 0);
        for now in (from..from + millis * 1_000_000).step_by(1_000_000) {
            let Some(may_stop) = budget.leave(0, now) else {
                continue;
            };
            budget.spend_look(now);
            looks += 1;
            if may_stop {
                budget.spend_stop(stop, now);
                stops += 1;
            }
        }
        (looks, stops)
    }

    #[test]
    fn looks_are_so_many_per_second_and_a_quiet_second_is_made_up_for() {
        let mut budget = budget(200, Duration::ZERO);
        assert_eq!(spend(&mut budget, 5 * S, 10_000, Duration::ZERO), (2199, 0));
        // Nothing is kept for longer than a second.
        assert_eq!(spend(&mut budget, 100 * S, 100, Duration::ZERO), (100, 0));
        assert_eq!(spend(&mut budget, 200 * S, 1, Duration::ZERO).0, 1);
    }

    #[test]
    fn above_the_stop_budget_looks_go_on_without_stopping() {
        let mut budget = budget(1000, Duration::from_millis(10));
        let stop = Duration::from_micros(500);
        let (looks, stops) = spend(&mut budget, 5 * S, 10_000, stop);
        assert!(looks >= 9_999, "{looks}");
        // 10 ms a second are 20 such stops, for ten seconds and the quiet one before.
        assert!((215..=220).contains(&stops), "{stops}");
    }

    #[test]
    fn one_long_stop_is_made_up_for_and_under_way_ones_count() {
        let mut budget = budget(1000, Duration::from_millis(1));
        assert_eq!(budget.leave(0, 5 * S), Some(true));
        budget.spend_stop(Duration::from_millis(20), 5 * S);
        assert_eq!(budget.leave(0, 15 * S), Some(false));
        assert_eq!(budget.leave(0, 25 * S), Some(true));
        // Less than one usual stop a second is one stop now and then, not none.
        let mut small = self::budget(1000, Duration::from_micros(10));
        assert_eq!(small.leave(8, 5 * S), Some(true));
        small.spend_stop(Duration::from_micros(50), 5 * S);
        assert_eq!(small.leave(0, 8 * S), Some(false));
        assert_eq!(small.leave(0, 10 * S), Some(true));
        let some = self::budget(1000, Duration::from_millis(1));
        assert_eq!(
            (some.leave(8, 5 * S), some.leave(0, 5 * S)),
            (Some(true), Some(true))
        );
        assert_eq!(self::budget(1000, Duration::ZERO).leave(0, 5 * S), Some(false));
    }

    #[test]
    fn a_storm_of_crashes_is_looked_at_in_part() {
        let mut budget = budget(1, Duration::ZERO);
        let taken = (0..1000).filter(|_| budget.take_crash(5 * S)).count();
        assert_eq!(taken, 20);
        assert!(budget.take_crash(6 * S));
    }

    #[test]
    fn times_and_costs_at_the_edge_are_survived() {
        let mut budget = budget(u32::MAX, Duration::MAX);
        budget.spend_stop(Duration::MAX, u64::MAX);
        assert_eq!(budget.leave(usize::MAX, 0).is_some(), budget.looks.has(1, 0));
        budget.spend_look(u64::MAX);
        assert!(!budget.looks.has(1, 0));
    }
}
