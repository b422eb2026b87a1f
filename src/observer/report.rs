//! Finished requests, deaths and samples on their way to telemetry, and the counting of
//! them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use glasspool_abi::control::{Ended, ObserverStart};
use glasspool_abi::record::Begin;
use glasspool_abi::slot::InFlight;
use glasspool_abi::zend::PhpBuild;
use glasspool_otel::export::{Pipeline, PipelineError, Terminal};
use glasspool_otel::line::Line;
use glasspool_otel::metrics::Snapshot;
use glasspool_otel::options::{ExporterKind, FileDefaults, Options};
use glasspool_otel::queue::Priority;
use glasspool_otel::resource::{Runtime, random_instance_id, resource};
use glasspool_otel::saturation::Saturation;
use glasspool_otel::slow::SlowEvent;
use glasspool_otel::span::{
    Death, Facts, Kept, give_route, has_route, killed_span, post_response_span, server_span,
};
use glasspool_otel::wait_span::{Account, RequestWaits, SpanData, tell};

use super::counters::Counters;
use super::history::History;
use super::ladder::{Ladder, LadderView};
use super::metrics::scrape::Scrape;
use super::metrics::{Metrics, Surroundings};
use super::outputs::Outputs;
use super::routes::Routes;
use super::sampler::Seen;
use super::scoreboard::Scoreboard;
use super::sighting::{Look, signal_name};
use super::slow::Held;
use super::surroundings;
use super::waits::Waits;
use crate::logs::ErrorLog;
use crate::tail::Kind;

/// Memory of a small span, to give the queue's bound in items a size that leaves the
/// deciding to its bound in bytes.
const SMALL_SPAN_BYTES: usize = 512;

/// Makes the terminal that a console exporter writes to; a pipeline is made twice.
pub(super) type OpenTerminal = Box<dyn Fn() -> Terminal + Send>;

/// See the module.
pub(super) struct Report {
    pub(super) pipeline: Pipeline,
    pub(super) options: Options,
    runtime: Runtime,
    pub(super) outputs: Outputs,
    pub(super) counters: Counters,
    pub(super) metrics: Metrics,
    pub(super) history: History,
    pub(super) routes: Routes,
    ladder: Ladder,
    log: ErrorLog,
}

impl Report {
    /// Sets up the exporters. One that cannot work is told and left out: what observers
    /// do for the logs does not depend on it. Must be called inside a tokio runtime.
    pub(super) fn new(
        start: &ObserverStart,
        terminal: OpenTerminal,
        ladder: Ladder,
        log: &ErrorLog,
    ) -> Report {
        let mut options = options(start, log);
        let runtime = Runtime {
            host_name: rustix::system::uname()
                .nodename()
                .to_str()
                .ok()
                .map(str::to_owned),
            instance_id: random_instance_id(),
            surroundings: surroundings::read(),
            ..Runtime::default()
        };
        let outputs = Outputs::new(&options, terminal, log);
        let pipeline = match Pipeline::new(&options, &resource(&options, &runtime), outputs.open()) {
            Ok(pipeline) => pipeline,
            Err(e) => {
                log.error(format_args!("no telemetry is exported: {}", with_causes(&e)));
                options.traces.exporter = ExporterKind::None;
                options.logs.exporter = ExporterKind::None;
                options.metrics.exporter = ExporterKind::None;
                Pipeline::new(&options, &resource(&options, &runtime), outputs.open())
                    .expect("without exporters a pipeline needs only the runtime it is made in")
            }
        };
        Report {
            pipeline,
            metrics: Metrics::new(&options, start.scraped.as_ref()),
            options,
            runtime,
            outputs,
            counters: Counters::default(),
            history: History::new(start.history_bytes),
            routes: Routes::default(),
            ladder,
            log: log.clone(),
        }
    }

    /// The name of this machine.
    pub(super) fn host_name(&self) -> Option<String> {
        self.runtime.host_name.clone()
    }

    /// An engine is up. The first one's version becomes part of the resource; no request
    /// can have been reported before.
    pub(super) fn on_php(&mut self, php: &PhpBuild) {
        if self.runtime.php_version.is_some() {
            return;
        }
        self.runtime.php_version = Some(php.version.clone());
        let threads = if php.zts { "ZTS" } else { "NTS" };
        self.runtime.php_description = Some(format!("PHP {} {threads}, API {}", php.version, php.api));
        let resource = resource(&self.options, &self.runtime);
        match Pipeline::new(&self.options, &resource, self.outputs.open()) {
            Ok(pipeline) => self.pipeline = pipeline,
            Err(e) => self.log.error(format_args!(
                "telemetry goes without PHP's version: {}",
                with_causes(&e)
            )),
        }
    }

