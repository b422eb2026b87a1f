//! Keeps one engine up: starts it, gives it the pools, and replaces it when it is lost.
//! What each report means is decided in `engine`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{ChannelError, Ended, FromEngine, ToEngine, ToObserver};
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{ABI_VERSION, EngineId, WorkerId};
use rustix::process::Signal;

use super::backoff::Backoff;
use super::crew::Worker;
use super::engine::{Action, Engine, EngineSource, Event, Failure, State, start_message};
use super::error::{StartError, seconds};
use super::link::{Delivery, WeakLink};
use super::process::describe;
use super::run::{self, Supervisor};
use super::worker;

/// An engine that lived so long is replaced at once.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// The engine there is, those whose last words are still awaited, and how to start one.
#[derive(Debug)]
pub(super) struct Hosting {
    source: EngineSource,
    ini: Option<PathBuf>,
    define: Vec<String>,
    pub(super) current: Option<Engine>,
    /// Reaped, but their sockets are still held open by workers that start.
    retired: Vec<Engine>,
    /// Whether the current one's socket is closed.
    closed: bool,
    next: u32,
    backoff: Backoff,
    /// What engines host, as long as a worker of theirs lives.
    pub(super) php: BTreeMap<EngineId, Box<PhpBuild>>,
    /// Whether PHP has ever come up.
    pub(super) proven: bool,
}

impl Hosting {
    pub(super) fn new(source: EngineSource, ini: Option<PathBuf>, define: Vec<String>) -> Hosting {
        Hosting {
            source,
            ini,
            define,
            current: None,
            retired: Vec::new(),
            closed: false,
            next: 1,
            backoff: Backoff::default(),
            php: BTreeMap::new(),
            proven: false,
        }
    }

    /// A way to wait for what an engine's socket still holds.
    pub(super) fn link_of(&self, id: EngineId) -> Option<WeakLink<ToEngine>> {
        let engine = self
            .current
            .iter()
            .chain(&self.retired)
            .find(|engine| engine.id == id)?;
        engine.link.as_ref().map(|link| link.downgrade())
    }

    /// Drops what is known of engines that nobody comes from any more.
    pub(super) fn forget_unused(&mut self, workers: &BTreeMap<WorkerId, Worker>) {
        if self.php.len() < 2 {
            return;
        }
        let current = self.current.as_ref().map(|engine| engine.id);
        self.php
            .retain(|id, _| Some(*id) == current || workers.values().any(|worker| worker.engine() == *id));
    }

    /// Closes all control sockets: the engine ends.
    pub(super) fn close(&mut self) {
        self.retired.clear();
        if let Some(engine) = &mut self.current {
            engine.link = None;
        }
    }

    pub(super) fn kill(&self) {
        if let Some(engine) = &self.current {
            engine.child.signal(Signal::KILL);
        }
    }

    /// When something is to be done without a report.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match &self.current {
            Some(engine) => engine.due,
            None => self.backoff.due(now),
        }
    }
}

impl Supervisor {
    /// Starts an engine if one is wanted and its time has come; reports one that is overdue.
    pub(super) fn keep_engine(&mut self, now: Instant) {
        match &mut self.hosting.current {
            Some(engine) if engine.due.is_some_and(|due| due <= now) => {
                engine.due = None;
                self.engine_event(Event::Overdue);
            }
            Some(_) => {}
            None if self.phase.wants_workers() && self.hosting.backoff.is_over(now) => self.start_engine(now),
            None => {}
        }
    }

    fn start_engine(&mut self, now: Instant) {
        let id = EngineId(self.hosting.next);
        self.hosting.next += 1;
        let on_delivery = move |delivery| run::Event::Engine(id, delivery);
        let on_end = move |ended| run::Event::EngineEnded(id, ended);
        match Engine::spawn(id, &self.hosting.source, &self.events, on_delivery, on_end) {
            Ok(engine) => {
                self.hosting.closed = false;
                self.hosting.current = Some(engine);
            }
            Err(e) => self.engine_failed(e, now),
        }
    }

    /// A first engine that fails ends the start; a later one is tried again.
    fn engine_failed(&mut self, error: StartError, now: Instant) {
        if !self.hosting.proven {
            self.fatal.get_or_insert(error);
            return;
        }
        let wait = self.hosting.backoff.failed(now);
        self.log.error(format_args!(
            "{error}; running workers go on, next attempt in {wait:?}"
        ));
    }

