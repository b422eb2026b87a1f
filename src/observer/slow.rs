//! When to look into a request that takes too long: once past its limit, again at two,
//! four, eight … times the limit, as often as its pool wants. Also keeps what was seen
//! until the request's end record comes. Pure; the looking itself is `sampler`.
//!
//! What a worker says of its requests is hostile: it can name any number and start time
//! at any moment. So the first look at a request waits for a whole limit after the first
//! look at the one before, which no honest worker notices.

use std::time::Duration;

use glasspool_abi::record::End;
use glasspool_abi::slot::InProgress;
use glasspool_otel::queue::Priority;
use glasspool_otel::slow::SlowEvent;
use glasspool_otel::wait_span::RequestWaits;

/// When a look that cannot be had now is tried again.
pub(super) const RETRY_NS: u64 = 5_000_000;

/// When a pool's requests are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Age at the first look.
    pub(super) after: Duration,
    /// Looks at most.
    pub(super) looks: u32,
}

/// When to look next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Not at this request.
    Never,
    /// Not before this time, monotonic nanoseconds.
    At(u64),
    /// Now.
    Now {
        /// Whether it is the first look at this request.
        first: bool,
    },
}

/// What is known of a worker's slow requests: the one under way, and the one before,
/// whose end record may not have been read yet.
#[derive(Debug, Default)]
pub(super) struct Cases {
    current: Case,
    previous: Option<Case>,
    /// No first look before this, monotonic nanoseconds.
    quiet_until: u64,
    /// The worker has said that it crashes.
    crashes: bool,
}

#[derive(Debug, Default)]
struct Case {
    number: u64,
    /// Looks whose time has passed.
    step: u32,
    /// It has been looked at because it was slow, whatever came of it.
    slow: bool,
    /// It has been looked at for another reason.
    doomed: bool,
    /// Looks that are under way.
    under_way: u32,
    /// Looks that the budget did not allow, since the last event.
    skipped: u32,
    events: Vec<SlowEvent>,
    /// It has ended while a look was under way; told when that is over.
    held: Option<Held>,
}

impl Case {
    /// The last event says how many looks were skipped since the one before it.
    fn settle_skipped(&mut self) {
        if let Some(last) = self.events.last_mut() {
            last.skipped = last.skipped.saturating_add(std::mem::take(&mut self.skipped));
        }
    }

    fn take_events(&mut self) -> Vec<SlowEvent> {
        self.settle_skipped();
        std::mem::take(&mut self.events)
    }
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) end: End,
    pub(super) priority: Priority,
    pub(super) waits: RequestWaits,
}

impl Cases {
    /// When to look at the request that is under way.
    pub(super) fn next(&mut self, progress: &InProgress, plan: Plan, now: u64) -> Next {
        if !self.turn_to(progress.number) {
            return Next::At(now.saturating_add(RETRY_NS));
        }
        let case = &self.current;
        if case.step >= plan.looks {
            return Next::Never;
        }
        if case.under_way > 0 {
            return Next::At(now.saturating_add(RETRY_NS));
        }
        let mut due = progress.start_mono_ns.saturating_add(plan.age_at(case.step));
        if case.step == 0 {
            due = due.max(self.quiet_until);
        }
        if now < due {
            Next::At(due)
        } else {
            Next::Now { first: !case.slow }
        }
    }

    /// A look is under way.
    pub(super) fn asked(&mut self, progress: &InProgress, plan: Plan, now: u64) {
        self.pass(progress, plan, now);
        self.current.slow = true;
        self.current.under_way += 1;
    }

    /// The time of a look has come, and it is not had.
    pub(super) fn skip(&mut self, progress: &InProgress, plan: Plan, now: u64) {
        self.pass(progress, plan, now);
        self.current.skipped = self.current.skipped.saturating_add(1);
    }

    /// The time of a look has come, whether it is had or not. Steps whose time is over
    /// by now are left out, so that a request that is found late is not looked at four
    /// times at once.
    fn pass(&mut self, progress: &InProgress, plan: Plan, now: u64) {
        let age = now.saturating_sub(progress.start_mono_ns);
        let case = &mut self.current;
        if case.step == 0 {
            self.quiet_until = now.saturating_add(plan.age_at(0));
        }
        // Ages double, so this ends after some sixty steps.
        case.step = (case.step + 1..plan.looks)
            .find(|step| plan.age_at(*step) > age || *step >= u64::BITS)
            .unwrap_or(plan.looks);
    }

    /// Makes that request the current one, for a look that does not wait for its time;
    /// false while a look at another one is under way.
    pub(super) fn turn_to(&mut self, number: u64) -> bool {
        if number == self.current.number {
            return true;
        }
        if self.current.under_way > 0 {
            return false;
        }
        let new = Case {
            number,
            ..Case::default()
        };
        let old = std::mem::replace(&mut self.current, new);
        if old.slow || old.doomed {
            self.previous = Some(old);
        }
        true
    }

    /// Such a look is under way.
    pub(super) fn asked_out_of_turn(&mut self) {
        self.current.doomed = true;
        self.current.under_way += 1;
    }

