//! Stops: in order, bounded, and leaving nothing behind.

use std::time::{Duration, Instant};

use crate::harness::{exists, kill, start};
use rustix::process::Signal;

#[test]
fn sigterm_ends_workers_then_engine_then_observer() {
    let mut supervised = start(2, &[]);
    let workers = supervised.started(2);
    supervised.wait_for("ready to handle connections");
    let others = [supervised.children(None), supervised.children(Some("observer"))].concat();
    assert_eq!(others.len(), 2);
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    let order = [
        "Terminating ...",
        "exited on signal 15 (SIGTERM) after",
        "the engine (pid ",
        ": stops",
        "the observer (pid ",
        "exiting, bye-bye!",
    ];
    let ending = supervised.position("Terminating ...");
    let ending = &supervised.log[ending..];
    let mut rest = ending.iter();
    for text in order {
        assert!(
            rest.any(|line| line.contains(text)),
            "{text:?} is out of order in {ending:?}"
        );
    }
    assert!(!supervised.path("php.sock").exists() && !supervised.path("pid").exists());
    assert!(workers.into_iter().chain(others).all(|pid| !exists(pid)));
}

#[test]
fn sigquit_lets_workers_end_by_themselves() {
    let mut supervised = start(2, &[]);
    supervised.wait_for("speaks");
    supervised.wait_for("speaks");
    supervised.wait_for_all(&["ready to handle connections"]);
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    let finishing = supervised.position("Finishing ...");
    let ended = supervised.log[finishing..]
        .iter()
        .filter(|line| line.contains("exited with code 0 after"));
    assert!(ended.count() >= 2, "{:?}", supervised.log);
}

#[test]
fn a_reload_without_a_configuration_file_changes_nothing() {
    let mut supervised = start(1, &[]);
    supervised.wait_for_all(&["speaks", "ready to handle connections"]);
    for (signal, name) in [
        (Signal::USR1, "error log file re-opened"),
        (Signal::USR2, "reload failed: "),
        (Signal::HUP, "reload failed: "),
    ] {
        supervised.signal(signal);
        supervised.wait_for(name);
    }
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
}

#[test]
fn workers_that_ignore_sigterm_are_killed_after_a_second() {
    let mut supervised = start(1, &[("FAKE_WORKER", "stubborn")]);
    supervised.wait_for_all(&["speaks", "ready to handle connections"]);
    let asked = Instant::now();
    supervised.signal(Signal::INT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    supervised.position("exited on signal 9 (SIGKILL)");
    assert!(asked.elapsed() >= Duration::from_secs(1));
}

#[test]
fn engine_and_observer_do_not_outlive_a_killed_supervisor() {
    let mut supervised = start(1, &[]);
    supervised.wait_for("ready to handle connections");
    let workers = supervised.children(Some("worker"));
    supervised.signal(Signal::KILL);
    // Fake workers do not ask for a signal at their parent's death; they hold no end of
    // the log either, so its end is that of engine and observer.
    supervised.wait_for_end();
    workers.into_iter().for_each(|pid| kill(pid, Signal::KILL));
}
