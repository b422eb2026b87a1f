//! The collector: what telemetry arrived, and when.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::process::{Line, Output, Process};

/// The running collector.
#[derive(Debug)]
pub(super) struct Sink {
    process: Process,
    pub grpc_port: u64,
    pub http_port: u64,
    received: Received,
}

/// All that has arrived.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// SERVER spans, each as often as it came.
    pub server_spans: u64,
    /// How many of them had come before.
    pub repeated: u64,
    /// Those that say more than that a request was served: with a parent, with events,
    /// or failed.
    pub notable: Vec<Span>,
    /// Spans of other kinds: what requests waited for.
    pub waits: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// When the latest span started, nanoseconds since the epoch.
    pub latest_start: u64,
    ids: HashSet<String>,
}

/// A span in the protobuf JSON of OTLP.
#[derive(Debug, Clone)]
pub(super) struct Span(Value);

/// A log record, likewise, and when it arrived.
#[derive(Debug, Clone)]
pub(super) struct LogRecord {
    pub at: Instant,
    record: Value,
}

impl Sink {
    /// Starts the collector on free ports and waits until it listens.
    pub(super) fn start(python: &Path, tool: &Path) -> Result<Sink> {
        let mut command = Command::new(python);
        command.arg(tool).args(["0", "0"]);
        let mut process = Process::spawn("otlp-sink", &mut command, Output::Answers, None)?;
        let line = process
            .wait_for("ready", Duration::from_secs(30), |line| {
                line.contains("\"ready\"")
            })
            .context("does `make deps` need to run first?")?;
        let ready: Value = serde_json::from_str(&line.text)?;
        let port = |kind: &str| {
            ready["ready"][kind]
                .as_u64()
                .context("the collector names no port")
        };
        Ok(Sink {
            grpc_port: port("grpc")?,
            http_port: port("http")?,
            process,
            received: Received::default(),
        })
    }

    /// Waits until what has arrived is enough; false if it is not in time.
    pub(super) fn wait_until(
        &mut self,
        within: Duration,
        enough: impl Fn(&Received) -> bool,
    ) -> Result<bool> {
        let by = Instant::now() + within;
        while !enough(&self.received) {
            match self
                .process
                .next_line(by.saturating_duration_since(Instant::now()))
            {
                Some(line) => self.received.take(&line)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Waits for a log record with that event name in that trace; also finds one that
    /// has arrived before.
    pub(super) fn wait_for_log(&mut self, within: Duration, event: &str, trace: &str) -> Result<LogRecord> {
        self.wait_until(within, |received| received.log(event, trace).is_some())?;
        let found = self.received.log(event, trace).cloned();
        found.with_context(|| format!("no log record {event} of trace {trace} within {within:?}"))
    }

    /// Ends the collector; what it wrote until then is everything, as it writes an
    /// export down before it confirms it.
    pub(super) fn finish(mut self) -> Result<Received> {
        self.process.stop(None, Duration::from_secs(20))?;
        for line in self.process.all_lines()? {
            self.received.take(&line)?;
        }
        Ok(self.received)
    }
}

impl Received {
    fn take(&mut self, line: &Line) -> Result<()> {
        let export: Value = serde_json::from_str(&line.text).context("the collector wrote a broken line")?;
        let data = &export["data"];
        for span in flatten(data, ["resourceSpans", "scopeSpans", "spans"]) {
            self.take_span(Span(span.clone()));
        }
        for record in flatten(data, ["resourceLogs", "scopeLogs", "logRecords"]) {
            self.logs.push(LogRecord {
                at: line.at,
                record: record.clone(),
            });
        }
        Ok(())
    }

    fn take_span(&mut self, span: Span) {
        if span.kind() != "SERVER" {
            self.waits.push(span);
            return;
        }
        self.server_spans += 1;
        self.latest_start = self.latest_start.max(span.start());
        let id = format!("{}{}", span.0["traceId"], span.0["spanId"]);
        self.repeated += u64::from(!self.ids.insert(id));
        if span.0.get("parentSpanId").is_some() || span.0.get("events").is_some() || span.is_error() {
            self.notable.push(span);
        }
    }

    /// The first log record with that event name in that trace.
    pub(super) fn log(&self, event: &str, trace: &str) -> Option<&LogRecord> {
        self.logs
            .iter()
            .find(|log| log.record["eventName"] == event && hex(&log.record["traceId"]) == trace)
    }

    /// What the request of that span waited for, in order.
    pub(super) fn waits(&self, request: &Span) -> Vec<&Span> {
        let mut waits: Vec<&Span> = self
            .waits
            .iter()
            .filter(|wait| {
                wait.0["traceId"] == request.0["traceId"] && wait.0["parentSpanId"] == request.0["spanId"]
            })
            .collect();
        waits.sort_by_key(|wait| wait.start());
        waits
    }

    /// The SERVER spans of one trace.
    pub(super) fn trace(&self, trace: &str) -> Vec<&Span> {
        self.notable
            .iter()
            .filter(|span| hex(&span.0["traceId"]) == trace)
            .collect()
    }
}

impl Span {
    pub(super) fn start(&self) -> u64 {
        nanos(&self.0["startTimeUnixNano"])
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(nanos(&self.0["endTimeUnixNano"]).saturating_sub(self.start()))
    }

    pub(super) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// As in `CLIENT`.
    pub(super) fn kind(&self) -> &str {
        let kind = self.0["kind"].as_str().unwrap_or_default();
        kind.strip_prefix("SPAN_KIND_").unwrap_or(kind)
    }

    /// An attribute that is a time in seconds.
    pub(super) fn seconds(&self, key: &str) -> Option<Duration> {
        let seconds = self.attribute(key)?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    pub(super) fn parent(&self) -> String {
        hex(&self.0["parentSpanId"])
    }

    pub(super) fn is_error(&self) -> bool {
        self.0["status"]["code"] == "STATUS_CODE_ERROR"
    }

    /// Text, or a number as text.
    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.0, key)
    }

    /// Events of that name: time after the span's start, and one attribute.
    pub(super) fn events(&self, name: &str, key: &str) -> Vec<(Duration, String)> {
        let events = self.0["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = events.iter().filter(|event| event["name"] == name);
        named
            .map(|event| {
                let after = nanos(&event["timeUnixNano"]).saturating_sub(self.start());
                (
                    Duration::from_nanos(after),
                    attribute(event, key).unwrap_or_default(),
                )
            })
            .collect()
    }
}

impl LogRecord {
    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.record, key)
    }
}

fn flatten<'a>(data: &'a Value, path: [&str; 3]) -> Vec<&'a Value> {
    let mut found = vec![data];
    for key in path {
        found = found
            .into_iter()
            .filter_map(|value| value[key].as_array())
            .flatten()
            .collect();
    }
    found
}

