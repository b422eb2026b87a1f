//! Which looks are ordered, and why: requests past their limit, workers about to be
//! killed, workers that crash, and full pools. When a look is due is decided in `slow`
//! and `saturation`, whether it may be had in `desk`.
//!
//! For two kinds somebody waits: the supervisor with a kill, a worker in its crash
//! handler. Neither waits for long, so a look that cannot be had is answered at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::control::{Doom, FromObserver};
use glasspool_abi::slot::{Crash, InProgress};
use glasspool_abi::{PoolId, WorkerId};
use glasspool_otel::saturation::Saturation;
use glasspool_otel::slow::SlowEvent;

use super::desk::{Desk, Taken};
use super::sampler::{Rules, Why};
use super::saturation;
use super::scoreboard::Worker;
use super::slow::{Next, Plan, RETRY_NS};
use super::state::Observer;
use super::waits::{Past, nanoseconds};

/// A look for which somebody waits, or is about to be told not to.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    worker: WorkerId,
    why: Why,
}

/// Last looks that were not ordered yet, in the order in which they were wanted. At most
/// one for each message of the supervisor and for each worker's crash.
#[derive(Debug, Default)]
pub(super) struct LastLooks(VecDeque<LastLook>);

impl LastLooks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is known of a worker's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) next: Next,
    /// What came of a look that was due.
    pub(super) taken: Option<Taken>,
    /// It was ordered, and it is the first look at the request.
    pub(super) is_first: bool,
    /// The request that is past its deadline, whether a look is due or not.
    pub(super) past: Option<Past>,
}

/// Looks after the deadline of a worker's request. Cost: one load for an idle worker.
pub(super) fn watch(
    id: WorkerId,
    worker: &mut Worker,
    rules: &Arc<Rules>,
    desk: &mut Desk,
    now: u64,
) -> Watched {
    let nothing = Watched {
        next: Next::Never,
        taken: None,
        is_first: false,
        past: None,
    };
    let Some(after) = worker.requests.limit else {
        return nothing;
    };
    let Some(progress) = worker.slot.in_progress() else {
        return nothing;
    };
    let past = past(&progress, after, now);
    let plan = Plan {
        after,
        looks: rules.looks,
    };
    let first = match worker.requests.cases.next(&progress, plan, now) {
        Next::Now { first } => first,
        next => {
            return Watched {
                next,
                past,
                ..nothing
            };
        }
    };
    let why = Why::Slow { first };
    // One in its crash handler is not stopped: that would end its wait (signal(7),
    // sigtimedwait).
    let crashes = worker.slot.crash().is_some();
    let taken = desk.slow(now, |may_stop| {
        worker.order(id, progress.number, why, may_stop && !crashes, rules)
    });
    let cases = &mut worker.requests.cases;
    let next = match taken {
        Taken::Ordered => {
            cases.asked(&progress, plan, now);
            cases.next(&progress, plan, now)
        }
        Taken::Skipped => {
            cases.skip(&progress, plan, now);
            cases.next(&progress, plan, now)
        }
        Taken::Later => Next::At(now.saturating_add(RETRY_NS)),
    };
    Watched {
        next,
        taken: Some(taken),
        is_first: first && taken == Taken::Ordered,
        past,
    }
}

/// The request, if it is older than that.
fn past(progress: &InProgress, after: Duration, now: u64) -> Option<Past> {
    let past = Past {
        number: progress.number,
        since_ns: progress.start_mono_ns.saturating_add(nanoseconds(after)),
    };
    (past.since_ns <= now).then_some(past)
}

/// What became of a last look.
enum Tried {
    Ordered,
    /// There is nothing to look at.
    Needless,
    /// A look at a request of the same worker before this one is not over.
    Later,
    /// The sampler has enough to do.
    Full,
}

impl Observer {
    /// The supervisor is about to kill this worker.
    pub(super) fn on_last_look(&mut self, worker: WorkerId, doom: Doom) {
        let why = Why::Doomed(doom);
        self.last_looks.0.push_back(LastLook { worker, why });
        self.order_last_looks();
    }

    /// This worker's slot says for the first time that it crashes.
    pub(super) fn on_crash(&mut self, worker: WorkerId, crash: Crash, now: u64) {
        let look = LastLook {
            worker,
            why: Why::Crashed(crash),
        };
        let known = self.board.workers.get(&worker);
        if known.is_none_or(|worker| worker.slot.in_progress().is_none()) {
            self.looked(look);
        } else if self.desk.take_crash(now) {
            self.last_looks.0.push_back(look);
            self.order_last_looks();
        } else {
            self.report.counters.samples.skipped += 1;
            self.looked(look);
        }
    }

