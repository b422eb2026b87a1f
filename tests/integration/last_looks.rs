//! Before a worker is killed in a request, the observer may look at it; and nobody waits
//! for an observer that does not.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::harness::{Supervised, fake_engine, launch};

const SERVING: &str = "ready to handle connections";
const TOO_LATE: &str = "the observer has not looked into worker";

fn start(config: &str, observer: &str) -> Supervised {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config"), config).expect("writes");
    let mut command = std::process::Command::new(fake_engine());
    command
        .arg("reloads")
        .arg(folder.path())
        .env("FAKE_OBSERVER", observer);
    launch(folder, command)
}

/// A client that keeps a worker busy until it is dropped.
fn connect(supervised: &Supervised) -> UnixStream {
    UnixStream::connect(supervised.path("www.sock")).expect("connects")
}

/// Lines with that text, in what was read so far.
fn count(supervised: &Supervised, text: &str) -> usize {
    supervised.log.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_timeout_kills_when_the_look_is_over() {
    let mut supervised = start("pool www 2 worker=report terminate=1", "");
    supervised.wait_for(SERVING);
    let _client = connect(&supervised);
    supervised.wait_for("exited on signal 15 (SIGTERM)");
    supervised.wait_for_all(&["last look for Timeout at worker"]);
    let looks: Vec<_> = supervised
        .log
        .iter()
        .filter(|line| line.contains("last look"))
        .collect();
    assert_eq!(looks.len(), 1, "{looks:?}");
    assert!(looks[0].ends_with("which lives"), "{looks:?}");
    assert_eq!(count(&supervised, TOO_LATE), 0);
    // php-fpm's line comes first, as ever.
    let told = supervised.position("sec), terminating");
    assert!(told < supervised.position("exited on signal 15"));
}

#[test]
fn an_observer_that_is_silent_is_waited_for_in_vain_but_not_for_long() {
    let mut supervised = start("pool www 1 worker=report terminate=1", "silent");
    supervised.wait_for(SERVING);
    let _client = connect(&supervised);
    supervised.wait_for(TOO_LATE);
    supervised.wait_for("exited on signal 15 (SIGTERM)");
    supervised.started(1);
    assert_eq!(count(&supervised, TOO_LATE), 1);
}

#[test]
fn without_an_observer_nobody_waits() {
    let mut supervised = start("pool www 1 worker=report terminate=1", "absent");
    supervised.wait_for(SERVING);
    let _client = connect(&supervised);
    supervised.wait_for("execution timed out (1.");
    supervised.wait_for("exited on signal 15 (SIGTERM)");
    assert_eq!(
        (count(&supervised, TOO_LATE), count(&supervised, "last look")),
        (0, 0)
    );
}

#[test]
fn a_drain_that_runs_out_of_time_looks_once_however_often_it_pushes() {
    let mut supervised = start("timeout 1\npool www 1 worker=deaf", "");
    supervised.wait_for(SERVING);
    // The second one waits in vain: then the only worker is busy.
    let _clients = [connect(&supervised), connect(&supervised)];
    supervised.wait_for("is saturated");
    let config = "timeout 1\npool www 1 worker=serve";
    std::fs::write(supervised.path("config"), config).expect("writes");
    supervised.signal(Signal::USR2);
    // QUIT and TERM are blocked.
    supervised.wait_for("exited on signal 9 (SIGKILL)");
    supervised.wait_for_all(&["last look for Drain at worker 1, which lives"]);
    assert_eq!(count(&supervised, "last look"), 1);
}

#[test]
fn a_stop_at_once_looks_at_those_who_serve() {
    let mut supervised = start("pool www 1 worker=report\npool other 2 worker=report", "");
    supervised.wait_for(SERVING);
    let _clients = [connect(&supervised), connect(&supervised)];
    supervised.wait_for("is saturated");
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    assert_eq!(count(&supervised, "last look for Stop"), 1);
    assert_eq!(
        count(&supervised, "last look"),
        1,
        "idle workers have nothing to show"
    );
    assert_eq!(count(&supervised, TOO_LATE), 0);
}

#[test]
fn a_worker_in_its_crash_handler_is_woken_when_it_was_looked_at() {
    let mut supervised = start("pool www 1 worker=report terminate=1", "wakes");
    supervised.wait_for(SERVING);
    let _client = connect(&supervised);
    supervised.wait_for("goes on");
    // That was no answer to the kill.
    supervised.wait_for(TOO_LATE);
    supervised.wait_for("exited on signal 15 (SIGTERM)");
}
