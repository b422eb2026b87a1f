//! Figures over the observer's life, and from time to time a snapshot of all of them.
//!
//! Per request this costs one look into a small table; all else is counted elsewhere
//! anyway and read when a snapshot is due. Names and attributes: `docs/instrumentation.md`.
//!
//! Snapshots are sent (`Report::tell_metrics`) and fetched ([`endpoint`], [`scrape`]). What
//! only the supervisor counts comes from there ([`supervised`]).

pub(super) mod endpoint;
mod opcache;
mod own;
mod phpfpm;
pub(super) mod scrape;
mod series;
mod snapshot;
mod supervised;
mod times;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glasspool_abi::control::{Ended, Scraped};
use glasspool_abi::record::{Begin, End, FATAL, Peek, Text};
use glasspool_abi::times::Known;
use glasspool_otel::metrics::{Exemplar, Histogram};
use glasspool_otel::options::{ExemplarFilter, ExporterKind, Options};
use glasspool_otel::times::Spent;

use self::own::Memory;
use self::scrape::LastScrape;
use self::series::{Failure, Methods, Series};
pub(super) use self::snapshot::Surroundings;
pub(super) use self::supervised::Supervised;
use self::times::Spendings;

/// Series of durations per pool; a worker that invents status codes fills this and no
/// more. The rest shares one (specification/metrics/sdk.md, "Cardinality limits").
const MOST_SERIES: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Whether anybody wants to know.
    enabled: bool,
    /// When all counting began, by the clock of the day as it is now, and by the other one.
    start_unix_ns: u64,
    start_mono_ns: u64,
    /// Wall clock of the last snapshot, or of the start.
    last_unix_ns: u64,
    interval: Duration,
    /// When the next snapshot is due, monotonic nanoseconds.
    due: u64,
    methods: Methods,
    pools: HashMap<String, PoolFigures>,
    stopped: Duration,
    exemplars: ExemplarFilter,
    /// Whether spans are exported, so that an exemplar leads somewhere.
    has_spans: bool,
    pub(super) supervised: Supervised,
    memory: Memory,
    /// Whether php-fpm's exporters' names are told besides.
    phpfpm_names: bool,
    last_scrape: LastScrape,
}

/// What is counted of one pool.
#[derive(Debug, Default)]
struct PoolFigures {
    durations: HashMap<Series, Arc<Histogram>>,
    /// CPU time of requests that ended, user and system, nanoseconds.
    cpu_ns: [u64; 2],
    killed: u64,
    /// Workers that ended by a signal, by its number.
    deaths: BTreeMap<i32, u64>,
    saturations: u64,
    /// Lines of its workers that were told, and that were dropped.
    lines: [u64; 2],
    spendings: Spendings,
    /// Kinds of requests that were under way in an earlier snapshot: they are told with
    /// zero when there are none, or else their last figure would stand for ever.
    active: BTreeMap<Series, i64>,
}

impl Metrics {
    pub(super) fn new(options: &Options, scraped: Option<&Scraped>) -> Metrics {
        let start_unix_ns = unix_ns();
        Metrics {
            enabled: options.metrics.exporter != ExporterKind::None || scraped.is_some(),
            start_unix_ns,
            start_mono_ns: super::monotonic_ns(),
            last_unix_ns: start_unix_ns,
            interval: options.metric_reader.interval,
            due: 0,
            methods: Methods::new(&options.conventions.known_methods),
            pools: HashMap::new(),
            stopped: Duration::ZERO,
            exemplars: options.exemplars,
            has_spans: options.traces.exporter != ExporterKind::None,
            supervised: Supervised::default(),
            memory: Memory::default(),
            phpfpm_names: scraped.is_some_and(|scraped| scraped.phpfpm_names),
            last_scrape: LastScrape::default(),
        }
    }

