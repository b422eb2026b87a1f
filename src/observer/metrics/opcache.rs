//! What the engines' opcaches have said of themselves: state as it is, and counts as totals
//! since this observer began, over restarts of an opcache and engines that follow another.

use std::collections::BTreeMap;

use glasspool_abi::EngineId;
use glasspool_abi::control::{OpcacheFigures, OpcacheView, PoolFigures};
use glasspool_otel::metrics::instruments::{
    OPCACHE_ASKS, OPCACHE_FULL, OPCACHE_HITS, OPCACHE_JIT, OPCACHE_KEY_LIMIT, OPCACHE_KEYS, OPCACHE_MEMORY,
    OPCACHE_MISSES, OPCACHE_RESTARTS, OPCACHE_SCRIPTS, OPCACHE_STRINGS, attribute,
};
use glasspool_otel::metrics::{Figure, KeyValue, Metric};

const STATES: [&str; 3] = ["used", "free", "wasted"];
const RESTART_REASONS: [&str; 3] = ["oom", "hash", "manual"];
const ASK_OUTCOMES: [&str; 4] = ["told", "off", "restricted", "lost"];

/// By the name of the pool that is told with each.
#[derive(Debug, Default)]
pub(super) struct Opcaches(BTreeMap<String, Counted>);

/// What only grows, of the engines with that name one after the other.
#[derive(Debug)]
struct Counted {
    engine: EngineId,
    /// As the engine told it last.
    latest: Counts,
    totals: Counts,
}

/// Everything that only grows.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asks: [u64; 4],
    /// Hits, misses, restarts.
    told: [u64; 5],
}

fn told(figures: &OpcacheFigures) -> [u64; 5] {
    let [oom, hash, manual] = figures.restarts;
    [figures.hits, figures.misses, oom, hash, manual]
}

impl Opcaches {
    /// What is known now; `begin` if it is what is to be counted from.
    pub(super) fn take_in(&mut self, name: &str, view: &OpcacheView, begin: bool) {
        let known = self.0.entry(name.to_owned()).or_insert_with(|| Counted {
            engine: view.engine,
            latest: Counts::default(),
            totals: Counts::default(),
        });
        if known.engine != view.engine {
            (known.engine, known.latest) = (view.engine, Counts::default());
        }
        let latest = &mut known.latest;
        let before = *latest;
        latest.asks = view.asks;
        if let Some(figures) = &view.figures {
            latest.told = told(figures);
        }
        if !begin {
            add(&mut known.totals.asks, &latest.asks, &before.asks);
            add(&mut known.totals.told, &latest.told, &before.told);
        }
    }

    /// Of the pools in force.
    pub(super) fn tell<'a>(&self, serving: impl Iterator<Item = &'a PoolFigures>, metrics: &mut Vec<Metric>) {
        let [mut memory, mut strings, mut jit] =
            [&OPCACHE_MEMORY, &OPCACHE_STRINGS, &OPCACHE_JIT].map(Metric::new);
        let [mut scripts, mut keys, mut key_limit, mut full] =
            [&OPCACHE_SCRIPTS, &OPCACHE_KEYS, &OPCACHE_KEY_LIMIT, &OPCACHE_FULL].map(Metric::new);
        let [mut hits, mut misses, mut restarts, mut asks] =
            [&OPCACHE_HITS, &OPCACHE_MISSES, &OPCACHE_RESTARTS, &OPCACHE_ASKS].map(Metric::new);
        for pool in serving {
            let name = pool.status.pool.as_str();
            let (Some(view), Some(counted)) = (&pool.opcache, self.0.get(name)) else {
                continue;
            };
            let of_engine = || vec![KeyValue::new(attribute::ENGINE, name.to_owned())];
            let with = |key: &'static str, value: &'static str| {
                let mut attributes = of_engine();
                attributes.push(KeyValue::new(key, value));
                attributes
            };
            for (outcome, count) in ASK_OUTCOMES.into_iter().zip(counted.totals.asks) {
                asks.add(with(attribute::OPCACHE_ASK_OUTCOME, outcome), count);
            }
            let Some(figures) = &view.figures else { continue };
            let states = |metric: &mut Metric, bytes: &[u64]| {
                for (state, bytes) in STATES.into_iter().zip(bytes) {
                    metric.add(with(attribute::OPCACHE_MEMORY_STATE, state), *bytes);
                }
            };
            states(&mut memory, &figures.memory);
            states(&mut strings, &figures.strings);
            if figures.jit != [0, 0] {
                states(&mut jit, &figures.jit);
            }
            scripts.add(of_engine(), figures.scripts);
            keys.add(of_engine(), figures.keys);
            key_limit.add(of_engine(), figures.key_limit);
            full.add(of_engine(), Figure::Int(i64::from(figures.full)));
            let [all_hits, all_misses, all_restarts @ ..] = counted.totals.told;
            hits.add(of_engine(), all_hits);
            misses.add(of_engine(), all_misses);
            for (reason, count) in RESTART_REASONS.into_iter().zip(all_restarts) {
                restarts.add(with(attribute::OPCACHE_RESTART_REASON, reason), count);
            }
        }
        metrics.extend([memory, strings, jit, scripts, keys, key_limit, full]);
        metrics.extend([hits, misses, restarts, asks]);
    }
}