    /// Queues a message for the engine.
    pub(super) fn tell_engine(&mut self, message: ToEngine, fds: Vec<Arc<OwnedFd>>) {
        let Some(engine) = &self.hosting.current else {
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
    pub(super) fn on_engine_delivery(&mut self, id: EngineId, delivery: Delivery<FromEngine>) {
        let is_current = self
            .hosting
            .current
            .as_ref()
            .is_some_and(|engine| engine.id == id);
        let (message, mut fds) = match delivery {
            Delivery::Message(message, fds) => (message, fds),
            Delivery::Closed(e) => return self.engine_closed(id, is_current, &e),
        };
        let engine_event = match message {
            FromEngine::Hello { abi } => Event::Hello(abi),
            FromEngine::Ready(build) => {
                if is_current {
                    self.hosting.php.insert(id, build);
                }
                Event::Ready
            }
            FromEngine::Failed { reason } => Event::Failed(reason),
            FromEngine::Spawned { worker, pid } => {
                return self.worker_event(worker, worker::Event::Spawned(pid));
            }
            FromEngine::SpawnFailed { worker, reason } => {
                return self.worker_event(worker, worker::Event::SpawnFailed(reason));
            }
            FromEngine::WorkerReady { worker } => return self.worker_is_ready(worker, fds.pop()),
            FromEngine::WorkerFailed { worker, reason } => {
                return self.worker_event(worker, worker::Event::Failed(reason));
            }
        };
        if is_current {
            self.engine_event(engine_event);
        }
    }

    fn engine_closed(&mut self, id: EngineId, is_current: bool, why: &ChannelError) {
        if is_current {
            match why {
                ChannelError::Closed => {}
                other => self
                    .log
                    .error(format_args!("the engine's control socket: {other}")),
            }
            self.hosting.closed = true;
            self.engine_event(Event::Closed);
        } else {
            self.hosting.retired.retain(|engine| engine.id != id);
            self.engine_lost(id);
        }
    }

    /// The engine's process has ended and was reaped.
    pub(super) fn on_engine_end(&mut self, id: EngineId, ended: Ended) {
        if self
            .hosting
            .current
            .as_ref()
            .is_some_and(|engine| engine.id == id)
        {
            self.engine_event(Event::Exited(ended));
        }
    }

    /// Decides by the table, and does it.
    fn engine_event(&mut self, event: Event) {
        let Some(engine) = &mut self.hosting.current else {
            return;
        };
        let (state, actions) = engine.state.on(event);
        engine.state = state;
        for action in actions {
            self.perform_for_engine(action);
        }
        if state != State::Gone {
            return;
        }
        let Some(engine) = self.hosting.current.take() else {
            return;
        };
        let id = engine.id;
        if self.hosting.closed {
            self.engine_lost(id);
        } else {
            self.hosting.retired.push(engine);
        }
    }

    fn perform_for_engine(&mut self, action: Action) {
        let now = Instant::now();
        let Some(engine) = &mut self.hosting.current else {
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
                let (ini, define) = (self.hosting.ini.as_deref(), &self.hosting.define);
                let message = start_message(&engine.binary, ini, define);
                self.tell_engine(message, vec![]);
            }
            Action::Employ => self.employ(),
            Action::Fail(failure) => {
                let error = start_error(engine, failure);
                // One that is told to end while PHP starts has not failed.
                if self.phase.wants_workers() {
                    self.engine_failed(error, now);
                }
            }
            Action::Lose(ended) => {
                let life = engine.since.elapsed();
                let how = format!(
                    "the engine (pid {pid}) exited {} after {}",
                    describe(ended),
                    seconds(life)
                );
                if !self.phase.wants_workers() {
                    return self.log.debug(how);
                }
                if life >= LONG_LIFE {
                    self.hosting.backoff.succeeded();
                } else {
                    self.hosting.backoff.failed(now);
                }
                self.log.warning(format_args!(
                    "{how}; running workers go on, starting a new engine"
                ));
            }
        }
    }

    /// PHP is up: tells the engine the pools, and the observer what PHP it is.
    fn employ(&mut self) {
        let Some(id) = self.hosting.current.as_ref().map(|engine| engine.id) else {
            return;
        };
        let pools = self
            .pools
            .iter()
            .map(|pool| (pool.spec.clone(), Arc::clone(&pool.listener.socket)));
        for (spec, socket) in pools.collect::<Vec<_>>() {
            let doorbell = Arc::clone(&self.observer.doorbell);
            self.tell_engine(ToEngine::AddPool(spec), vec![socket, doorbell]);
        }
        if !std::mem::replace(&mut self.hosting.proven, true) {
            return self.came_up();
        }
        if let Some(php) = self.hosting.php.get(&id) {
            let message = ToObserver::Engine {
                engine: id,
                php: php.clone(),
            };
            self.observer.tell(&self.log, message, vec![]);
        }
    }
}

fn start_error(engine: &Engine, failure: Failure) -> StartError {
    let binary = engine.binary.clone();
    match failure {
        Failure::Version(theirs) => StartError::Version {
            binary,
            theirs,
            ours: ABI_VERSION,
        },
        Failure::Php(reason) => StartError::Php { binary, reason },
        Failure::DiedStarting(ended) => StartError::Php {
            binary,
            reason: format!("its process exited {}", describe(ended)),
        },
        Failure::DiedUngreeted(ended) => StartError::NotHosting {
            binary,
            reason: format!(
                "its process exited {} before the engine object spoke",
                describe(ended)
            ),
        },
        Failure::PhpSilent(time) => StartError::Php {
            binary,
            reason: format!("it has not come up within {time:?}"),
        },
        Failure::Silent(time) => StartError::NotHosting {
            binary,
            reason: format!("nothing was heard of it within {time:?}"),
        },
    }
}
