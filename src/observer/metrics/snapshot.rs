//! All figures of now, by instrument.

use std::collections::BTreeMap;
use std::time::Duration;

use glasspool_otel::export::{self, Delivery};
use glasspool_otel::metrics::instruments::{
    ACTIVE_REQUESTS, DEATHS, KILLED, LINES, LINES_DROPPED, LOGS_DROPPED, LOGS_EXPORTED, LOOKS, OBSERVER_CPU,
    OBSERVER_MEMORY, OBSERVER_QUEUE, RECORDS_LOST, REQUEST_CPU, REQUEST_DURATION, RIGHT, RUNG, SATURATIONS,
    SPANS_DROPPED, SPANS_EXPORTED, STOP_TIME, WORKER_MEMORY, WORKERS, attribute,
};
use glasspool_otel::metrics::{Figure, Instrument, KeyValue, Metric, Snapshot};
use glasspool_otel::semconv::name;
use glasspool_probes::rights::Rung;

use super::series::{Failure, signal_name};
use super::{Metrics, own, unix_ns};
use crate::observer::counters::Counters;
use crate::observer::ladder::LadderView;
use crate::observer::monotonic_ns;
use crate::observer::scoreboard::Scoreboard;
use crate::observer::waits::Waits;

/// The rights as metrics name them, and as `Rights::missing` does.
pub(super) const RIGHTS: [(&str, &str); 5] = [
    ("memory", "memory"),
    ("system_calls", "system calls"),
    ("peers", "peers of sockets"),
    ("files", "mapped files"),
    ("hold", "holding it while it runs"),
];

/// A clock that goes back by more was set; by less, it was slewed (adjtime(3)).
const CLOCK_WAS_SET_NS: u64 = 1_000_000_000;

