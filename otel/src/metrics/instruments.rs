//! What is measured. Names with `http.` and `otel.sdk.` are those of the semantic
//! conventions 1.44 (`docs/http/http-metrics.md`, `docs/otel/sdk-metrics.md`); ours start with
//! `php.`. `docs/instrumentation.md` describes each, with its attributes.

/// One kind of figure.
#[derive(Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its name.
    pub name: &'static str,
    /// Unit (UCUM), things that are counted in braces.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// How its figures add up.
    pub kind: Kind,
}

/// How the figures of an instrument add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Grows and shrinks, and sums mean something.
    UpDownCounter,
    /// A value of now, which is not to be added up.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// Attributes of our own instruments, besides those in [`crate::semconv::name`].
pub mod attribute {
    /// What came of a look: `exact`, `checked`, `stopped`, `partial`, `noted`, `failed`,
    /// `too_late`, `skipped`, `postponed`.
    pub const LOOK_OUTCOME: &str = "php.look.outcome";
    /// `idle` or `busy`.
    pub const WORKER_STATE: &str = "php.worker.state";
    /// What the observer may do: `memory`, `system_calls`, `peers`, `files`, `hold`.
    pub const RIGHT: &str = "php.right";
    /// Why a worker was started: `first` (the pool begins with it), `addition` (the pool
    /// grows), `replacement` (one has ended).
    pub const START_REASON: &str = "php.worker.start_reason";
    /// `user` or `system`.
    pub const CPU_MODE: &str = "cpu.mode";
    /// What came of a reload: `succeeded` or `failed`.
    pub const RELOAD_OUTCOME: &str = "php.reload.outcome";
    /// Which signal waits: `traces`, `logs`, `metrics`.
    pub const SIGNAL: &str = "php.signal";
    /// Why a record was lost: `overwritten`, `garbled`; of a wait `ring_full`, `malformed`,
    /// `late`, `missing`.
    pub const LOSS_REASON: &str = "php.loss.reason";
    /// What a worker did: `on_cpu`, `runqueue`, `blocked`.
    pub const TIME_STATE: &str = "php.time.state";
    /// Why the kernel programs do not run.
    pub const WAITS_REASON: &str = "php.waits.reason";
    /// What became of a switch that the kernel did not tell: `made_up`, `odd`.
    pub const SWITCH_OUTCOME: &str = "php.switch.outcome";
    /// The pool that an engine's opcache is told of with, the first that shares it.
    pub const ENGINE: &str = "php.engine";
    /// `used`, `free`, `wasted`.
    pub const OPCACHE_MEMORY_STATE: &str = "php.opcache.memory_state";
    /// Why an opcache began anew: `oom`, `hash`, `manual`.
    pub const OPCACHE_RESTART_REASON: &str = "php.opcache.restart_reason";
    /// What came of asking an opcache: `told`, `off`, `restricted`, `lost`.
    pub const OPCACHE_ASK_OUTCOME: &str = "php.opcache.ask_outcome";
    /// Which of several queues (the conventions' name).
    pub const COMPONENT_NAME: &str = "otel.component.name";
    /// On the one series that holds what has no room in others (the SDKs' name).
    pub const OVERFLOW: &str = "otel.metric.overflow";
}

macro_rules! instruments {
    ($($constant:ident: $kind:ident, $name:literal, $unit:literal, $description:literal;)*) => {
        $(
            #[doc = $description]
            pub static $constant: Instrument = Instrument {
                name: $name,
                unit: $unit,
                description: $description,
                kind: Kind::$kind,
            };
        )*

        /// All there are.
        pub static ALL: &[&Instrument] = &[$(&$constant),*];
    };
}

