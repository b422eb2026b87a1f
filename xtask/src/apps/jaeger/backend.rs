//! A running Jaeger, and what its query API (`/api/v3`, which answers in OTLP/JSON) shows.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::build::Built;
use crate::apps::http::Client;
use crate::apps::nginx::free_address;
use crate::process::{Output, Process};

/// It is up in less than a second; a busy machine has more time.
const START_TIME: Duration = Duration::from_secs(60);
/// How often a trace is asked for until it is there.
const PACE: Duration = Duration::from_millis(100);

/// One that keeps traces in memory; ends with this value.
#[derive(Debug)]
pub(super) struct Jaeger {
    process: Process,
    _folder: TempDir,
    /// Where it is asked, `http://address:port`.
    pub query: String,
    /// Where it takes OTLP over gRPC, likewise.
    pub otlp: String,
}

/// A span as the API tells it.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub name: String,
    pub id: String,
    /// Empty for none.
    pub parent: String,
    pub duration: Duration,
    pub events: Vec<Event>,
    kind: u64,
    attributes: Vec<(String, String)>,
}

/// An event on a span.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub name: String,
    attributes: Vec<(String, String)>,
}

impl Jaeger {
    /// Starts it on free ports.
    pub(super) fn start(built: &Built) -> Result<Jaeger> {
        let folder = tempfile::Builder::new()
            .prefix("gpjaeger-")
            .tempdir()
            .context("no temporary folder")?;
        let [query, asked, otlp] = [free_address()?, free_address()?, free_address()?];
        let config = folder.path().join("jaeger.yaml");
        std::fs::write(&config, configuration(&query, &asked, &otlp))?;
        let mut command = std::process::Command::new(&built.program);
        command.arg("--config").arg(file_uri(&config));
        let mut process = Process::spawn("jaeger", &mut command, Output::Log, None)?;
        process.wait_for("Everything is ready", START_TIME, |line| {
            line.contains("Everything is ready")
        })?;
        Ok(Jaeger {
            process,
            _folder: folder,
            query: format!("http://{query}"),
            otlp: format!("http://{otlp}"),
        })
    }

    /// Asks until the trace is as wanted; what it has then.
    pub(super) fn wait_for(
        &self,
        trace: &str,
        within: Duration,
        is_wanted: impl Fn(&[Span]) -> bool,
    ) -> Result<Vec<Span>> {
        let by = Instant::now() + within;
        loop {
            let spans = self.trace(trace)?;
            if is_wanted(&spans) {
                return Ok(spans);
            }
            if Instant::now() >= by {
                bail!("trace {trace} is not as wanted after {within:?}: {spans:?}");
            }
            std::thread::park_timeout(PACE);
        }
    }

    /// The spans of a trace; none if it is not known.
    fn trace(&self, trace: &str) -> Result<Vec<Span>> {
        let reply = Client::new(&self.query).get(&format!("/api/v3/traces/{trace}"))?;
        match reply.status {
            404 => Ok(Vec::new()),
            200 => Ok(spans(&reply.json()?)),
            status => bail!("Jaeger answers {status}: {}", reply.text()),
        }
    }

    /// Services that have sent something.
    pub(super) fn services(&self) -> Result<Vec<String>> {
        let told = Client::new(&self.query).get("/api/v3/services")?.json()?;
        let names = each(&told, "services").filter_map(Value::as_str);
        Ok(names.map(str::to_owned).collect())
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // It does not end on SIGTERM once it was asked for a trace, and has nothing to save.
        self.process.signal(Signal::KILL).unwrap_or_default();
    }
}

impl Span {
    /// Whether it is that of a request (OTLP's `SPAN_KIND_SERVER`).
    pub(super) fn is_server(&self) -> bool {
        self.kind == 2
    }

    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        value(&self.attributes, key)
    }
}

impl Event {
    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        value(&self.attributes, key)
    }
}

/// Nothing but what is used: traces in, and the query API.
fn configuration(query: &str, asked: &str, otlp: &str) -> String {
    format!(
        "service:\n  extensions: [jaeger_storage, jaeger_query]\n  pipelines:\n    traces:\n      \
         receivers: [otlp]\n      exporters: [jaeger_storage_exporter]\n  telemetry:\n    \
         metrics: {{level: none}}\n    logs: {{level: info}}\n\
         extensions:\n  jaeger_storage:\n    backends:\n      kept: {{memory: {{max_traces: 10000}}}}\n  \
         jaeger_query:\n    storage: {{traces: kept}}\n    http: {{endpoint: \"{query}\"}}\n    \
         grpc: {{endpoint: \"{asked}\"}}\n\
         receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: \"{otlp}\"}}\n\
         exporters:\n  jaeger_storage_exporter: {{trace_storage: kept}}\n"
    )
}

fn file_uri(path: &Path) -> String {
    format!("file:{}", path.display())
}

fn spans(answer: &Value) -> Vec<Span> {
    each(&answer["result"], "resourceSpans")
        .flat_map(|resource| each(resource, "scopeSpans"))
        .flat_map(|scope| each(scope, "spans"))
        .map(span)
        .collect()
}

fn span(told: &Value) -> Span {
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let nanos = |key: &str| told[key].as_str().and_then(|text| text.parse::<u64>().ok());
    let (start, end) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
    let events = each(told, "events").map(|event| Event {
        name: event["name"].as_str().unwrap_or_default().to_owned(),
        attributes: attributes(event),
    });
    Span {
        name: text("name"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        duration: Duration::from_nanos(end.unwrap_or(0).saturating_sub(start.unwrap_or(0))),
        events: events.collect(),
        kind: told["kind"].as_u64().unwrap_or(0),
        attributes: attributes(told),
    }
}

/// Values other than texts as JSON.
fn attributes(of: &Value) -> Vec<(String, String)> {
    let told = each(of, "attributes").filter_map(|attribute| {
        let value = &attribute["value"];
        let text = value["stringValue"].as_str().map(str::to_owned);
        Some((
            attribute["key"].as_str()?.to_owned(),
            text.unwrap_or(value.to_string()),
        ))
    });
    told.collect()
}

fn value(attributes: &[(String, String)], key: &str) -> Option<String> {
    let found = attributes.iter().find(|(known, _)| known == key);
    found.map(|(_, value)| value.clone())
}

/// The members of a list that may be left out when it is empty.
fn each<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        let told = r#"{"result": {"resourceSpans": [{"scopeSpans": [{"scope": {}, "spans": [
            {"spanId": "1111111122222222", "name": "GET", "kind": 2, "startTimeUnixNano": "1000", "endTimeUnixNano": "4000",
             "events": [{"name": "slow", "attributes": [{"key": "stack", "value": {"stringValue": "a\nb"}}]}], "status": {}},
            {"spanId": "03", "parentSpanId": "1111111122222222", "kind": 1, "attributes":
             [{"key": "n", "value": {"intValue": "7"}}]}]}]}]}}"#;
        let told: Value = serde_json::from_str(told).expect("is JSON");
        let [request, early] = <[Span; 2]>::try_from(spans(&told)).expect("two");
        assert!(request.is_server() && !early.is_server());
        assert_eq!(
            (request.duration, request.parent.as_str()),
            (Duration::from_micros(3), "")
        );
        assert_eq!(request.events[0].attribute("stack").as_deref(), Some("a\nb"));
        assert_eq!(early.parent, request.id);
        assert_eq!(early.attribute("n").as_deref(), Some("{\"intValue\":\"7\"}"));
        assert!(spans(&serde_json::json!({"error": {}})).is_empty());
    }
}
