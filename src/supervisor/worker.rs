//! One worker's life as a table. What is done about it is in `crew`.
//!
//! Reports come from two sides: the engine says that a worker was forked, the worker
//! says that it is about to serve. Either may be heard first.

use glasspool_abi::Pid;
use glasspool_abi::control::Ended;

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The engine was asked to fork it; nothing is known of a process.
    Requested {
        /// The worker itself has already said that it is about to serve.
        ready: bool,
    },
    /// It is our child and prepares itself.
    Starting {
        /// Its process.
        pid: Pid,
    },
    /// It serves.
    Ready {
        /// Its process.
        pid: Pid,
    },
    /// Gone and reaped, or never born. The last state.
    Gone,
}

/// What can happen to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The engine has forked it.
    Spawned(Pid),
    /// The engine could not fork it.
    SpawnFailed(String),
    /// It is about to serve.
    Ready,
    /// It cannot become what its pool asks, and exits.
    Failed(String),
    /// It has exited and was reaped.
    Exited(Ended),
    /// Its engine is gone, so a worker that was only asked for will not come.
    EngineLost,
}

/// What to do about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Watch this child and log that it started.
    Watch(Pid),
    /// Tell the observer that it serves, and count the start as a success.
    Serve(Pid),
    /// Log why it will not serve.
    Complain(String),
    /// Log how this child ended.
    Bury(Pid, Ended),
    /// Tell the observer, which knew it, that it is gone.
    Forget(Pid, Ended),
    /// It never served: wait a little longer before the next attempt.
    BackOff,
}

/// A report that contradicts what is known; worth a line in the log, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a worker that is {state:?} cannot be reported as {event:?}; the report is ignored")]
pub(super) struct Contradiction {
    state: State,
    event: Event,
}

impl State {
    /// A worker that the engine is being asked for.
    pub(super) const NEW: State = State::Requested { ready: false };

    /// The table.
    pub(super) fn on(self, event: Event) -> Result<(State, Vec<Action>), Contradiction> {
        use Action::*;
        match (self, event) {
            (State::Requested { ready: false }, Event::Spawned(pid)) => {
                Ok((State::Starting { pid }, vec![Watch(pid)]))
            }
            (State::Requested { ready: true }, Event::Spawned(pid)) => {
                Ok((State::Ready { pid }, vec![Watch(pid), Serve(pid)]))
            }
            (State::Requested { .. }, Event::SpawnFailed(reason)) => {
                Ok((State::Gone, vec![Complain(reason), BackOff]))
            }
            (State::Requested { ready: false }, Event::Ready) => {
                Ok((State::Requested { ready: true }, vec![]))
            }
            // Its process is told apart from strangers when the engine names it.
            (State::Requested { ready: false }, Event::Failed(reason)) => Ok((self, vec![Complain(reason)])),
            (State::Requested { .. }, Event::EngineLost) => Ok((State::Gone, vec![])),

            (State::Starting { pid }, Event::Ready) => Ok((State::Ready { pid }, vec![Serve(pid)])),
            (State::Starting { .. }, Event::Failed(reason)) => Ok((self, vec![Complain(reason)])),
            (State::Starting { pid }, Event::Exited(ended)) => {
                Ok((State::Gone, vec![Bury(pid, ended), BackOff]))
            }
            (State::Ready { pid }, Event::Exited(ended)) => {
                Ok((State::Gone, vec![Bury(pid, ended), Forget(pid, ended)]))
            }
            // A worker outlives its engine.
            (State::Starting { .. } | State::Ready { .. }, Event::EngineLost) => Ok((self, vec![])),

            (
                state @ State::Requested { .. },
                event @ (Event::Exited(_) | Event::Ready | Event::Failed(_)),
            )
            | (state @ State::Starting { .. }, event @ (Event::Spawned(_) | Event::SpawnFailed(_)))
            | (
                state @ State::Ready { .. },
                event @ (Event::Spawned(_) | Event::SpawnFailed(_) | Event::Ready | Event::Failed(_)),
            )
            | (
                state @ State::Gone,
                event @ (Event::Spawned(_)
                | Event::SpawnFailed(_)
                | Event::Ready
                | Event::Failed(_)
                | Event::Exited(_)
                | Event::EngineLost),
            ) => Err(Contradiction { state, event }),
        }
    }

    /// Its process, once there is one.
    pub(super) fn pid(self) -> Option<Pid> {
        match self {
            State::Starting { pid } | State::Ready { pid } => Some(pid),
            State::Requested { .. } | State::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Pid = Pid(7);
    const OK: Ended = Ended::Exited(0);

    fn walk(events: &[Event]) -> Result<(State, Vec<Action>), Contradiction> {
        let mut state = State::NEW;
        let mut actions = Vec::new();
        for event in events {
            let (next, then) = state.on(event.clone())?;
            state = next;
            actions.extend(then);
        }
        Ok((state, actions))
    }

    #[test]
    fn reports_in_either_order_make_a_serving_worker() {
        let expected = Ok((
            State::Ready { pid: PID },
            vec![Action::Watch(PID), Action::Serve(PID)],
        ));
        assert_eq!(walk(&[Event::Spawned(PID), Event::Ready]), expected);
        assert_eq!(walk(&[Event::Ready, Event::Spawned(PID)]), expected);
    }

    #[test]
    fn only_a_worker_that_served_is_reported_as_gone() {
        let (state, actions) = walk(&[Event::Spawned(PID), Event::Ready, Event::Exited(OK)]).expect("legal");
        assert_eq!(state, State::Gone);
        assert_eq!(actions[2..], [Action::Bury(PID, OK), Action::Forget(PID, OK)]);
        let (_, actions) = walk(&[Event::Spawned(PID), Event::Exited(OK)]).expect("legal");
        assert_eq!(actions[1..], [Action::Bury(PID, OK), Action::BackOff]);
    }

    #[test]
    fn a_lost_engine_takes_only_the_unborn_with_it() {
        assert_eq!(walk(&[Event::EngineLost]), Ok((State::Gone, vec![])));
        let (state, _) = walk(&[Event::Spawned(PID), Event::EngineLost]).expect("legal");
        assert_eq!(state, State::Starting { pid: PID });
    }

    #[test]
    fn contradictions_are_errors() {
        for events in [
            &[Event::Exited(OK)][..],
            &[Event::Spawned(PID), Event::Spawned(PID)],
            &[Event::EngineLost, Event::Ready],
        ] {
            assert!(walk(events).is_err(), "{events:?}");
        }
    }
}
