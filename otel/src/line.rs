//! A line that a worker wrote, as a log record of the request that wrote it; or one that the
//! supervisor logged.
//!
//! Whose it is, and what it says of its own weight, is not found out here.

use std::time::SystemTime;

use glasspool_abi::trace::{SpanId, TraceId};
use opentelemetry::logs::{AnyValue, LogRecord, Severity};
use opentelemetry::trace::TraceFlags;
use opentelemetry_sdk::logs::SdkLogRecord;

use crate::semconv::name;
use crate::slow::new_record;

/// How much a line matters, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Of use to whoever looks for a fault.
    Debug,
    /// Ordinary.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something has failed.
    Error,
}

impl Weight {
    /// OpenTelemetry's short name of it.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Debug => "DEBUG",
            Weight::Info => "INFO",
            Weight::Warn => "WARN",
            Weight::Error => "ERROR",
        }
    }

    fn severity(self) -> Severity {
        match self {
            Weight::Debug => Severity::Debug,
            Weight::Info => Severity::Info,
            Weight::Warn => Severity::Warn,
            Weight::Error => Severity::Error,
        }
    }
}

/// The request that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its span.
    pub span_id: SpanId,
    /// Whether head sampling took it.
    pub sampled: bool,
    /// Whether the trace id's last seven bytes are random.
    pub random: bool,
}

/// A line, or several that are one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was read.
    pub time: SystemTime,
    /// The worker's pool; empty for a line of no pool.
    pub pool: String,
    /// The worker's process id; 0 for a line of no worker.
    pub pid: u32,
    /// `stdout` or `stderr`; `None` for what PHP told its own log.
    pub stream: Option<&'static str>,
    /// How much it matters.
    pub weight: Weight,
    /// Its text, without the last newline.
    pub text: String,
    /// Who wrote it, if that is known.
    pub owner: Option<Owner>,
    /// Bytes that are missing at its end.
    pub cut: u64,
    /// Lines before it that are missing.
    pub dropped: u64,
}

impl Line {
    /// The log record.
    pub fn to_log_record(&self) -> SdkLogRecord {
        let mut record = new_record();
        record.set_timestamp(self.time);
        record.set_observed_timestamp(self.time);
        record.set_severity_number(self.weight.severity());
        record.set_severity_text(self.weight.name());
        record.set_body(AnyValue::from(self.text.clone()));
        if let Some(owner) = &self.owner {
            let flags = TraceFlags::new(u8::from(owner.sampled) | u8::from(owner.random) << 1);
            record.set_trace_context(
                opentelemetry::TraceId::from_bytes(owner.trace_id.0),
                opentelemetry::SpanId::from_bytes(owner.span_id.0),
                Some(flags),
            );
        }
        if !self.pool.is_empty() {
            record.add_attribute(name::PHP_POOL, self.pool.clone());
        }
        if self.pid > 0 {
            record.add_attribute(name::PROCESS_PID, i64::from(self.pid));
        }
        if let Some(stream) = self.stream {
            record.add_attribute(name::LOG_IOSTREAM, stream);
        }
        for (key, count) in [
            (name::PHP_LOG_CUT_BYTES, self.cut),
            (name::PHP_LOG_DROPPED_LINES, self.dropped),
        ] {
            if count > 0 {
                record.add_attribute(key, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_line_carries_the_context_of_its_request() {
        let line = Line {
            time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            pool: "www".to_owned(),
            pid: 4711,
            stream: Some("stderr"),
            weight: Weight::Warn,
            text: "PHP Warning:  no\nin two lines".to_owned(),
            owner: Some(Owner {
                trace_id: TraceId([1; 16]),
                span_id: SpanId([2; 8]),
                sampled: true,
                random: true,
            }),
            cut: 3,
            dropped: 0,
        };
        let record = line.to_log_record();
        let context = record.trace_context().expect("has one");
        assert_eq!(context.trace_id.to_bytes(), [1; 16]);
        assert_eq!(context.span_id.to_bytes(), [2; 8]);
        assert_eq!(context.trace_flags.map(TraceFlags::to_u8), Some(3));
        assert_eq!(record.severity_number(), Some(Severity::Warn));
        assert_eq!(record.body(), Some(&AnyValue::from(line.text.clone())));
        let keys: Vec<_> = record
            .attributes_iter()
            .map(|(key, _)| key.as_str().to_owned())
            .collect();
        assert_eq!(
            keys,
            ["php.pool", "process.pid", "log.iostream", "php.log.cut_bytes"]
        );
        let nobodys = Line {
            owner: None,
            pool: String::new(),
            pid: 0,
            stream: None,
            cut: 0,
            ..line
        };
        let record = nobodys.to_log_record();
        assert!(record.trace_context().is_none());
        assert_eq!(record.attributes_iter().count(), 0);
    }
}
