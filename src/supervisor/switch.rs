//! What a reload does, step by step: a generation beside the one that serves is proven,
//! takes over, and the old one goes. When is decided by the table in `reload`; how a
//! generation is made stands in `prepare`, how an old one ends in `generation`.

use std::time::{Duration, Instant};

use glasspool_abi::control::Ended;

use super::canary::{self, Verdict};
use super::engines::GroupId;
use super::own_pid;
use super::phase::Phase;
use super::pools::Life;
use super::reload::{Action, Adoption, Caller, Happening, Order, Step};
use super::run::{Event, Supervisor};
use crate::logs::Errno;

/// Longest time that another program takes to check the configuration.
const CHECK_TIME: Duration = Duration::from_secs(60);

/// How long old workers that wait for a connection have to notice that they are to end.
const RETIRING_TIME: Duration = Duration::from_secs(1);

/// Why a reload comes too late.
const STOPPING: &str = "the supervisor is stopping";

impl Supervisor {
    /// Somebody wants a reload. One that is asked for while another is under way, or
    /// before the start is over, follows it, once.
    pub(super) fn ask_reload(&mut self, order: Order, caller: Option<Caller>) {
        if !self.phase.wants_workers() {
            if let Some(caller) = caller {
                // Whoever has gone need not be told.
                caller.try_send(format!("failed: {STOPPING}")).unwrap_or_default();
            }
            return;
        }
        self.reloading.queued.add(order, caller);
        if self.reloading.step != Step::Idle {
            self.reload_happens(Happening::Asked);
        }
    }

    /// Begins what was asked for, and tells the table what has become true, until that
    /// changes nothing more.
    pub(super) fn keep_reload(&mut self, now: Instant) {
        loop {
            let before = self.reloading.step;
            self.move_reload_on(now);
            if self.reloading.step == before {
                return;
            }
        }
    }

    fn move_reload_on(&mut self, now: Instant) {
        match self.reloading.step {
            Step::Idle => self.begin_reload(),
            Step::Checking => {}
            Step::Warming => {
                let candidate = self.reloading.candidate.as_ref();
                let is_up = |group: &GroupId| self.engines.up(*group).is_some();
                if self.loader.is_done() && candidate.is_some_and(|c| c.groups.iter().all(is_up)) {
                    self.reload_happens(Happening::Warm);
                }
            }
            Step::Proving => self.keep_canaries(now),
            Step::Settling => {
                let candidate = self.reloading.candidate.as_ref();
                let mut pools = candidate.into_iter().flat_map(|candidate| &candidate.pools);
                if pools.all(|id| self.pools.get(id).is_none_or(|pool| pool.management.is_settled())) {
                    self.reload_happens(Happening::Settled);
                }
            }
            Step::Retiring => {
                let is_over = self.reloading.retire_by.is_none_or(|by| by <= now);
                let candidate = self.reloading.candidate.as_ref();
                if is_over || candidate.is_none_or(|c| !self.take_connections(&c.replaces)) {
                    self.reload_happens(Happening::Retired);
                }
            }
        }
    }

    fn begin_reload(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let Some((order, callers)) = self.reloading.queued.take() else {
            return;
        };
        self.reloading.callers = callers;
        self.reloading.order = Some(order);
        let successor = self.call.successor().filter(|_| order == Order::All);
        let happening = match &successor {
            Some(_) => Happening::AskedForSuccessor,
            None => Happening::Asked,
        };
        self.reloading.successor = successor;
        if order == Order::All {
            self.log.notice("Reloading in progress ...");
            self.log.debug("switching to 'reloading' state");
            self.notifier.reloading(&self.log);
        }
        self.reload_happens(happening);
    }