    /// A request has ended.
    pub(super) fn request(&mut self, held: &Held, facts: &Facts, samples: &[SlowEvent]) {
        let end = &held.end;
        if !has_ids(&end.begin) {
            self.counters.garbled += 1;
            return;
        }
        self.counters.spans += 1;
        if self.pipeline.takes_spans() {
            let mut span = server_span(end, facts, self.on_span(samples), &self.options.conventions);
            let kept = Kept::why(end, held.priority == Priority::Urgent);
            span.attributes.extend(kept.map(Kept::attribute));
            let account = Account {
                times: &end.times,
                end_mono_ns: end.end_mono_ns,
                cpu_ns: end.cpu_user_ns.saturating_add(end.cpu_system_ns),
                waits: &held.waits,
            };
            self.name(&mut span, facts, samples, &held.waits);
            self.push(span, &end.begin, facts, &account, held.priority);
            if let Some(after) = post_response_span(end, facts) {
                self.counters.post_response += 1;
                self.pipeline.push_span(after, held.priority);
            }
        }
    }

    /// A worker has ended before its request did.
    pub(super) fn killed(
        &mut self,
        begin: &Begin,
        facts: &Facts,
        ended: Ended,
        account: &Account<'_>,
        samples: &[SlowEvent],
    ) {
        let died_ns = account.end_mono_ns;
        if !has_ids(begin) {
            self.counters.garbled += 1;
            return;
        }
        self.counters.spans += 1;
        self.counters.killed += 1;
        self.metrics
            .killed(&facts.pool, begin, ended, died_ns, account.times);
        self.history.killed(begin, facts, ended, died_ns);
        if self.pipeline.takes_spans() {
            let (death, shown) = (death(ended), self.on_span(samples));
            let mut span = killed_span(begin, facts, &death, died_ns, shown, &self.options.conventions);
            self.name(&mut span, facts, samples, account.waits);
            self.push(span, begin, facts, account, Priority::Urgent);
        }
    }

    /// Names a request that nobody has named by what was seen of its stack.
    fn name(&mut self, span: &mut SpanData, facts: &Facts, samples: &[SlowEvent], waits: &RequestWaits) {
        if !has_route(span)
            && let Some(route) = self.routes.learn(&facts.pool, samples, waits)
        {
            give_route(span, route);
        }
    }

    /// A request's span, with where its time went, and the spans of its waits.
    fn push(
        &mut self,
        mut span: SpanData,
        begin: &Begin,
        facts: &Facts,
        account: &Account<'_>,
        priority: Priority,
    ) {
        let waits = tell(&mut span, begin, facts, account);
        self.pipeline.push_span(span, priority);
        self.counters.wait_spans += waits.len() as u64;
        for wait in waits {
            self.pipeline.push_wait(wait, priority);
        }
    }

    /// A look that came to this.
    pub(super) fn count_look(&mut self, look: Look) {
        let samples = &mut self.counters.samples;
        *match look {
            Look::Exact => &mut samples.exact,
            Look::Checked => &mut samples.checked,
            Look::Stopped => &mut samples.stopped,
            Look::Partial => &mut samples.partial,
            Look::Noted => &mut samples.noted,
            Look::Failed => &mut samples.failed,
        } += 1;
    }

    /// All workers of a pool are busy; `line` says it in words.
    pub(super) fn saturated(&mut self, saturation: &Saturation, line: &str) {
        self.metrics.saturated(&saturation.pool);
        self.history.saturated(&saturation.pool, line);
        if self.pipeline.takes_logs() {
            self.pipeline
                .push_log(saturation.to_log_record(line, SystemTime::now()));
        }
    }

    /// A request that still runs was looked into.
    pub(super) fn seen(&mut self, seen: &Seen, facts: &Facts) {
        self.count_look(seen.look);
        self.history.seen(&seen.begin, &seen.event, facts);
        if self.options.slow_signal.as_log() && self.pipeline.takes_logs() && has_ids(&seen.begin) {
            let record = seen
                .event
                .to_log_record(&seen.begin, facts, &self.options.conventions);
            self.pipeline.push_log(record);
        }
    }

