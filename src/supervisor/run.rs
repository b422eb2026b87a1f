//! The run loop: one event at a time, then whatever has become due.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Ended, FromEngine, FromLoader, FromObserver, OpcacheAnswer};
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId};
use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::canary::Canary;
use super::companion::Companion;
use super::crew::Worker;
use super::ctl;
use super::engines::{Engines, GroupId};
use super::error::StartError;
use super::generation::{Drain, Invocation, Numbers};
use super::heartbeat::Heartbeat;
use super::last_look::LastLooks;
use super::link::Delivery;
use super::loading::Loader;
use super::notify::Notifier;
use super::observer::Observer;
use super::phase::{Happening, Phase};
use super::pid_file::PidFile;
use super::pm::crashes::Crashes;
use super::pm::drain::Push;
use super::pools::{Common, Life, LivePool};
use super::process::{describe, reap_orphans};
use super::programs::Waits;
use super::raising::Raising;
use super::reload::{Reloading, Step};
use super::scoreboard::Figures;
use super::sockets::Sockets;
use super::status;
use super::successor::Call;
use super::{Announce, Launch, Reload, output};
use crate::config::Global;
use crate::logs::{Errno, ErrorLog};

/// Events that wait for the loop; whoever has one more waits too.
const EVENTS: usize = 1024;
/// How often it is looked whether old workers have noticed that they are to end: their
/// end is an event, a last request that one takes is none.
const RETIRING_LOOK: Duration = Duration::from_millis(5);
/// What the loop is told by its tasks.
#[derive(Debug)]
pub(super) enum Event {
    Engine(GroupId, EngineId, Delivery<FromEngine>),
    EngineEnded(GroupId, EngineId, Ended),
    OpcacheAnswered(GroupId, EngineId, Result<OpcacheAnswer, String>),
    Observer(u32, Delivery<FromObserver>),
    ObserverEnded(u32, Ended),
    Loader(u32, Delivery<FromLoader>),
    LoaderEnded(u32, Ended),
    WorkerEnded(WorkerId, Ended),
    CompanionEnded(Ended),
    CanaryAnswered(WorkerId, Result<(), String>),
    CanaryEnded(WorkerId, Ended),
    /// The program that may take our place has checked the configuration.
    Checked(Ended),
    /// Somebody asks over the control socket.
    Control(ctl::Request),
    /// A connection waits on the socket of an ondemand pool.
    Connecting(PoolId),
    /// A worker of that pool asks for its state.
    StatusAsked {
        pool: PoolId,
        answer: oneshot::Sender<status::Answer>,
    },
}

/// All that the supervisor holds.
pub(super) struct Supervisor {
    pub(super) log: ErrorLog,
    pub(super) phase: Phase,
    /// Pools of the configuration in force, and of those before it that still have
    /// workers.
    pub(super) pools: BTreeMap<PoolId, LivePool>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Workers that engines were asked for and that they have not answered for.
    pub(super) requested: usize,
    pub(super) next_worker: u64,
    pub(super) engines: Engines,
    pub(super) observer: Observer,
    pub(super) loader: Loader,
    /// The kernel programs in force.
    pub(super) waits: Waits,
    pub(super) companion: Option<Companion>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) null: Arc<OwnedFd>,
    /// Kills that wait for a look.
    pub(super) last_looks: LastLooks,
    /// What workers were sent last, all of them.
    pub(super) pushed: Option<Push>,
    /// Whether there may be orphans to reap.
    pub(super) sweep: bool,
    /// Why the start failed.
    pub(super) fatal: Option<StartError>,
    /// When the phase's patience ends.
    pub(super) due: Option<Instant>,
    /// When everything must be over.
    pub(super) stop_by: Option<Instant>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) announce: Option<Announce>,
    /// Whether the start was told, or has failed: what workers say comes after it.
    pub(super) told: watch::Sender<bool>,
    /// Whether the first engines have PHP up: from then on trouble is dealt with, not
    /// fatal.
    pub(super) is_up: bool,
    pub(super) leaving: bool,
    pub(super) heartbeat: Heartbeat,
    /// When each pool's size is thought about next.
    pub(super) maintenance_due: Instant,
    /// Whether it was told that `process.max` is reached, since a worker was asked for.
    pub(super) told_of_most: bool,
    pub(super) crashes: BTreeMap<GroupId, Crashes>,
    /// `[global]` as it is in force.
    pub(super) global: Global,
    pub(super) invocation: Invocation,
    /// What all pools in force share.
    pub(super) common: Common,
    pub(super) numbers: Numbers,
    /// All sockets that pools listen on, for the next reading to take over.
    pub(super) sockets: Sockets,
    pub(super) call: Call,
    pub(super) reread: Reload,
    pub(super) reloading: Reloading,
    /// Reloads of the whole configuration that succeeded, and that failed.
    pub(super) reloads: [u64; 2],
    pub(super) canaries: BTreeMap<WorkerId, Canary>,
    pub(super) drains: Vec<Drain>,
    pub(super) raising: Raising,
    /// What this process becomes when everything has stopped.
    pub(super) becomes: Option<PathBuf>,
    pub(super) notifier: Notifier,
}

