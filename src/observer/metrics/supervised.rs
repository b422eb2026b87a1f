//! What only the supervisor counts of pools, as totals since this observer began.
//!
//! A reload gives a pool another number and begins its counts anew, and another observer
//! begins with what was counted before it; totals by the pool's name fall in neither case.

use std::collections::BTreeMap;
use std::time::Duration;

use glasspool_abi::PoolId;
use glasspool_abi::control::{Figures, PoolFigures};
use glasspool_otel::metrics::instruments::{
    CHILDREN_REACHED, QUEUE_LENGTH, QUEUE_LIMIT, QUEUE_TIME, RELOADS, SLOW, WORKER_LIMIT, WORKER_STARTS,
    attribute,
};
use glasspool_otel::metrics::{Figure, KeyValue, Metric};

use super::opcache::Opcaches;
use super::snapshot::of_pool;

/// Why workers are started, in the order of [`PoolFigures::started`].
const REASONS: [&str; 3] = ["first", "addition", "replacement"];

/// See the module.
#[derive(Debug, Default)]
pub(in crate::observer) struct Supervised {
    latest: BTreeMap<PoolId, PoolFigures>,
    totals: BTreeMap<String, Counts>,
    /// Reloads that succeeded and that failed: as last told, and as counted here.
    latest_reloads: [u64; 2],
    reloads: [u64; 2],
    opcaches: Opcaches,
}

/// Everything that only grows: max_children reached, slow requests, workers started for
/// each of the reasons, nanoseconds in the queue.
type Counts = [u64; 6];

fn counts(of: &PoolFigures) -> Counts {
    let [first, addition, replacement] = of.started;
    let reached = u64::from(of.status.max_children_reached);
    [
        reached,
        of.status.slow_requests,
        first,
        addition,
        replacement,
        of.queue_ns,
    ]
}

impl Supervised {
    /// Figures of now.
    pub(in crate::observer) fn take_in(&mut self, figures: Figures) {
        let Figures {
            begin,
            reloads,
            pools,
        } = figures;
        if begin {
            self.latest_reloads = reloads;
        }
        let before = std::mem::replace(&mut self.latest_reloads, reloads);
        add(&mut self.reloads, &reloads, &before);
        for pool in pools {
            if let Some(view) = &pool.opcache {
                self.opcaches.take_in(&pool.status.pool, view, begin);
            }
            let now = counts(&pool);
            let before = match self.latest.get(&pool.pool) {
                Some(before) => counts(before),
                None if begin => now,
                None => Counts::default(),
            };
            let total = self.totals.entry(pool.status.pool.clone()).or_default();
            add(total, &now, &before);
            self.latest.insert(pool.pool, pool);
        }
    }

    /// No worker serves the pool any more.
    pub(in crate::observer) fn forget(&mut self, pool: PoolId) {
        self.latest.remove(&pool);
    }

    /// Pools of the configuration in force. While a reload is being told there may be two
    /// of a name; the newer one counts, as a series must not come twice.
    pub(super) fn serving(&self) -> impl Iterator<Item = &PoolFigures> {
        let serving = self.latest.values().filter(|pool| pool.serving);
        let by_name: BTreeMap<&str, &PoolFigures> =
            serving.map(|pool| (pool.status.pool.as_str(), pool)).collect();
        by_name.into_values()
    }