    /// A look is over. Returns the request and its samples if it has ended meanwhile.
    pub(super) fn answered(
        &mut self,
        number: u64,
        event: Option<SlowEvent>,
    ) -> Option<(Held, Vec<SlowEvent>)> {
        let case = &mut self.current;
        if case.number != number || case.under_way == 0 {
            return None;
        }
        case.under_way -= 1;
        if let Some(event) = event {
            case.events.push(event);
            case.settle_skipped();
        }
        if case.under_way > 0 {
            return None;
        }
        let held = case.held.take()?;
        Some((held, case.take_events()))
    }

    /// Whether a look is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.current.under_way > 0
    }

    /// Whether the request was looked at, so that it is worth telling.
    pub(super) fn is_slow(&self, number: u64) -> bool {
        self.all()
            .any(|case| case.number == number && (case.slow || case.doomed))
    }

    /// A request has ended. Returns it with its samples, or keeps it until the look that
    /// is under way is over.
    pub(super) fn ended(&mut self, held: Held) -> Option<(Held, Vec<SlowEvent>)> {
        let number = held.end.begin.number;
        if self.current.number == number && self.current.under_way > 0 {
            // A second end of the same request would be a lie; the first one counts.
            self.current.held.get_or_insert(held);
            return None;
        }
        Some((held, self.take_events(number)))
    }

    /// The samples of that request.
    pub(super) fn take_events(&mut self, number: u64) -> Vec<SlowEvent> {
        if self.current.number == number {
            return self.current.take_events();
        }
        let previous = self.previous.take_if(|case| case.number == number);
        previous.map(|mut case| case.take_events()).unwrap_or_default()
    }

    /// An ended request whose look will not be over any more, with its samples.
    pub(super) fn give_up_look(&mut self) -> Option<(Held, Vec<SlowEvent>)> {
        let case = &mut self.current;
        case.under_way = 0;
        let held = case.held.take()?;
        Some((held, case.take_events()))
    }

    /// The worker says that it crashes; true the first time. An honest one dies of it, and
    /// one that says so again is not listened to.
    pub(super) fn first_crash(&mut self) -> bool {
        !std::mem::replace(&mut self.crashes, true)
    }

    fn all(&self) -> impl Iterator<Item = &Case> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl Plan {
    /// Age at which a look is due, nanoseconds.
    fn age_at(self, step: u32) -> u64 {
        let after = u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX);
        let times = 1u64.checked_shl(step).unwrap_or(u64::MAX);
        after.saturating_mul(times)
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::slot::Stage;

    use super::super::testing::{end, event};
    use super::*;

    const PLAN: Plan = Plan {
        after: Duration::from_secs(1),
        looks: 4,
    };
    const S: u64 = 1_000_000_000;

    fn request(number: u64, start: u64) -> InProgress {
        InProgress {
            number,
            start_mono_ns: start,
            stage: Stage::Executing,
        }
    }

    fn held(number: u64) -> Held {
        Held {
            end: end(number),
            priority: Priority::Urgent,
            waits: RequestWaits::default(),
        }
    }

    /// Looks as soon as one is due and is answered at once; returns the ages.
    fn looks(cases: &mut Cases, request: InProgress, from: u64) -> Vec<u64> {
        let (mut now, mut ages) = (from, Vec::new());
        loop {
            match cases.next(&request, PLAN, now) {
                Next::Never => return ages,
                Next::At(due) => now = due,
                Next::Now { first } => {
                    assert_eq!(first, ages.is_empty());
                    ages.push(now - request.start_mono_ns);
                    cases.asked(&request, PLAN, now);
                    assert!(cases.answered(request.number, None).is_none());
                }
            }
        }
    }

    #[test]
    fn a_request_is_looked_at_after_one_two_four_and_eight_limits() {
        let mut cases = Cases::default();
        assert_eq!(
            looks(&mut cases, request(1, 10 * S), 10 * S),
            [S, 2 * S, 4 * S, 8 * S]
        );
        assert!(cases.is_slow(1));
    }

    #[test]
    fn a_request_that_is_found_late_is_looked_at_once_and_then_on_time() {
        assert_eq!(
            looks(&mut Cases::default(), request(1, 0), 3 * S),
            [3 * S, 4 * S, 8 * S]
        );
        assert_eq!(looks(&mut Cases::default(), request(1, 0), 900 * S), [900 * S]);
    }

    #[test]
    fn a_worker_that_invents_requests_is_looked_at_once_per_limit() {
        let mut cases = Cases::default();
        let mut looks = 0;
        for tick in 0..10_000u64 {
            let now = 100 * S + tick * S / 1000;
            let request = request(tick + 1, 0);
            if let Next::Now { first } = cases.next(&request, PLAN, now) {
                assert!(first);
                cases.asked(&request, PLAN, now);
                assert!(cases.answered(request.number, None).is_none());
                looks += 1;
            }
        }
        assert_eq!(looks, 10);
    }

    #[test]
    fn an_end_that_overtakes_its_look_waits_for_it() {
        let mut cases = Cases::default();
        let slow = request(7, 0);
        assert_eq!(cases.next(&slow, PLAN, S), Next::Now { first: true });
        cases.asked(&slow, PLAN, S);
        assert!(cases.ended(held(7)).is_none());
        // The next request may begin before the answer comes.
        assert_eq!(cases.next(&request(8, S), PLAN, S), Next::At(S + RETRY_NS));
        let (held, events) = cases.answered(7, Some(event())).expect("it has ended");
        assert_eq!((held.end.begin.number, events.len()), (7, 1));
        assert!(cases.answered(7, None).is_none());
    }

    #[test]
    fn samples_of_the_request_before_are_kept_for_its_end() {
        let mut cases = Cases::default();
        cases.next(&request(7, 0), PLAN, S);
        cases.asked(&request(7, 0), PLAN, S);
        assert!(cases.answered(7, Some(event())).is_none());
        cases.next(&request(8, S), PLAN, S);
        cases.next(&request(9, S), PLAN, S);
        assert!(cases.is_slow(7) && !cases.is_slow(8));
        let (_, events) = cases.ended(held(7)).expect("no look is under way");
        assert_eq!(events.len(), 1);
        assert!(!cases.is_slow(7));
    }

    #[test]
    fn times_at_the_edge_of_the_clock_are_survived() {
        let mut cases = Cases::default();
        assert_eq!(cases.next(&request(1, u64::MAX), PLAN, 5), Next::At(u64::MAX));
        let endless = Plan {
            after: Duration::from_secs(u64::MAX),
            looks: u32::MAX,
        };
        assert_eq!(cases.next(&request(2, 1), endless, 5), Next::At(u64::MAX));
        cases.asked(&request(2, 1), endless, u64::MAX);
    }

    #[test]
    fn a_pool_decides_how_many_looks_there_are() {
        let looks = |looks| {
            let plan = Plan { looks, ..PLAN };
            let (mut cases, request) = (Cases::default(), request(1, 0));
            let mut count = 0;
            let mut now = 0;
            loop {
                match cases.next(&request, plan, now) {
                    Next::Never => return count,
                    Next::At(u64::MAX) => return count,
                    Next::At(due) => now = due,
                    Next::Now { .. } => {
                        count += 1;
                        cases.asked(&request, plan, now);
                        assert!(cases.answered(1, None).is_none());
                    }
                }
            }
        };
        assert_eq!((looks(1), looks(7)), (1, 7));
        // After that, the clock ends: 2^34 seconds are more than it has.
        assert_eq!(looks(u32::MAX), 35);
    }

    #[test]
    fn a_step_that_could_not_be_had_is_over_and_the_next_look_is_the_first() {
        let mut cases = Cases::default();
        let slow = request(7, 0);
        assert_eq!(cases.next(&slow, PLAN, S), Next::Now { first: true });
        cases.skip(&slow, PLAN, S);
        assert!(!cases.is_slow(7) && !cases.is_asked());
        assert_eq!(cases.next(&slow, PLAN, S), Next::At(2 * S));
        assert_eq!(cases.next(&slow, PLAN, 2 * S), Next::Now { first: true });
    }

    #[test]
    fn looks_that_were_skipped_are_told_by_the_event_beside_them() {
        let mut cases = Cases::default();
        let slow = request(7, 0);
        cases.next(&slow, PLAN, S);
        cases.skip(&slow, PLAN, S);
        cases.asked(&slow, PLAN, 2 * S);
        assert!(cases.answered(7, Some(event())).is_none());
        // None comes after the last ones.
        cases.skip(&slow, PLAN, 4 * S);
        cases.skip(&slow, PLAN, 8 * S);
        let events = cases.take_events(7);
        assert_eq!(events.iter().map(|event| event.skipped).sum::<u32>(), 3);
    }

    #[test]
    fn a_last_look_joins_one_that_is_under_way_and_waits_for_one_at_another_request() {
        let mut cases = Cases::default();
        cases.next(&request(7, 0), PLAN, S);
        cases.asked(&request(7, 0), PLAN, S);
        assert!(!cases.turn_to(8), "a look at 7 is under way");
        assert!(cases.turn_to(7));
        cases.asked_out_of_turn();
        assert!(cases.ended(held(7)).is_none());
        assert!(cases.answered(7, Some(event())).is_none(), "another is under way");
        let (_, events) = cases.answered(7, Some(event())).expect("both are over");
        assert_eq!(events.len(), 2);
        assert!(cases.turn_to(8));
        cases.asked_out_of_turn();
        assert!(cases.answered(8, Some(event())).is_none());
        assert!(cases.is_slow(8), "what was looked at is told");
        // A request that is looked at out of turn may still become slow.
        assert_eq!(cases.next(&request(8, S), PLAN, 2 * S), Next::Now { first: true });
    }

    #[test]
    fn a_worker_crashes_once() {
        let mut cases = Cases::default();
        assert!(cases.first_crash() && !cases.first_crash());
    }
}
