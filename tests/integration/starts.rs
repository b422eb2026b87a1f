//! What a start looks like, good or bad.

use std::os::unix::net::UnixListener;

use crate::harness::{PATIENCE, exists, start, start_unheard};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use tempfile::TempDir;

#[test]
fn a_start_says_so_and_leaves_its_pid() {
    let mut supervised = start(3, &[]);
    let workers = supervised.started(3);
    supervised.wait_for_all(&["ready to handle connections", "engine 8.2.0"]);
    for pid in workers {
        supervised.wait_for_all(&[&format!("worker {pid} with 2 descriptors")]);
    }
    let order = ["fpm is running, pid ", "] child ", "ready to handle connections"];
    let positions = order.map(|text| supervised.position(text));
    assert!(positions.is_sorted(), "{:?}", supervised.log);
    let order = [
        "starts with 2 descriptors",
        "pool www",
        "engine 8.2.0",
        "with 2 descriptors",
    ];
    order
        .iter()
        .for_each(|text| assert!(supervised.position(text) > 0));
    assert_eq!(supervised.children(Some("worker")).len(), 3);
    let pid = std::fs::read_to_string(supervised.path("pid")).expect("exists");
    assert!(exists(pid.parse().expect("only the number")));
    assert!(supervised.path("php.sock").exists());
}

#[test]
fn a_worker_may_be_ready_before_its_engine_says_that_it_exists() {
    let mut supervised = start(2, &[("FAKE_WORKER", "early")]);
    supervised.wait_for("ready to handle connections");
    assert_eq!(supervised.children(Some("worker")).len(), 2);
}

#[test]
fn bad_engines_end_the_start_with_a_reason_and_leave_nothing() {
    for (behaviour, code, reason) in [
        ("mute", 78, "before the engine object spoke"),
        ("old", 78, "of the control protocol, this program version"),
        ("no-php", 70, "did not start: there is none"),
    ] {
        let mut supervised = start(1, &[("FAKE_ENGINE", behaviour)]);
        let status = supervised.wait_for_end();
        assert_eq!(status.code(), Some(code), "{behaviour}: {:?}", supervised.log);
        let line = supervised.position(reason);
        assert_eq!(line, supervised.log.len() - 1, "{:?}", supervised.log);
        assert!(!supervised.path("php.sock").exists() && !supervised.path("pid").exists());
    }
}

#[test]
fn workers_that_cannot_start_are_tried_more_and_more_rarely() {
    let mut supervised = start(2, &[("FAKE_WORKER", "unable")]);
    for wait in ["100ms", "200ms", "400ms"] {
        supervised.wait_for(&format!("next attempt to start a worker in {wait}"));
    }
    supervised.position("ERROR: ");
    supervised.position("child failed to initialize: no such folder");
    supervised.position("ready to handle connections");
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
}

#[test]
fn what_workers_print_is_logged() {
    let mut supervised = start(1, &[]);
    let line = supervised.wait_for("said into stderr");
    let pid = supervised.children(Some("worker"))[0];
    let expected = format!("[pool www] child {pid} said into stderr: \"worker {pid} speaks\"");
    assert!(line.contains("WARNING: ") && line.ends_with(&expected), "{line}");
}

/// A place where a worker says that it has said everything, and the variables for that.
struct Told {
    listener: UnixListener,
    folder: TempDir,
}

impl Told {
    fn new() -> Told {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("told")).expect("binds");
        Told { listener, folder }
    }

    fn variables(&self, behaviour: &str) -> [(&str, String); 2] {
        let path = self.folder.path().join("told");
        [
            ("FAKE_WORKER", behaviour.to_owned()),
            ("FAKE_LISTENER", path.to_str().expect("text").to_owned()),
        ]
    }

    fn wait(&self) {
        let mut told = [PollFd::new(&self.listener, PollFlags::IN)];
        let patience = PATIENCE.try_into().expect("a short time");
        let count = rustix::event::poll(&mut told, Some(&patience)).expect("polls");
        assert_eq!(count, 1, "the worker hangs");
    }
}

#[test]
fn a_worker_that_says_more_than_anybody_reads_does_not_wait() {
    let told = Told::new();
    let variables = told.variables("chatty");
    let (mut supervised, hear) =
        start_unheard(&variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    told.wait();
    // The supervisor neither: it stops in order, and says what is missing.
    hear.send(()).expect("somebody reads");
    supervised.wait_for("line 0 of a worker that says a lot\"");
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    supervised.position("lines of this log were not taken and are lost");
}

#[test]
fn what_was_said_before_a_stop_is_logged_before_it() {
    let told = Told::new();
    let variables = told.variables("hasty");
    let mut supervised = start(
        1,
        &variables.each_ref().map(|(name, value)| (*name, value.as_str())),
    );
    supervised.wait_for("ready to handle connections");
    told.wait();
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    let last = supervised.position("line 299 of a worker that says a lot");
    assert!(last < supervised.position("Terminating ..."));
}