instruments! {
    REQUEST_DURATION: Histogram, "http.server.request.duration", "s",
        "Duration of HTTP server requests.";
    ACTIVE_REQUESTS: UpDownCounter, "http.server.active_requests", "{request}",
        "Number of active HTTP server requests.";
    WORKERS: UpDownCounter, "php.workers", "{worker}",
        "Workers, by pool and state.";
    DEATHS: Counter, "php.worker.deaths", "{worker}",
        "Workers that ended by a signal, by pool and signal.";
    WORKER_LIMIT: UpDownCounter, "php.worker.limit", "{worker}",
        "Workers that the pool may have.";
    WORKER_STARTS: Counter, "php.worker.starts", "{worker}",
        "Workers that were started, by pool and reason.";
    WORKER_MEMORY: UpDownCounter, "php.worker.memory", "By",
        "Memory of the pool's workers that they share with nobody.";
    REQUEST_CPU: Counter, "php.request.cpu.time", "s",
        "CPU time of requests that ended, by pool and mode.";
    SLOW: Counter, "php.requests.slow", "{request}",
        "Requests that were looked at because they ran past their limit.";
    KILLED: Counter, "php.request.killed", "{request}",
        "Requests whose worker ended before they did.";
    SATURATIONS: Counter, "php.pool.saturations", "{report}",
        "Reports of a pool with all its workers busy.";
    CHILDREN_REACHED: Counter, "php.pool.max_children_reached", "{event}",
        "How often a pool would have grown and had all the workers that it may have.";
    QUEUE_LENGTH: UpDownCounter, "php.pool.queue.length", "{connection}",
        "Connections that wait to be accepted.";
    QUEUE_LIMIT: UpDownCounter, "php.pool.queue.limit", "{connection}",
        "Connections that may wait to be accepted.";
    QUEUE_TIME: Counter, "php.pool.queue.time", "s",
        "Time that connections have waited to be accepted, all together.";
    RELOADS: Counter, "php.reloads", "{reload}",
        "Reloads of the configuration, by what came of them.";
    LINES: Counter, "php.worker.lines", "{line}",
        "Lines and messages that workers have written and that were told.";
    LINES_DROPPED: Counter, "php.worker.lines_dropped", "{line}",
        "Lines that workers have written and that were left out of telemetry.";
    RUNG: Gauge, "php.observer.rung", "{rung}",
        "How much a look at the pool's workers can show: 0 whether they run, 1 what they wait in, 2 PHP frames, \
         3 all but holding a running worker, 4 everything.";
    RIGHT: Gauge, "php.observer.right", "{right}",
        "Whether the observer may do this with the pool's workers: 1 or 0.";
    LOOKS: Counter, "php.observer.looks", "{look}",
        "Looks into workers, by what came of them.";
    WORKER_TIME: Counter, "php.worker.time", "s",
        "Time of requests that have ended: on a CPU, waiting for one, and blocked, by cause.";
    WAITS_RUNG: Gauge, "php.waits.rung", "{rung}",
        "How much can be told of where requests' time went: 0 nothing, 1 on a CPU and waiting for one, 2 the same and \
         the PHP stacks of slow requests, 3 each wait.";
    WAITS_WORKERS: UpDownCounter, "php.waits.workers", "{worker}",
        "Workers that have a page for their waits; of those beyond that number no wait is told.";
    WAITS_LOST: Counter, "php.waits.records.lost", "{wait}",
        "Waits that were long enough to be told and are on no span, by reason.";
    SWITCHES_MISSED: Counter, "php.waits.switches.missed", "{switch}",
        "Switches of workers that the kernel did not tell, by what became of that.";
    OPCACHE_MEMORY: UpDownCounter, "php.opcache.memory", "By",
        "Memory of opcache, by state.";
    OPCACHE_STRINGS: UpDownCounter, "php.opcache.interned_strings.memory", "By",
        "Memory of opcache that is for interned strings, by state.";
    OPCACHE_JIT: UpDownCounter, "php.opcache.jit.memory", "By",
        "Memory for machine code, by state.";
    OPCACHE_SCRIPTS: UpDownCounter, "php.opcache.scripts", "{script}",
        "Scripts in opcache.";
    OPCACHE_KEYS: UpDownCounter, "php.opcache.keys", "{key}",
        "Keys in opcache.";
    OPCACHE_KEY_LIMIT: UpDownCounter, "php.opcache.key.limit", "{key}",
        "Keys that opcache has room for.";
    OPCACHE_HITS: Counter, "php.opcache.hits", "{script}",
        "Scripts that were asked for and in opcache.";
    OPCACHE_MISSES: Counter, "php.opcache.misses", "{script}",
        "Scripts that were asked for and not in opcache.";
    OPCACHE_RESTARTS: Counter, "php.opcache.restarts", "{restart}",
        "How often opcache has thrown away all it had, by reason.";
    OPCACHE_FULL: Gauge, "php.opcache.full", "{cache}",
        "Whether a script did not fit into opcache, which takes in no more until it restarts: 1 or 0.";
    OPCACHE_ASKS: Counter, "php.opcache.asks", "{ask}",
        "How often opcache was asked for these figures, by what came of it.";
    STOP_TIME: Counter, "php.observer.stop_time", "s",
        "Time for which workers were stopped to be looked into.";
    OBSERVER_CPU: Counter, "php.observer.cpu.time", "s",
        "CPU time of the observer, by mode.";
    OBSERVER_MEMORY: UpDownCounter, "php.observer.memory", "By",
        "Memory of the observer that it shares with nobody.";
    OBSERVER_QUEUE: UpDownCounter, "php.observer.queue", "By",
        "Telemetry that waits to be exported, by signal.";
    RECORDS_LOST: Counter, "php.observer.records.lost", "{record}",
        "Records of requests that could not be read, by reason.";
    SPANS_EXPORTED: Counter, "otel.sdk.exporter.span.exported", "{span}",
        "The number of spans for which the export has finished, either successful or failed.";
    LOGS_EXPORTED: Counter, "otel.sdk.exporter.log.exported", "{log_record}",
        "The number of log records for which the export has finished, either successful or failed.";
    SPANS_DROPPED: Counter, "otel.sdk.processor.span.processed", "{span}",
        "The number of spans that were dropped before an export, by reason.";
    LOGS_DROPPED: Counter, "otel.sdk.processor.log.processed", "{log_record}",
        "The number of log records that were dropped before an export, by reason.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_follow_the_conventions() {
        for (at, instrument) in ALL.iter().enumerate() {
            let Instrument { name, unit, .. } = instrument;
            assert!(ALL[at + 1..].iter().all(|other| other.name != *name), "{name}");
            let allowed = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
            assert!(name.chars().all(allowed), "{name}");
            assert!(
                ["s", "By", "1"].contains(unit) || unit.starts_with('{'),
                "{name}: {unit}"
            );
            assert!(
                ["http.server.", "otel.sdk.", "php."]
                    .iter()
                    .any(|start| name.starts_with(start)),
                "{name}"
            );
        }
    }
}
