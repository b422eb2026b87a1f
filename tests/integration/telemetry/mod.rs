//! Telemetry through the whole program, with PHP: what arrives of requests that hang and of
//! requests that are made to break it, and what it costs when whoever takes it breaks.

mod bad_requests;
mod collectors;
mod lines;
mod routes;
mod still_running;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::collector::Collector;
use crate::fastcgi::ask;
use crate::harness::{PATIENCE, Supervised, launch, skipped};

/// A pool with PHP, and a folder with its scripts.
struct Stand {
    supervised: Supervised,
}

/// What a stand is made of.
#[derive(Default)]
struct Plan<'a> {
    /// Name and text of each; `ROOT` stands for the folder.
    scripts: &'a [(&'a str, &'a str)],
    /// `glasspool.toml`, likewise.
    overlay: &'a str,
    /// Further lines for the pool.
    pool: &'a str,
}

impl Stand {
    /// Starts it with these variables, if PHP and an engine object for it are here; else
    /// that is noted.
    fn start(plan: &Plan<'_>, variables: &[(&str, String)]) -> Option<Stand> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).expect("sets");
        let root = at.display().to_string();
        let write = |name: &str, text: &str| {
            fs::write(at.join(name), text.replace("ROOT", &root)).expect("writes");
        };
        write(
            "fpm.conf",
            &format!(
                "[global]\nerror_log = ROOT/error.log\npid = ROOT/pid\n[www]\nlisten = ROOT/sock\n\
                 listen.mode = 0666\nuser = nobody\ngroup = nogroup\npm = static\npm.max_children = 2\n\
                 slowlog = ROOT/slow.log\n{}\n",
                plan.pool
            ),
        );
        write("glasspool.toml", plan.overlay);
        for (name, text) in plan.scripts {
            write(name, text);
        }
        let glasspool = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
            command.args(arguments).arg(at.join("fpm.conf"));
            command
        };
        let checked = glasspool(&["check", "-R", "-y"]).output().expect("starts");
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("telemetry with PHP: {}", why.trim()));
            return None;
        }
        let mut command = glasspool(&["-F", "-O", "-R", "-y"]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut supervised = launch(folder, command);
        supervised.wait_for("ready to handle connections");
        Some(Stand { supervised })
    }

    /// Asks for a script and returns what it printed.
    fn run(&self, script: &str) -> String {
        let path = self.supervised.path(script).display().to_string();
        let params = [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_FILENAME", path.as_str()),
            ("SCRIPT_NAME", "/script.php"),
            ("REQUEST_URI", "/script.php"),
        ];
        ask(&self.supervised.path("sock"), &params).expect("is answered")
    }

    /// Ends it in order, so that everything is sent; what it logged.
    fn finish(mut self) -> String {
        self.supervised.signal(Signal::TERM);
        assert!(self.supervised.wait_for_end().success());
        self.supervised.log.join("\n")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.supervised.path(name)).unwrap_or_default()
    }
}

/// Where to send everything, and not to wait with it.
fn to(collector: &Collector) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_METRICS_EXPORTER", "none".to_owned()),
    ]
}

/// Waits until it is so; what it is then.
fn until<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = is_so() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn is_server(span: &Value) -> bool {
    span["kind"] == "SPAN_KIND_SERVER"
}

/// A folder for the collector's file.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn collector(scratch: &tempfile::TempDir) -> Collector {
    Collector::start(Path::new(scratch.path()))
}