    /// Decides by the table, and does it.
    pub(super) fn reload_happens(&mut self, happening: Happening) {
        let (step, actions) = self.reloading.step.on(happening);
        self.reloading.step = step;
        for action in actions {
            match action {
                Action::Prepare => self.prepare(),
                Action::Check => self.check_successor(),
                Action::Prove => self
                    .reloading
                    .tell("PHP is up; every pool serves a request for proof"),
                Action::Switch => self.switch(),
                Action::Drain => self.drain_replaced(),
                Action::Announce => self.announce_reload(),
                Action::HandOver => self.hand_over(),
                Action::TearDown => self.tear_down(),
                // It is queued already.
                Action::Queue => {}
                Action::Conclude => self.conclude(),
            }
        }
    }

    /// The reload under way cannot succeed.
    pub(super) fn fail_reload(&mut self, why: String) {
        match self.reloading.step {
            Step::Checking | Step::Warming | Step::Proving => {
                self.reloading.failure.get_or_insert(why);
                self.reload_happens(Happening::Failed);
            }
            // What is left of a reload that is over, or serves already.
            Step::Idle | Step::Settling | Step::Retiring => self.log.debug(why),
        }
    }

    fn conclude(&mut self) {
        let is_stopping = !self.phase.wants_workers();
        let failure = self.reloading.failure.take();
        let failure = failure.or_else(|| is_stopping.then(|| STOPPING.to_owned()));
        let is_whole = self.reloading.order.take() == Some(Order::All);
        if is_whole && !is_stopping {
            self.reloads[usize::from(failure.is_some())] += 1;
        }
        match &failure {
            // Whoever stops us knows that nothing comes of it.
            Some(_) if is_stopping => {}
            Some(why) if is_whole => {
                self.log.error(format_args!(
                    "reload failed: {why}; the running configuration goes on serving"
                ));
                self.notifier.not_reloaded(why, &self.log);
            }
            Some(why) => self.log.error(format_args!(
                "cannot replace an engine whose workers crash: {why}; it goes on serving"
            )),
            None => {}
        }
        let answer = failure.map_or("ok".to_owned(), |why| format!("failed: {why}"));
        self.reloading.tell(&answer);
        self.reloading.callers.clear();
        self.reloading.candidate = None;
    }

    // === Proving ===

    fn keep_canaries(&mut self, now: Instant) {
        if let Some(overdue) = self.overdue_canary(now) {
            return self.on_verdict(overdue);
        }
        loop {
            let Some(candidate) = &mut self.reloading.candidate else {
                return;
            };
            if candidate.out >= canary::MOST {
                return;
            }
            let Some(pool) = candidate.unproven.pop_front() else {
                if candidate.out == 0 {
                    self.reload_happens(Happening::Proven);
                }
                return;
            };
            candidate.out += 1;
            if let Err(e) = self.send_canary(pool, now) {
                return self.on_verdict(Verdict::Died(pool, format!("it cannot be sent: {}", Errno(&e))));
            }
        }
    }