    pub(super) fn tell(&self, metrics: &mut Vec<Metric>) {
        let [mut limit, mut length, mut queue_limit] =
            [&WORKER_LIMIT, &QUEUE_LENGTH, &QUEUE_LIMIT].map(Metric::new);
        for pool in self.serving() {
            let attributes = || vec![of_pool(&pool.status.pool)];
            limit.add(attributes(), u64::from(pool.max_workers));
            // Without a limit the kernel has not told of the queue.
            if pool.status.listen_queue_len > 0 {
                length.add(attributes(), u64::from(pool.status.listen_queue));
                queue_limit.add(attributes(), u64::from(pool.status.listen_queue_len));
            }
        }
        let [mut reached, mut slow, mut starts, mut queue_time] =
            [&CHILDREN_REACHED, &SLOW, &WORKER_STARTS, &QUEUE_TIME].map(Metric::new);
        for (pool, counts) in &self.totals {
            let [times_reached, slow_requests, started @ .., queue_ns] = counts;
            reached.add(vec![of_pool(pool)], *times_reached);
            slow.add(vec![of_pool(pool)], *slow_requests);
            for (reason, count) in REASONS.into_iter().zip(started) {
                let reason = KeyValue::new(attribute::START_REASON, reason);
                starts.add(vec![of_pool(pool), reason], *count);
            }
            let waited = Duration::from_nanos(*queue_ns).as_secs_f64();
            queue_time.add(vec![of_pool(pool)], Figure::Float(waited));
        }
        let mut reloads = Metric::new(&RELOADS);
        for (outcome, count) in ["succeeded", "failed"].into_iter().zip(self.reloads) {
            reloads.add(vec![KeyValue::new(attribute::RELOAD_OUTCOME, outcome)], count);
        }
        metrics.extend([
            limit,
            length,
            queue_limit,
            reached,
            slow,
            starts,
            queue_time,
            reloads,
        ]);
        self.opcaches.tell(self.serving(), metrics);
    }
}

/// Adds what has grown since `before`.
fn add(totals: &mut [u64], now: &[u64], before: &[u64]) {
    for ((total, now), before) in totals.iter_mut().zip(now).zip(before) {
        *total = total.saturating_add(now.saturating_sub(*before));
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::control::PoolStatus;

    use super::*;

    fn figures(begin: bool, reloads: [u64; 2], pools: &[(u32, u64)]) -> Figures {
        let pool = |(id, slow): &(u32, u64)| PoolFigures {
            pool: PoolId(*id),
            serving: true,
            status: PoolStatus {
                pool: "www".to_owned(),
                slow_requests: *slow,
                ..PoolStatus::default()
            },
            queue_ns: slow * 1_000_000_000,
            ..PoolFigures::default()
        };
        Figures {
            begin,
            reloads,
            pools: pools.iter().map(pool).collect(),
        }
    }

    fn told(supervised: &Supervised) -> (Figure, Figure, Vec<Figure>) {
        let mut metrics = Vec::new();
        supervised.tell(&mut metrics);
        let of = |instrument| {
            let metric = metrics.iter().find(|metric| metric.instrument == instrument);
            let points = metric.into_iter().flat_map(|metric| &metric.points);
            points.map(|point| point.value.clone()).collect::<Vec<_>>()
        };
        (of(&SLOW)[0].clone(), of(&QUEUE_TIME)[0].clone(), of(&RELOADS))
    }

    #[test]
    fn totals_begin_with_the_observer_and_never_fall() {
        let mut supervised = Supervised::default();
        supervised.take_in(figures(true, [5, 1], &[(0, 100)]));
        let int = |values: [i64; 2]| values.map(Figure::Int).to_vec();
        assert_eq!(
            told(&supervised),
            (Figure::Int(0), Figure::Float(0.0), int([0, 0]))
        );
        supervised.take_in(figures(false, [5, 2], &[(0, 103)]));
        assert_eq!(
            told(&supervised),
            (Figure::Int(3), Figure::Float(3.0), int([0, 1]))
        );
        // A reload: the old pool drains, the new one counts from zero.
        supervised.take_in(figures(false, [6, 2], &[(0, 104), (1, 2)]));
        let serving: Vec<_> = supervised.serving().map(|pool| pool.pool).collect();
        assert_eq!(serving, [PoolId(1)]);
        supervised.forget(PoolId(0));
        assert_eq!(
            told(&supervised),
            (Figure::Int(6), Figure::Float(6.0), int([1, 1]))
        );
        // Whatever is told, nothing falls.
        supervised.take_in(figures(false, [0, 0], &[(1, 0)]));
        assert_eq!(
            told(&supervised),
            (Figure::Int(6), Figure::Float(6.0), int([1, 1]))
        );
    }
}