fn attribute(item: &Value, key: &str) -> Option<String> {
    let attributes = item["attributes"].as_array()?;
    let value = &attributes.iter().find(|attribute| attribute["key"] == key)?["value"];
    let (_, value) = value.as_object()?.iter().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// 64-bit numbers are strings in protobuf's JSON.
fn nanos(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Bytes are base64 in protobuf's JSON, also where OTLP's own JSON has hexadecimal.
fn hex(value: &Value) -> String {
    let bytes = value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    bytes
        .unwrap_or_default()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(spans: &str) -> Line {
        let text =
            format!(r#"{{"data": {{"resourceSpans": [{{"scopeSpans": [{{"spans": [{spans}]}}]}}]}}}}"#);
        Line {
            at: Instant::now(),
            text,
        }
    }

    #[test]
    fn only_server_spans_count_and_repetitions_show() {
        let mut received = Received::default();
        let server =
            r#"{"kind": "SPAN_KIND_SERVER", "traceId": "q80=", "spanId": "AQ==", "startTimeUnixNano": "5"}"#;
        let client =
            r#"{"kind": "SPAN_KIND_CLIENT", "traceId": "q80=", "spanId": "Ag==", "parentSpanId": "Aw=="}"#;
        received
            .take(&export(&format!("{server}, {client}")))
            .expect("valid");
        received.take(&export(server)).expect("valid");
        assert_eq!(
            (received.server_spans, received.repeated, received.latest_start),
            (2, 1, 5)
        );
        assert_eq!((received.notable.len(), received.waits.len()), (0, 1));
    }

    #[test]
    fn a_span_is_read() {
        let mut received = Received::default();
        let span = r#"{"kind": "SPAN_KIND_SERVER", "traceId": "q80=", "spanId": "AQ==", "parentSpanId": "Ag==",
            "startTimeUnixNano": "1000000000", "endTimeUnixNano": "4000000000", "status": {"code": "STATUS_CODE_ERROR"},
            "attributes": [{"key": "a", "value": {"intValue": "7"}}, {"key": "b", "value": {"doubleValue": 0.5}}],
            "events": [{"name": "slow", "timeUnixNano": "2000000000",
                "attributes": [{"key": "stack", "value": {"stringValue": "f"}}]}]}"#;
        received.take(&export(span)).expect("valid");
        let found = received.trace("abcd");
        let [span] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(span.duration(), Duration::from_secs(3));
        assert_eq!(span.parent(), "02");
        assert!(span.is_error());
        assert_eq!(span.attribute("a").as_deref(), Some("7"));
        assert_eq!(span.attribute("b").as_deref(), Some("0.5"));
        assert_eq!(
            span.events("slow", "stack"),
            [(Duration::from_secs(1), "f".to_owned())]
        );
    }
}
