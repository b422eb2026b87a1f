//! Telemetry to a file and to standard output, as lines of OTLP/JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::{Plan, Stand, until};
use crate::harness::skipped;

const HELLO: (&str, &str) = ("hello.php", "<?php echo 'hello';");
const TO_FILE: &str = "[otel]\nfile = \"ROOT/telemetry.jsonl\"\nmetrics = \"none\"\nflush = \"50ms\"\n";

/// The spans in a file, whose lines must all be whole.
fn spans(text: &str) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("is JSON"));
    let members = |value: Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    lines
        .flat_map(|request| members(request, "resourceSpans"))
        .flat_map(|resource| members(resource, "scopeSpans"))
        .flat_map(|scope| members(scope, "spans"))
        .collect()
}

#[test]
fn a_file_gets_every_span_and_is_opened_anew_when_it_was_moved_away() {
    let plan = Plan {
        scripts: &[HELLO],
        overlay: TO_FILE,
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &[]) else {
        return;
    };
    let path = stand.supervised.path("telemetry.jsonl");
    let moved = stand.supervised.path("telemetry.jsonl.1");
    assert_eq!(stand.run("hello.php"), "hello");
    until("a span in the file", || {
        (spans(&stand.read("telemetry.jsonl")).len() == 1).then_some(())
    });
    std::fs::rename(&path, &moved).expect("renames");
    stand.supervised.signal(Signal::USR1);
    until("the file is there again", || path.exists().then_some(()));
    for _ in 0..3 {
        assert_eq!(stand.run("hello.php"), "hello");
    }
    let (file, first) = (path.clone(), moved.clone());
    // Before the observer has the new one it writes to the old one, as with every log.
    let read = move |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    until("all spans in both files", || {
        let (old, new) = (spans(&read(&first)).len(), spans(&read(&file)).len());
        (old + new == 4).then_some(())
    });
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("exists").permissions());
    assert_eq!(mode & 0o777, 0o600, "paths and queries are not for everybody");
    let all = spans(&std::fs::read_to_string(&moved).expect("reads"));
    assert_eq!(all[0]["kind"], 2);
    assert_eq!(all[0]["traceId"].as_str().map(str::len), Some(32));
    let log = stand.finish();
    assert!(!log.contains("lost"), "{log}");
}

#[test]
fn a_full_disk_delays_nobody_and_each_span_is_counted() {
    // "write(2) fails with ENOSPC" (full(4)).
    let overlay = TO_FILE.replace("ROOT/telemetry.jsonl", "/dev/full");
    let plan = Plan {
        scripts: &[HELLO],
        overlay: &overlay,
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &[]) else {
        return;
    };
    for _ in 0..20 {
        assert_eq!(stand.run("hello.php"), "hello");
    }
    let log = stand.finish();
    assert!(log.contains("lost: 20 spans not delivered"), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
    let told = log.matches("telemetry was lost").count();
    assert!((1..=2).contains(&told), "told {told} times: {log}");
}

#[test]
fn a_file_that_cannot_be_opened_is_told_and_what_was_for_it_is_counted() {
    let overlay = TO_FILE.replace("ROOT/telemetry.jsonl", "ROOT/no-such-folder/file");
    let plan = Plan {
        scripts: &[HELLO],
        overlay: &overlay,
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &[]) else {
        return;
    };
    assert_eq!(stand.run("hello.php"), "hello");
    let log = stand.finish();
    assert_eq!(log.matches("cannot write telemetry to ").count(), 1, "{log}");
    assert!(log.contains("lost: 1 spans not delivered"), "{log}");
}

#[test]
fn standard_output_can_carry_lines() {
    let site = tempfile::tempdir().expect("a folder");
    std::fs::write(site.path().join("index.php"), "<?php echo 'hello';").expect("writes");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_glasspool"));
    serve
        .arg("serve")
        .arg(site.path())
        .args(["--listen", "127.0.0.1:0", "--workers", "1"])
        .env("OTEL_TRACES_EXPORTER", "otlp/stdout")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = serve.spawn().expect("starts");
    let mut lines = BufReader::new(process.stdout.take().expect("is piped")).lines();
    let Some(Ok(greeting)) = lines.next() else {
        let mut why = String::new();
        let stderr = process.stderr.as_mut().expect("is piped");
        stderr.read_to_string(&mut why).expect("reads");
        process.wait().expect("ends");
        return skipped(&format!("telemetry on standard output: {}", why.trim()));
    };
    let (_, address) = greeting.split_once("http://").expect("says where");
    let address = address.split(' ').next().expect("an address");
    let mut connection = TcpStream::connect(address).expect("connects");
    let request = format!("GET /page?q=1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("reads");
    assert!(answer.contains("hello"), "{answer}");
    let line = lines.next().expect("a line").expect("is text");
    let found = spans(&line);
    assert_eq!(
        (found.len(), found[0]["name"].as_str()),
        (1, Some("GET")),
        "{line}"
    );
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, Signal::TERM).expect("runs");
    assert!(process.wait().expect("ends").success());
}
