//! One pool's process manager: what is configured, what it remembers, what it counts, and
//! how an ondemand pool notices connections. `pm` decides; `scheduling` asks and acts.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::Ended;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::crew::Birth;
use super::pm::{Action, Burial, Event, Member, Rules, Scheduler};
use super::run;
use super::scoreboard::Figures;
use crate::config::{Pool, ProcessManager};
use crate::readiness;

/// Between two looks at an ondemand pool's socket on which connections wait, so that a
/// busy pool does not keep the run loop busy.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at a socket that cannot be watched.
const BLIND_LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Management {
    rules: Rules,
    scheduler: Scheduler,
    pub(super) figures: Figures,
    demand: Demand,
    /// Workers that exist or were asked for.
    present: u32,
    /// Those of them that were told to end because they are not needed.
    retired: u32,
    /// Workers that have died and whose successors were not asked for yet.
    vacant: u32,
    /// Workers that the pool begins with and that were not asked for yet.
    first: u32,
    /// Workers that the pool begins with and that have neither served nor failed yet.
    unsettled: u32,
}

/// Whether an ondemand pool waits for connections.
#[derive(Debug)]
enum Demand {
    /// It need not: it is no ondemand pool, or none that serves.
    Ignored,
    /// A connection will be noticed.
    Watched(#[expect(dead_code, reason = "dropped to end the watch")] Watch),
    /// Connections were there; look again then.
    Later(Instant),
    /// Connections were there and no worker can be added; look again when one has ended,
    /// or at the next turn of maintenance.
    Full,
}

impl Management {
    /// Of a pool that starts now.
    pub(super) fn new(pool: &Pool) -> Management {
        let rules = Rules::of(pool);
        Management {
            scheduler: Scheduler::new(&rules),
            figures: Figures::new(),
            demand: Demand::Ignored,
            present: 0,
            retired: 0,
            vacant: 0,
            first: rules.first(),
            unsettled: rules.first(),
            rules,
        }
    }

    /// Workers that it begins with and that were not asked for yet.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// `process.max` leaves it only so many more workers to begin with.
    pub(super) fn limit_first(&mut self, count: u32) {
        let given_up = self.first.saturating_sub(count);
        self.first -= given_up;
        self.unsettled -= given_up;
    }

    /// Whether each of the workers that it begins with serves or has failed once.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Workers that exist or were asked for.
    pub(super) fn present(&self) -> u32 {
        self.present
    }

    /// Workers that should be asked for.
    pub(super) fn lacking(&self) -> u32 {
        let staying = self.present - self.retired;
        let lacking = self.scheduler.wanted().saturating_sub(staying);
        lacking.min(self.rules.max_children.saturating_sub(self.present))
    }

    /// A worker is being asked for; returns why.
    pub(super) fn asked(&mut self) -> Birth {
        self.present += 1;
        if self.first > 0 {
            self.first -= 1;
            Birth::First
        } else if self.vacant > 0 {
            self.vacant -= 1;
            Birth::Replacement
        } else {
            Birth::Addition
        }
    }

    /// One of those that it begins with serves, or has failed.
    pub(super) fn settled(&mut self) {
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// A worker's process has ended.
    pub(super) fn buried(&mut self, retired: bool, ended: Ended) -> Burial {
        let (scheduler, burial) = self.scheduler.on_end(&self.rules, retired, ended);
        self.scheduler = scheduler;
        if burial == Burial::Replaced {
            self.vacant += 1;
        }
        burial
    }

    /// A worker was told to end because it is not needed.
    pub(super) fn retire(&mut self) {
        self.retired += 1;
    }

    /// A worker is gone, or will not come.
    pub(super) fn gone(&mut self, retired: bool, now: Instant) {
        self.present -= 1;
        self.retired -= u32::from(retired);
        self.look_again(now);
    }

    /// Whether every worker that there may be is busy, and connections wait all the same.
    pub(super) fn is_saturated(&self, crew: &[Member], waiting: u32) -> bool {
        self.rules.is_saturated(crew, waiting)
    }

    /// Decides, and remembers what was decided.
    pub(super) fn decide(&mut self, event: Event, crew: &[Member], now: Instant) -> Vec<Action> {
        let (scheduler, actions) = self.scheduler.on(event, &self.rules, crew, now);
        self.scheduler = scheduler;
        // What was decided takes the place of what was lost before.
        self.vacant = self.vacant.min(self.lacking());
        actions
    }

    /// Whether the second's turn may change the pool's size: not while it is still given
    /// the workers that it begins with, or it would take what is there for enough.
    pub(super) fn is_maintained(&self) -> bool {
        self.first == 0
    }

    /// The pool is told to look at its socket again, if it had no use for connections.
    pub(super) fn look_again(&mut self, now: Instant) {
        if let Demand::Full = self.demand {
            self.demand = Demand::Later(now);
        }
    }

    /// A connection was noticed, and all is done about it that can be.
    pub(super) fn looked(&mut self, now: Instant) {
        let full = self.present.saturating_add(self.lacking()) >= self.rules.max_children;
        self.demand = if full {
            Demand::Full
        } else {
            Demand::Later(now + LOOK)
        };
    }

    /// When it looks at its socket again by itself.
    pub(super) fn next_look(&self) -> Option<Instant> {
        match self.demand {
            Demand::Later(then) => Some(then),
            Demand::Ignored | Demand::Watched(_) | Demand::Full => None,
        }
    }

    /// Watches for connections if they make workers; `serves` says whether they may.
    pub(super) fn watch(&mut self, serves: bool, now: Instant, start: impl FnOnce() -> Watch) {
        let is_on_demand = matches!(self.rules.manager, ProcessManager::OnDemand { .. });
        match self.demand {
            _ if !(serves && is_on_demand) => self.demand = Demand::Ignored,
            Demand::Watched(_) | Demand::Full => {}
            Demand::Later(then) if then > now => {}
            Demand::Ignored | Demand::Later(_) => self.demand = Demand::Watched(start()),
        }
    }
}

/// A task that tells the run loop once that a connection waits.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Watch {
    /// The socket stays as it is: workers sleep in accept(2) on it, and a descriptor's
    /// flags are shared by all who hold it.
    pub(super) fn start(pool: PoolId, socket: Arc<OwnedFd>, events: mpsc::Sender<run::Event>) -> Watch {
        let task = tokio::spawn(async move {
            let seen = match readiness::ready(socket, Interest::READABLE) {
                Ok(socket) => socket.readable().await.map(|_guard| ()),
                Err(e) => Err(e),
            };
            if seen.is_err() {
                // Perhaps the pool that had the socket before still watches it.
                tokio::time::sleep(BLIND_LOOK).await;
            }
            // Without a run loop there is nobody to tell.
            events
                .send(run::Event::Connecting(pool))
                .await
                .unwrap_or_default();
        });
        Watch(task.abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
