//! When to look into a request that takes too long: once past its limit, again at twice,
//! four and eight times the limit. Also keeps what was seen until the request's end
//! record comes. Pure; the looking itself is `sampler`.
//!
//! What a worker says of its requests is hostile: it can name any number and start time
//! at any moment. So the first look at a request waits for a whole limit after the first
//! look at the one before, which no honest worker notices.

use std::time::Duration;

use glasspool_abi::record::End;
use glasspool_abi::slot::InProgress;
use glasspool_otel::queue::Priority;
use glasspool_otel::slow::SlowEvent;

/// Looks into one request at most.
const MOST_LOOKS: u32 = 4;
/// When a look that cannot be had now is tried again.
const RETRY_NS: u64 = 5_000_000;

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
}

#[derive(Debug, Default)]
struct Case {
    number: u64,
    /// Looks whose time has passed.
    step: u32,
    /// It has been looked at, whatever came of it.
    slow: bool,
    /// A look is under way.
    asked: bool,
    events: Vec<SlowEvent>,
    /// It has ended while a look was under way; told when that is over.
    held: Option<Held>,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) end: End,
    pub(super) priority: Priority,
}

impl Cases {
    /// When to look at the request that is under way.
    pub(super) fn next(&mut self, progress: &InProgress, limit: Duration, now: u64) -> Next {
        if progress.number != self.current.number {
            if self.current.asked {
                return Next::At(now.saturating_add(RETRY_NS));
            }
            let new = Case {
                number: progress.number,
                ..Case::default()
            };
            let old = std::mem::replace(&mut self.current, new);
            if old.slow {
                self.previous = Some(old);
            }
        }
        let case = &self.current;
        if case.step >= MOST_LOOKS {
            return Next::Never;
        }
        if case.asked {
            return Next::At(now.saturating_add(RETRY_NS));
        }
        let first = case.step == 0;
        let mut due = progress.start_mono_ns.saturating_add(at_step(limit, case.step));
        if first {
            due = due.max(self.quiet_until);
        }
        if now < due {
            Next::At(due)
        } else {
            Next::Now { first }
        }
    }

    /// A look is under way. Steps whose time is over by now are left out, so that a
    /// request that is found late is not looked at four times at once.
    pub(super) fn asked(&mut self, progress: &InProgress, limit: Duration, now: u64) {
        let age = now.saturating_sub(progress.start_mono_ns);
        let case = &mut self.current;
        if case.step == 0 {
            self.quiet_until = now.saturating_add(at_step(limit, 0));
        }
        case.step = (case.step + 1..MOST_LOOKS)
            .find(|step| at_step(limit, *step) > age)
            .unwrap_or(MOST_LOOKS);
        case.slow = true;
        case.asked = true;
    }

    /// The look is over. Returns the request and its samples if it has ended meanwhile.
    pub(super) fn answered(
        &mut self,
        number: u64,
        event: Option<SlowEvent>,
    ) -> Option<(Held, Vec<SlowEvent>)> {
        let case = &mut self.current;
        if case.number != number || !case.asked {
            return None;
        }
        case.asked = false;
        case.events.extend(event);
        let held = case.held.take()?;
        Some((held, std::mem::take(&mut case.events)))
    }

    /// Whether a look is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.current.asked
    }

    /// Whether the request was slow as far as looks tell.
    pub(super) fn is_slow(&self, number: u64) -> bool {
        self.all().any(|case| case.number == number && case.slow)
    }

    /// A request has ended. Returns it with its samples, or keeps it until the look that
    /// is under way is over.
    pub(super) fn ended(&mut self, held: Held) -> Option<(Held, Vec<SlowEvent>)> {
        let number = held.end.begin.number;
        if self.current.number == number && self.current.asked {
            // A second end of the same request would be a lie; the first one counts.
            self.current.held.get_or_insert(held);
            return None;
        }
        Some((held, self.take_events(number)))
    }

    /// The samples of that request.
    pub(super) fn take_events(&mut self, number: u64) -> Vec<SlowEvent> {
        if self.current.number == number {
            return std::mem::take(&mut self.current.events);
        }
        let previous = self.previous.take_if(|case| case.number == number);
        previous.map(|case| case.events).unwrap_or_default()
    }

    /// An ended request whose look will not be over any more, with its samples.
    pub(super) fn give_up_look(&mut self) -> Option<(Held, Vec<SlowEvent>)> {
        self.answered(self.current.number, None)
    }

    fn all(&self) -> impl Iterator<Item = &Case> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

