//! The run loop: one event at a time, then whatever has become due.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Ended, FromEngine, FromObserver, ToObserver};
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId};
use rustix::process::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::mpsc;

use super::companion::Companion;
use super::crew::Worker;
use super::error::StartError;
use super::hosting::Hosting;
use super::link::Delivery;
use super::observer::Observer;
use super::phase::{Action, Happening, Phase};
use super::pid_file::PidFile;
use super::pools::LivePool;
use super::process::{describe, reap_orphans};
use super::{Announce, Announcement, Launch, own_pid};
use crate::logs::ErrorLog;

/// Events that wait for the loop; whoever has one more waits too.
const EVENTS: usize = 1024;
/// How long all of a stop may take once workers are told to end.
const STOP_TIME: Duration = Duration::from_secs(5);
/// What the observer has of it at least.
const LEAST_EXPORT_TIME: Duration = Duration::from_secs(1);
/// Left to the observer for ending after its export.
const EXIT_TIME: Duration = Duration::from_millis(250);

/// What the loop is told by its tasks.
#[derive(Debug)]
pub(super) enum Event {
    Engine(EngineId, Delivery<FromEngine>),
    EngineEnded(EngineId, Ended),
    Observer(u32, Delivery<FromObserver>),
    ObserverEnded(u32, Ended),
    WorkerEnded(WorkerId, Ended),
    CompanionEnded(Ended),
}

/// All that the supervisor holds.
pub(super) struct Supervisor {
    pub(super) log: ErrorLog,
    pub(super) phase: Phase,
    pub(super) pools: Vec<LivePool>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Workers that the engine was asked for and that it has not answered for.
    pub(super) requested: usize,
    pub(super) next_worker: u64,
    pub(super) hosting: Hosting,
    pub(super) observer: Observer,
    pub(super) companion: Option<Companion>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) null: Arc<OwnedFd>,
    /// What workers that turn up during a stop are sent.
    pub(super) stop_signal: Option<Signal>,
    /// Whether there may be orphans to reap.
    pub(super) sweep: bool,
    /// Why the start failed.
    pub(super) fatal: Option<StartError>,
    /// When the phase's patience ends.
    pub(super) due: Option<Instant>,
    /// When everything must be over.
    pub(super) stop_by: Option<Instant>,
    /// Where the pid goes once the start has succeeded.
    pub(super) pid_path: Option<PathBuf>,
    pub(super) pid_file: Option<PidFile>,
    pub(super) announce: Option<Announce>,
    pub(super) leaving: bool,
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

