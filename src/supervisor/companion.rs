//! A further role of this program that runs beside the pools: the HTTP front of
//! `glasspool serve`. Restarted when it dies, stopped first.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::control::Ended;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::process::{Child, describe};
use crate::logs::ErrorLog;

/// One that lived so long had no trouble starting.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// How a companion is started: this program with these arguments, and a socket as its
/// standard input.
#[derive(Debug)]
pub struct CompanionSpec {
    /// What the log calls it.
    pub name: &'static str,
    /// The role and its options.
    pub arguments: Vec<OsString>,
    /// Kept open here, so that a successor goes on with the same socket.
    pub stdin: OwnedFd,
}

/// The companion, whether it runs or not.
#[derive(Debug)]
pub(super) struct Companion {
    spec: CompanionSpec,
    running: Option<(Child, Instant)>,
    backoff: Backoff,
    stopping: bool,
}

impl Companion {
    pub(super) fn new(spec: CompanionSpec) -> Companion {
        Companion {
            spec,
            running: None,
            backoff: Backoff::default(),
            stopping: false,
        }
    }

    /// Starts it if it does not run and its time has come.
    pub(super) fn keep<E: Send + 'static>(
        &mut self,
        now: Instant,
        log: &ErrorLog,
        events: &mpsc::Sender<E>,
        on_end: fn(Ended) -> E,
    ) {
        if self.running.is_some() || self.stopping || !self.backoff.is_over(now) {
            return;
        }
        let spawned = self.spec.stdin.as_fd().try_clone_to_owned().and_then(|stdin| {
            let mut command = Command::new("/proc/self/exe");
            command
                .arg0("glasspool")
                .args(&self.spec.arguments)
                .stdin(Stdio::from(stdin))
                .process_group(0);
            Child::spawn(&mut command)
        });
        match spawned {
            Ok(child) => {
                let (events, ending) = (events.clone(), child.clone());
                tokio::spawn(async move {
                    let ended = ending.ended().await.unwrap_or(Ended::Exited(-1));
                    events.send(on_end(ended)).await.unwrap_or_default();
                });
                self.running = Some((child, now));
            }
            Err(e) => {
                let wait = self.backoff.failed(now);
                log.error(format_args!(
                    "cannot start the {}: {e}; next attempt in {wait:?}",
                    self.spec.name
                ));
            }
        }
    }

    pub(super) fn on_end(&mut self, ended: Ended, now: Instant, log: &ErrorLog) {
        let Some((child, since)) = self.running.take() else {
            return;
        };
        let how = format!(
            "the {} (pid {}) exited {}",
            self.spec.name,
            child.pid,
            describe(ended)
        );
        if self.stopping {
            return log.debug(how);
        }
        if now.duration_since(since) >= LONG_LIFE {
            self.backoff.succeeded();
        }
        let wait = self.backoff.failed(now);
        log.warning(format_args!("{how}; starting it again in {wait:?}"));
    }

    /// Asks it to finish; it is not started again.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.signal(Signal::TERM);
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some((child, _)) = &self.running {
            child.signal(signal);
        }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|(child, _)| child.pid)
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.running.is_some() || self.stopping {
            None
        } else {
            self.backoff.due(now)
        }
    }
}
