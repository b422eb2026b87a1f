//! Where workers' time goes, added up for each pool, and how much of that can be told.

use std::collections::BTreeMap;

use glasspool_abi::times::CAUSES;
use glasspool_otel::metrics::instruments::{
    SWITCHES_MISSED, WAITS_LOST, WAITS_RUNG, WAITS_WORKERS, WORKER_TIME, attribute,
};
use glasspool_otel::metrics::{Figure, KeyValue, Metric};
use glasspool_otel::semconv::name;
use glasspool_otel::times::{CAUSE_NAMES, Spent};
use glasspool_probes::rights::Rung;

use super::Metrics;
use super::snapshot::of_pool;
use crate::observer::ladder::LadderView;
use crate::observer::scoreboard::Scoreboard;
use crate::observer::waits::Waits;

/// Time of requests that have ended, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spendings {
    on_cpu_ns: u64,
    runqueue_ns: u64,
    by_cause_ns: [u64; CAUSES],
    /// Blocked, and for what is not known.
    unknown_ns: u64,
    /// Whether anything was ever known.
    known: bool,
}

impl Spendings {
    /// A request's time. What its worker says cannot be more than the request took.
    pub(super) fn add(&mut self, spent: &Spent, busy_ns: u64) {
        let add = |sum: &mut u64, ns: u64| *sum = sum.saturating_add(ns.min(busy_ns));
        add(&mut self.on_cpu_ns, spent.on_cpu_ns);
        add(&mut self.runqueue_ns, spent.runqueue_ns);
        match &spent.by_cause {
            Some(causes) => {
                for (sum, ns) in self.by_cause_ns.iter_mut().zip(causes) {
                    add(sum, *ns);
                }
            }
            None => add(&mut self.unknown_ns, spent.blocked_ns),
        }
        self.known = true;
    }
}

impl Metrics {
    /// What spans tell of time, added up; and what they cannot tell.
    pub(super) fn times(
        &self,
        board: &Scoreboard,
        waits: &Waits,
        ladder: &[LadderView],
        metrics: &mut Vec<Metric>,
    ) {
        let mut time = Metric::new(&WORKER_TIME);
        let mut rung = Metric::new(&WAITS_RUNG);
        let state = waits.state();
        for (pool, figures) in &self.pools {
            let spent = &figures.spendings;
            if spent.known {
                tell(pool, spent, &mut time);
            }
        }
        for view in ladder {
            let counted = self
                .pools
                .get(&view.pool)
                .is_some_and(|figures| figures.spendings.known);
            let mut attributes = vec![of_pool(&view.pool)];
            let number = match (state, view.rung) {
                (Ok(()), _) => 3,
                (Err(_), Rung::PhpOnly | Rung::Unstopped | Rung::Everything) => 2,
                (Err(_), Rung::StateOnly | Rung::WaitOnly) => i64::from(counted),
            };
            if let Err(reason) = state {
                let reason = reason.unwrap_or("off").to_owned();
                attributes.push(KeyValue::new(attribute::WAITS_REASON, reason));
            }
            rung.add(attributes, Figure::Int(number));
        }
        metrics.extend([time, rung]);
        if state.is_ok() {
            metrics.push(with_pages(board));
            losses(waits, metrics);
        }
    }
}

fn tell(pool: &str, spent: &Spendings, time: &mut Metric) {
    let mut add = |state: &'static str, cause: Option<&'static str>, ns: u64| {
        let mut attributes = vec![of_pool(pool), KeyValue::new(attribute::TIME_STATE, state)];
        attributes.extend(cause.map(|cause| KeyValue::new(name::PHP_WAIT_CLASS, cause)));
        time.add(attributes, Figure::Float(ns as f64 / 1e9));
    };
    add("on_cpu", None, spent.on_cpu_ns);
    add("runqueue", None, spent.runqueue_ns);
    for (cause, ns) in CAUSE_NAMES.iter().zip(spent.by_cause_ns) {
        if ns > 0 {
            add("blocked", Some(cause), ns);
        }
    }
    if spent.unknown_ns > 0 {
        add("blocked", None, spent.unknown_ns);
    }
}

fn with_pages(board: &Scoreboard) -> Metric {
    let mut counts: BTreeMap<&str, i64> = board
        .pools
        .values()
        .map(|pool| (pool.rules.pool.as_str(), 0))
        .collect();
    for worker in board.workers.values() {
        if worker.gone.is_none() && worker.page.is_some() {
            *counts.entry(&worker.requests.facts.pool).or_default() += 1;
        }
    }
    let mut workers = Metric::new(&WAITS_WORKERS);
    for (pool, count) in counts {
        workers.add(vec![of_pool(pool)], Figure::Int(count));
    }
    workers
}

fn losses(waits: &Waits, metrics: &mut Vec<Metric>) {
    let losses = waits.losses();
    let mut lost = Metric::new(&WAITS_LOST);
    for (reason, count) in [
        ("ring_full", losses.ring_full),
        ("malformed", losses.malformed),
        ("late", losses.late),
        ("missing", losses.missing),
    ] {
        lost.add(vec![KeyValue::new(attribute::LOSS_REASON, reason)], count);
    }
    let mut missed = Metric::new(&SWITCHES_MISSED);
    for (outcome, count) in [("made_up", losses.made_up), ("odd", losses.odd)] {
        missed.add(vec![KeyValue::new(attribute::SWITCH_OUTCOME, outcome)], count);
    }
    metrics.extend([lost, missed]);
}