/// What is counted elsewhere.
#[derive(Debug)]
pub(in crate::observer) struct Surroundings<'a> {
    pub(in crate::observer) ladder: Vec<LadderView>,
    pub(in crate::observer) counters: &'a Counters,
    pub(in crate::observer) delivery: export::Counters,
    /// Bytes that wait to be exported, by signal.
    pub(in crate::observer) waiting: [(&'static str, usize); 3],
}

impl Metrics {
    /// Counts what is counted now and copies the rest. Touches each worker's slot once, and
    /// every few seconds a file of `/proc` for each.
    pub(in crate::observer) fn snapshot(
        &mut self,
        board: &Scoreboard,
        waits: &Waits,
        around: &Surroundings<'_>,
    ) -> Snapshot {
        self.read_clocks(unix_ns(), monotonic_ns());
        let mut metrics = Vec::new();
        self.requests(board, &mut metrics);
        self.pools(&mut metrics);
        self.supervised.tell(&mut metrics);
        self.memory(board, &mut metrics);
        rights(&around.ladder, &mut metrics);
        self.times(board, waits, &around.ladder, &mut metrics);
        looks(around.counters, &mut metrics);
        let mut stop_time = Metric::new(&STOP_TIME);
        stop_time.add(Vec::new(), Figure::Float(self.stopped.as_secs_f64()));
        metrics.push(stop_time);
        observer(around.waiting, &mut metrics);
        deliveries(&around.delivery, &mut metrics);
        Snapshot {
            start_unix_ns: self.start_unix_ns,
            time_unix_ns: self.last_unix_ns,
            metrics,
        }
    }

    /// The time of the snapshot that is made: later than the last one's, unless the clock of the day was set
    /// back since. Then the start moves with it: nothing is counted from a time that has not come yet.
    pub(super) fn read_clocks(&mut self, unix_ns: u64, mono_ns: u64) {
        if unix_ns.saturating_add(CLOCK_WAS_SET_NS) < self.last_unix_ns {
            let counted_ns = mono_ns.saturating_sub(self.start_mono_ns);
            self.start_unix_ns = self.start_unix_ns.min(unix_ns.saturating_sub(counted_ns));
            self.last_unix_ns = 0;
        }
        self.last_unix_ns = unix_ns.max(self.last_unix_ns.saturating_add(1));
    }

    /// What is under way, and who works at it.
    fn requests(&mut self, board: &Scoreboard, metrics: &mut Vec<Metric>) {
        let mut states: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let mut active = Metric::new(&ACTIVE_REQUESTS);
        for pool in self.pools.values_mut() {
            pool.active.values_mut().for_each(|count| *count = 0);
        }
        for pool in board.pools.values() {
            for state in ["idle", "busy"] {
                states.insert((&pool.rules.pool, state), 0);
            }
        }
        for worker in board.workers.values().filter(|worker| worker.gone.is_none()) {
            let pool = worker.requests.facts.pool.as_str();
            let progress = worker.slot.in_progress();
            let state = if progress.is_some() || worker.slot.started().is_some() {
                "busy"
            } else {
                "idle"
            };
            *states.entry((pool, state)).or_default() += 1;
            let begin = progress.and_then(|_| worker.slot.read_begin());
            if let Some(begin) = begin {
                let series = self.series_of(&begin, Failure::None);
                *self.pool(pool).active.entry(series).or_default() += 1;
            }
        }
        for (pool, figures) in &self.pools {
            for (series, count) in &figures.active {
                active.add(series.begun(&self.methods, pool), Figure::Int(*count));
            }
        }
        let mut workers = Metric::new(&WORKERS);
        for ((pool, state), count) in states {
            workers.add(
                vec![of_pool(pool), KeyValue::new(attribute::WORKER_STATE, state)],
                Figure::Int(count),
            );
        }
        metrics.extend([active, workers]);
    }

    /// What was counted of each pool.
    fn pools(&self, metrics: &mut Vec<Metric>) {
        let mut durations = Metric::new(&REQUEST_DURATION);
        let mut cpu = Metric::new(&REQUEST_CPU);
        let mut killed = Metric::new(&KILLED);
        let mut deaths = Metric::new(&DEATHS);
        let mut saturations = Metric::new(&SATURATIONS);
        let (mut lines, mut lines_dropped) = (Metric::new(&LINES), Metric::new(&LINES_DROPPED));
        for (pool, figures) in &self.pools {
            for (series, histogram) in &figures.durations {
                durations.add(
                    series.ended(&self.methods, pool),
                    Figure::Histogram(histogram.clone()),
                );
            }
            for (mode, ns) in own::CPU_MODES.into_iter().zip(figures.cpu_ns) {
                let mode = KeyValue::new(attribute::CPU_MODE, mode);
                let seconds = Duration::from_nanos(ns).as_secs_f64();
                cpu.add(vec![of_pool(pool), mode], Figure::Float(seconds));
            }
            killed.add(vec![of_pool(pool)], figures.killed);
            saturations.add(vec![of_pool(pool)], figures.saturations);
            lines.add(vec![of_pool(pool)], figures.lines[0]);
            lines_dropped.add(vec![of_pool(pool)], figures.lines[1]);
            for (signal, count) in &figures.deaths {
                let signal = KeyValue::new(name::PHP_WORKER_EXIT_SIGNAL, signal_name(*signal));
                deaths.add(vec![of_pool(pool), signal], *count);
            }
        }
        metrics.extend([durations, cpu, killed, deaths, saturations, lines, lines_dropped]);
    }

    fn memory(&mut self, board: &Scoreboard, metrics: &mut Vec<Metric>) {
        let mut memory = Metric::new(&WORKER_MEMORY);
        for (pool, bytes) in self.memory.of_pools(board) {
            memory.add(vec![of_pool(pool)], *bytes);
        }
        metrics.push(memory);
    }
}

/// What the observer itself needs.
fn observer(waiting: [(&'static str, usize); 3], metrics: &mut Vec<Metric>) {
    let (mut cpu, mut memory) = (Metric::new(&OBSERVER_CPU), Metric::new(&OBSERVER_MEMORY));
    for (mode, time) in own::CPU_MODES.into_iter().zip(own::cpu_times()) {
        let attributes = vec![KeyValue::new(attribute::CPU_MODE, mode)];
        cpu.add(attributes, Figure::Float(time.as_secs_f64()));
    }
    if let Some(bytes) = own::bytes(None) {
        memory.add(Vec::new(), bytes);
    }
    let mut queue = Metric::new(&OBSERVER_QUEUE);
    for (signal, bytes) in waiting {
        queue.add(vec![KeyValue::new(attribute::SIGNAL, signal)], bytes as u64);
    }
    metrics.extend([cpu, memory, queue]);
}

pub(super) fn of_pool(pool: &str) -> KeyValue {
    KeyValue::new(name::PHP_POOL, pool.to_owned())
}

/// What looks can show of each pool.
fn rights(ladder: &[LadderView], metrics: &mut Vec<Metric>) {
    let (mut rung, mut right) = (Metric::new(&RUNG), Metric::new(&RIGHT));
    for view in ladder {
        rung.add(vec![of_pool(&view.pool)], Figure::Int(number(view.rung)));
        for (name, words) in RIGHTS {
            let given = !view.missing.contains(&words);
            let attributes = vec![of_pool(&view.pool), KeyValue::new(attribute::RIGHT, name)];
            right.add(attributes, Figure::Int(i64::from(given)));
        }
    }
    metrics.extend([rung, right]);
}

/// Rungs from 0, the lowest.
fn number(rung: Rung) -> i64 {
    match rung {
        Rung::StateOnly => 0,
        Rung::WaitOnly => 1,
        Rung::PhpOnly => 2,
        Rung::Unstopped => 3,
        Rung::Everything => 4,
    }
}

fn looks(counters: &Counters, metrics: &mut Vec<Metric>) {
    let samples = &counters.samples;
    let mut looks = Metric::new(&LOOKS);
    for (outcome, count) in [
        ("exact", samples.exact),
        ("checked", samples.checked),
        ("stopped", samples.stopped),
        ("partial", samples.partial),
        ("noted", samples.noted),
        ("failed", samples.failed),
        ("too_late", samples.too_late),
        ("skipped", samples.skipped),
        ("postponed", samples.postponed),
    ] {
        looks.add(vec![KeyValue::new(attribute::LOOK_OUTCOME, outcome)], count);
    }
    let mut lost = Metric::new(&RECORDS_LOST);
    lost.add(
        vec![KeyValue::new(attribute::LOSS_REASON, "overwritten")],
        counters.lost,
    );
    lost.add(
        vec![KeyValue::new(attribute::LOSS_REASON, "garbled")],
        counters.garbled,
    );
    metrics.extend([looks, lost]);
}

/// What became of spans and log records. Those without `error.type` have arrived. Spans of
/// waits are told apart: there are as many of the others as there were requests.
fn deliveries(delivery: &export::Counters, metrics: &mut Vec<Metric>) {
    let mut tell = |exported: &'static Instrument, dropped: &'static Instrument, of: &[(_, &Delivery)]| {
        let (mut finished, mut before) = (Metric::new(exported), Metric::new(dropped));
        for (component, delivery) in of {
            delivered(*component, delivery, &mut finished, &mut before);
        }
        metrics.extend([finished, before]);
    };
    let of_waits = Some("php_waits");
    tell(
        &SPANS_EXPORTED,
        &SPANS_DROPPED,
        &[(None, &delivery.spans), (of_waits, &delivery.waits)],
    );
    tell(&LOGS_EXPORTED, &LOGS_DROPPED, &[(None, &delivery.logs)]);
}

fn delivered(
    component: Option<&'static str>,
    delivery: &Delivery,
    finished: &mut Metric,
    before: &mut Metric,
) {
    let with = |error: Option<&'static str>| -> Vec<KeyValue> {
        let component = component.map(|name| KeyValue::new(attribute::COMPONENT_NAME, name));
        let error = error.map(|reason| KeyValue::new(name::ERROR_TYPE, reason));
        component.into_iter().chain(error).collect()
    };
    finished.add(with(None), delivery.exported);
    for (reason, count) in [
        ("failed", delivery.failed),
        // The convention's word for a partial success.
        ("rejected", delivery.rejected),
        ("unsupported", delivery.unsupported),
    ] {
        finished.add(with(Some(reason)), count);
    }
    // The convention's word for a full queue, by items or bytes.
    let full = delivery.dropped.full_items + delivery.dropped.full_bytes;
    before.add(with(Some("queue_full")), full);
    before.add(with(Some("displaced")), delivery.dropped.displaced);
}
