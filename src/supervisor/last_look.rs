//! Kills that wait for the observer to look first, so that what is killed leaves its stack
//! behind.
//!
//! | state | event | next | what is done |
//! |---|---|---|---|
//! | – | a kill, a request is under way and an observer watches | Waits | ask for the look |
//! | – | a kill else | – | send the signal |
//! | Waits | a stronger signal | Waits, with that one; no longer | – |
//! | Waits | the look is over; its patience is; the observer is gone | Looked | send the signal |
//! | Looked | a kill in the same request | Looked | send the signal |
//! | Looked | a kill in another request | as – | as – |
//!
//! Who signals many workers asks for all looks at once, so the patience is that of all
//! together.

use std::collections::BTreeMap;
use std::time::Instant;

use glasspool_abi::control::{Doom, LAST_LOOK_PATIENCE, ToObserver};
use glasspool_abi::{Pid, WorkerId};
use rustix::process::Signal;

use super::run::Supervisor;

/// How far each worker is that was to be killed and is not gone yet.
#[derive(Debug, Default)]
pub(super) struct LastLooks(BTreeMap<WorkerId, State>);

/// Requests are known by their numbers in the slot, which are the worker's word: one that
/// invents numbers is looked at once for each signal, as an honest one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The look was asked for.
    Waits {
        request: u64,
        signal: Signal,
        until: Instant,
    },
    /// The look was had, or given up.
    Looked { request: u64 },
}

/// What to do about a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Ask the observer to look.
    Ask,
    /// Send the signal.
    Send,
    /// The signal is sent later.
    Wait,
}

impl LastLooks {
    /// A worker is to be killed while this request is under way; `None` where there is
    /// none, or nobody to look.
    fn kill(&mut self, worker: WorkerId, signal: Signal, request: Option<u64>, now: Instant) -> Step {
        match (self.0.get_mut(&worker), request) {
            (Some(State::Waits { signal: former, .. }), _) => {
                if signal == Signal::KILL {
                    *former = signal;
                }
                Step::Wait
            }
            (_, None) => Step::Send,
            (Some(State::Looked { request: former }), Some(request)) if *former == request => Step::Send,
            (Some(State::Looked { .. }) | None, Some(request)) => {
                let until = now + LAST_LOOK_PATIENCE;
                let waits = State::Waits {
                    request,
                    signal,
                    until,
                };
                self.0.insert(worker, waits);
                Step::Ask
            }
        }
    }

    /// A look is over; returns the signal that waits for it, if one does.
    fn looked(&mut self, worker: WorkerId) -> Option<Signal> {
        let state = self.0.get_mut(&worker)?;
        let State::Waits { request, signal, .. } = *state else {
            return None;
        };
        *state = State::Looked { request };
        Some(signal)
    }

    /// Those whose patience is over.
    fn overdue(&self, now: Instant) -> Vec<WorkerId> {
        let overdue = self.0.iter().filter(|(_, state)| match state {
            State::Waits { until, .. } => *until <= now,
            State::Looked { .. } => false,
        });
        overdue.map(|(worker, _)| *worker).collect()
    }

    /// When the first of them is.
    pub(super) fn due(&self) -> Option<Instant> {
        let waits = self.0.values().filter_map(|state| match state {
            State::Waits { until, .. } => Some(*until),
            State::Looked { .. } => None,
        });
        waits.min()
    }

    /// A worker is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.0.remove(&worker);
    }
}

impl Supervisor {
    /// Ends a worker by force: at once, or if a request is under way and somebody can
    /// look at it, as soon as that is done. Returns its process, if it has one.
    pub(super) fn kill(&mut self, id: WorkerId, signal: Signal, doom: Doom, now: Instant) -> Option<Pid> {
        let worker = self.workers.get_mut(&id)?;
        let request = worker.watched_request().filter(|_| self.observer.is_watching());
        match self.last_looks.kill(id, signal, request, now) {
            Step::Ask => {
                let message = ToObserver::LastLook { worker: id, doom };
                self.observer.tell(&self.log, message, vec![]);
                worker.pid()
            }
            Step::Wait => worker.pid(),
            Step::Send => worker.signal(signal),
        }
    }

    /// The observer has looked into a worker, or will not.
    pub(super) fn on_looked(&mut self, id: WorkerId, crashed: bool) {
        if crashed {
            // In its crash handler it waits for this; anywhere else it means nothing.
            if let Some(worker) = self.workers.get(&id) {
                worker.wake();
            }
        } else {
            self.kill_now(id);
        }
    }

    /// Sends the signals whose looks have taken too long.
    pub(super) fn keep_last_looks(&mut self, now: Instant) {
        for id in self.last_looks.overdue(now) {
            self.log.debug(format_args!(
                "the observer has not looked into worker {id} within {LAST_LOOK_PATIENCE:?}"
            ));
            self.kill_now(id);
        }
    }

    /// There is no observer any more: nobody waits for it.
    pub(super) fn give_up_last_looks(&mut self) {
        let waiting: Vec<WorkerId> = self.last_looks.0.keys().copied().collect();
        for id in waiting {
            self.kill_now(id);
        }
    }

    fn kill_now(&mut self, id: WorkerId) {
        if let Some(signal) = self.last_looks.looked(id)
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.signal(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkerId = WorkerId(1);
    const TERM: Signal = Signal::TERM;

    #[test]
    fn a_kill_in_a_request_waits_for_one_look() {
        let (mut looks, now) = (LastLooks::default(), Instant::now());
        assert_eq!(looks.kill(ONE, TERM, Some(7), now), Step::Ask);
        assert_eq!(looks.due(), Some(now + LAST_LOOK_PATIENCE));
        // Asked again, also by somebody else and more strongly: it is asked for once.
        assert_eq!(looks.kill(ONE, TERM, Some(7), now), Step::Wait);
        assert_eq!(looks.kill(ONE, Signal::KILL, None, now), Step::Wait);
        assert_eq!(looks.kill(ONE, TERM, Some(8), now), Step::Wait);
        assert_eq!(looks.looked(ONE), Some(Signal::KILL));
        assert_eq!((looks.looked(ONE), looks.due()), (None, None));
        // It did not heed the signal: the same request has been seen.
        assert_eq!(looks.kill(ONE, Signal::KILL, Some(7), now), Step::Send);
        assert_eq!(looks.kill(ONE, TERM, Some(8), now), Step::Ask);
    }

    #[test]
    fn without_a_request_or_an_observer_nothing_waits() {
        let (mut looks, now) = (LastLooks::default(), Instant::now());
        assert_eq!(looks.kill(ONE, TERM, None, now), Step::Send);
        assert_eq!((looks.looked(ONE), looks.due()), (None, None));
    }

    #[test]
    fn patience_is_for_all_together() {
        let (mut looks, now) = (LastLooks::default(), Instant::now());
        for id in 1..=40 {
            assert_eq!(looks.kill(WorkerId(id), TERM, Some(1), now), Step::Ask);
        }
        looks.forget(WorkerId(9));
        assert_eq!(looks.looked(WorkerId(2)), Some(TERM));
        let end = looks.due().expect("some wait");
        assert!(looks.overdue(now).is_empty());
        let overdue = looks.overdue(end);
        assert_eq!((overdue.len(), end - now), (38, LAST_LOOK_PATIENCE));
        assert!(overdue.iter().all(|id| looks.looked(*id) == Some(TERM)));
        assert_eq!(looks.due(), None);
    }
}
