//! What is said of a pool and of a worker, in php-fpm's order: once for the page, once
//! for `fpm_get_status()`. How a value looks is the format's business.

use glasspool_abi::control::{PoolStatus, ProcessStatus};
use glasspool_abi::slot::Stage;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Bytes of unknown origin.
    Text(&'a [u8]),
    /// Such bytes before and behind a question mark.
    Uri(&'a [u8], &'a [u8]),
    Number(u64),
    /// Seconds since the Unix epoch.
    Time(u64),
    /// Never less than 0, always finite.
    Percent(f64),
}

/// A value and what it is called.
pub(crate) type Field<'a> = (&'static str, Value<'a>);

/// Bytes, and php-fpm's dash where there are none.
fn text_or_dash(bytes: &[u8]) -> Value<'_> {
    Value::Text(if bytes.is_empty() { b"-" } else { bytes })
}

/// The pool; `now` is in seconds since the Unix epoch.
pub(crate) fn pool(pool: &PoolStatus, now: u64) -> [Field<'_>; 14] {
    let number = |n: u32| Value::Number(n.into());
    [
        ("pool", Value::Text(pool.pool.as_bytes())),
        ("process manager", Value::Text(pool.process_manager.as_bytes())),
        ("start time", Value::Time(pool.start_unix_s)),
        ("start since", since(pool.start_unix_s, now)),
        ("accepted conn", Value::Number(pool.accepted)),
        ("listen queue", number(pool.listen_queue)),
        ("max listen queue", number(pool.max_listen_queue)),
        ("listen queue len", number(pool.listen_queue_len)),
        ("idle processes", number(pool.idle)),
        ("active processes", number(pool.active)),
        (
            "total processes",
            Value::Number(u64::from(pool.idle) + u64::from(pool.active)),
        ),
        ("max active processes", number(pool.max_active)),
        ("max children reached", number(pool.max_children_reached)),
        ("slow requests", Value::Number(pool.slow_requests)),
    ]
}

/// The pool, for `fpm_get_status()`: the same under other names.
pub(crate) fn pool_for_scripts(status: &PoolStatus, now: u64) -> [Field<'_>; 14] {
    const NAMES: [&str; 14] = [
        "pool",
        "process-manager",
        "start-time",
        "start-since",
        "accepted-conn",
        "listen-queue",
        "max-listen-queue",
        "listen-queue-len",
        "idle-processes",
        "active-processes",
        "total-processes",
        "max-active-processes",
        "max-children-reached",
        "slow-requests",
    ];
    let mut fields = pool(status, now);
    for (field, name) in fields.iter_mut().zip(NAMES) {
        field.0 = name;
    }
    fields
}

/// A worker, for the page.
pub(crate) fn process(process: &ProcessStatus, now: u64) -> [Field<'_>; 13] {
    let uri = if process.uri.is_empty() || process.query.is_empty() {
        text_or_dash(&process.uri)
    } else {
        Value::Uri(&process.uri, &process.query)
    };
    [
        ("pid", pid(process)),
        ("state", Value::Text(state(process).as_bytes())),
        ("start time", Value::Time(process.start_unix_s)),
        ("start since", since(process.start_unix_s, now)),
        ("requests", Value::Number(process.requests)),
        ("request duration", Value::Number(process.duration_us)),
        ("request method", text_or_dash(&process.method)),
        ("request uri", uri),
        ("content length", Value::Number(process.content_length)),
        ("user", text_or_dash(&process.user)),
        ("script", text_or_dash(&process.script)),
        ("last request cpu", last_cpu(process)),
        ("last request memory", last_memory(process)),
    ]
}

/// What [`process`] calls its values.
pub(crate) fn process_names() -> [&'static str; 13] {
    process(&ProcessStatus::default(), 0).map(|(name, _)| name)
}

/// A worker, for `fpm_get_status()`.
pub(crate) fn process_for_scripts(process: &ProcessStatus, now: u64) -> [Field<'_>; 14] {
    [
        ("pid", pid(process)),
        ("state", Value::Text(state(process).as_bytes())),
        ("start-time", Value::Time(process.start_unix_s)),
        ("start-since", since(process.start_unix_s, now)),
        ("requests", Value::Number(process.requests)),
        ("request-duration", Value::Number(process.duration_us)),
        ("request-method", text_or_dash(&process.method)),
        ("request-uri", Value::Text(&process.uri)),
        ("query-string", Value::Text(&process.query)),
        ("request-length", Value::Number(process.content_length)),
        ("user", text_or_dash(&process.user)),
        ("script", text_or_dash(&process.script)),
        ("last-request-cpu", last_cpu(process)),
        ("last-request-memory", last_memory(process)),
    ]
}