/// A pool's place in the list of pools.
pub(super) fn index(pool: PoolId) -> usize {
    usize::try_from(pool.0).unwrap_or(usize::MAX)
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
                Some(()) = terminate.recv() => self.asked_to_terminate("SIGTERM"),
                Some(()) = interrupt.recv() => self.asked_to_terminate("SIGINT"),
                Some(()) = quit.recv() => self.asked_to_finish(),
                Some(()) = child.recv() => self.sweep = true,
                Some(()) = reopen.recv() => self.cannot("SIGUSR1", "reopening logs"),
                Some(()) = reload.recv() => self.cannot("SIGUSR2", "reloading"),
                Some(()) = hang_up.recv() => self.cannot("SIGHUP", "reloading"),
                Some(event) = inbox.recv() => self.on(event),
                () = sleep_until(due) => {}
            }
        }
        // Signals that come now would find nothing to do.
        drop::<[SignalStream; 7]>([terminate, interrupt, quit, child, reopen, reload, hang_up]);
        self.log.notice("exiting, bye-bye!");
        if let Some(file) = self.pid_file.take() {
            file.remove(&self.log);
        }
        Ok(())
    }

    fn on(&mut self, event: Event) {
        let log = self.log.clone();
        match event {
            Event::Engine(id, delivery) => self.on_engine_delivery(id, delivery),
            Event::EngineEnded(id, ended) => self.on_engine_end(id, ended),
            Event::Observer(generation, delivery) => self.observer.on_delivery(generation, delivery, &log),
            Event::ObserverEnded(generation, ended) => self.observer.on_end(generation, ended, &log),
            Event::WorkerEnded(id, ended) => self.worker_event(id, super::worker::Event::Exited(ended)),
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
        self.keep_engine(now);
        if self.hosting.proven && self.phase.wants_workers() {
            self.keep_observer(now);
        }
        self.request_workers(now);
        if self.sweep && self.requested == 0 {
            // A worker whose pid is not known yet would look like an orphan.
            self.sweep = false;
            self.reap_orphans();
        }
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
    }

    /// Tells the phase what is already true, until that changes nothing more.
    fn move_on(&mut self) {
        loop {
            let companion_runs = self
                .companion
                .as_ref()
                .is_some_and(|companion| companion.pid().is_some());
            let happening = match self.phase {
                Phase::Starting => {
                    let settled = self.hosting.proven && self.pools.iter().all(|pool| pool.unsettled == 0);
                    settled.then_some(Happening::Settled)
                }
                Phase::Finishing | Phase::Terminating => {
                    self.workers.is_empty().then_some(Happening::WorkersGone)
                }
                Phase::ClosingEngine => self.hosting.current.is_none().then_some(Happening::EngineGone),
                Phase::StoppingObserver => {
                    let gone = self.observer.pid().is_none() && !companion_runs;
                    gone.then_some(Happening::ObserverGone)
                }
                Phase::Running | Phase::Exited => None,
            };
            match happening {
                Some(happening) => self.happen(happening),
                None => return,
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let (phase, actions) = self.phase.on(happening);
        if phase != self.phase {
            self.due = None;
            self.phase = phase;
        }
        for action in actions {
            self.perform(*action);
        }
    }

    fn perform(&mut self, action: Action) {
        let now = Instant::now();
        match action {
            Action::Say(text) => self.log.notice(text),
            Action::Announce => {
                self.log.notice("ready to handle connections");
                let php = self
                    .hosting
                    .php
                    .values()
                    .next_back()
                    .map(|php| php.version.clone());
                let workers = self.pools.iter().map(|pool| pool.wanted).sum();
                if let Some(announce) = self.announce.take() {
                    announce(&Announcement {
                        php: php.unwrap_or_default(),
                        workers,
                    });
                }
            }
            Action::SignalWorkers(signal) => {
                if signal == Signal::TERM {
                    self.stop_by.get_or_insert(now + STOP_TIME);
                }
                if let Some(companion) = &mut self.companion {
                    companion.stop();
                }
                self.signal_workers(signal);
                if signal == Signal::KILL {
                    self.forget_unborn();
                }
            }
            Action::GiveASecond => self.due = Some(now + Duration::from_secs(1)),
            Action::CloseEngine => {
                self.stop_by.get_or_insert(now + STOP_TIME);
                self.hosting.close();
            }
            Action::KillEngine => self.hosting.kill(),
            Action::StopObserver => {
                let by = self.stop_by.unwrap_or(now).max(now + LEAST_EXPORT_TIME);
                self.due = Some(by);
                self.observer
                    .stop((by - now).saturating_sub(EXIT_TIME), &self.log);
            }
            Action::KillObserver => {
                self.observer.kill();
                if let Some(companion) = &self.companion {
                    companion.signal(Signal::KILL);
                }
            }
            Action::Leave => self.leaving = true,
        }
    }

    /// A signal that php-fpm acts on and we do not yet: said, and nothing changed.
    fn cannot(&self, signal: &str, what: &str) {
        self.log.warning(format_args!(
            "received {signal}: {what} is not supported yet; everything goes on as it was (restart to apply changes)"
        ));
    }

    fn asked_to_terminate(&mut self, name: &str) {
        self.log.debug(format_args!("received {name}"));
        self.happen(Happening::AskedToTerminate);
    }

    fn asked_to_finish(&mut self) {
        self.log.debug("received SIGQUIT");
        self.happen(Happening::AskedToFinish);
    }

    /// The first engine has PHP up: from here on trouble is dealt with, not fatal.
    pub(super) fn came_up(&mut self) {
        match self
            .pid_path
            .as_deref()
            .map(|path| PidFile::write(path, own_pid()))
            .transpose()
        {
            Ok(file) => self.pid_file = file,
            Err(e) => {
                self.fatal = Some(e);
                return;
            }
        }
        self.log.notice(format_args!("fpm is running, pid {}", own_pid()));
        if let Err(e) = self.log.start_is_over() {
            self.log.warning(format_args!(
                "failed to tie stderr fd with error_log fd: dup2(): {e}"
            ));
        }
        self.keep_observer(Instant::now());
    }

    fn keep_observer(&mut self, now: Instant) {
        if !self.observer.is_due(now)
            || !self
                .observer
                .spawn(&self.log, &self.events, Event::Observer, Event::ObserverEnded)
        {
            return;
        }
        for pool in &self.pools {
            let slow_log = pool.slow_log.iter().cloned().collect();
            self.observer
                .tell(&self.log, ToObserver::Pool(pool.view.clone()), slow_log);
        }
        // Each engine followed by its workers: an observer forgets an engine without any
        // when the next one is told.
        for (engine, php) in &self.hosting.php {
            let message = ToObserver::Engine {
                engine: *engine,
                php: php.clone(),
            };
            self.observer.tell(&self.log, message, vec![]);
            self.introduce_workers(*engine);
        }
        self.observer.introduce_departed(&self.log);
    }

    /// Children that are waited for by their own tasks.
    pub(super) fn known_children(&self) -> BTreeSet<Pid> {
        let engine = self.hosting.current.as_ref().map(|engine| engine.child.pid);
        let companion = self.companion.as_ref().and_then(Companion::pid);
        let workers = self.workers.values().filter_map(Worker::pid);
        workers
            .chain(engine)
            .chain(companion)
            .chain(self.observer.pid())
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
        let observer = self.observer.due(now).filter(|_| self.hosting.proven);
        let pools = self.pools.iter().filter(|pool| pool.present < pool.wanted);
        let pools = pools.filter_map(|pool| pool.backoff.due(now));
        let companion = self.companion.as_ref().and_then(|companion| companion.due(now));
        let restarts = pools
            .chain(observer)
            .chain(companion)
            .filter(|_| self.phase.wants_workers());
        restarts.chain(self.hosting.due(now)).chain(self.due).min()
    }

    /// Ends what a failed start has begun.
    async fn abandon(&mut self) {
        self.hosting.kill();
        self.observer.kill();
        if let Some(engine) = self.hosting.current.take() {
            // Its own task may have reaped it first, which is as good.
            let _ended = engine.child.ended().await;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
