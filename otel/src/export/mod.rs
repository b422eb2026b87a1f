//! Getting spans, log records and metrics out without ever holding up the one who has them.
//!
//! A [`Pipeline`] is a lane for each signal: a bounded queue and one task that sends a batch
//! at a time; a collector that hangs on one does not hold up the others. Spans of waits have
//! a lane of their own, so that they never take the place of a request's span, and both can
//! be counted: there is one span for each request, and any number of waits. Spans wait for
//! company up to the schedule delay. Log records tell of requests that hang right now and
//! go at once, unless `OTEL_BLRP_SCHEDULE_DELAY` says otherwise; so do metrics, which are
//! collected when it is time.
//!
//! Not done here: opening files, keeping on disk what could not be sent, and sending one signal to several places.

mod console;
mod lane;
mod lines;
mod otlp;
mod size;
mod spans;
mod ways;

use std::{io::Write, sync::Arc, sync::Mutex, time::Duration};

use opentelemetry_sdk::{Resource, logs::SdkLogRecord, trace::SpanData};
use tokio::time::Instant;

pub use self::{
    console::{render_log, render_span},
    lane::Delivery,
    lines::Lines,
    otlp::{PipelineError, TlsError},
};
use self::{
    lane::Lane,
    spans::SpanLane,
    ways::{Way, Ways},
};
use crate::{
    metrics::Snapshot,
    options::{BatchOptions, Options},
    queue::Priority,
};

/// Of the room in the queue of spans, that much more for spans of waits.
const WAIT_SHARE: usize = 4;
/// Snapshots that wait. A newer one says all that an older one does.
const SNAPSHOTS: usize = 4;

/// What became of everything that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Of the spans of requests.
    pub spans: Delivery,
    /// Of the spans of their waits.
    pub waits: Delivery,
    /// Of the log records.
    pub logs: Delivery,
    /// Of the snapshots of all metrics.
    pub metrics: Delivery,
}

/// Where the console exporter writes, for all signals.
///
/// Writing blocks the calling thread when nobody reads the other end: the console exporter
/// is for people at a terminal, not for production.
pub struct Terminal {
    /// Where to write.
    pub out: Box<dyn Write + Send>,
    /// Whether `out` is a terminal that shows colours.
    pub colours: bool,
}

/// Where exporters write that send nothing.
#[derive(Debug)]
pub struct Outputs {
    /// For [`ExporterKind::Console`](crate::options::ExporterKind::Console).
    pub terminal: Terminal,
    /// For [`ExporterKind::OtlpFile`](crate::options::ExporterKind::OtlpFile).
    pub file: Option<Lines>,
    /// For [`ExporterKind::OtlpStdout`](crate::options::ExporterKind::OtlpStdout).
    pub stdout: Option<Lines>,
}

impl From<Terminal> for Outputs {
    /// Nothing but the terminal.
    fn from(terminal: Terminal) -> Outputs {
        Outputs {
            terminal,
            file: None,
            stdout: None,
        }
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal")
            .field("colours", &self.colours)
            .finish_non_exhaustive()
    }
}

/// Queues and exporters of all signals. Dropping it without [`Pipeline::shutdown`] stops
/// the exports at once.
#[derive(Debug)]
pub struct Pipeline {
    spans: Option<SpanLane>,
    waits: Option<SpanLane>,
    logs: Option<Lane<SdkLogRecord>>,
    metrics: Option<Lane<Snapshot>>,
}

