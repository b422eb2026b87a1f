//! The status page for Prometheus and its kin. Names, help texts and the order of
//! comment lines are php-fpm's; there is nothing about single processes.

use glasspool_abi::control::PoolStatus;

use super::escape;
use super::fields::{self, Value};
use super::render::put;

struct Metric {
    /// As [`fields::pool`] calls it.
    field: &'static str,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

const METRICS: [Metric; 11] = [
    Metric {
        field: "start since",
        name: "start_since",
        kind: "counter",
        help: "The number of seconds since FPM has started.",
    },
    Metric {
        field: "accepted conn",
        name: "accepted_connections",
        kind: "counter",
        help: "The number of requests accepted by the pool.",
    },
    Metric {
        field: "listen queue",
        name: "listen_queue",
        kind: "gauge",
        help: "The number of requests in the queue of pending connections.",
    },
    Metric {
        field: "max listen queue",
        name: "max_listen_queue",
        kind: "counter",
        help: "The maximum number of requests in the queue of pending connections since FPM has started.",
    },
    Metric {
        field: "listen queue len",
        name: "listen_queue_length",
        kind: "gauge",
        help: "The size of the socket queue of pending connections.",
    },
    Metric {
        field: "idle processes",
        name: "idle_processes",
        kind: "gauge",
        help: "The number of idle processes.",
    },
    Metric {
        field: "active processes",
        name: "active_processes",
        kind: "gauge",
        help: "The number of active processes.",
    },
    Metric {
        field: "total processes",
        name: "total_processes",
        kind: "gauge",
        help: "The number of idle + active processes.",
    },
    Metric {
        field: "max active processes",
        name: "max_active_processes",
        kind: "counter",
        help: "The maximum number of active processes since FPM has started.",
    },
    Metric {
        field: "max children reached",
        name: "max_children_reached",
        kind: "counter",
        help: "The number of times, the process limit has been reached, when pm tries to start more children \
               (works only for pm 'dynamic' and 'ondemand').",
    },
    Metric {
        field: "slow requests",
        name: "slow_requests",
        kind: "counter",
        help: "The number of requests that exceeded your 'request_slowlog_timeout' value.",
    },
];

/// The page; `now` is in seconds since the Unix epoch.
pub(crate) fn openmetrics(out: &mut String, pool: &PoolStatus, now: u64) {
    out.push_str("# HELP phpfpm_up Could pool ");
    escape::help(out, pool.pool.as_bytes());
    out.push_str(" using a ");
    escape::help(out, pool.process_manager.as_bytes());
    out.push_str(" PM on PHP-FPM be reached?\n# TYPE phpfpm_up gauge\nphpfpm_up 1\n");
    let fields = fields::pool(pool, now);
    for Metric {
        field,
        name,
        kind,
        help,
    } in METRICS
    {
        let Some((_, Value::Number(value))) = fields.iter().find(|(name, _)| *name == field) else {
            continue;
        };
        let help = format!("# HELP phpfpm_{name} {help}\n");
        let kind = format!("# TYPE phpfpm_{name} {kind}\n");
        // php-fpm has these two the other way round in one place, and its tests insist.
        let (first, second) = if name == "listen_queue_length" {
            (kind, help)
        } else {
            (help, kind)
        };
        put(out, format_args!("{first}{second}phpfpm_{name} {value}\n"));
    }
    out.push_str("# EOF\n");
}
