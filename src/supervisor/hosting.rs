//! Keeps the engines up, one for each distinct PHP: starts them, gives each its pools,
//! and replaces one that is lost. What each report means is decided in `engine`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{ChannelError, Ended, FromEngine, ToEngine, ToObserver};
use glasspool_abi::{EngineId, WorkerId};
use rustix::process::Signal;

use super::engine::{self, Action, Engine, Event, State};
use super::engines::GroupId;
use super::error::{StartError, seconds};
use super::link::Delivery;
use super::process::describe;
use super::recipe::start_message;
use super::run::{self, Supervisor};
use super::worker;

/// An engine that lived so long is replaced at once.
const LONG_LIFE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Starts the engines that are wanted and whose time has come; reports those that are
    /// overdue.
    pub(super) fn keep_engines(&mut self, now: Instant) {
        let groups: Vec<GroupId> = self.engines.groups.keys().copied().collect();
        for group in groups {
            let Some(hosting) = self.engines.groups.get_mut(&group) else {
                continue;
            };
            match &mut hosting.current {
                Some(engine) if engine.due.is_some_and(|due| due <= now) => {
                    engine.due = None;
                    self.engine_event(group, Event::Overdue);
                }
                Some(_) => {}
                None if hosting.wanted && self.phase.wants_workers() && hosting.backoff.is_over(now) => {
                    self.start_engine(group, now);
                }
                None => {}
            }
        }
    }

    fn start_engine(&mut self, group: GroupId, now: Instant) {
        let id = self.engines.next_id();
        let Some(hosting) = self.engines.groups.get_mut(&group) else {
            return;
        };
        let on_delivery = move |delivery| run::Event::Engine(group, id, delivery);
        let on_end = move |ended| run::Event::EngineEnded(group, id, ended);
        match Engine::spawn(
            id,
            &hosting.recipe.source,
            &self.log,
            &self.events,
            on_delivery,
            on_end,
        ) {
            Ok(engine) => {
                hosting.closed = false;
                hosting.current = Some(engine);
            }
            Err(e) => self.engine_failed(group, e, now),
        }
    }

    /// A first engine that fails ends the start, or the reload that it is for; a later
    /// one is tried again.
    fn engine_failed(&mut self, group: GroupId, error: StartError, now: Instant) {
        let Some(hosting) = self.engines.groups.get_mut(&group) else {
            return;
        };
        if hosting.proven {
            let wait = hosting.backoff.failed(now);
            self.log.error(format_args!(
                "{error}; running workers go on, next attempt in {wait:?}"
            ));
        } else {
            self.first_engine_failed(group, error);
        }
    }

    /// Queues a message for the group's engine.
    pub(super) fn tell_engine(&mut self, group: GroupId, message: ToEngine, fds: Vec<Arc<OwnedFd>>) {
        let hosting = self.engines.groups.get(&group);
        let Some(engine) = hosting.and_then(|hosting| hosting.current.as_ref()) else {
            return;
        };
        if let Err(e) = engine.send(message, fds) {
            self.log.error(format_args!(
                "the engine (pid {}) hangs: {e}; killing it",
                engine.child.pid
            ));
            engine.child.signal(Signal::KILL);
        }
    }

    /// Something came from an engine or from a worker that starts.
    pub(super) fn on_engine_delivery(
        &mut self,
        group: GroupId,
        id: EngineId,
        delivery: Delivery<FromEngine>,
    ) {
        let is_current = self.is_current(group, id);
        let (message, fds) = match delivery {
            Delivery::Message(message, fds) => (message, fds),
            Delivery::Closed(e) => return self.engine_closed(group, id, is_current, &e),
        };
        let engine_event = match message {
            FromEngine::Hello { abi } => Event::Hello(abi),
            FromEngine::Ready(build) => {
                if is_current {
                    self.engines.php.insert(id, build);
                }
                Event::Ready
            }
            FromEngine::Failed { reason } => Event::Failed(reason),
            FromEngine::Spawned { worker, pid } => {
                return self.worker_report(worker, worker::Event::Spawned(pid));
            }
            FromEngine::SpawnFailed { worker, reason } => {
                return self.worker_report(worker, worker::Event::SpawnFailed(reason));
            }
            FromEngine::WorkerReady { worker } if self.canaries.contains_key(&worker) => return,
            FromEngine::WorkerReady { worker } => return self.worker_is_ready(worker, fds),
            FromEngine::WorkerFailed { worker, reason } => {
                return self.worker_report(worker, worker::Event::Failed(reason));
            }
            FromEngine::OpcacheAsked { pid } if is_current => return self.opcache_asked(group, id, pid),
            // It ends as an orphan.
            FromEngine::OpcacheAsked { .. } => return,
        };
        if is_current {
            self.engine_event(group, engine_event);
        }
    }

    fn worker_report(&mut self, worker: WorkerId, event: worker::Event) {
        if !self.canaries.contains_key(&worker) {
            self.worker_event(worker, event);
        } else if let Some(verdict) = self.canary_report(worker, event) {
            self.on_verdict(verdict);
        }
    }

    pub(super) fn is_current(&self, group: GroupId, id: EngineId) -> bool {
        let hosting = self.engines.groups.get(&group);
        let current = hosting.and_then(|hosting| hosting.current.as_ref());
        current.is_some_and(|engine| engine.id == id)
    }

    fn engine_closed(&mut self, group: GroupId, id: EngineId, is_current: bool, why: &ChannelError) {
        let hosting = self.engines.groups.get_mut(&group);
        if let (Some(hosting), true) = (hosting, is_current) {
            match why {
                ChannelError::Closed => {}
                other => self
                    .log
                    .error(format_args!("the engine's control socket: {other}")),
            }
            hosting.closed = true;
            return self.engine_event(group, Event::Closed);
        }
        if let Some(hosting) = self.engines.groups.get_mut(&group) {
            hosting.retired.retain(|engine| engine.id != id);
        }
        self.engine_lost(id);
    }

    /// The engine's process has ended and was reaped.
    pub(super) fn on_engine_end(&mut self, group: GroupId, id: EngineId, ended: Ended) {
        if self.is_current(group, id) {
            self.engine_event(group, Event::Exited(ended));
        }
    }

    /// Decides by the table, and does it.
    fn engine_event(&mut self, group: GroupId, event: Event) {
        let hosting = self.engines.groups.get_mut(&group);
        let Some(engine) = hosting.and_then(|hosting| hosting.current.as_mut()) else {
            return;
        };
        let (state, actions) = engine.state.on(event);
        engine.state = state;
        for action in actions {
            self.perform_for_engine(group, action);
        }
        if state != State::Gone {
            return;
        }
        let Some(hosting) = self.engines.groups.get_mut(&group) else {
            return;
        };
        let Some(engine) = hosting.current.take() else {
            return;
        };
        let id = engine.id;
        if hosting.closed || !hosting.wanted {
            self.engine_lost(id);
        } else {
            hosting.retired.push(engine);
        }
        self.engines.forget_unused(id, &self.workers);
        self.engines.drop_gone();
    }

    fn perform_for_engine(&mut self, group: GroupId, action: Action) {
        let now = Instant::now();
        let wanted = self.phase.wants_workers();
        let Some(hosting) = self.engines.groups.get_mut(&group) else {
            return;
        };
        let wanted = wanted && hosting.wanted;
        let Some(engine) = &mut hosting.current else {
            return;
        };
        let pid = engine.child.pid;
        match action {
            Action::Within(time) => engine.due = Some(now + time),
            Action::WithoutLimit => engine.due = None,
            Action::Kill => engine.child.signal(Signal::KILL),
            Action::Odd(what) => self
                .log
                .warning(format_args!("the engine (pid {pid}) {what}; ignored")),
            Action::StartPhp => {
                let message = start_message(&engine.binary, &hosting.recipe.options);
                self.tell_engine(group, message, vec![]);
            }
            Action::Employ => {
                hosting.proven = true;
                self.employ(group);
            }
            Action::Fail(failure) => {
                let error = engine::start_error(engine, failure);
                // One that is told to end while PHP starts has not failed.
                if wanted {
                    self.engine_failed(group, error, now);
                }
            }
            Action::Lose(ended) => {
                let life = engine.since.elapsed();
                let how = format!(
                    "the engine (pid {pid}) exited {} after {}",
                    describe(ended),
                    seconds(life)
                );
                if !wanted {
                    return self.log.debug(how);
                }
                if life >= LONG_LIFE {
                    hosting.backoff.succeeded();
                } else {
                    hosting.backoff.failed(now);
                }
                self.engine_was_lost(group, &how);
            }
        }
    }

    /// Tells the observer what an engine hosts, before the workers that come from it.
    pub(super) fn introduce_engine(&self, engine: EngineId) {
        if let Some(php) = self.engines.php.get(&engine) {
            let php = php.clone();
            self.observer
                .tell(&self.log, ToObserver::Engine { engine, php }, vec![]);
        }
    }
}