impl Pipeline {
    /// Sets up the exporters and starts their tasks on the current tokio runtime, whose time
    /// and I/O drivers must be enabled. Connects to nothing yet.
    ///
    /// # Errors
    /// If there is no runtime, an endpoint can never be reached as it is written, or an
    /// output is wanted that is not there.
    pub fn new(
        options: &Options,
        resource: &Resource,
        outputs: impl Into<Outputs>,
    ) -> Result<Pipeline, PipelineError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(PipelineError::NoRuntime);
        }
        let Outputs {
            terminal,
            file,
            stdout,
        } = outputs.into();
        let ways = Ways {
            console: Arc::new(Mutex::new(terminal)),
            file,
            stdout,
        };
        let limits = options.limits;
        let of_spans = |batch| {
            let way = Way {
                name: "traces",
                options: &options.traces,
                batch,
            };
            SpanLane::start(&ways, way, resource, limits)
        };
        let spans = of_spans(options.batch)?;
        let waits = of_spans(BatchOptions {
            max_queue_items: options.batch.max_queue_items.div_ceil(WAIT_SHARE),
            max_queue_bytes: options.batch.max_queue_bytes / WAIT_SHARE,
            ..options.batch
        })?;
        let logs = ways.start(
            Way {
                name: "logs",
                options: &options.logs,
                batch: options.log_batch,
            },
            size::of_record,
            otlp::Logs::new(resource, limits),
        )?;
        let batch = BatchOptions {
            schedule_delay: Duration::ZERO,
            export_timeout: options.metric_reader.timeout,
            max_queue_items: SNAPSHOTS,
            max_batch_items: SNAPSHOTS,
            ..options.batch
        };
        let temporality = options.metric_reader.temporality;
        let metrics = ways.start(
            Way {
                name: "metrics",
                options: &options.metrics,
                batch,
            },
            size::of_snapshot,
            otlp::Metrics::new(resource, temporality),
        )?;
        Ok(Pipeline {
            spans,
            waits,
            logs,
            metrics,
        })
    }

    /// Queues a request's span; never waits. Without a traces exporter it does nothing.
    pub fn push_span(&self, span: SpanData, priority: Priority) {
        if let Some(lane) = &self.spans {
            lane.push(span, priority);
        }
    }

    /// Queues a span that is sent at once, before others; never waits. Without a traces
    /// exporter it does nothing.
    pub fn push_span_now(&self, span: SpanData) {
        if let Some(lane) = &self.spans {
            lane.push_now(span);
        }
    }

    /// Queues the span of a wait in a request; never waits. Without a traces exporter it
    /// does nothing.
    pub fn push_wait(&self, span: SpanData, priority: Priority) {
        if let Some(lane) = &self.waits {
            lane.push(span, priority);
        }
    }

    /// Queues a log record for sending at once; never waits. Without a logs exporter it
    /// does nothing.
    pub fn push_log(&self, record: SdkLogRecord) {
        if let Some(lane) = &self.logs {
            lane.push(record, Priority::Urgent);
        }
    }

    /// Queues a log record that makes room for those of [`Pipeline::push_log`] when the
    /// queue is full; otherwise the same.
    pub fn push_line(&self, record: SdkLogRecord) {
        if let Some(lane) = &self.logs {
            lane.push(record, Priority::Ordinary);
        }
    }

    /// Queues the figures of now for sending at once; never waits. Without a metrics
    /// exporter it does nothing.
    pub fn push_metrics(&self, snapshot: Snapshot) {
        if let Some(lane) = &self.metrics {
            lane.push(snapshot, Priority::Ordinary);
        }
    }

    /// Whether spans go anywhere, so that the caller need not build them in vain.
    pub fn takes_spans(&self) -> bool {
        self.spans.is_some()
    }

    /// Whether log records go anywhere.
    pub fn takes_logs(&self) -> bool {
        self.logs.is_some()
    }

    /// Whether metrics go anywhere.
    pub fn takes_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// Estimated bytes that wait, by signal.
    pub fn waiting_bytes(&self) -> [(&'static str, usize); 3] {
        fn of<T: Send + 'static>(lane: Option<&Lane<T>>) -> usize {
            lane.map_or(0, Lane::waiting_bytes)
        }
        [
            ("traces", self.spans.as_ref().map_or(0, SpanLane::waiting_bytes)),
            ("logs", of(self.logs.as_ref())),
            ("metrics", of(self.metrics.as_ref())),
        ]
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters {
            spans: self.spans.as_ref().map(SpanLane::delivery).unwrap_or_default(),
            waits: self.waits.as_ref().map(SpanLane::delivery).unwrap_or_default(),
            logs: self.logs.as_ref().map(Lane::delivery).unwrap_or_default(),
            metrics: self.metrics.as_ref().map(Lane::delivery).unwrap_or_default(),
        }
    }

    /// Sends what waits, without the schedule delay, and ends. Returns within `patience`
    /// whatever the collector does; what is not out by then is given up and counted as
    /// [`Delivery::abandoned`].
    pub async fn shutdown(self, patience: Duration) -> Counters {
        let deadline = Instant::now() + patience;
        let (spans, waits, logs, metrics) = tokio::join!(
            finish_spans(self.spans, deadline),
            finish_spans(self.waits, deadline),
            finish(self.logs, deadline),
            finish(self.metrics, deadline)
        );
        Counters {
            spans,
            waits,
            logs,
            metrics,
        }
    }
}

async fn finish<T: Send + 'static>(lane: Option<Lane<T>>, deadline: Instant) -> Delivery {
    match lane {
        Some(lane) => lane.finish(deadline).await,
        None => Delivery::default(),
    }
}

async fn finish_spans(lane: Option<SpanLane>, deadline: Instant) -> Delivery {
    match lane {
        Some(lane) => lane.finish(deadline).await,
        None => Delivery::default(),
    }
}
