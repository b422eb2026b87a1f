//! Whether what names a request names the right one: exemplars of a metric, and lines that a request wrote.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, NumberDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::Serialize;

/// What a line says in front of the trace id that its script was told.
pub const OWN_TRACE: &str = "written in trace ";
/// A trace id in hexadecimal digits.
const TRACE_DIGITS: usize = 32;
/// By how much an exemplar may be off its span, seconds: a double has no whole nanoseconds.
const SAME_S: f64 = 1e-6;

type Trace = [u8; 16];

/// What was found, as it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Lines of requests.
    pub lines: u64,
    /// Those of another request than their record says, of none, or that were told before.
    pub wrong_lines: u64,
    /// Lines that are told as missing.
    pub missing_lines: u64,
    /// Exemplars, each once.
    pub exemplars: u64,
    /// Those without a span, with another duration than their span, or outside their bucket.
    pub wrong_exemplars: u64,
    /// The first that is wrong, in words.
    pub first_wrong: Option<String>,
}

/// Everything that has come so far. Takes some 50 bytes for each span.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Durations of SERVER spans by their trace, nanoseconds.
    spans: HashMap<Trace, u64>,
    /// By their trace; whether each was within a bucket.
    exemplars: HashMap<Trace, (f64, bool)>,
    /// How many lines each trace has.
    lines: HashMap<Trace, u64>,
    wrong_lines: u64,
    missing_lines: u64,
    first_wrong: Option<String>,
}

impl Seen {
    pub(super) fn add_span(&mut self, span: &Span) {
        let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        self.spans.insert(trace(&span.trace_id), duration);
    }

    pub(super) fn add_exemplars(&mut self, point: &HistogramDataPoint) {
        for exemplar in &point.exemplars {
            let seconds = match exemplar.value {
                Some(exemplar::Value::AsDouble(seconds)) => seconds,
                _ => f64::NAN,
            };
            let found = (seconds, fits(point, seconds));
            self.exemplars.insert(trace(&exemplar.trace_id), found);
        }
    }

    /// Lines that do not say which trace they are of are not looked at.
    pub(super) fn add_lines(&mut self, request: &ExportLogsServiceRequest) {
        let scopes = request
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs);
        for record in scopes.flat_map(|scope| &scope.log_records) {
            let Some(Value::StringValue(text)) = value(record.body.as_ref()) else {
                continue;
            };
            let Some((_, said)) = text.split_once(OWN_TRACE) else {
                continue;
            };
            let own = hex(&record.trace_id);
            let before = self.lines.entry(trace(&record.trace_id)).or_default();
            *before += 1;
            if said.get(..TRACE_DIGITS) != Some(&own) || *before > 1 {
                self.wrong_lines += 1;
                self.first_wrong
                    .get_or_insert_with(|| format!("line {before} of trace {own}: {text}"));
            }
        }
    }

    /// As the metric `php.worker.lines_dropped` told last.
    pub(super) fn set_missing_lines(&mut self, pools: &[NumberDataPoint]) {
        let lines = pools.iter().filter_map(|point| match point.value {
            Some(number_data_point::Value::AsInt(lines)) => u64::try_from(lines).ok(),
            _ => None,
        });
        self.missing_lines = lines.sum();
    }

    /// What all of it comes to.
    pub(super) fn names(&self) -> Names {
        let mut names = Names {
            lines: self.lines.values().sum(),
            wrong_lines: self.wrong_lines,
            missing_lines: self.missing_lines,
            exemplars: self.exemplars.len() as u64,
            wrong_exemplars: 0,
            first_wrong: self.first_wrong.clone(),
        };
        for (trace, (seconds, fits)) in &self.exemplars {
            let span = self.spans.get(trace).map(|ns| seconds_of(*ns));
            if *fits && span.is_some_and(|span| (span - seconds).abs() <= SAME_S) {
                continue;
            }
            names.wrong_exemplars += 1;
            names.first_wrong.get_or_insert_with(|| {
                format!(
                    "exemplar of {seconds} s, within its bucket: {fits}, of trace {}, whose span took {span:?} s",
                    hex(trace)
                )
            });
        }
        names
    }
}

