//! Getting spans and log records out without ever holding up the one who has them.
//!
//! A [`Pipeline`] is two lanes, traces and logs, each a bounded queue and one task that
//! sends a batch at a time; a collector that hangs on one does not hold up the other.
//! Spans wait for company up to the schedule delay. Log records tell of requests that
//! hang right now and go at once.
//!
//! Not done here: storing on disk, sending one signal to several places, and counting what
//! a collector rejects in an answer that says success (the OTLP crate does not tell).

mod console;
mod lane;
mod otlp;
mod size;

use std::{io::Write, sync::Arc, sync::Mutex, time::Duration};

use opentelemetry_sdk::{Resource, logs::SdkLogRecord, trace::SpanData};
use tokio::time::Instant;

use self::{
    console::Console,
    lane::{Lane, LaneOptions},
};
pub use self::{
    console::{render_log, render_span},
    lane::Delivery,
    otlp::PipelineError,
};
use crate::{
    options::{BatchOptions, ExporterKind, Options, SignalOptions},
    queue::Priority,
};

/// What became of everything that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Of the spans.
    pub spans: Delivery,
    /// Of the log records.
    pub logs: Delivery,
}

/// Where the console exporter writes, for both signals.
///
/// Writing blocks the calling thread when nobody reads the other end: the console exporter
/// is for people at a terminal, not for production.
pub struct Terminal {
    /// Where to write.
    pub out: Box<dyn Write + Send>,
    /// Whether `out` is a terminal that shows colours.
    pub colours: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal")
            .field("colours", &self.colours)
            .finish_non_exhaustive()
    }
}

/// Queues and exporters of both signals. Dropping it without [`Pipeline::shutdown`] stops
/// the exports at once.
#[derive(Debug)]
pub struct Pipeline {
    spans: Option<Lane<SpanData>>,
    logs: Option<Lane<SdkLogRecord>>,
}

impl Pipeline {
    /// Sets up the exporters and starts their tasks on the current tokio runtime, whose time
    /// and I/O drivers must be enabled. Connects to nothing yet.
    ///
    /// # Errors
    /// If there is no runtime, or an endpoint can never be reached as it is written.
    pub fn new(
        options: &Options,
        resource: &Resource,
        terminal: Terminal,
    ) -> Result<Pipeline, PipelineError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(PipelineError::NoRuntime);
        }
        let console = Arc::new(Mutex::new(terminal));
        let batch = &options.batch;
        let spans = match options.traces.exporter {
            ExporterKind::None => None,
            ExporterKind::Console => {
                let lane = lane_options("traces", "the terminal", batch, batch.schedule_delay);
                Some(Lane::start(lane, Console::new(console.clone()), size::of_span))
            }
            ExporterKind::Otlp => {
                let lane = lane_options("traces", endpoint(&options.traces), batch, batch.schedule_delay);
                Some(Lane::start(
                    lane,
                    otlp::spans(&options.traces.target, resource)?,
                    size::of_span,
                ))
            }
        };
        let logs = match options.logs.exporter {
            ExporterKind::None => None,
            ExporterKind::Console => {
                let lane = lane_options("logs", "the terminal", batch, Duration::ZERO);
                Some(Lane::start(lane, Console::new(console), size::of_record))
            }
            ExporterKind::Otlp => {
                let lane = lane_options("logs", endpoint(&options.logs), batch, Duration::ZERO);
                Some(Lane::start(
                    lane,
                    otlp::logs(&options.logs.target, resource)?,
                    size::of_record,
                ))
            }
        };
        Ok(Pipeline { spans, logs })
    }

    /// Queues a span; never waits. Without a traces exporter it does nothing.
    pub fn push_span(&self, span: SpanData, priority: Priority) {
        if let Some(lane) = &self.spans {
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

    /// Whether spans go anywhere, so that the caller need not build them in vain.
    pub fn takes_spans(&self) -> bool {
        self.spans.is_some()
    }

    /// Whether log records go anywhere.
    pub fn takes_logs(&self) -> bool {
        self.logs.is_some()
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters {
            spans: self.spans.as_ref().map(Lane::delivery).unwrap_or_default(),
            logs: self.logs.as_ref().map(Lane::delivery).unwrap_or_default(),
        }
    }

    /// Sends what waits, without the schedule delay, and ends. Returns within `patience`
    /// whatever the collector does; what is not out by then is given up and counted as
    /// [`Delivery::abandoned`].
    pub async fn shutdown(self, patience: Duration) -> Counters {
        let deadline = Instant::now() + patience;
        let spans = async {
            match self.spans {
                Some(lane) => lane.finish(deadline).await,
                None => Delivery::default(),
            }
        };
        let logs = async {
            match self.logs {
                Some(lane) => lane.finish(deadline).await,
                None => Delivery::default(),
            }
        };
        let (spans, logs) = tokio::join!(spans, logs);
        Counters { spans, logs }
    }
}

fn endpoint(signal: &SignalOptions) -> &str {
    &signal.target.endpoint
}

fn lane_options(signal: &'static str, target: &str, batch: &BatchOptions, delay: Duration) -> LaneOptions {
    LaneOptions {
        signal,
        target: target.to_owned(),
        delay,
        batch: *batch,
    }
}