    /// A request has ended; `record` is its end record, `exported` whether its span is.
    /// Wanted: less than 200 ns (the ignored test `metrics_cost` prints it).
    pub(super) fn request(&mut self, pool: &str, record: &[u8], peek: &Peek, exported: bool) {
        if !self.enabled {
            return;
        }
        let [method, scheme] = End::find(record, [Text::Method, Text::Scheme]);
        let failure = if peek.status >= 500 {
            Failure::Status
        } else if peek.flags & FATAL != 0 {
            Failure::Fatal
        } else {
            Failure::None
        };
        let series = Series::new(self.methods.number(method), scheme, peek.status, failure);
        let ids = self
            .takes_exemplar(exported)
            .then(|| End::identity(record))
            .flatten();
        let exemplar = ids.map(|(trace_id, span_id, start_unix_ns)| Exemplar {
            ns: peek.responded_ns,
            unix_ns: start_unix_ns.saturating_add(peek.responded_ns),
            trace_id,
            span_id,
        });
        let times = End::peek_times(record);
        let spent = times.and_then(|(times, cpu_ns)| Spent::new(&times, peek.busy_ns, cpu_ns));
        let figures = self.pool(pool);
        figures.record(series, peek.responded_ns, exemplar);
        for (total, ns) in figures
            .cpu_ns
            .iter_mut()
            .zip(End::cpu_ns(record).unwrap_or_default())
        {
            *total = total.saturating_add(ns);
        }
        if let Some(spent) = spent {
            figures.spendings.add(&spent, peek.busy_ns);
        }
    }

    /// A worker has ended before its request did.
    pub(super) fn killed(&mut self, pool: &str, begin: &Begin, ended: Ended, mono_ns: u64, times: &Known) {
        let failure = match ended {
            Ended::Killed { signal, .. } => Failure::Signal(signal),
            Ended::Exited(_) => Failure::Exit,
        };
        let series = self.series_of(begin, failure);
        let ns = mono_ns.saturating_sub(begin.start_mono_ns);
        // Its span always is.
        let exemplar = self.takes_exemplar(true).then(|| Exemplar {
            ns,
            unix_ns: begin.start_unix_ns.saturating_add(ns),
            trace_id: begin.trace_id,
            span_id: begin.span_id,
        });
        let pool = self.pool(pool);
        pool.killed += 1;
        pool.record(series, ns, exemplar);
        if let Some(spent) = Spent::new(times, ns, 0) {
            pool.spendings.add(&spent, ns);
        }
    }

    /// A worker has ended.
    pub(super) fn worker_ended(&mut self, pool: &str, ended: Ended) {
        if let Ended::Killed { signal, .. } = ended {
            *self.pool(pool).deaths.entry(signal).or_default() += 1;
        }
    }

    /// A line of a worker of the pool became a log record, or would have.
    pub(super) fn line(&mut self, pool: &str) {
        self.pool(pool).lines[0] += 1;
    }

    /// So many more did not.
    pub(super) fn lines_dropped(&mut self, pool: &str, lines: u64) {
        if lines > 0 {
            self.pool(pool).lines[1] += lines;
        }
    }

    /// A report of a full pool was made.
    pub(super) fn saturated(&mut self, pool: &str) {
        self.pool(pool).saturations += 1;
    }

    /// A worker was stopped for so long.
    pub(super) fn stopped(&mut self, time: Duration) {
        self.stopped = self.stopped.saturating_add(time);
    }

    /// Whether it is time for a snapshot; if so, the next one is due an interval later.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        if self.due == 0 {
            // The first one has something to tell.
            self.due = now.saturating_add(interval);
        }
        let due = now >= self.due;
        if due {
            self.due = now.saturating_add(interval);
        }
        due
    }

    fn takes_exemplar(&self, exported: bool) -> bool {
        match self.exemplars {
            ExemplarFilter::TraceBased => exported && self.has_spans,
            ExemplarFilter::AlwaysOn => true,
            ExemplarFilter::AlwaysOff => false,
        }
    }

    fn series_of(&self, begin: &Begin, failure: Failure) -> Series {
        let text = |text| begin.texts.get(text);
        Series::new(
            self.methods.number(text(Text::Method)),
            text(Text::Scheme),
            0,
            failure,
        )
    }

    fn pool(&mut self, name: &str) -> &mut PoolFigures {
        // Not the entry API, which wants an owned name each time.
        if !self.pools.contains_key(name) {
            self.pools.insert(name.to_owned(), PoolFigures::default());
        }
        self.pools.get_mut(name).expect("it was just put there")
    }
}

impl PoolFigures {
    fn record(&mut self, series: Series, ns: u64, exemplar: Option<Exemplar>) {
        let full = self.durations.len() >= MOST_SERIES && !self.durations.contains_key(&series);
        let series = if full { Series::OVERFLOW } else { series };
        let histogram = Arc::make_mut(self.durations.entry(series).or_default());
        histogram.record(ns);
        if let Some(exemplar) = exemplar {
            histogram.remember(exemplar);
        }
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