/// Zeros, as of no trace, where it is none.
fn trace(id: &[u8]) -> Trace {
    id.try_into().unwrap_or_default()
}

/// Whether a bucket that has counted something holds it: of bounds (a, b] (metrics data model, "Histogram").
fn fits(point: &HistogramDataPoint, seconds: f64) -> bool {
    let bucket = point.explicit_bounds.partition_point(|bound| *bound < seconds);
    point.bucket_counts.get(bucket).is_some_and(|count| *count > 0)
}

fn value(any: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> Option<&Value> {
    any?.value.as_ref()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a request does not take a hundred days"
)]
fn seconds_of(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::AnyValue;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::Exemplar;

    use super::*;

    fn span(trace: u8, ns: u64) -> Span {
        Span {
            trace_id: vec![trace; 16],
            start_time_unix_nano: 1_000,
            end_time_unix_nano: 1_000 + ns,
            ..Span::default()
        }
    }

    fn point(trace: u8, seconds: f64) -> HistogramDataPoint {
        HistogramDataPoint {
            explicit_bounds: vec![0.005, 0.01],
            bucket_counts: vec![7, 0, 1],
            exemplars: vec![Exemplar {
                trace_id: vec![trace; 16],
                value: Some(exemplar::Value::AsDouble(seconds)),
                ..Exemplar::default()
            }],
            ..HistogramDataPoint::default()
        }
    }

    #[test]
    fn an_exemplar_is_a_span_that_took_as_long() {
        let mut seen = Seen::default();
        for (trace, ns) in [(1, 3_000_000), (2, 40_000_000), (3, 4_000_000), (4, 7_000_000)] {
            seen.add_span(&span(trace, ns));
        }
        for (trace, seconds) in [(1, 0.003), (2, 0.04), (1, 0.003)] {
            seen.add_exemplars(&point(trace, seconds));
        }
        assert_eq!(
            seen.names(),
            Names {
                exemplars: 2,
                ..Names::default()
            }
        );
        // Another duration, an empty bucket, no span.
        for (trace, seconds) in [(3, 0.003), (4, 0.007), (5, 0.003)] {
            seen.add_exemplars(&point(trace, seconds));
        }
        let names = seen.names();
        assert_eq!((names.exemplars, names.wrong_exemplars), (5, 3));
        assert!(
            names
                .first_wrong
                .is_some_and(|first| first.starts_with("exemplar of "))
        );
    }

    fn logs(trace: u8, text: &str) -> ExportLogsServiceRequest {
        let record = LogRecord {
            trace_id: vec![trace; 16],
            body: Some(AnyValue {
                value: Some(Value::StringValue(text.to_owned())),
            }),
            ..LogRecord::default()
        };
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![record],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
    }

    #[test]
    fn lines_that_are_left_out_are_those_of_all_pools_as_told_last() {
        let pool = |lines| NumberDataPoint {
            value: Some(number_data_point::Value::AsInt(lines)),
            ..NumberDataPoint::default()
        };
        let mut seen = Seen::default();
        seen.set_missing_lines(&[pool(3), pool(4)]);
        seen.set_missing_lines(&[pool(5), pool(6), NumberDataPoint::default()]);
        assert_eq!(seen.names().missing_lines, 11);
    }

    #[test]
    fn a_line_is_of_the_trace_that_it_names_and_comes_once() {
        let mut seen = Seen::default();
        let own = |trace: u8| format!("PHP message: {OWN_TRACE}{} in x.php", hex(&[trace; 16]));
        for (trace, text) in [(1, own(1)), (2, own(2)), (3, "of nobody".to_owned())] {
            seen.add_lines(&logs(trace, &text));
        }
        assert_eq!((seen.names().lines, seen.names().wrong_lines), (2, 0));
        for (trace, text) in [(1, own(1)), (4, own(5)), (6, OWN_TRACE.to_owned())] {
            seen.add_lines(&logs(trace, &text));
        }
        assert_eq!((seen.names().lines, seen.names().wrong_lines), (5, 3));
    }
}
