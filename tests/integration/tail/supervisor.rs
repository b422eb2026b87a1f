//! What the supervisor logs, in `glasspool tail` and as a collector gets it.

use rustix::process::Signal;
use serde_json::Value;

use crate::collector::text;
use crate::harness::kill;

use super::stand::{Stand, says};

const POOL: &str = "catch_workers_output = yes";

/// All that is kept, of these filters.
fn kept(stand: &Stand, filters: &[&str]) -> Vec<Value> {
    let arguments = [&["--json", "-n", "1000"], filters].concat();
    let (shown, _, _) = stand.tail_once(&arguments);
    let entries = shown
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"));
    entries.collect()
}

fn message(entry: &Value) -> &str {
    entry["message"].as_str().unwrap_or_default()
}

/// Once there is one: the entry with this text of those that are kept.
fn wait_for(stand: &Stand, text: &str) -> Value {
    stand.wait_for(text, || {
        let entries = kept(stand, &[]);
        entries.into_iter().find(|entry| message(entry).contains(text))
    })
}

#[test]
fn what_the_supervisor_logs_is_shown_from_its_start_on() {
    let Some(stand) = Stand::start(POOL, "") else {
        return;
    };
    stand.write("pid.php", "<?php echo getmypid();");
    // Logged before there was an observer to tell.
    let running = wait_for(&stand, &format!("fpm is running, pid {}", stand.pid()));
    assert_eq!(
        (running["kind"].as_str(), running["severity"].as_str()),
        (Some("log"), Some("INFO"))
    );
    assert!(
        running.get("pool").is_none() && running.get("pid").is_none(),
        "{running}"
    );
    wait_for(&stand, "ready to handle connections");

    let live = stand.tail(&["--json"]);
    live.wait_for("ready to handle connections");
    let worker: i32 = stand.run("pid.php", "/pid").parse().expect("a pid");
    kill(worker, Signal::KILL);
    let exited = format!("child {worker} exited on signal 9");
    let entry: Value = serde_json::from_str(&live.wait_for(&exited)).expect("is JSON");
    assert_eq!(
        (entry["kind"].as_str(), entry["severity"].as_str()),
        (Some("log"), Some("WARN"))
    );
    assert_eq!((&entry["pool"], &entry["pid"]), (&"www".into(), &worker.into()));
    assert!(message(&entry).starts_with("child "), "{entry}");

    // The filters.
    let of_pool = kept(&stand, &["--pool", "www"]);
    assert!(of_pool.iter().any(|entry| message(entry).starts_with(&exited)));
    assert!(of_pool.iter().all(|entry| entry["pool"] == "www"));
    assert!(kept(&stand, &["--pool", "other"]).is_empty());
    let of_worker = kept(&stand, &["--worker", &worker.to_string()]);
    assert!(of_worker.iter().any(|entry| message(entry).starts_with(&exited)));
    for (filters, logged) in [
        (["--grep", "fpm is run+ing"], 1),
        (["--status", "2xx"], 0),
        (["--path", "*"], 0),
    ] {
        let found = kept(&stand, &filters);
        assert_eq!(
            found.iter().filter(|entry| entry["kind"] == "log").count(),
            logged,
            "{filters:?}"
        );
    }
    let (shown, _, _) = stand.tail_once(&["-n", "1000", "--grep", &exited]);
    assert!(
        shown.contains(&format!(" www {worker} WARN log: {exited}")),
        "{shown}"
    );

    // For a collector it is a log record of no request.
    let record = stand.record("the worker's end", says(&exited));
    assert_eq!(
        (text(&record, "php.pool"), record["severityText"].as_str()),
        (Some("www"), Some("WARN"))
    );
    assert!(record.get("traceId").is_none_or(|id| id == ""), "{record}");
}

#[test]
fn what_is_logged_while_there_is_no_observer_is_for_the_next() {
    let Some(stand) = Stand::start(POOL, "") else {
        return;
    };
    wait_for(&stand, "ready to handle connections");
    let observer = stand.observer();
    kill(observer, Signal::KILL);
    // Logged when it is gone, and its successor is not there yet.
    let gone = wait_for(
        &stand,
        &format!("the observer (pid {observer}) exited on signal 9"),
    );
    assert_eq!(gone["severity"], "WARN");
    assert_ne!(stand.observer(), observer);
    // A reload that replaces the observer: what is logged then is for its successor.
    stand.write("glasspool.toml", "[observer]\nhistory_bytes = 1000000\n");
    kill(stand.pid(), Signal::USR2);
    let ready = wait_for(&stand, "ready to handle connections");
    assert!(ready.get("dropped_lines").is_none(), "{ready}");
}