fn since(start: u64, now: u64) -> Value<'static> {
    Value::Number(now.saturating_sub(start))
}

fn pid(process: &ProcessStatus) -> Value<'static> {
    Value::Number(u64::try_from(process.pid).unwrap_or(0))
}

/// php-fpm's words. A worker that has not published a stage yet is about to accept.
fn state(process: &ProcessStatus) -> &'static str {
    match Stage::from_word(process.stage) {
        Some(Stage::Accepting) | None => "Idle",
        Some(Stage::ReadingHeaders) => "Reading headers",
        Some(Stage::Info) => "Getting request information",
        Some(Stage::Executing) => "Running",
        Some(Stage::End) => "Ending",
        Some(Stage::Finished) => "Finishing",
    }
}

fn is_idle(process: &ProcessStatus) -> bool {
    process.stage == Stage::Accepting as u64
}

/// CPU time of the last request in percent of its wall time. Only of idle workers, as
/// php-fpm shows it.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn last_cpu(process: &ProcessStatus) -> Value<'static> {
    Value::Percent(if is_idle(process) && process.last_duration_ns > 0 {
        process.last_cpu_ns as f64 / process.last_duration_ns as f64 * 100.0
    } else {
        0.0
    })
}

fn last_memory(process: &ProcessStatus) -> Value<'static> {
    Value::Number(if is_idle(process) { process.last_memory } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a, const N: usize>(fields: [Field<'a>; N], name: &str) -> Value<'a> {
        let found = fields.into_iter().find(|(n, _)| *n == name);
        found.unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn only_an_idle_worker_has_a_last_request() {
        let mut worker = ProcessStatus {
            stage: Stage::Accepting as u64,
            last_cpu_ns: 1_000_000,
            last_duration_ns: 3_000_000,
            last_memory: 4096,
            ..ProcessStatus::default()
        };
        let Value::Percent(cpu) = value(process(&worker, 0), "last request cpu") else {
            panic!("not a percentage")
        };
        assert!((33.33..33.34).contains(&cpu), "{cpu}");
        assert_eq!(
            value(process(&worker, 0), "last request memory"),
            Value::Number(4096)
        );
        worker.stage = Stage::Executing as u64;
        assert_eq!(
            value(process_for_scripts(&worker, 0), "last-request-cpu"),
            Value::Percent(0.0)
        );
        assert_eq!(
            value(process_for_scripts(&worker, 0), "last-request-memory"),
            Value::Number(0)
        );
        worker = ProcessStatus {
            last_duration_ns: 0,
            stage: Stage::Accepting as u64,
            ..worker
        };
        assert_eq!(
            value(process(&worker, 0), "last request cpu"),
            Value::Percent(0.0)
        );
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        let nobody = ProcessStatus::default();
        for name in ["request method", "request uri", "user", "script"] {
            assert_eq!(value(process(&nobody, 0), name), Value::Text(b"-"), "{name}");
        }
        assert_eq!(
            value(process_for_scripts(&nobody, 0), "request-uri"),
            Value::Text(b"")
        );
        let asked = ProcessStatus {
            uri: b"/a".to_vec(),
            query: b"b=c".to_vec(),
            ..nobody
        };
        assert_eq!(
            value(process(&asked, 0), "request uri"),
            Value::Uri(b"/a", b"b=c")
        );
        assert_eq!(
            value(process_for_scripts(&asked, 0), "request-uri"),
            Value::Text(b"/a")
        );
    }

    #[test]
    fn scripts_and_pages_see_the_same_pool() {
        let status = PoolStatus::default();
        for (page, script) in pool(&status, 0).into_iter().zip(pool_for_scripts(&status, 0)) {
            assert_eq!(
                (page.0.replace(' ', "-"), page.1),
                (script.0.to_owned(), script.1)
            );
        }
    }

    #[test]
    fn a_clock_set_back_is_no_underflow() {
        let later = ProcessStatus {
            start_unix_s: 100,
            ..ProcessStatus::default()
        };
        assert_eq!(value(process(&later, 90), "start since"), Value::Number(0));
    }
}
