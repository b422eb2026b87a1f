//! The project's OTLP receiver, and what it was sent.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::PATIENCE;

/// The OTLP receiver of `tests/tools`, which writes what it gets to a file.
pub(crate) struct Collector {
    process: Child,
    output: PathBuf,
}

impl Collector {
    pub(crate) fn start(folder: &Path) -> Collector {
        Collector::start_through(&[], folder)
    }

    /// The same by `through`, a command that becomes the one that is given to it.
    pub(crate) fn start_through(through: &[&str], folder: &Path) -> Collector {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("GLASSPOOL_TEST_PYTHON")
            .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
        let output = folder.join("telemetry");
        let mut command = through.iter().map(OsStr::new).chain([python.as_os_str()]);
        let process = Command::new(command.next().expect("at least the last"))
            .args(command)
            .arg(root.join("tests/tools/otlp-sink"))
            .args(["0", "0"])
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("creates"))
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}: run `make deps` first", python.display()));
        Collector { process, output }
    }

    /// What has come so far; the first line says where to send it.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.output).expect("reads");
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).expect("is JSON"))
            .collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn endpoint(&self) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(ready) = self.lines().first() {
                return format!("http://127.0.0.1:{}", ready["ready"]["http"]);
            }
            assert!(Instant::now() < end, "no OTLP receiver: run `make deps` first");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// All log records that have come so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.lines();
        let logs = lines.iter().filter(|line| line["signal"] == "logs");
        logs.flat_map(|line| each(&line["data"], "resourceLogs"))
            .flat_map(|resource| each(resource, "scopeLogs"))
            .flat_map(|scope| each(scope, "logRecords"))
            .cloned()
            .collect()
    }

    /// All spans, once everything has been sent.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let lines = self.lines();
        let traces = lines.iter().filter(|line| line["signal"] == "traces");
        traces
            .flat_map(|line| each(&line["data"], "resourceSpans"))
            .flat_map(|resource| each(resource, "scopeSpans"))
            .flat_map(|scope| each(scope, "spans"))
            .cloned()
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.process.kill().is_err();
        let _reaped = self.process.wait().is_err();
    }
}

/// A list that may be left out when it is empty, as in protobuf's JSON.
pub(crate) fn each<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// An attribute of a span or an event that is text.
pub(crate) fn text<'a>(of: &'a Value, key: &str) -> Option<&'a str> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["stringValue"].as_str()
}