    /// Orders as many of them as can be.
    pub(super) fn order_last_looks(&mut self) {
        for _ in 0..self.last_looks.0.len() {
            let Some(look) = self.last_looks.0.pop_front() else {
                return;
            };
            match self.try_last_look(look) {
                Tried::Ordered => {}
                Tried::Needless => self.looked(look),
                Tried::Later => self.last_looks.0.push_back(look),
                Tried::Full => {
                    self.last_looks.0.push_front(look);
                    return;
                }
            }
        }
    }

    fn try_last_look(&mut self, look: LastLook) -> Tried {
        let worker = self.board.workers.get_mut(&look.worker);
        let Some(worker) = worker.filter(|worker| worker.gone.is_none()) else {
            return Tried::Needless;
        };
        let Some(rules) = self.board.pools.get(&worker.pool).map(|pool| &pool.rules) else {
            return Tried::Needless;
        };
        let Some(progress) = worker.slot.in_progress() else {
            return Tried::Needless;
        };
        if !worker.requests.cases.turn_to(progress.number) {
            return Tried::Later;
        }
        // What a stop does to one that is killed anyway does not matter; one in its crash
        // handler would stop waiting for us.
        let may_stop = matches!(look.why, Why::Doomed(_)) && worker.slot.crash().is_none();
        let order = worker.order(look.worker, progress.number, look.why, may_stop, rules);
        if !self.desk.hand_over(order) {
            return Tried::Full;
        }
        worker.requests.cases.asked_out_of_turn();
        Tried::Ordered
    }

    fn looked(&mut self, look: LastLook) {
        self.answer_last_look(look.worker, look.why);
    }

    /// Nobody has to wait for this look any longer.
    pub(super) fn answer_last_look(&mut self, worker: WorkerId, why: Why) {
        let crashed = match why {
            Why::Doomed(_) => false,
            Why::Crashed(_) => true,
            Why::Slow { .. } | Why::Saturated => return,
        };
        self.looked.push(FromObserver::Looked { worker, crashed });
    }

    // === Full pools ===

    /// All workers of the pool are busy, and there may be no more of them.
    pub(super) fn on_saturated(&mut self, pool: PoolId, now: u64) {
        let Some(rules) = self.board.pools.get(&pool).map(|pool| &pool.rules) else {
            return;
        };
        if !self.surveys.is_due(pool, now) {
            return;
        }
        let workers = self.board.workers.iter();
        let workers = workers.filter(|(_, worker)| worker.pool == pool && worker.gone.is_none());
        let workers: Vec<_> = workers
            .map(|(id, worker)| (*id, worker.slot.in_progress()))
            .collect();
        let busy = workers.iter();
        let busy = busy.filter_map(|(id, progress)| Some((*id, (*progress)?.number)));
        self.surveys
            .begin(pool, &rules.pool, workers.len(), busy.collect(), now);
        self.order_survey();
    }

    /// Orders the next looks of surveys, as far as there is time for them.
    pub(super) fn order_survey(&mut self) {
        while self.desk.has_time() {
            let Some((pool, id, number)) = self.surveys.next() else {
                return;
            };
            let worker = self.board.workers.get(&id);
            let worker = worker.filter(|worker| worker.gone.is_none());
            let known = worker.zip(self.board.pools.get(&pool));
            let order = known.map(|(worker, pool)| {
                let why = Why::Saturated;
                worker.order(id, number, why, false, &pool.rules)
            });
            let ordered = order.is_some_and(|order| self.desk.hand_over(order));
            if let Some(result) = self.surveys.passed(ordered) {
                self.tell_saturation(&result);
            }
        }
    }

    /// A look of a survey is over.
    pub(super) fn on_surveyed(&mut self, worker: WorkerId, seen: Option<SlowEvent>) {
        if let Some(result) = self.surveys.answered(worker, seen) {
            self.tell_saturation(&result);
        }
    }

    fn tell_saturation(&mut self, saturation: &Saturation) {
        let line = saturation::line(saturation);
        self.log.warning(&line);
        self.report.saturated(saturation, &line);
    }
}
