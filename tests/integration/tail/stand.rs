//! A pool that writes lines, with a collector beside it and `glasspool tail` at hand.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::collector::{Collector, text};
use crate::fastcgi::ask;
use crate::harness::{PATIENCE, Supervised, launch, skipped};

const GLASSPOOL: &str = env!("CARGO_BIN_EXE_glasspool");

/// A running pool `www` whose telemetry goes to a collector.
pub(super) struct Stand {
    pub(super) collector: Collector,
    supervised: Supervised,
}

impl Stand {
    /// With further lines for the pool, and this `glasspool.toml`, in which `ROOT` stands for
    /// the folder. `None`, and noted, where there is no PHP for it.
    pub(super) fn start(pool: &str, toml: &str) -> Option<Stand> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
        configure(&folder, pool, toml);
        let program = |arguments: &[&str]| {
            let mut command = Command::new(GLASSPOOL);
            command.args(arguments).arg(folder.path().join("fpm.conf"));
            command
        };
        let checked = program(&["check", "-R", "-y"]).output().expect("starts");
        if !checked.status.success() {
            let reason = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("lines of workers: {}", reason.trim()));
            return None;
        }
        let collector = Collector::start(folder.path());
        let mut command = program(&["-F", "-R", "-y"]);
        command.envs([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint().as_str()),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ]);
        let stand = Stand {
            collector,
            supervised: launch(folder, command),
        };
        stand.wait_for("the start", || {
            stand.log().contains("ready to handle connections").then_some(())
        });
        Some(stand)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.supervised.path(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writes");
    }

    pub(super) fn log(&self) -> String {
        // Scripts write what they like.
        String::from_utf8_lossy(&fs::read(self.path("error.log")).unwrap_or_default()).into_owned()
    }

    /// Runs a script of the folder for a request of this path; what it answers.
    pub(super) fn run(&self, name: &str, uri: &str) -> String {
        run_in(&self.path(""), name, uri, &[]).unwrap_or_else(|e| panic!("{uri}: {e}\n{}", self.log()))
    }

    /// The first log record that is looked for, once it has come.
    pub(super) fn record(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(what, || {
            self.collector.records().into_iter().find(|record| is_it(record))
        })
    }

    /// The span of the request of that path.
    pub(super) fn span(&self, path: &str) -> Value {
        let is_it = |span: &Value| {
            text(span, "url.path") == Some(path) && span["name"] != "php.request.still_running"
        };
        self.wait_for(path, || {
            self.collector.spans().into_iter().find(|span| is_it(span))
        })
    }

    pub(super) fn wait_for<T>(&self, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(
                Instant::now() < end,
                "{what} never came; records: {:#?}\nlog:\n{}",
                self.collector.records().iter().map(body).collect::<Vec<_>>(),
                self.log()
            );
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// `glasspool tail` with these arguments, which follows.
    pub(super) fn tail(&self, arguments: &[&str]) -> Tail {
        let mut process = self
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = BufReader::new(process.stdout.take().expect("is piped"));
        let (tell, lines) = channel();
        thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.take_while(|line| tell.send(line.clone()).is_ok()).count()
        });
        Tail { process, lines }
    }

    /// What `glasspool tail --no-follow` prints, and whether it succeeds.
    pub(super) fn tail_once(&self, arguments: &[&str]) -> (String, String, bool) {
        let output = self
            .command(arguments)
            .arg("--no-follow")
            .output()
            .expect("starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            text(&output.stdout),
            text(&output.stderr),
            output.status.success(),
        )
    }

    /// What `glasspool check` has to say against such a configuration.
    pub(super) fn check(&self, pool: &str, toml: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        configure(&folder, pool, toml);
        let mut command = Command::new(GLASSPOOL);
        let checked = command
            .args(["check", "-R", "-y"])
            .arg(folder.path().join("fpm.conf"))
            .output();
        let checked = checked.expect("starts");
        assert!(!checked.status.success());
        String::from_utf8_lossy(&checked.stderr).into_owned()
    }

    pub(super) fn pid(&self) -> i32 {
        self.supervised.pid()
    }

    /// The process that looks after the workers.
    pub(super) fn observer(&self) -> i32 {
        self.wait_for("an observer", || {
            self.supervised.children(Some("observer")).first().copied()
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GLASSPOOL);
        command.arg("tail").arg(self.pid().to_string()).args(arguments);
        command
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.supervised.terminate();
    }
}

fn configure(folder: &TempDir, pool: &str, toml: &str) {
    let root = folder.path().display().to_string();
    let conf = "[global]\nerror_log = ROOT/error.log\n[www]\nlisten = ROOT/www.sock\nlisten.mode = 0666\nuser = nobody\n\
         group = nogroup\npm = static\npm.max_children = 1\n";
    let conf = format!("{conf}{pool}\n").replace("ROOT", &root);
    fs::write(folder.path().join("fpm.conf"), conf).expect("writes");
    fs::write(folder.path().join("glasspool.toml"), toml.replace("ROOT", &root)).expect("writes");
}

/// Runs a script of a stand's folder for a request of this path with these parameters too;
/// what it answers.
pub(super) fn run_in(folder: &Path, name: &str, uri: &str, more: &[(&str, &str)]) -> io::Result<String> {
    let script = folder.join(name);
    let params = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_FILENAME", script.to_str().expect("text")),
        ("SCRIPT_NAME", uri),
        ("REQUEST_URI", uri),
    ];
    ask(&folder.join("www.sock"), &[&params, more].concat())
}

/// A reader that follows.
pub(super) struct Tail {
    pub(super) process: Child,
    lines: Receiver<String>,
}

impl Tail {
    /// Reads on until a line contains the text.
    pub(super) fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let patience = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(patience) else {
                panic!("no {text:?} in {seen:#?}");
            };
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.process.kill().is_err();
        let _reaped = self.process.wait().is_err();
    }
}

/// The text of a log record.
pub(super) fn body(record: &Value) -> &str {
    record["body"]["stringValue"].as_str().unwrap_or_default()
}

/// Whether a record's text contains this.
pub(super) fn says(what: &str) -> impl Fn(&Value) -> bool {
    move |record| body(record).contains(what)
}

/// An id of a span or a record in hexadecimal digits: protobuf's JSON has bytes in base64.
pub(super) fn hex(id: &Value) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = id.as_str().unwrap_or_default().trim_end_matches('=');
    let digit = |byte: u8| DIGITS.iter().position(|known| *known == byte).expect("is base64");
    let bits = text
        .bytes()
        .fold(String::new(), |bits, byte| bits + &format!("{:06b}", digit(byte)));
    let bytes = bits.as_bytes().chunks_exact(8);
    let byte = |bits: &[u8]| bits.iter().fold(0u8, |byte, bit| byte << 1 | (bit - b'0'));
    bytes.fold(String::new(), |hex, bits| hex + &format!("{:02x}", byte(bits)))
}

/// A path as text.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
