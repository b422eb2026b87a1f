//! The workers of all pools: asks for them, watches them, replaces them, and keeps log
//! and observer informed. What each report means is decided in `worker`.

use std::io::{self, Error};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use glasspool_abi::control::{Ended, ToEngine, ToObserver, WorkerView};
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId, create_slot_memory};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::departed::Departure;
use super::engine;
use super::error::seconds;
use super::output::Pipes;
use super::phase::Phase;
use super::process::{self, Child, describe};
use super::run::{self, Supervisor};
use super::worker::{Action, Event, State};
use crate::config::LogLevel;

/// Workers that an engine is asked for at a time. It forks one after the other, so more
/// would only wait, with their slots, in its queue.
const MOST_REQUESTED: usize = 32;

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    state: State,
    pool: PoolId,
    engine: EngineId,
    slot: Arc<OwnedFd>,
    cursor: u64,
    /// Its `/proc/PID/mem`, if it could hand it over.
    memory: Option<Arc<OwnedFd>>,
    child: Option<Child>,
    /// Since it was asked for; then since it was seen to exist.
    since: Instant,
    pipes: Option<Pipes>,
    /// One of those that the start waits for.
    first: bool,
    /// Observers are told of it.
    announced: bool,
}

impl Worker {
    fn is_requested(&self) -> bool {
        matches!(self.state, State::Requested { .. })
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.state.pid()
    }

    pub(super) fn engine(&self) -> EngineId {
        self.engine
    }

    /// What an observer is told of it, and the descriptors that go with that.
    fn introduction(
        &self,
        id: WorkerId,
        pid: Pid,
        slot_bytes: usize,
    ) -> Option<(WorkerView, Vec<Arc<OwnedFd>>)> {
        let child = self.child.as_ref()?;
        let mut fds = vec![Arc::clone(&self.slot), Arc::clone(&child.pidfd)];
        fds.extend(self.memory.clone());
        let view = WorkerView {
            worker: id,
            pid,
            pool: self.pool,
            engine: self.engine,
            slot_bytes: slot_bytes as u64,
            cursor: self.cursor,
        };
        Some((view, fds))
    }
}

impl Supervisor {
    /// Asks the engine for the workers that are missing and may be tried.
    pub(super) fn request_workers(&mut self, now: Instant) {
        let up = self
            .hosting
            .current
            .as_ref()
            .filter(|engine| engine.state == engine::State::Up);
        let Some(engine) = up.map(|engine| engine.id) else {
            return;
        };
        if !self.phase.wants_workers() {
            return;
        }
        for index in 0..self.pools.len() {
            loop {
                let pool = &self.pools[index];
                let wanted = pool.present < pool.wanted && pool.backoff.is_over(now);
                if !wanted || self.requested >= MOST_REQUESTED {
                    break;
                }
                if let Err(e) = self.request(index, engine, now) {
                    let pool = &mut self.pools[index];
                    let wait = pool.backoff.failed(now);
                    self.log.error(format_args!(
                        "[pool {}] cannot prepare a worker: {e}; next attempt in {wait:?}",
                        pool.name
                    ));
                }
            }
        }
    }

    fn request(&mut self, index: usize, engine: EngineId, now: Instant) -> io::Result<()> {
        let pool = &mut self.pools[index];
        let slot = Arc::new(create_slot_memory(pool.slot_bytes).map_err(Error::other)?);
        let (pipes, streams) = if pool.catch_output {
            let (pipes, streams) = Pipes::create()?;
            (Some(pipes), streams.map(Arc::new))
        } else {
            (None, [Arc::clone(&self.null), Arc::clone(&self.null)])
        };
        let cursor = self.observer.cursors.take();
        let cursor = cursor.ok_or_else(|| Error::other("the cursor table is full"))?;
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let first = self.phase == Phase::Starting && pool.asked < pool.wanted;
        pool.asked += u32::from(first);
        pool.present += 1;
        let (pool, slot_bytes) = (pool.spec.pool, pool.slot_bytes as u64);
        let [stdout, stderr] = streams;
        let message = ToEngine::Spawn {
            worker: id,
            pool,
            slot_bytes,
        };
        self.tell_engine(message, vec![Arc::clone(&slot), stdout, stderr]);
        let (memory, child, state) = (None, None, State::NEW);
        let worker = Worker {
            state,
            pool,
            engine,
            slot,
            cursor,
            memory,
            child,
            since: now,
            pipes,
            first,
            announced: false,
        };
        self.workers.insert(id, worker);
        self.requested += 1;
        Ok(())
    }

