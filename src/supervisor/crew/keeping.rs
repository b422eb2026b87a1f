//! What the supervisor does with its workers, from the order to fork one to its funeral.

use std::io::{self, Error};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use glasspool_abi::control::{Doom, Ended, ToEngine, ToObserver};
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId, create_slot_memory};
use rustix::process::Signal;

use super::{Birth, Worker};
use crate::config::LogLevel;
use crate::supervisor::departed::Departure;
use crate::supervisor::error::seconds;
use crate::supervisor::monotonic_ns;
use crate::supervisor::output::{Drain, Lines, Owner, Pipes, Teller};
use crate::supervisor::pm::Burial;
use crate::supervisor::pools::{Life, LivePool};
use crate::supervisor::process::{self, Child, describe};
use crate::supervisor::programs::Page;
use crate::supervisor::run::{self, Supervisor};
use crate::supervisor::scoreboard::Gauge;
use crate::supervisor::worker::{Action, Event, State};

/// Why looking up a worker's pool cannot fail.
const POOL_OUTLIVES: &str = "a pool is forgotten after its last worker";

/// Descriptors of `/proc` files that a worker hands over at most.
const MOST_HANDED: usize = 2;

impl Supervisor {
    /// Asks an engine for one more worker of the pool.
    pub(in crate::supervisor) fn request(
        &mut self,
        pool: PoolId,
        engine: EngineId,
        now: Instant,
    ) -> io::Result<()> {
        let Some(pool) = self.pools.get_mut(&pool) else {
            return Ok(());
        };
        let slot = Arc::new(create_slot_memory(pool.slot_bytes).map_err(Error::other)?);
        let (pipes, streams) = if pool.catch_output {
            let (pipes, streams) = Pipes::create()?;
            (Some(pipes), streams.map(Arc::new))
        } else {
            (None, [Arc::clone(&self.null), Arc::clone(&self.null)])
        };
        let cursor = self.observer.cursors.take();
        let cursor = cursor.ok_or_else(|| Error::other("the cursor table is full"))?;
        let page = self.waits.take_page(now, &self.log);
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let birth = pool.management.asked();
        let (pool, group, slot_bytes) = (pool.spec.pool, pool.group, pool.slot_bytes as u64);
        let [stdout, stderr] = streams;
        let message = ToEngine::Spawn {
            worker: id,
            pool,
            slot_bytes,
            times_page: page.as_ref().map(Page::number),
        };
        let mut fds = vec![Arc::clone(&slot), stdout, stderr];
        fds.extend(page.as_ref().map(|page| Arc::clone(page.map())));
        self.tell_engine(group, message, fds);
        let (handed, child, state) = (Vec::new(), None, State::NEW);
        let worker = Worker {
            state,
            pool,
            engine,
            slot,
            cursor,
            page,
            handed,
            child,
            since: now,
            pipes,
            birth,
            unsettled: birth == Birth::First,
            announced: false,
            gauge: None,
            retired: false,
            awaiting: None,
            serves: Arc::default(),
        };
        self.workers.insert(id, worker);
        self.requested += 1;
        Ok(())
    }