    /// A worker wrote a line.
    pub(super) fn line(&mut self, line: &Line) {
        self.metrics.line(&line.pool);
        self.keep_line(Kind::Line, line);
    }

    /// The supervisor has logged a line.
    pub(super) fn logged(&mut self, line: &Line) {
        self.keep_line(Kind::Log, line);
    }

    fn keep_line(&mut self, kind: Kind, line: &Line) {
        self.history.line(kind, line);
        if self.pipeline.takes_logs() {
            self.pipeline.push_line(line.to_log_record());
        }
    }

    /// What looks can show of each pool's workers.
    pub(super) fn rights(&self) -> Vec<LadderView> {
        self.ladder.views()
    }

    /// Sends the figures of now, if it is time for that at `now` (monotonic nanoseconds).
    pub(super) fn tell_metrics(&mut self, board: &Scoreboard, waits: &Waits, now: u64) {
        if self.pipeline.takes_metrics() && self.metrics.is_due(now) {
            let snapshot = self.snapshot(board, waits);
            self.pipeline.push_metrics(snapshot);
        }
    }

    /// The figures of now, or of a moment ago, for whoever fetches them.
    pub(super) fn scrape(&mut self, board: &Scoreboard, waits: &Waits) -> Arc<Scrape> {
        if let Some(recent) = self.metrics.recent_scrape() {
            return recent;
        }
        let snapshot = self.snapshot(board, waits);
        let resource = resource(&self.options, &self.runtime);
        self.metrics.new_scrape(snapshot, resource)
    }

    fn snapshot(&mut self, board: &Scoreboard, waits: &Waits) -> Snapshot {
        let around = Surroundings {
            ladder: self.rights(),
            counters: &self.counters,
            delivery: self.pipeline.counters(),
            waiting: self.pipeline.waiting_bytes(),
        };
        self.metrics.snapshot(board, waits, &around)
    }

    /// How many requests' spans are on their way. Those of waits are not among them, so that
    /// spans and requests can be compared.
    pub(super) fn in_flight(&self) -> InFlight {
        if !self.pipeline.takes_spans() {
            return InFlight::default();
        }
        let delivery = self.pipeline.counters().spans;
        InFlight {
            taken: self.counters.spans + self.counters.still_running + self.counters.post_response,
            settled: delivery.exported + delivery.lost(),
        }
    }

    /// The pipeline, to shut it down, and the counters.
    pub(super) fn into_parts(self) -> (Pipeline, Counters) {
        (self.pipeline, self.counters)
    }

    fn on_span<'a>(&self, samples: &'a [SlowEvent]) -> &'a [SlowEvent] {
        if self.options.slow_signal.on_span() {
            samples
        } else {
            &[]
        }
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The environment's variables over those of the file.
fn options(start: &ObserverStart, log: &ErrorLog) -> Options {
    let variables: HashMap<String, String> = start.otel_file.iter().chain(&start.otel_env).cloned().collect();
    let queue_bytes = usize::try_from(start.queue_bytes).unwrap_or(usize::MAX);
    let defaults = FileDefaults {
        max_queue_bytes: Some(queue_bytes),
        max_queue_items: Some(queue_bytes / SMALL_SPAN_BYTES),
        redacted_query_keys: start.redact_query.clone(),
        ..FileDefaults::default()
    };
    let (mut options, warnings) = Options::from_env(&variables, defaults);
    options.conventions.routes.clone_from(&start.routes);
    // What is wrong with what workers go by is told by the supervisor, who uses them.
    for warning in warnings.iter().filter(|warning| !warning.is_about_workers()) {
        log.warning(warning);
    }
    options
}

/// Ids of zeros are invalid (W3C Trace Context, 3.2.2.3): a worker's slot is damaged.
pub(super) fn has_ids(begin: &Begin) -> bool {
    begin.trace_id.0 != [0; 16] && begin.span_id.0 != [0; 8]
}

fn death(ended: Ended) -> Death {
    match ended {
        Ended::Exited(code) => Death::Exit(code),
        Ended::Killed { signal, .. } => Death::Signal(signal_name(signal)),
    }
}

fn with_causes(error: &PipelineError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |e| e.source());
    std::iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}
