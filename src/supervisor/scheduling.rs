//! Does what `pm` decides: the maintenance of every pool each second, workers for
//! connections that wait on an ondemand pool, and which missing workers are asked for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Ended, ToObserver};
use glasspool_abi::{EngineId, PoolId, WorkerId};
use rustix::process::Signal;

use super::engines::GroupId;
use super::heartbeat::Heartbeat;
use super::management::Watch;
use super::monotonic_ns;
use super::phase::Phase;
use super::pm::share::{self, Claim, share};
use super::pm::{Action, Event, Member};
use super::pools::{Life, LivePool};
use super::reload::Order;
use super::run::Supervisor;
use super::sockets::Queue;
use super::status::Hearing;

/// Between two turns of maintenance, as in php-fpm.
const PERIOD: Duration = Duration::from_secs(1);
/// Workers that engines are asked for at a time. An engine forks one after the other, so
/// more would only wait, with their slots, in its queue.
const MOST_REQUESTED: u32 = 32;

/// Divides `process.max` among pools that are to begin together.
pub(super) fn limit_first(pools: &mut [LivePool], process_max: Option<NonZeroU32>) {
    let Some(most) = process_max else { return };
    let claim = |pool: &LivePool| Claim {
        has: 0,
        lacking: pool.management.first(),
    };
    let claims: Vec<Claim> = pools.iter().map(claim).collect();
    for (pool, count) in pools.iter_mut().zip(share(&claims, most.get())) {
        pool.management.limit_first(count);
    }
}

impl Supervisor {
    /// Pools serve, or others than before do: their maintenance begins.
    pub(super) fn start_scheduling(&mut self, now: Instant) {
        self.maintenance_due = now + PERIOD;
        // Requests of pools that drain have their limits too.
        let timed = self.pools.values().filter(|pool| pool.life != Life::Proving);
        self.heartbeat = Heartbeat::new(timed.filter_map(|pool| pool.config.terminate_after), now);
        if let Some(said) = self.heartbeat.announcement() {
            self.log.debug(said);
        }
    }

    /// The observer has begun to look into a slow request.
    pub(super) fn count_slow(&mut self, worker: WorkerId) {
        let worker = self.workers.get(&worker);
        if let Some(pool) = worker.and_then(|worker| self.pools.get_mut(&worker.pool())) {
            let count = &mut pool.management.figures.slow_requests;
            *count = count.saturating_add(1);
        }
    }

    /// A worker has ended, perhaps by a crash: too many of them in a while, and their
    /// engine is started anew.
    pub(super) fn watch_crashes(&mut self, group: GroupId, ended: Ended, now: Instant) {
        let limit = self
            .global
            .emergency_restart
            .filter(|_| self.phase == Phase::Running);
        let Some(limit) = limit else { return };
        if let Some(said) = self.crashes.entry(group).or_default().on_end(ended, &limit, now) {
            self.log.warning(said);
            self.ask_reload(Order::Engine(group), None);
        }
    }

    /// Everything about the number of workers that is due.
    pub(super) fn schedule(&mut self, now: Instant) {
        self.hear();
        if self.phase == Phase::Running {
            self.maintain(now);
        }
        // Also in a stop that waits for requests: it must not wait for one that hangs.
        self.beat(now);
        self.watch_sockets(now);
        self.request_workers(now);
    }

    /// When [`Supervisor::schedule`] has something to do again.
    pub(super) fn schedule_due(&self, now: Instant) -> Option<Instant> {
        let wants_workers = self.phase.wants_workers();
        let pools = self.pools.values().filter(|_| wants_workers);
        let looks = pools.clone().filter_map(|pool| pool.management.next_look());
        let retries = pools.filter(|pool| pool.management.lacking() > 0);
        let retries = retries.filter_map(|pool| pool.backoff.due(now));
        let maintenance = (self.phase == Phase::Running).then_some(self.maintenance_due);
        let dues = looks.chain(retries).chain(maintenance);
        dues.chain(self.heartbeat.due()).min()
    }

    /// php-fpm's maintenance: once a second, and only while nothing is being stopped.
    fn maintain(&mut self, now: Instant) {
        if now < self.maintenance_due {
            return;
        }
        self.maintenance_due = now + PERIOD;
        for id in self.serving_pools() {
            let (crew, queue) = self.observe(id, now);
            let Some(pool) = self.pools.get_mut(&id) else {
                continue;
            };
            pool.management.look_again(now);
            // Said each second that it lasts; the observer tells it more seldom.
            if pool.management.is_saturated(&crew, queue.waiting) {
                self.observer
                    .tell(&self.log, ToObserver::Saturated { pool: id }, vec![]);
            }
            if pool.management.is_maintained() {
                self.think(id, Event::Tick, &crew, now);
            }
        }
        self.ask_opcaches(now);
        self.tell_figures(false);
    }

