//! What is left of requests that were killed, and what is said of a pool that is full:
//! with PHP, in scripts that hang in a socket of this test.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::collector::{Collector, each, text};
use crate::fastcgi::{ask, script};
use crate::harness::{PATIENCE, Supervised, launch, skipped};

/// A pool whose `hang.php` connects to this test and waits for an answer.
struct Stand {
    supervised: Supervised,
    collector: Collector,
    peer: TcpListener,
}

impl Stand {
    /// With these lines for `[global]` and the pool, if PHP and an engine object for it
    /// are here; else that is noted.
    fn start(workers: usize, global: &str, pool: &str) -> Option<Stand> {
        let peer = TcpListener::bind("127.0.0.1:0").expect("binds");
        peer.set_nonblocking(true).expect("sets");
        let port = peer.local_addr().expect("is bound").port();
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).expect("sets");
        let shown = at.display();
        let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("writes");
        write(
            "fpm.conf",
            &format!(
                "[global]\nerror_log = {shown}/error.log\npid = {shown}/pid\n{global}\n\
                 [www]\nlisten = {shown}/sock\nlisten.mode = 0666\nuser = nobody\n\
                 pm = static\npm.max_children = {workers}\n\
                 request_slowlog_timeout = 1s\nslowlog = {shown}/slow.log\n{pool}\n"
            ),
        );
        // There is a slow log, and nothing is slow.
        write("glasspool.toml", "[slow]\nafter = \"1m\"\n");
        write(
            "hang.php",
            &format!(
                "<?php\nclass Remote\n{{\n    function ask($socket) {{\n        fwrite($socket, 'hello');\n        \
                 return fread($socket, 1);\n    }}\n}}\n\
                 (new Remote)->ask(fsockopen('127.0.0.1', {port}));\n"
            ),
        );
        let glasspool = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
            command.args(arguments).arg(at.join("fpm.conf"));
            command
        };
        let checked = glasspool(&["check", "-R", "-y"]).output().expect("starts");
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("killed requests: {}", why.trim()));
            return None;
        }
        let collector = Collector::start(at);
        let mut command = glasspool(&["-F", "-O", "-R", "-y"]);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let mut supervised = launch(folder, command);
        supervised.wait_for("ready to handle connections");
        Some(Stand {
            supervised,
            collector,
            peer,
        })
    }

    /// Asks for the page, and returns when its script waits for our answer.
    fn hang(&self) -> (JoinHandle<std::io::Result<String>>, TcpStream) {
        let (socket, path) = (self.supervised.path("sock"), self.supervised.path("hang.php"));
        let asked = thread::spawn(move || ask(&socket, &script(path.to_str().expect("text"))));
        let end = Instant::now() + PATIENCE;
        let mut connection = loop {
            match self.peer.accept() {
                Ok((connection, _)) => break connection,
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::park_timeout(Duration::from_millis(2));
                }
                Err(e) => panic!("the script does not connect: {e}"),
            }
        };
        connection.set_nonblocking(false).expect("sets");
        let mut hello = [0; 5];
        connection.read_exact(&mut hello).expect("says hello");
        (asked, connection)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.supervised.path(name)).expect("reads")
    }

    /// What the slow log says once there is something: it is written after the kill, as a
    /// log that is a pipe may block its writer.
    fn slow_log(&self) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.read("slow.log");
            if !text.is_empty() {
                return text;
            }
            assert!(Instant::now() < end, "nothing is in the slow log");
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Whether slow log and span show where the request was when it was killed for this
    /// reason.
    fn shows_where_it_was(&mut self, reason: &str) {
        let slow_log = self.slow_log();
        let page = self.supervised.path("hang.php").display().to_string();
        let entries = slow_log.matches("script_filename").count();
        assert_eq!(entries, 1, "one look, not two: {slow_log}");
        for frame in [format!("fread() {page}:6"), format!("ask() {page}:9")] {
            assert!(slow_log.contains(&frame), "no {frame:?} in {slow_log}");
        }
        self.supervised.terminate();
        let spans = self.collector.spans();
        let killed: Vec<_> = spans
            .iter()
            .filter(|span| text(span, "error.type") == Some("SIGTERM"))
            .collect();
        let [span] = killed.as_slice() else {
            panic!("{spans:#?}")
        };
        let records = self.collector.records();
        let is_it = |told: &&Value| text(told, "php.termination.reason") == Some(reason);
        let event = each(span, "events").find(is_it);
        let record = records.iter().find(is_it);
        let stack = format!("#0 {page}(6): fread()\n#1 {page}(9): Remote->ask()\n#2 {{main}}");
        for (told, name) in [(event, "name"), (record, "eventName")] {
            let told = told.unwrap_or_else(|| panic!("none for {reason} in {span:#} and {records:#?}"));
            assert_eq!(told[name], "php.request.terminated");
            assert_eq!(text(told, "code.stacktrace"), Some(stack.as_str()), "{told:#}");
        }
    }
}

