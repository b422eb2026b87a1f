//! Does what the table in `phase` decides: from the start to the end of the supervisor.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::phase::{Action, Happening, Phase};
use super::pid_file::PidFile;
use super::pm::drain::{self, Push};
use super::reload::{self, Order};
use super::run::Supervisor;
use super::{Announcement, own_pid};
use crate::logs::Errno;

/// How long all of a stop may take once workers are told to end.
const STOP_TIME: Duration = Duration::from_secs(5);
/// What the observer has of it at least.
const LEAST_EXPORT_TIME: Duration = Duration::from_secs(1);
/// Left to the observer for ending after its export.
const EXIT_TIME: Duration = Duration::from_millis(250);

impl Supervisor {
    /// Tells the phase what is already true, until that changes nothing more.
    pub(super) fn move_on(&mut self) {
        loop {
            let companion_runs = self
                .companion
                .as_ref()
                .is_some_and(|companion| companion.pid().is_some());
            let happening = match self.phase {
                Phase::Starting => {
                    let settled = self.is_up && self.pools.values().all(|pool| pool.management.is_settled());
                    settled.then_some(Happening::Settled)
                }
                Phase::Finishing | Phase::HandingOver | Phase::Terminating => {
                    self.workers.is_empty().then_some(Happening::WorkersGone)
                }
                Phase::ClosingEngines => self.engines.are_gone().then_some(Happening::EnginesGone),
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

    pub(super) fn happen(&mut self, happening: Happening) {
        let (phase, actions) = self.phase.on(happening);
        let before = self.phase;
        if phase != before {
            self.due = None;
            self.phase = phase;
        }
        for action in actions {
            self.perform(*action);
            // php-fpm says what it was asked for first.
            if matches!(action, Action::Say(_)) {
                self.log
                    .debug(format_args!("switching to '{}' state", phase.name()));
            }
        }
        if self.phase != Phase::Starting {
            self.told.send_if_modified(|told| !std::mem::replace(told, true));
        }
    }

    fn perform(&mut self, action: Action) {
        let now = Instant::now();
        match action {
            Action::Say(text) => self.log.notice(text),
            Action::Announce => {
                self.log.notice("ready to handle connections");
                self.notifier.ready(now, &self.log);
                let php = self.engines.php().last().map(|(_, php)| php.version.clone());
                let workers = self.pools.values().map(|pool| pool.management.present()).sum();
                self.start_scheduling(now);
                if let Some(announce) = self.announce.take() {
                    announce(&Announcement {
                        php: php.unwrap_or_default(),
                        workers,
                    });
                }
            }
            Action::StopWorkers(reason) => {
                if let Some(companion) = &mut self.companion {
                    companion.stop();
                }
                self.push(drain::first(reason, self.global.process_control_timeout));
            }
            Action::Escalate => {
                if let Some(push) = self.pushed {
                    self.push(drain::next(push.signal));
                }
            }
            Action::GiveASecond => self.due = Some(now + Duration::from_secs(1)),
            Action::CloseEngines => {
                self.stop_by.get_or_insert(now + STOP_TIME);
                self.engines.close_all();
            }
            Action::KillEngines => self.engines.kill_all(),
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

    pub(super) fn asked_to_reload(&mut self, signal: &str) {
        self.log.debug(format_args!("received {signal}"));
        if self.phase.wants_workers() {
            self.ask_reload(Order::All, None);
        } else {
            self.not_switching("reloading");
        }
    }

    pub(super) fn asked_to_reopen(&mut self) {
        self.log.debug("received SIGUSR1");
        self.reopen_logs();
    }

    /// A signal that asks for another state, by php-fpm's name for it.
    pub(super) fn asked(&mut self, signal: &str, happening: Happening, state: &str) {
        self.log.debug(format_args!("received {signal}"));
        // Whoever stops us does not want another program in our place.
        self.becomes = None;
        let before = self.phase;
        self.happen(happening);
        if self.phase == before && before.name() != state {
            self.not_switching(state);
        }
        if before.wants_workers() && !self.phase.wants_workers() {
            self.reload_happens(reload::Happening::Stopping);
            self.notifier.stopping(&self.log);
        }
    }

    fn not_switching(&self, state: &str) {
        let current = self.phase.name();
        self.log.debug(format_args!(
            "not switching to '{state}' state, because already in '{current}' state"
        ));
    }

    /// Signals every worker, and sets the time for the next stronger signal.
    fn push(&mut self, push: Push) {
        let now = Instant::now();
        if push.signal == Signal::TERM {
            self.stop_by.get_or_insert(now + STOP_TIME);
        }
        self.pushed = Some(push);
        self.signal_workers(push.signal, push.doom, |_| true);
        if push.signal == Signal::KILL {
            self.forget_unborn();
        }
        self.due = push.patience.map(|patience| now + patience);
    }

    /// The first engines have PHP up: from here on trouble is dealt with, not fatal.
    pub(super) fn came_up(&mut self) {
        self.is_up = true;
        match self
            .global
            .pid
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
        if let Err(e) = self.log.start_is_over() {
            self.log.warning(format_args!(
                "failed to tie stderr fd with error_log fd: dup2(): {}",
                Errno(&e)
            ));
        }
        self.log.notice(format_args!("fpm is running, pid {}", own_pid()));
        self.keep_observer(Instant::now());
    }
}