    /// A worker's own word that it is about to serve, with what it hands over of `/proc`.
    pub(in crate::supervisor) fn worker_is_ready(&mut self, id: WorkerId, handed: Vec<OwnedFd>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.handed = handed.into_iter().map(Arc::new).take(MOST_HANDED).collect();
        }
        self.worker_event(id, Event::Ready);
    }

    /// Something has happened to a worker: decides by the table, and does it.
    pub(in crate::supervisor) fn worker_event(&mut self, id: WorkerId, event: Event) {
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
            self.last_looks.forget(id);
            let management = &mut self.pool_of(worker.pool).management;
            management.gone(worker.retired, Instant::now());
            // That of a worker which served goes back when an observer has buried it.
            if !worker.announced {
                self.observer.cursors.give_back(worker.cursor);
            }
            self.engines.forget_unused(worker.engine, &self.workers);
        }
    }

    fn perform_for_worker(&mut self, id: WorkerId, action: Action) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let pool = self.pools.get_mut(&worker.pool).expect(POOL_OUTLIVES);
        let (log, name) = (&self.log, pool.name.as_str());
        match action {
            Action::Watch(pid) => {
                let level = match worker.birth {
                    Birth::First | Birth::Addition => LogLevel::Debug,
                    Birth::Replacement => LogLevel::Notice,
                };
                log.at(level, format_args!("[pool {name}] child {pid} started"));
                worker.since = Instant::now();
                let started = &mut pool.management.figures.started;
                started[match worker.birth {
                    Birth::First => 0,
                    Birth::Addition => 1,
                    Birth::Replacement => 2,
                }] += 1;
                match Gauge::map(&worker.slot) {
                    Ok(gauge) => worker.gauge = Some(gauge),
                    Err(e) => log.error(format_args!("[pool {name}] cannot see child {pid} at work: {e}")),
                }
                let pipes = worker.pipes.take();
                let told = (self.told.subscribe(), Arc::clone(&worker.serves));
                let teller = Teller::new(self.observer.wire(), (id, worker.pool, pid), log.limit());
                let owner = Owner::new(&worker.slot, pool.slot_bytes);
                let lines = Lines::new(log, &pool.config, pid);
                let drain = pipes.map(|pipes| pipes.drain_into(lines, owner, told, teller));
                if let Some(Err(e)) = &drain {
                    log.error(format_args!(
                        "[pool {name}] cannot read the output of child {pid}: {e}"
                    ));
                }
                self.watch(id, pid, drain.and_then(Result::ok));
            }
            Action::Serve(pid) => {
                worker.serves.notify_one();
                pool.backoff.succeeded();
                let Some((view, fds)) = worker.introduction(id, pid, pool.slot_bytes, &self.waits) else {
                    return;
                };
                worker.announced = true;
                let mut known = self.workers.iter().filter(|(other, _)| **other != id);
                if !known.any(|(_, other)| other.announced && other.engine == view.engine) {
                    self.introduce_engine(view.engine);
                }
                self.observer
                    .tell(&self.log, ToObserver::WorkerStarted(view), fds);
                self.settle(id);
            }
            Action::Complain(reason) => {
                log.error(format_args!("[pool {name}] child failed to initialize: {reason}"));
            }
            Action::Bury(pid, ended) => {
                let burial = pool.management.buried(worker.retired, ended);
                let now = Instant::now();
                if let Some(gauge) = &mut worker.gauge {
                    let last = gauge.look(now, monotonic_ns());
                    pool.management.figures.take_in_one(&last);
                }
                let (life, how) = (seconds(now - worker.since), describe(ended));
                let level = match ended {
                    _ if !self.phase.wants_workers() || pool.life != Life::Serving => LogLevel::Debug,
                    Ended::Exited(0) => LogLevel::Notice,
                    Ended::Killed { signal, .. } if signal == Signal::QUIT.as_raw() => LogLevel::Notice,
                    Ended::Exited(_) | Ended::Killed { .. } => LogLevel::Warning,
                };
                match burial {
                    Burial::Retired => log.debug(format_args!(
                        "[pool {name}] child {pid} has been killed by the process management after {life} from start"
                    )),
                    Burial::Replaced => log.at(
                        level,
                        format_args!("[pool {name}] child {pid} exited {how} after {life} from start"),
                    ),
                }
                let group = (pool.life == Life::Serving).then_some(pool.group);
                if let Some(group) = group {
                    self.watch_crashes(group, ended, now);
                }
            }
            Action::Forget(pid, ended) => {
                let php = self.engines.php_of(worker.engine).cloned().map(Box::new);
                let known = worker
                    .introduction(id, pid, pool.slot_bytes, &self.waits)
                    .zip(php);
                let Some(((view, fds), php)) = known else {
                    worker.announced = false;
                    return;
                };
                let mono_ns = monotonic_ns();
                let departure = Departure {
                    view,
                    fds,
                    php,
                    page: worker.page.take(),
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
    fn watch(&mut self, id: WorkerId, pid: Pid, output: Option<Drain>) {
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
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(signal) = worker.awaiting.take() {
            child.signal(signal);
        }
        if let Some(page) = &worker.page {
            page.watch(id, &child, self.engines.php_of(worker.engine), &self.log);
        }
        let link = self.engines.link_of(worker.engine);
        worker.child = Some(child.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let ended = child.ended().await.unwrap_or(Ended::Exited(-1));
            // Its word that it serves may still be on its way, and comes before its end.
            if let Some(link) = link {
                link.catch_up().await;
            }
            if let Some(output) = output {
                output.catch_up().await;
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
        if std::mem::take(&mut worker.unsettled) {
            let pool = worker.pool;
            self.pool_of(pool).management.settled();
        }
    }

    /// An engine is gone, and so is every process that could have spoken for it. Workers
    /// that it forked without being able to say so are found by their slots.
    pub(in crate::supervisor) fn engine_lost(&mut self, engine: EngineId) {
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
    pub(in crate::supervisor) fn forget_unborn(&mut self) {
        let unborn = self.workers.iter().filter(|(_, worker)| worker.is_requested());
        for id in unborn.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.worker_event(id, Event::EngineLost);
        }
    }

    /// Signals every worker of the pools that are meant, and those that were asked for as
    /// soon as they turn up. A signal that dooms their requests waits for a last look.
    pub(in crate::supervisor) fn signal_workers(
        &mut self,
        signal: Signal,
        doom: Option<Doom>,
        is_meant: impl Fn(&LivePool) -> bool,
    ) {
        let (number, name) = (signal.as_raw(), describe_signal(signal));
        let now = Instant::now();
        let is_meant = |worker: &Worker| is_meant(self.pools.get(&worker.pool).expect(POOL_OUTLIVES));
        let meant = self.workers.iter().filter(|(_, worker)| is_meant(worker));
        let meant: Vec<WorkerId> = meant.map(|(id, _)| *id).collect();
        let mut alive = 0;
        for id in meant {
            let pid = match doom {
                Some(doom) => self.kill(id, signal, doom, now),
                None => self.workers.get_mut(&id).and_then(|worker| worker.signal(signal)),
            };
            let Some(pid) = pid else {
                continue;
            };
            alive += 1;
            let pool = &self.pools[&self.workers[&id].pool].name;
            self.log.debug(format_args!(
                "[pool {pool}] sending signal {number} {name} to child {pid}"
            ));
        }
        self.log.debug(format_args!("{alive} child(ren) still alive"));
    }

    /// Tells a new observer of every worker of that engine that serves.
    pub(in crate::supervisor) fn introduce_workers(&self, engine: EngineId) {
        for (id, worker) in self.workers.iter().filter(|(_, worker)| worker.engine == engine) {
            let State::Ready { pid } = worker.state else {
                continue;
            };
            let slot_bytes = self.pools[&worker.pool].slot_bytes;
            let Some((view, fds)) = worker.introduction(*id, pid, slot_bytes, &self.waits) else {
                continue;
            };
            self.observer
                .tell(&self.log, ToObserver::WorkerStarted(view), fds);
        }
    }

    fn pool_of(&mut self, pool: PoolId) -> &mut LivePool {
        self.pools.get_mut(&pool).expect(POOL_OUTLIVES)
    }
}

fn describe_signal(signal: Signal) -> &'static str {
    nix::sys::signal::Signal::try_from(signal.as_raw()).map_or("unknown", |signal| signal.as_str())
}
