//! Whatever dies is replaced, and nothing else is disturbed.

use crate::harness::{kill, number_after, start};
use rustix::process::Signal;

#[test]
fn a_killed_worker_is_replaced_and_the_observer_told() {
    let mut supervised = start(2, &[]);
    let workers = supervised.started(2);
    supervised.wait_for("ready to handle connections");
    kill(workers[0], Signal::KILL);
    let line = supervised.wait_for("exited on signal 9 (SIGKILL) after");
    assert!(
        line.contains("WARNING: ") && number_after(&line, "] child ") == workers[0],
        "{line}"
    );
    let line = supervised.wait_for(" started");
    assert!(line.contains("NOTICE: "), "{line}");
    let new = number_after(&line, "] child ");
    supervised.wait_for(&format!("worker {new} with 2 descriptors"));
    supervised.position("gone Killed { signal: 9");
    let mut left = supervised.children(Some("worker"));
    left.sort();
    let mut expected = vec![workers[1], new];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_killed_engine_is_replaced_and_its_workers_live_on() {
    let mut supervised = start(2, &[]);
    let workers = supervised.started(2);
    supervised.wait_for("ready to handle connections");
    let engine = supervised.children(None)[0];
    kill(engine, Signal::KILL);
    supervised.wait_for(&format!("the engine (pid {engine}) exited on signal 9 (SIGKILL)"));
    supervised.wait_for("engine 8.2.0");
    assert_eq!(supervised.children(Some("worker")).len(), 2);
    kill(workers[1], Signal::KILL);
    let new = supervised.started(1)[0];
    supervised.wait_for(&format!("worker {new} with 2 descriptors"));
    assert_ne!(supervised.children(None)[0], engine);
}

#[test]
fn a_killed_observer_is_replaced_and_told_everything_again() {
    let mut supervised = start(2, &[]);
    let workers = supervised.started(2);
    supervised.wait_for("ready to handle connections");
    let observer = supervised.children(Some("observer"))[0];
    kill(observer, Signal::KILL);
    let line = supervised.wait_for(&format!("the observer (pid {observer}) exited on signal 9"));
    assert!(
        line.contains("WARNING: ") && line.contains("serving goes on"),
        "{line}"
    );
    supervised.wait_for("starts with 2 descriptors");
    supervised.wait_for("pool www");
    supervised.wait_for("engine 8.2.0");
    let mut told: Vec<i32> = (0..2)
        .map(|_| number_after(&supervised.wait_for("with 2 descriptors"), ": worker "))
        .collect();
    told.sort();
    let mut expected = workers;
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_new_observer_hears_of_each_engine_before_that_engines_workers() {
    let mut supervised = start(2, &[]);
    let workers = supervised.started(2);
    supervised.wait_for("ready to handle connections");
    kill(supervised.children(None)[0], Signal::KILL);
    supervised.wait_for("starting a new engine");
    supervised.wait_for("engine 8.2.0");
    kill(workers[0], Signal::KILL);
    let new = supervised.started(1)[0];
    supervised.wait_for(&format!("worker {new} with 2 descriptors"));
    kill(supervised.children(Some("observer"))[0], Signal::KILL);
    let expected = [
        "engine 8.2.0".to_owned(),
        format!("worker {} ", workers[1]),
        "engine 8.2.0".to_owned(),
        format!("worker {new} "),
    ];
    supervised.wait_for("starts with 2 descriptors");
    expected.iter().for_each(|text| drop(supervised.wait_for(text)));
}
