//! Pools under the names and labels that exporters for php-fpm have made known
//! (hipages/php-fpm_exporter), for dashboards that are there already. Series of single
//! workers are left out: their labels never end.

use glasspool_abi::control::{PoolFigures, PoolStatus};
use glasspool_otel::metrics::prometheus::Foreign;

type Value = fn(&PoolStatus, u64) -> i64;

/// Name, what it is, and the value of a pool at that second since the epoch.
const NAMES: [(&str, &str, Value); 13] = [
    ("phpfpm_up", "Whether the pool serves.", |_, _| 1),
    (
        "phpfpm_scrape_failures",
        "Failed attempts to read the pool's state: none here, nobody is asked.",
        |_, _| 0,
    ),
    (
        "phpfpm_start_since",
        "Seconds since the pool started.",
        |pool, now| number(now.saturating_sub(pool.start_unix_s)),
    ),
    (
        "phpfpm_accepted_connections",
        "Requests begun since the pool started.",
        |pool, _| number(pool.accepted),
    ),
    (
        "phpfpm_listen_queue",
        "Connections that wait to be accepted.",
        |pool, _| pool.listen_queue.into(),
    ),
    (
        "phpfpm_max_listen_queue",
        "Most connections that have been seen to wait.",
        |pool, _| pool.max_listen_queue.into(),
    ),
    (
        "phpfpm_listen_queue_length",
        "Connections that may wait.",
        |pool, _| pool.listen_queue_len.into(),
    ),
    ("phpfpm_idle_processes", "Idle workers.", |pool, _| {
        pool.idle.into()
    }),
    ("phpfpm_active_processes", "Busy workers.", |pool, _| {
        pool.active.into()
    }),
    ("phpfpm_total_processes", "Workers.", |pool, _| {
        i64::from(pool.idle) + i64::from(pool.active)
    }),
    (
        "phpfpm_max_active_processes",
        "Most workers that have been busy at once.",
        |pool, _| pool.max_active.into(),
    ),
    (
        "phpfpm_max_children_reached",
        "How often pm.max_children was reached.",
        |pool, _| pool.max_children_reached.into(),
    ),
    (
        "phpfpm_slow_requests",
        "Requests that ran past their limit.",
        |pool, _| number(pool.slow_requests),
    ),
];

/// All of them for these pools, `now` being seconds since the epoch.
pub(super) fn names<'a>(pools: impl Iterator<Item = &'a PoolFigures>, now: u64) -> Vec<Foreign> {
    let pools: Vec<&PoolFigures> = pools.collect();
    let family = |(name, help, value): (&'static str, &'static str, Value)| Foreign {
        name,
        help,
        points: pools
            .iter()
            .map(|pool| {
                let labels = vec![
                    ("pool", pool.status.pool.clone()),
                    ("scrape_uri", pool.scrape_uri.clone()),
                ];
                (labels, value(&pool.status, now))
            })
            .collect(),
    };
    NAMES.map(family).into()
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_pool_has_its_name() {
        let pool = PoolFigures {
            scrape_uri: "tcp://127.0.0.1:9000/status".to_owned(),
            status: PoolStatus {
                pool: "www".to_owned(),
                start_unix_s: 1_000,
                accepted: 2,
                listen_queue: 3,
                max_listen_queue: 4,
                listen_queue_len: 5,
                idle: 6,
                active: 7,
                max_active: 8,
                max_children_reached: 9,
                slow_requests: 10,
                ..PoolStatus::default()
            },
            ..PoolFigures::default()
        };
        let told = names([&pool].into_iter(), 1_060);
        let values: Vec<_> = told.iter().map(|family| family.points[0].1).collect();
        assert_eq!(values, [1, 0, 60, 2, 3, 4, 5, 6, 7, 13, 8, 9, 10]);
        let labels = &told[0].points[0].0;
        assert_eq!(labels[0], ("pool", "www".to_owned()));
        assert_eq!(
            labels[1],
            ("scrape_uri", "tcp://127.0.0.1:9000/status".to_owned())
        );
    }
}