#[test]
fn a_request_that_is_killed_for_its_time_shows_where_it_was() {
    let Some(mut stand) = Stand::start(1, "", "request_terminate_timeout = 1s") else {
        return;
    };
    let (asked, _connection) = stand.hang();
    let told = stand.supervised.wait_for("execution timed out (1.");
    assert!(told.ends_with("sec), terminating"), "{told}");
    stand.supervised.wait_for("exited on signal 15 (SIGTERM)");
    assert!(asked.join().expect("ends").is_err(), "it was killed");
    stand.shows_where_it_was("request_terminate_timeout");
}

#[test]
fn a_request_that_outlives_the_patience_of_a_reload_shows_where_it_was() {
    let Some(mut stand) = Stand::start(1, "process_control_timeout = 1s\nlog_level = debug", "") else {
        return;
    };
    let (asked, _connection) = stand.hang();
    stand.supervised.signal(Signal::USR2);
    stand.supervised.wait_for("exited on signal 15 (SIGTERM)");
    assert!(asked.join().expect("ends").is_err(), "it was killed");
    stand.shows_where_it_was("process_control_timeout");
}

#[test]
fn a_full_pool_says_in_one_line_what_all_its_workers_do() {
    let Some(mut stand) = Stand::start(4, "", "") else {
        return;
    };
    let hanging: Vec<_> = (0..4).map(|_| stand.hang()).collect();
    let _waits = UnixStream::connect(stand.supervised.path("sock")).expect("connects");
    let line = stand.supervised.wait_for(" saturated: ");
    let page = stand.supervised.path("hang.php").display().to_string();
    let place = format!("WARNING: pool www saturated: 4/4 busy, 4 in fread {page}:6, waiting for ");
    assert!(line.contains(&place), "{line}");
    if rustix::process::geteuid().is_root() {
        let port = stand.peer.local_addr().expect("is bound").port();
        assert!(line.ends_with(&format!("tcp 127.0.0.1:{port}")), "{line}");
    }
    drop(hanging);
    stand.supervised.terminate();
    let lines = stand.read("error.log");
    let log = format!("{lines}\n{}", stand.supervised.log.join("\n"));
    assert_eq!(log.matches(" saturated: ").count(), 1, "{log}");
    let mut records = stand.collector.records();
    records.retain(|record| record["eventName"] == "php.pool.saturated");
    let [record] = records.as_slice() else {
        panic!("{records:#?}")
    };
    assert_eq!(text(record, "php.pool"), Some("www"));
    let said = record["body"]["stringValue"].as_str().expect("is text");
    assert!(line.ends_with(said), "{line} is not {said}");
    let stack = format!("#0 {page}(6): fread()\n#1 {page}(9): Remote->ask()\n#2 {{main}}");
    assert_eq!(
        text(record, "code.stacktrace"),
        Some(stack.as_str()),
        "{record:#}"
    );
}
