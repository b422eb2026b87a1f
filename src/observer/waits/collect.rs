//! One worker's waits, by the request that waited, until that has ended; and the looks at the
//! one past its limit. Pure.
//!
//! The number of the request is the worker's word, so it may be anything: whatever it is,
//! little is kept, the longest waits first, and the rest is counted.

use std::collections::VecDeque;
use std::sync::Arc;

use glasspool_otel::wait_span::{MOST_SPANS, RequestWaits, WaitPlace, WaitSpan};
use glasspool_waits::{OnCpu, Wait};

use super::on_cpu::Looks;
use super::{nanoseconds, words};

/// Requests whose ends have not been read: there may be many short ones between two turns.
const MOST_REQUESTS: usize = 32;
/// Waits kept of all of them together.
const MOST_WAITS: usize = 2 * MOST_SPANS;
/// Places kept of a request.
const MOST_PLACES: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// In the order in which they waited first.
    requests: VecDeque<Collected>,
    looks: Option<Looks>,
    /// The last request that has ended.
    ended: u64,
}

#[derive(Debug)]
struct Collected {
    number: u64,
    /// Waits that came.
    came: u64,
    waits: RequestWaits,
}

/// What became of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is kept, or counted with those of its request.
    Kept,
    /// It was in no request.
    Between,
    /// Its request has been told, or had to go for others.
    Late,
}

impl Collector {
    /// One that is as long as `span_after_ns` is to become a span.
    pub(super) fn add(&mut self, wait: &Wait, span_after_ns: u64) -> Added {
        if wait.request == 0 {
            return Added::Between;
        }
        if wait.request <= self.ended {
            return Added::Late;
        }
        let mut added = Added::Kept;
        let known = self.requests.iter().rposition(|one| one.number == wait.request);
        let at = match known {
            Some(at) => at,
            None => {
                if self.requests.len() >= MOST_REQUESTS {
                    self.requests.pop_front();
                    added = Added::Late;
                }
                self.requests.push_back(Collected {
                    number: wait.request,
                    came: 0,
                    waits: RequestWaits::default(),
                });
                self.requests.len() - 1
            }
        };
        let kept = self.requests.iter().map(|one| one.waits.spans.len()).sum();
        if let Some(request) = self.requests.get_mut(at) {
            request.add(wait, span_after_ns, kept);
        }
        added
    }

    /// That request is past its limit since then, monotonic nanoseconds.
    pub(super) fn past(&mut self, number: u64, since_ns: u64) {
        if number > self.ended && !self.is_past(number) {
            self.looks = Some(Looks::new(number, since_ns));
        }
    }

    /// Whether that request is known to be past its limit.
    pub(super) fn is_past(&self, number: u64) -> bool {
        self.looks.as_ref().is_some_and(|looks| looks.number() == number)
    }

    /// The worker was found on a CPU. Neither kept nor lost if that is of no interest.
    pub(super) fn look(&mut self, look: &OnCpu) {
        if let Some(looks) = &mut self.looks {
            looks.add(look);
        }
    }

    /// Waits of that request that came.
    pub(super) fn came(&self, number: u64) -> u64 {
        let mut requests = self.requests.iter();
        requests
            .find(|one| one.number == number)
            .map_or(0, |one| one.came)
    }

    /// The waits of a request that has ended.
    pub(super) fn take(&mut self, number: u64) -> RequestWaits {
        let mut requests = self.requests.iter_mut();
        let found = requests.find(|one| one.number == number);
        let waits = found.map(|one| std::mem::take(&mut one.waits));
        let looks = self.looks.take_if(|looks| looks.number() == number);
        self.end(number);
        RequestWaits {
            on_cpu: looks.map(Looks::into_found).unwrap_or_default(),
            ..waits.unwrap_or_default()
        }
    }

    /// Requests, waits and places that it keeps.
    #[cfg(test)]
    pub(super) fn kept(&self) -> [usize; 3] {
        let sum = |of: fn(&Collected) -> usize| self.requests.iter().map(of).sum();
        [
            self.requests.len(),
            sum(|one| one.waits.spans.len()),
            sum(|one| one.waits.places.len()),
        ]
    }

    /// That request has ended, and with it all before.
    pub(super) fn end(&mut self, number: u64) {
        self.ended = self.ended.max(number);
        self.requests.retain(|one| one.number > number);
        self.looks.take_if(|looks| looks.number() <= number);
    }
}

impl Collected {
    /// `kept` are the waits that all requests of the worker keep.
    fn add(&mut self, wait: &Wait, span_after_ns: u64, kept: usize) {
        self.came = self.came.saturating_add(1);
        let blocked_ns = wait.blocked.map_or(0, nanoseconds);
        self.add_place(words::place(wait), blocked_ns);
        if blocked_ns < span_after_ns {
            return;
        }
        let spans = &mut self.waits.spans;
        if spans.len() < MOST_SPANS && kept < MOST_WAITS {
            let span = self.share_stack(words::span(wait, blocked_ns));
            self.waits.spans.push(span);
            return;
        }
        self.waits.without_span = self.waits.without_span.saturating_add(1);
        let shortest = spans.iter().enumerate().min_by_key(|(_, span)| span.blocked_ns);
        let shortest = shortest.filter(|(_, span)| span.blocked_ns < blocked_ns);
        if let Some((at, _)) = shortest {
            let span = self.share_stack(words::span(wait, blocked_ns));
            self.waits.spans[at] = span;
        }
    }

    /// A loop waits with one stack again and again; it is kept once.
    fn share_stack(&self, span: WaitSpan) -> WaitSpan {
        let known = self.waits.spans.iter().rev().take(4);
        let mut known = known.filter(|known| known.stacktrace == span.stacktrace);
        match known.next() {
            Some(known) => WaitSpan {
                stacktrace: Arc::clone(&known.stacktrace),
                ..span
            },
            None => span,
        }
    }

    fn add_place(&mut self, place: WaitPlace, blocked_ns: u64) {
        let places = &mut self.waits.places;
        let known = places.iter().position(|known| {
            known.line == place.line
                && known.class == place.class
                && known.function == place.function
                && known.file == place.file
                && known.with == place.with
        });
        let at = known.unwrap_or(places.len());
        if known.is_none() && places.len() < MOST_PLACES {
            places.push(place);
        } else if known.is_none() {
            // Those that waited longest are told: a new one takes the place of the least.
            let least = places.iter_mut().min_by_key(|known| known.blocked_ns);
            if let Some(least) = least.filter(|least| least.blocked_ns < blocked_ns) {
                *least = WaitPlace {
                    blocked_ns,
                    waits: 1,
                    ..place
                };
            }
            return;
        }
        let Some(known) = places.get_mut(at) else {
            return;
        };
        known.blocked_ns = known.blocked_ns.saturating_add(blocked_ns);
        known.waits = known.waits.saturating_add(1);
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