    /// A worker's own word that it is about to serve, with its `/proc/self/mem`.
    pub(super) fn worker_is_ready(&mut self, id: WorkerId, memory: Option<OwnedFd>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.memory = memory.map(Arc::new);
        }
        self.worker_event(id, Event::Ready);
    }

    /// Something has happened to a worker: decides by the table, and does it.
    pub(super) fn worker_event(&mut self, id: WorkerId, event: Event) {
        let Some(worker) = self.workers.get_mut(&id) else {
            // Given up, and yet there: it must not serve unwatched.
            if let Event::Spawned(pid) = event {
                process::kill_unheld(pid);
                self.sweep = true;
            }
            return;
        };
        let was_requested = worker.is_requested();
        let actions = match worker.state.on(event) {
            Ok((state, actions)) => {
                worker.state = state;
                actions
            }
            Err(contradiction) => return self.log.warning(contradiction),
        };
        if was_requested && !worker.is_requested() {
            self.requested -= 1;
        }
        for action in actions {
            self.perform_for_worker(id, action);
        }
        if self
            .workers
            .get(&id)
            .is_some_and(|worker| worker.state == State::Gone)
        {
            self.settle(id);
            let worker = self.workers.remove(&id).expect("it was there a line above");
            self.pool_of(worker.pool).present -= 1;
            // That of a worker which served goes back when an observer has buried it.
            if !worker.announced {
                self.observer.cursors.give_back(worker.cursor);
            }
            self.hosting.forget_unused(&self.workers);
        }
    }

    fn perform_for_worker(&mut self, id: WorkerId, action: Action) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let pool = &mut self.pools[run::index(worker.pool)];
        let (log, name) = (&self.log, pool.name.as_str());
        match action {
            Action::Watch(pid) => {
                let level = if self.phase == Phase::Starting {
                    LogLevel::Debug
                } else {
                    LogLevel::Notice
                };
                log.at(level, format_args!("[pool {name}] child {pid} started"));
                worker.since = Instant::now();
                if let Some(Err(e)) = worker.pipes.take().map(|pipes| pipes.drain_into(log, name, pid)) {
                    log.error(format_args!(
                        "[pool {name}] cannot read the output of child {pid}: {e}"
                    ));
                }
                self.watch(id, pid);
            }
            Action::Serve(pid) => {
                pool.backoff.succeeded();
                let Some((view, fds)) = worker.introduction(id, pid, pool.slot_bytes) else {
                    return;
                };
                worker.announced = true;
                self.observer.tell(log, ToObserver::WorkerStarted(view), fds);
                self.settle(id);
            }
            Action::Complain(reason) => {
                log.error(format_args!("[pool {name}] child failed to initialize: {reason}"));
            }
            Action::Bury(pid, ended) => {
                let level = match ended {
                    _ if !self.phase.wants_workers() => LogLevel::Debug,
                    Ended::Exited(0) => LogLevel::Notice,
                    Ended::Killed { signal, .. } if signal == Signal::QUIT.as_raw() => LogLevel::Notice,
                    Ended::Exited(_) | Ended::Killed { .. } => LogLevel::Warning,
                };
                let (how, life) = (describe(ended), seconds(worker.since.elapsed()));
                log.at(
                    level,
                    format_args!("[pool {name}] child {pid} exited {how} after {life} from start"),
                );
            }
            Action::Forget(pid, ended) => {
                let php = self.hosting.php.get(&worker.engine).cloned();
                let known = worker.introduction(id, pid, pool.slot_bytes).zip(php);
                let Some(((view, fds), php)) = known else {
                    worker.announced = false;
                    return;
                };
                let mono_ns = monotonic_ns();
                let departure = Departure {
                    view,
                    fds,
                    php,
                    ended,
                    mono_ns,
                };
                self.observer.depart(log, departure);
            }
            Action::BackOff => {
                let now = Instant::now();
                // Workers that fail together have failed once.
                if pool.backoff.is_over(now) {
                    let wait = pool.backoff.failed(now);
                    log.debug(format_args!(
                        "[pool {name}] next attempt to start a worker in {wait:?}"
                    ));
                }
            }
        }
    }

    /// Takes hold of a worker's process; its end becomes an event.
    fn watch(&mut self, id: WorkerId, pid: Pid) {
        let child = match Child::adopt(pid) {
            Ok(child) => child,
            Err(e) => {
                self.log.error(format_args!(
                    "cannot watch child {pid}: pidfd_open: {e}; killing it"
                ));
                process::kill_unheld(pid);
                self.sweep = true;
                return self.worker_event(
                    id,
                    Event::Exited(Ended::Killed {
                        signal: 9,
                        core: false,
                    }),
                );
            }
        };
        if let Some(signal) = self.stop_signal {
            child.signal(signal);
        }
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let link = self.hosting.link_of(worker.engine);
        worker.child = Some(child.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let ended = child.ended().await.unwrap_or(Ended::Exited(-1));
            // Its word that it serves may still be on its way, and comes before its end.
            if let Some(link) = link {
                link.catch_up().await;
            }
            events
                .send(run::Event::WorkerEnded(id, ended))
                .await
                .unwrap_or_default();
        });
    }

    fn settle(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if std::mem::take(&mut worker.first) {
            let pool = worker.pool;
            self.pool_of(pool).unsettled -= 1;
        }
    }

    /// An engine is gone, and so is every process that could have spoken for it. Workers
    /// that it forked without being able to say so are found by their slots.
    pub(super) fn engine_lost(&mut self, engine: EngineId) {
        let lost: Vec<(WorkerId, u64)> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.engine == engine && worker.is_requested())
            .map(|(id, worker)| (*id, rustix::fs::fstat(&worker.slot).map_or(0, |stat| stat.st_ino)))
            .collect();
        if lost.is_empty() {
            return;
        }
        let known = self.known_children();
        let mut strangers = process::list_children();
        strangers.retain(|pid| !known.contains(pid));
        for (id, inode) in lost {
            let found = strangers
                .iter()
                .find(|pid| process::has_slot_mapped(**pid, inode));
            match found {
                Some(pid) => self.worker_event(id, Event::Spawned(*pid)),
                None => self.worker_event(id, Event::EngineLost),
            }
        }
    }

    /// Gives up those that were asked for and never came.
    pub(super) fn forget_unborn(&mut self) {
        let unborn = self.workers.iter().filter(|(_, worker)| worker.is_requested());
        for id in unborn.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.worker_event(id, Event::EngineLost);
        }
    }

    /// Signals every worker there is, and those that turn up later.
    pub(super) fn signal_workers(&mut self, signal: Signal) {
        self.stop_signal = Some(signal);
        let (number, name) = (signal.as_raw(), describe_signal(signal));
        let mut alive = 0;
        for worker in self.workers.values() {
            let Some(child) = &worker.child else { continue };
            child.signal(signal);
            alive += 1;
            let pool = &self.pools[run::index(worker.pool)].name;
            self.log.debug(format_args!(
                "[pool {pool}] sending signal {number} {name} to child {}",
                child.pid
            ));
        }
        self.log.debug(format_args!("{alive} child(ren) still alive"));
    }

    /// Tells a new observer of every worker of that engine that serves.
    pub(super) fn introduce_workers(&self, engine: EngineId) {
        for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.engine == engine) {
            let State::Ready { pid } = worker.state else {
                continue;
            };
            let slot_bytes = self.pools[run::index(worker.pool)].slot_bytes;
            let Some((view, fds)) = worker.introduction(*id, pid, slot_bytes) else {
                continue;
            };
            self.observer
                .tell(&self.log, ToObserver::WorkerStarted(view), fds);
        }
    }

    fn pool_of(&mut self, pool: PoolId) -> &mut super::pools::LivePool {
        &mut self.pools[run::index(pool)]
    }
}

fn describe_signal(signal: Signal) -> &'static str {
    nix::sys::signal::Signal::try_from(signal.as_raw()).map_or("unknown", |signal| signal.as_str())
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0);
    whole
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