/// Age at which a look is due, nanoseconds.
fn at_step(limit: Duration, step: u32) -> u64 {
    u64::try_from(limit.as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_mul(1 << step)
}

/// How many looks a second all workers together may cause; each takes the reader some
/// 0.1 ms. Looks above that are put off, not dropped.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    /// Start of the present slice of time, monotonic nanoseconds.
    since: u64,
}

impl Budget {
    const PER_SLICE: u32 = 50;
    const SLICE_NS: u64 = 50_000_000;

    pub(super) fn new() -> Budget {
        Budget {
            left: Budget::PER_SLICE,
            since: 0,
        }
    }

    /// Takes one look from the budget, if there is one left.
    pub(super) fn take(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.since) >= Budget::SLICE_NS {
            *self = Budget {
                left: Budget::PER_SLICE,
                since: now,
            };
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

/// When a look that the budget did not allow is tried again.
pub(super) fn postponed(now: u64) -> Next {
    Next::At(now.saturating_add(RETRY_NS))
}

#[cfg(test)]
mod tests {
    use glasspool_abi::slot::Stage;

    use super::super::testing::{end, event};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
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
        }
    }

    /// Looks as soon as one is due and is answered at once; returns the ages.
    fn looks(cases: &mut Cases, request: InProgress, from: u64) -> Vec<u64> {
        let (mut now, mut ages) = (from, Vec::new());
        loop {
            match cases.next(&request, LIMIT, now) {
                Next::Never => return ages,
                Next::At(due) => now = due,
                Next::Now { first } => {
                    assert_eq!(first, ages.is_empty());
                    ages.push(now - request.start_mono_ns);
                    cases.asked(&request, LIMIT, now);
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
            if let Next::Now { first } = cases.next(&request, LIMIT, now) {
                assert!(first);
                cases.asked(&request, LIMIT, now);
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
        assert_eq!(cases.next(&slow, LIMIT, S), Next::Now { first: true });
        cases.asked(&slow, LIMIT, S);
        assert!(cases.ended(held(7)).is_none());
        // The next request may begin before the answer comes.
        assert_eq!(cases.next(&request(8, S), LIMIT, S), Next::At(S + RETRY_NS));
        let (held, events) = cases.answered(7, Some(event())).expect("it has ended");
        assert_eq!((held.end.begin.number, events.len()), (7, 1));
        assert!(cases.answered(7, None).is_none());
    }

    #[test]
    fn samples_of_the_request_before_are_kept_for_its_end() {
        let mut cases = Cases::default();
        cases.next(&request(7, 0), LIMIT, S);
        cases.asked(&request(7, 0), LIMIT, S);
        assert!(cases.answered(7, Some(event())).is_none());
        cases.next(&request(8, S), LIMIT, S);
        cases.next(&request(9, S), LIMIT, S);
        assert!(cases.is_slow(7) && !cases.is_slow(8));
        let (_, events) = cases.ended(held(7)).expect("no look is under way");
        assert_eq!(events.len(), 1);
        assert!(!cases.is_slow(7));
    }

    #[test]
    fn times_at_the_edge_of_the_clock_are_survived() {
        let mut cases = Cases::default();
        assert_eq!(cases.next(&request(1, u64::MAX), LIMIT, 5), Next::At(u64::MAX));
        let endless = Duration::from_secs(u64::MAX);
        assert_eq!(cases.next(&request(2, 1), endless, 5), Next::At(u64::MAX));
        cases.asked(&request(2, 1), endless, u64::MAX);
    }

    #[test]
    fn the_budget_refills_with_time() {
        let mut budget = Budget::new();
        let taken = (0..1000).filter(|_| budget.take(S)).count();
        assert_eq!(taken, Budget::PER_SLICE as usize);
        assert!(budget.take(S + Budget::SLICE_NS));
    }
}
