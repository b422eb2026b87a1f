//! One worker as the supervisor holds it: its process, its slot, and what is known of both.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use glasspool_abi::control::{ProcessStatus, WorkerView};
use glasspool_abi::slot::Stage;
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::supervisor::monotonic_ns;
use crate::supervisor::output::Pipes;
use crate::supervisor::pm::{Activity, Member};
use crate::supervisor::process::Child;
use crate::supervisor::programs::{Page, Waits};
use crate::supervisor::scoreboard::{Gauge, Look};
use crate::supervisor::worker::State;

/// See the module.
#[derive(Debug)]
pub(in crate::supervisor) struct Worker {
    pub(super) state: State,
    pub(super) pool: PoolId,
    pub(super) engine: EngineId,
    pub(super) slot: Arc<OwnedFd>,
    pub(super) cursor: u64,
    /// Where the kernel programs account for it.
    pub(super) page: Option<Page>,
    /// What `ToObserver::WorkerStarted` carries of its `/proc` files.
    pub(super) handed: Vec<Arc<OwnedFd>>,
    pub(super) child: Option<Child>,
    /// Since it was asked for; then since it was seen to exist.
    pub(super) since: Instant,
    pub(super) pipes: Option<Pipes>,
    pub(super) birth: Birth,
    /// One of those that the start waits for.
    pub(super) unsettled: bool,
    /// Observers are told of it.
    pub(super) announced: bool,
    /// What its slot says, once it exists.
    pub(super) gauge: Option<Gauge>,
    /// It was told to end because it is not needed.
    pub(super) retired: bool,
    /// What it is sent when its process is known.
    pub(super) awaiting: Option<Signal>,
    /// Tells whoever reads its output that it serves.
    pub(super) serves: Arc<Notify>,
}

/// Why a worker was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Birth {
    /// Its pool begins with it.
    First,
    /// Its pool has become larger.
    Addition,
    /// Another one has died.
    Replacement,
}

impl Worker {
    pub(super) fn is_requested(&self) -> bool {
        matches!(self.state, State::Requested { .. })
    }

    /// Whether its engine is still needed to bring it up.
    pub(in crate::supervisor) fn is_starting(&self) -> bool {
        matches!(self.state, State::Requested { .. } | State::Starting { .. })
    }

    pub(in crate::supervisor) fn pid(&self) -> Option<Pid> {
        self.state.pid()
    }

    pub(in crate::supervisor) fn pool(&self) -> PoolId {
        self.pool
    }

    /// Whether it says that it waits for a connection.
    pub(in crate::supervisor) fn waits_for_connection(&self) -> bool {
        let stage = self.gauge.as_ref().and_then(|gauge| gauge.sight().stage);
        stage == Some(Stage::Accepting)
    }

    /// Its process, and what its slot says; none before it exists.
    pub(in crate::supervisor) fn gauge(&mut self) -> Option<(Pid, &mut Gauge)> {
        Some((self.child.as_ref()?.pid, self.gauge.as_mut()?))
    }

    /// Sends a signal: now, or as soon as there is a process. Returns the process.
    pub(in crate::supervisor) fn signal(&mut self, signal: Signal) -> Option<Pid> {
        match &self.child {
            Some(child) => {
                child.signal(signal);
                Some(child.pid)
            }
            None => {
                self.awaiting = Some(signal);
                None
            }
        }
    }

    /// The request that it has under way, if observers are told of it and could look.
    pub(in crate::supervisor) fn watched_request(&self) -> Option<u64> {
        let gauge = self.gauge.as_ref().filter(|_| self.announced)?;
        gauge.request_under_way()
    }

    /// Ends its wait in its crash handler.
    pub(in crate::supervisor) fn wake(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::CONT);
        }
    }

    /// Tells it to end because it is not needed; false if it was told before.
    pub(in crate::supervisor) fn retire(&mut self) -> bool {
        self.signal(Signal::QUIT);
        !std::mem::replace(&mut self.retired, true)
    }

    /// How it looks now, and what was seen in its slot. `now` and `now_ns` are the same
    /// moment, the latter as `CLOCK_MONOTONIC` in nanoseconds.
    pub(in crate::supervisor) fn look(
        &mut self,
        id: WorkerId,
        now: Instant,
        now_ns: u64,
    ) -> (Member, Option<Look>) {
        let look = self.gauge.as_mut().map(|gauge| gauge.look(now, now_ns));
        let member = Member {
            id,
            activity: look.map_or(Activity::Coming, |look| look.activity),
            born: self.since,
            retired: self.retired,
        };
        (member, look)
    }

    /// What the status page says of it, once it exists. `now_ns` is `CLOCK_MONOTONIC`.
    pub(in crate::supervisor) fn status(&self, now_ns: u64) -> Option<ProcessStatus> {
        let pid = self.child.as_ref()?.pid;
        Some(self.gauge.as_ref()?.status(pid.0, now_ns))
    }

    pub(in crate::supervisor) fn engine(&self) -> EngineId {
        self.engine
    }

    /// What an observer with these kernel programs is told of it, and the descriptors that
    /// go with that.
    pub(super) fn introduction(
        &self,
        id: WorkerId,
        pid: Pid,
        slot_bytes: usize,
        waits: &Waits,
    ) -> Option<(WorkerView, Vec<Arc<OwnedFd>>)> {
        let child = self.child.as_ref()?;
        let mut fds = vec![Arc::clone(&self.slot), Arc::clone(&child.pidfd)];
        fds.extend(self.handed.iter().cloned());
        let age = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let view = WorkerView {
            worker: id,
            pid,
            pool: self.pool,
            engine: self.engine,
            born_mono_ns: monotonic_ns().saturating_sub(age),
            slot_bytes: slot_bytes as u64,
            cursor: self.cursor,
            times_page: waits.number_of(self.page.as_ref()),
        };
        Some((view, fds))
    }
}