    /// A canary has done its work, or failed.
    pub(super) fn on_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Sang(_) => {
                if let Some(candidate) = &mut self.reloading.candidate {
                    candidate.out = candidate.out.saturating_sub(1);
                }
            }
            Verdict::Died(pool, why) => {
                let name = self.pools.get(&pool).map_or("?", |pool| pool.name.as_str());
                let why = format!("[pool {name}] a worker that was tried with one request failed: {why}");
                self.fail_reload(why);
            }
        }
    }

    // === Taking over ===

    fn switch(&mut self) {
        let Some(mut candidate) = self.reloading.candidate.take() else {
            return;
        };
        let adoption = candidate.adoption.take();
        let is_whole = adoption.is_some();
        if let Some(adoption) = adoption {
            self.adopt(adoption);
        }
        for old in &candidate.replaces {
            if let Some(pool) = self.pools.get_mut(old) {
                pool.life = Life::Draining;
            }
        }
        for new in &candidate.pools {
            if let Some(pool) = self.pools.get_mut(new) {
                pool.life = Life::Serving;
                self.observer
                    .introduce_pool(&pool.view, pool.slow_log.as_ref(), &self.log);
            }
        }
        for group in &candidate.groups {
            self.introduce_pools(*group);
            if let Some(engine) = self.engines.up(*group) {
                self.introduce_engine(engine);
            }
        }
        self.start_scheduling(Instant::now());
        self.reloading.candidate = Some(candidate);
        self.reloading.tell("all pools are proven; new workers take over");
        if is_whole {
            self.log.notice(format_args!("fpm is running, pid {}", own_pid()));
        }
    }

    /// What changes with a configuration beside the pools.
    fn adopt(&mut self, adoption: Adoption) {
        self.log.notice(format_args!("reloading: {}", self.call.shown()));
        if let Err(e) = self.log.adopt(adoption.log) {
            self.log.warning(format_args!(
                "failed to tie stderr fd with error_log fd: dup2(): {}",
                Errno(&e)
            ));
        }
        self.sockets.announce(&self.log);
        if self.global.pid != adoption.global.pid
            && let Some(old) = std::mem::replace(&mut self.pid_file, adoption.pid_file)
        {
            old.remove(&self.log);
        }
        self.global = adoption.global;
        self.common = adoption.common;
        self.put_in_force(adoption.waits);
        self.observer
            .change(adoption.observer, adoption.scrapes, self.waits.clone(), &self.log);
        self.notifier.set_interval(self.global.systemd_interval);
    }

    fn drain_replaced(&mut self) {
        if let Some(candidate) = &self.reloading.candidate {
            let (pools, patience) = (candidate.replaces.clone(), candidate.patience);
            self.drain(pools, patience);
            self.reloading.retire_by = Some(Instant::now() + RETIRING_TIME);
        }
    }

    /// The words that others wait for: what they do then meets the new generation.
    fn announce_reload(&mut self) {
        let Some(candidate) = self.reloading.candidate.take() else {
            return;
        };
        if self.reloading.order == Some(Order::All) {
            self.log.notice("ready to handle connections");
            self.notifier.ready(Instant::now(), &self.log);
        } else {
            let pools = candidate.pools.iter().filter_map(|id| self.pools.get(id));
            let names: Vec<&str> = pools.map(|pool| pool.name.as_str()).collect();
            self.log.notice(format_args!(
                "the engine of {} was replaced, and so are the workers that came from it",
                names.join(", ")
            ));
        }
    }

    // === Another program behind our name ===

    fn check_successor(&mut self) {
        let Some(program) = self.reloading.successor.clone() else {
            return self.fail_reload("there is no other program".to_owned());
        };
        let shown = program.display();
        self.log.notice(format_args!(
            "{shown} is another program than this one now: it takes over if it accepts the configuration"
        ));
        match self.call.check(&program) {
            Ok(child) => {
                self.reloading.checker = Some(child.clone());
                let events = self.events.clone();
                tokio::spawn(async move {
                    let pidfd = child.clone();
                    let ended = match tokio::time::timeout(CHECK_TIME, child.clone().ended()).await {
                        Ok(ended) => ended.unwrap_or(Ended::Exited(-1)),
                        Err(_) => {
                            pidfd.signal(rustix::process::Signal::KILL);
                            child.ended().await.unwrap_or(Ended::Exited(-1))
                        }
                    };
                    events.send(Event::Checked(ended)).await.unwrap_or_default();
                });
            }
            Err(e) => self.fail_reload(format!("{shown} cannot be started: {}", Errno(&e))),
        }
    }

    /// The other program has looked at the configuration.
    pub(super) fn on_checked(&mut self, ended: Ended) {
        self.reloading.checker = None;
        match (ended, &self.reloading.successor) {
            (Ended::Exited(0), Some(_)) => self.reload_happens(Happening::Accepted),
            (ended, program) => {
                let program = program.clone().unwrap_or_default();
                let how = super::process::describe(ended);
                self.fail_reload(format!(
                    "{} -t exited {how} (its messages are above)",
                    program.display()
                ));
            }
        }
    }

    fn hand_over(&mut self) {
        self.becomes = self.reloading.successor.take();
        self.reloading.order = None;
        self.reloading
            .tell("this program ends, and the other one takes over");
        self.reloading.tell("ok");
        self.reloading.callers.clear();
        self.happen(super::phase::Happening::AskedToHandOver);
    }
}