/// Runs pools until told to stop by SIGTERM, SIGINT or SIGQUIT. Blocks; wants to be
/// called from the program's first thread, before there are others.
///
/// # Errors
/// When the start fails; then nothing is left of it.
pub fn run(launch: Launch) -> Result<(), StartError> {
    nix::sys::prctl::set_child_subreaper(true).map_err(StartError::system("become a child subreaper"))?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let supervisor = Supervisor::set_up(launch, events)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(StartError::system("start the event loop"))?
        .block_on(supervisor.serve(inbox))
}

impl Supervisor {
    async fn serve(mut self, mut inbox: mpsc::Receiver<Event>) -> Result<(), StartError> {
        let listen = |kind| signal(kind).map_err(StartError::system("listen for signals"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut quit = listen(SignalKind::quit())?;
        let mut child = listen(SignalKind::child())?;
        // By default these would end the program, and scripts made for php-fpm send them.
        let mut reopen = listen(SignalKind::user_defined1())?;
        let mut reload = listen(SignalKind::user_defined2())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        // Those that came before there was anybody to listen have waited until now; what
        // is started from here on shall not have them blocked.
        let unblocked = SigSet::all().thread_unblock();
        unblocked.map_err(StartError::system("receive signals"))?;
        if let Err(e) = ctl::listen(self.events.clone()) {
            self.log.warning(format_args!(
                "cannot open the control socket: {}; `glasspool reload` does not reach this process, SIGUSR2 does",
                Errno(&e)
            ));
        }
        loop {
            let now = Instant::now();
            self.do_what_is_due(now);
            if self.leaving {
                break;
            }
            if let Some(error) = self.fatal.take() {
                self.abandon().await;
                return Err(error);
            }
            let due = self.next_due(now);
            tokio::select! {
                Some(()) = terminate.recv() => {
                    output::first().await;
                    self.asked("SIGTERM", Happening::AskedToTerminate, "terminating");
                }
                Some(()) = interrupt.recv() => {
                    output::first().await;
                    self.asked("SIGINT", Happening::AskedToTerminate, "terminating");
                }
                Some(()) = quit.recv() => {
                    output::first().await;
                    self.asked("SIGQUIT", Happening::AskedToFinish, "finishing");
                }
                Some(()) = child.recv() => self.sweep = true,
                Some(()) = reopen.recv() => self.asked_to_reopen(),
                Some(()) = reload.recv() => self.asked_to_reload("SIGUSR2"),
                Some(()) = hang_up.recv() => self.asked_to_reload("SIGHUP"),
                Some(event) = inbox.recv() => self.on(event),
                () = sleep_until(due) => {}
            }
        }
        // Signals that come now would find nothing to do.
        drop::<[SignalStream; 7]>([terminate, interrupt, quit, child, reopen, reload, hang_up]);
        if let Some(program) = self.becomes.take() {
            return Err(self.become_successor(&program));
        }
        self.log.notice("exiting, bye-bye!");
        if let Some(file) = self.pid_file.take() {
            file.remove(&self.log);
        }
        Ok(())
    }

    fn on(&mut self, event: Event) {
        let log = self.log.clone();
        match event {
            Event::Engine(group, id, delivery) => self.on_engine_delivery(group, id, delivery),
            Event::EngineEnded(group, id, ended) => self.on_engine_end(group, id, ended),
            Event::OpcacheAnswered(group, id, answer) => self.opcache_answered(group, id, answer),
            Event::Observer(_, Delivery::Message(FromObserver::Slow { worker }, _)) => {
                self.count_slow(worker)
            }
            Event::Observer(_, Delivery::Message(FromObserver::Looked { worker, crashed }, _)) => {
                self.on_looked(worker, crashed);
            }
            Event::Connecting(pool) => self.on_connecting(pool, Instant::now()),
            Event::StatusAsked { pool, answer } => self.status_asked(pool, answer),
            Event::Observer(generation, delivery) => self.observer.on_delivery(generation, delivery, &log),
            Event::ObserverEnded(generation, ended) => {
                self.observer.on_end(generation, ended, &log);
                if !self.observer.is_watching() {
                    self.give_up_last_looks();
                }
            }
            Event::Loader(generation, delivery) => self.on_loader_delivery(generation, delivery),
            Event::LoaderEnded(generation, ended) => self.on_loader_end(generation, ended),
            Event::WorkerEnded(id, ended) => self.worker_event(id, super::worker::Event::Exited(ended)),
            Event::CanaryAnswered(id, answer) => {
                if let Some(verdict) = self.canary_answered(id, answer) {
                    self.on_verdict(verdict);
                }
            }
            Event::CanaryEnded(id, ended) => {
                if let Some(verdict) = self.canary_ended(id, ended) {
                    self.on_verdict(verdict);
                }
            }
            Event::Checked(ended) => self.on_checked(ended),
            Event::Control(request) => self.on_control(request),
            Event::CompanionEnded(ended) => {
                if let Some(companion) = &mut self.companion {
                    companion.on_end(ended, Instant::now(), &log);
                }
            }
        }
    }

    /// Everything that follows from the state of things and the time.
    fn do_what_is_due(&mut self, now: Instant) {
        if self.fatal.is_some() {
            return;
        }
        self.keep_reload(now);
        self.keep_loader(now);
        self.keep_engines(now);
        // Also while workers finish: it may have the CPUs' clocks run until it is told to stop.
        self.observer.keep(now, &self.log);
        if self.is_up && self.phase.wants_workers() {
            self.keep_observer(now);
        }
        self.keep_drains(now);
        self.schedule(now);
        self.keep_last_looks(now);
        let canary_is_born = self.canaries.values().any(Canary::is_requested);
        let nobody_is_born = self.requested == 0 && !canary_is_born && !self.engines.are_asked();
        if self.sweep && nobody_is_born {
            // A worker whose pid is not known yet would look like an orphan.
            self.sweep = false;
            self.reap_orphans();
        }
        let serving = self.pools.values().filter(|pool| pool.life == Life::Serving);
        let figures = || Figures::sum(serving.map(|pool| &pool.management.figures));
        self.notifier.beat(now, figures, &self.log);
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.happen(Happening::Overdue);
        }
        self.move_on();
        if self.phase == Phase::Running
            && let Some(companion) = &mut self.companion
        {
            companion.keep(now, &self.log, &self.events, Event::CompanionEnded);
        }
        self.log.hand_on();
    }

    pub(super) fn keep_observer(&mut self, now: Instant) {
        if !self.observer.is_due(now)
            || !self
                .observer
                .spawn(&self.log, &self.events, Event::Observer, Event::ObserverEnded)
        {
            return;
        }
        self.tell_figures(true);
        for pool in self.pools.values().filter(|pool| pool.life != Life::Proving) {
            self.observer
                .introduce_pool(&pool.view, pool.slow_log.as_ref(), &self.log);
        }
        // Each engine followed by its workers: an observer does not remember many engines
        // without any.
        for engine in self.engines.php().map(|(engine, _)| engine) {
            self.introduce_engine(engine);
            self.introduce_workers(engine);
        }
        self.observer.introduce_departed(&self.log);
    }

    /// Children that are waited for by their own tasks.
    pub(super) fn known_children(&self) -> BTreeSet<Pid> {
        let companion = self.companion.as_ref().and_then(Companion::pid);
        let workers = self.workers.values().filter_map(Worker::pid);
        workers
            .chain(self.engines.pids())
            .chain(companion)
            .chain(self.observer.pid())
            .chain(self.loader.pid())
            .chain(self.canaries.values().filter_map(Canary::pid))
            .chain(self.reloading.checker.as_ref().map(|checker| checker.pid))
            .collect()
    }

    fn reap_orphans(&self) {
        for (pid, ended) in reap_orphans(&self.known_children()) {
            self.log.debug(format_args!(
                "unknown child ({pid}) exited {} - most likely an orphan process",
                describe(ended)
            ));
        }
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let may_start = self.is_up && self.phase.wants_workers();
        let observer = self.observer.due(now);
        let observer = observer.filter(|_| may_start || self.observer.pid().is_some());
        let companion = self.companion.as_ref().and_then(|companion| companion.due(now));
        let companion = companion.filter(|_| self.phase.wants_workers());
        observer
            .into_iter()
            .chain(companion)
            .chain(self.schedule_due(now))
            .chain(self.engines.due(now))
            .chain(self.loader.due())
            .chain(self.canaries.values().filter_map(Canary::due))
            .chain(self.drains.iter().filter_map(|drain| drain.due))
            .chain((self.reloading.step == Step::Retiring).then_some(now + RETIRING_LOOK))
            .chain(self.notifier.due())
            .chain(Some(now).filter(|_| self.phase == Phase::Running && self.reloading.can_begin()))
            .chain(self.last_looks.due())
            .chain(self.due)
            .min()
    }

    /// Ends what a failed start has begun.
    async fn abandon(&mut self) {
        self.observer.kill();
        self.loader.kill();
        self.engines.abandon().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
