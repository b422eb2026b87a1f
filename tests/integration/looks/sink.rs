//! The project's OTLP receiver, and what it was told of slow requests.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use serde_json::Value;

use crate::harness::PATIENCE;

/// The receiver of `tests/tools/otlp-sink`, ended with this value.
pub(super) struct Sink {
    child: Child,
    lines: Receiver<Value>,
    port: u64,
    /// Log records of slow requests, in the order in which they came.
    records: Vec<Event>,
    /// What looks can show of each pool, as it was measured last.
    rungs: HashMap<String, i64>,
}

/// What telemetry tells of one look at a slow request.
#[derive(Debug, Clone)]
pub(super) struct Event(Value);

impl Sink {
    pub(super) fn start() -> Sink {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("GLASSPOOL_TEST_PYTHON")
            .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
        let mut child = Command::new(&python)
            .arg(root.join("tests/tools/otlp-sink"))
            .args(["0", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}: run `make deps` first", python.display()));
        let stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .map(|line| serde_json::from_str(&line).expect("the sink writes JSON"))
                .take_while(|line: &Value| sender.send(line.clone()).is_ok())
                .count()
        });
        let ready: Value = lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("{} has no OTLP receiver: run `make deps` first", python.display()));
        Sink {
            child,
            lines,
            port: ready["ready"]["http"].as_u64().expect("a port"),
            records: Vec::new(),
            rungs: HashMap::new(),
        }
    }

    /// Variables that make a supervisor send everything here at once.
    pub(super) fn variables(&self) -> [(&'static str, String); 4] {
        [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{}", self.port),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
        ]
    }

    /// Waits for the log record of a slow request for this path.
    pub(super) fn slow(&mut self, path: &str) -> Event {
        let end = Instant::now() + PATIENCE;
        let of_path = |event: &&Event| event.text("url.path").as_deref() == Some(path);
        loop {
            if let Some(found) = self.records.iter().find(of_path) {
                return found.clone();
            }
            self.read(end, &format!("no event of {path}"));
        }
    }

    /// Waits for the metric that says how much looks show of a pool.
    pub(super) fn rung(&mut self, pool: &str) -> i64 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(rung) = self.rungs.get(pool) {
                return *rung;
            }
            self.read(end, "no rung of the pool");
        }
    }

    /// Reads what comes next; `so_far` is all there is if nothing comes in time.
    fn read(&mut self, end: Instant, so_far: &str) {
        let patience = end.saturating_duration_since(Instant::now());
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{so_far} in {:#?}", self.records),
            Err(RecvTimeoutError::Disconnected) => panic!("the OTLP receiver has ended"),
        };
        match line["signal"].as_str() {
            Some("logs") => self.records.extend(slow_records(&line["data"])),
            Some("metrics") => self.rungs.extend(rungs(&line["data"])),
            _ => {}
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

impl Event {
    /// An attribute that is text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        text(&self.0, key)
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    let attribute = each(value, "attributes").find(|attribute| attribute["key"] == key)?;
    Some(attribute["value"]["stringValue"].as_str()?.to_owned())
}

/// The members of a list that may be left out when it is empty, as protobuf's JSON does.
fn each<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn slow_records(data: &Value) -> Vec<Event> {
    each(data, "resourceLogs")
        .flat_map(|resource| each(resource, "scopeLogs"))
        .flat_map(|scope| each(scope, "logRecords"))
        .filter(|record| record["eventName"] == "php.request.slow")
        .map(|record| Event(record.clone()))
        .collect()
}

fn rungs(data: &Value) -> Vec<(String, i64)> {
    each(data, "resourceMetrics")
        .flat_map(|resource| each(resource, "scopeMetrics"))
        .flat_map(|scope| each(scope, "metrics"))
        .filter(|metric| metric["name"] == "php.observer.rung")
        .flat_map(|metric| each(&metric["gauge"], "dataPoints"))
        // Protobuf's JSON has numbers of 64 bits as text.
        .filter_map(|point| Some((text(point, "php.pool")?, point["asInt"].as_str()?.parse().ok()?)))
        .collect()
}