/// Adds what has grown since `before`. A restart of opcache sets its hits and misses to
/// zero: what it has now came after it.
fn add<const N: usize>(totals: &mut [u64; N], now: &[u64; N], before: &[u64; N]) {
    for ((total, now), before) in totals.iter_mut().zip(now).zip(before) {
        *total = total.saturating_add(now.checked_sub(*before).unwrap_or(*now));
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::control::PoolStatus;

    use super::*;

    fn view(engine: u32, hits: u64, restarts: u64) -> OpcacheView {
        OpcacheView {
            engine: EngineId(engine),
            figures: Some(OpcacheFigures {
                memory: [5, 3, 1],
                hits,
                misses: 1,
                restarts: [0, 0, restarts],
                ..OpcacheFigures::default()
            }),
            asks: [1, 0, 0, 2],
        }
    }

    fn tell(opcaches: &Opcaches, view: OpcacheView) -> Vec<Metric> {
        let pool = PoolFigures {
            status: PoolStatus {
                pool: "www".to_owned(),
                ..PoolStatus::default()
            },
            opcache: Some(view),
            ..PoolFigures::default()
        };
        let mut metrics = Vec::new();
        opcaches.tell([&pool].into_iter(), &mut metrics);
        metrics
    }

    fn values(metrics: &[Metric], name: &str) -> Vec<Figure> {
        let metric = metrics.iter().find(|metric| metric.instrument.name == name);
        let points = metric.expect("is told").points.iter();
        points.map(|point| point.value.clone()).collect()
    }

    #[test]
    fn counts_go_on_over_restarts_and_engines() {
        let mut opcaches = Opcaches::default();
        for (view, expected) in [
            (view(1, 10, 0), 10),
            (view(1, 25, 0), 25),
            // Restarted: 4 since.
            (view(1, 4, 1), 29),
            // Not told this time.
            (
                OpcacheView {
                    figures: None,
                    ..view(1, 0, 0)
                },
                29,
            ),
            (view(1, 6, 1), 31),
            // Another engine.
            (view(2, 7, 0), 38),
        ] {
            opcaches.take_in("www", &view, false);
            let told = tell(&opcaches, view);
            let expected = if view.figures.is_some() {
                vec![Figure::Int(expected)]
            } else {
                vec![]
            };
            assert_eq!(values(&told, "php.opcache.hits"), expected);
        }
        let told = tell(&opcaches, view(2, 7, 0));
        assert_eq!(values(&told, "php.opcache.restarts"), [0, 0, 1].map(Figure::Int));
        // Those of both engines.
        assert_eq!(values(&told, "php.opcache.asks"), [2, 0, 0, 4].map(Figure::Int));
        assert_eq!(values(&told, "php.opcache.memory"), [5, 3, 1].map(Figure::Int));
        assert_eq!(values(&told, "php.opcache.jit.memory"), []);
    }

    #[test]
    fn a_new_observer_counts_from_what_it_is_told_first() {
        let mut opcaches = Opcaches::default();
        opcaches.take_in("www", &view(3, 100, 2), true);
        opcaches.take_in("www", &view(3, 101, 2), false);
        let told = tell(&opcaches, view(3, 101, 2));
        assert_eq!(values(&told, "php.opcache.hits"), [Figure::Int(1)]);
        assert_eq!(values(&told, "php.opcache.restarts"), [0, 0, 0].map(Figure::Int));
    }
}