    /// A connection waits on the pool's socket, or has waited a moment ago.
    pub(super) fn on_connecting(&mut self, id: PoolId, now: Instant) {
        if self.phase != Phase::Running || !self.serving_pools().contains(&id) {
            return;
        }
        let (crew, queue) = self.observe(id, now);
        let waiting = match queue {
            // The kernel does not say; there was one.
            Queue { limit: 0, .. } => 1,
            Queue { waiting, .. } => waiting,
        };
        self.think(id, Event::Demand { waiting }, &crew, now);
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.management.looked(now);
        }
    }

    /// Has the pool think about its size, and does what it has thought.
    fn think(&mut self, id: PoolId, event: Event, crew: &[Member], now: Instant) {
        let Some(pool) = self.pools.get_mut(&id) else {
            return;
        };
        for action in pool.management.decide(event, crew, now) {
            let management = &mut pool.management;
            match action {
                Action::Retire(worker) => {
                    if let Some(worker) = self.workers.get_mut(&worker)
                        && worker.retire()
                    {
                        management.retire();
                    }
                }
                Action::Kill(worker) => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.signal(Signal::KILL);
                    }
                }
                Action::CountReached => {
                    management.figures.max_children_reached += 1;
                    self.observer
                        .tell(&self.log, ToObserver::Saturated { pool: id }, vec![]);
                }
                Action::Say(level, text) => self.log.at(level, format_args!("[pool {}] {text}", pool.name)),
            }
        }
    }

    /// Looks at every worker of the pool and at its socket, and takes in what is seen: a
    /// look tells what is new since the one before, so none may be lost.
    pub(super) fn observe(&mut self, id: PoolId, now: Instant) -> (Vec<Member>, Queue) {
        let now_ns = monotonic_ns();
        let (mut crew, mut looks) = (Vec::new(), Vec::new());
        let workers = self.workers.iter_mut().filter(|(_, worker)| worker.pool() == id);
        for (worker_id, worker) in workers {
            let (member, look) = worker.look(*worker_id, now, now_ns);
            crew.push(member);
            looks.extend(look);
        }
        let mut queue = Queue::default();
        if let Some(pool) = self.pools.get_mut(&id) {
            queue = pool.listener.queue();
            pool.management.figures.wait(queue, now);
            pool.management.figures.take_in(&looks, queue);
        }
        (crew, queue)
    }

    /// Waits for connections where they make workers.
    fn watch_sockets(&mut self, now: Instant) {
        let running = self.phase == Phase::Running;
        for (id, pool) in &mut self.pools {
            let serves = running && pool.life == Life::Serving;
            let (socket, events) = (&pool.listener.socket, &self.events);
            let start = || Watch::start(*id, Arc::clone(socket), events.clone());
            pool.management.watch(serves, now, start);
        }
    }

    /// Asks the engines for the workers that are missing and may be tried, as far as
    /// `process.max` allows.
    fn request_workers(&mut self, now: Instant) {
        if !self.phase.wants_workers() || !self.is_up {
            return;
        }
        let can_be_asked = |pool: &LivePool| Some((pool.spec.pool, self.engines.up(pool.group)?));
        let lacking = self.pools.values().filter(|pool| pool.life == Life::Serving);
        let lacking = lacking.filter(|pool| pool.management.lacking() > 0 && pool.backoff.is_over(now));
        let asked: Vec<(PoolId, EngineId)> = lacking.filter_map(can_be_asked).collect();
        if asked.is_empty() {
            return;
        }
        let requested = u32::try_from(self.requested).unwrap_or(u32::MAX);
        let room = MOST_REQUESTED.saturating_sub(requested);
        let allowed = self.allowed();
        let claim = |(id, _): &(PoolId, EngineId)| Claim {
            has: self.pools[id].management.present(),
            lacking: self.pools[id].management.lacking(),
        };
        let claims: Vec<Claim> = asked.iter().map(claim).collect();
        let shares = share(&claims, room.min(allowed));
        let given: u32 = shares.iter().sum();
        if given > 0 {
            self.told_of_most = false;
        }
        for ((id, engine), count) in asked.into_iter().zip(shares) {
            for _ in 0..count {
                if let Err(e) = self.request(id, engine, now) {
                    let Some(pool) = self.pools.get_mut(&id) else {
                        break;
                    };
                    let wait = pool.backoff.failed(now);
                    self.log.error(format_args!(
                        "[pool {}] cannot prepare a worker: {e}; next attempt in {wait:?}",
                        pool.name
                    ));
                    break;
                }
            }
        }
        let lacking = claims.iter().map(|claim| claim.lacking);
        let lacking = lacking.fold(0, u32::saturating_add);
        if lacking <= allowed || given < allowed {
            return;
        }
        if !std::mem::replace(&mut self.told_of_most, true) {
            self.log.warning(share::REACHED);
        }
        // Nobody waits for workers that may never come.
        for pool in self.pools.values_mut().filter(|pool| pool.life == Life::Serving) {
            pool.management.limit_first(0);
        }
    }

    /// Workers that `process.max` still allows. Those that a reload has replaced do not
    /// count: else a reload of a full server would have to stop it.
    fn allowed(&self) -> u32 {
        let Some(most) = self.global.process_max else {
            return u32::MAX;
        };
        let serving = self.pools.values().filter(|pool| pool.life == Life::Serving);
        let present = serving
            .map(|pool| pool.management.present())
            .fold(0, u32::saturating_add);
        most.get().saturating_sub(present)
    }

    /// Listens to what workers ask, in pools that nobody has listened to yet.
    fn hear(&mut self) {
        for (id, pool) in &mut self.pools {
            let Some(socket) = pool.asked_here.take() else {
                continue;
            };
            match Hearing::start(*id, &pool.name, socket, self.events.clone(), &self.log) {
                Ok(hearing) => pool.hearing = Some(hearing),
                Err(e) => self.log.error(format_args!(
                    "[pool {}] cannot hear its workers: {e}; its status page is not answered",
                    pool.name
                )),
            }
        }
    }

    fn serving_pools(&self) -> Vec<PoolId> {
        let serving = self.pools.iter().filter(|(_, pool)| pool.life == Life::Serving);
        serving.map(|(id, _)| *id).collect()
    }
}
