//! Where orders are handed to the sampler: who goes first, and what looks may cost.
//!
//! The sampler does one thing after the other, in the order in which it was asked. So
//! that a look for which a kill waits is not behind many others, looks that nobody waits
//! for are handed over a few at a time.

use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::LookBudget;

use super::budget::Budget;
use super::sampler::{Newcomer, Order, Rules, Sampler, Why};
use super::scoreboard::Worker;

/// Looks under way at most for one more that nobody waits for: 2 ms of the sampler's
/// time, and enough to keep it busy between two turns.
const ROUTINE: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    sampler: Option<Sampler>,
    budget: Budget,
    /// Orders without an answer; each gets one.
    under_way: usize,
}

/// What came of a look that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was ordered.
    Ordered,
    /// Others are under way; it may be had in a moment.
    Later,
    /// The budget does not allow it.
    Skipped,
}

impl Desk {
    pub(super) fn new(sampler: Sampler, limits: &LookBudget) -> Desk {
        Desk {
            sampler: Some(sampler),
            budget: Budget::new(limits),
            under_way: 0,
        }
    }

    /// A look at a slow request. `order` is told whether it may stop its worker.
    pub(super) fn slow(&mut self, now: u64, order: impl FnOnce(bool) -> Order) -> Taken {
        if self.under_way >= ROUTINE {
            return Taken::Later;
        }
        let Some(may_stop) = self.budget.leave(self.under_way, now) else {
            return Taken::Skipped;
        };
        if !self.hand_over(order(may_stop)) {
            return Taken::Later;
        }
        self.budget.spend_look(now);
        Taken::Ordered
    }

    /// Whether a look of a survey can be ordered now.
    pub(super) fn has_time(&self) -> bool {
        self.under_way < ROUTINE && self.sampler.is_some()
    }

    /// Orders one that has its reason: no budget is asked. False if the queue is full.
    pub(super) fn hand_over(&mut self, order: Order) -> bool {
        let taken = self.sampler.as_ref().is_some_and(|sampler| sampler.order(order));
        self.under_way += usize::from(taken);
        taken
    }

    /// Has the sampler find out what can be seen of a pool's workers.
    pub(super) fn meet(&self, newcomer: Newcomer) {
        if let Some(sampler) = &self.sampler {
            sampler.meet(newcomer);
        }
    }

    /// An order was answered; its worker was stopped for so long.
    pub(super) fn answered(&mut self, why: Why, stop: Duration, now: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        match why {
            Why::Slow { .. } => self.budget.spend_stop(stop, now),
            // What is done to one that will not live is no loss, the others are not stopped.
            Why::Doomed(_) | Why::Crashed(_) | Why::Saturated => {}
        }
    }

    /// Whether a worker that crashes is looked at.
    pub(super) fn take_crash(&mut self, now: u64) -> bool {
        self.budget.take_crash(now)
    }

    /// No more orders: the sampler ends when it has answered those that it has.
    pub(super) fn close(&mut self) {
        self.sampler = None;
    }
}

impl Worker {
    /// An order to look at the request of that number.
    pub(super) fn order(
        &self,
        worker: WorkerId,
        number: u64,
        why: Why,
        may_stop: bool,
        rules: &Arc<Rules>,
    ) -> Order {
        Order {
            worker,
            number,
            why,
            may_stop,
            slot: Arc::clone(&self.slot),
            process: Arc::clone(&self.process),
            rules: Arc::clone(rules),
        }
    }
}
