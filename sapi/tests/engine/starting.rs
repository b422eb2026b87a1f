//! Signals at a worker that has been forked and does not serve yet: the supervisor may
//! send them as soon as it knows the pid.

use std::fs::File;
use std::path::PathBuf;

use glasspool_abi::control::PoolSpec;
use rustix::fs::{CWD, Mode};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use crate::harness::{Engine, Worker, params, pool, read_response, send};

/// Keeps workers in their start, before they install a handler: they wait for somebody to
/// write what their time zone is.
struct Gate {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Gate {
    fn new() -> Gate {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("zone");
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("a FIFO");
        Gate {
            path,
            _folder: folder,
        }
    }

    fn before(&self, spec: PoolSpec) -> PoolSpec {
        PoolSpec {
            env: vec![("TZ".to_owned(), self.path.display().to_string())],
            ..spec
        }
    }

    /// Waits until a worker is there and lets it pass.
    fn open(&self) {
        File::options().write(true).open(&self.path).expect("opens");
    }
}

fn quit(pid: Pid) {
    kill_process(pid, Signal::QUIT).expect("signals");
}

/// How the worker ended; one that goes on serving is a failure.
fn end(worker: &Worker) -> WaitStatus {
    let pid = Pid::from_raw(worker.pid).expect("a pid");
    let status = std::cell::Cell::new(None);
    worker.until(|_| {
        status.set(waitpid(Some(pid), WaitOptions::NOHANG).expect("waits"));
        status.get().is_some()
    });
    status.get().expect("just seen").1
}

#[test]
fn a_quit_that_comes_before_the_handler_is_not_lost() {
    let gate = Gate::new();
    let mut engine = Engine::start(gate.before(pool()));
    let (worker, failure) = engine.try_spawn_then(|pid| {
        quit(pid);
        gate.open();
    });
    assert_eq!(failure, None);
    assert_eq!(end(&worker).exit_status(), Some(0));
}

#[test]
fn a_quit_at_any_moment_of_the_start_ends_the_worker() {
    let mut engine = Engine::start(pool());
    for _ in 0..100 {
        let (worker, failure) = engine.try_spawn_then(quit);
        assert_eq!(failure, None);
        assert_eq!(end(&worker).exit_status(), Some(0));
    }
}

#[test]
fn a_worker_that_cannot_start_says_so_although_a_quit_came() {
    let gate = Gate::new();
    let mut engine = Engine::start(gate.before(PoolSpec {
        chdir: Some("/nowhere/at/all".to_owned()),
        ..pool()
    }));
    let (worker, failure) = engine.try_spawn_then(|pid| {
        quit(pid);
        gate.open();
    });
    let reason = failure.expect("it cannot");
    assert!(reason.starts_with("failed to chdir(/nowhere/at/all)"), "{reason}");
    assert_eq!(end(&worker).exit_status(), Some(70));
}

/// Signals that are held back in a process: a line of `/proc/PID/status`.
fn held_back(pid: impl std::fmt::Display) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let line = status.lines().find(|line| line.starts_with("SigBlk:"));
    line.expect("proc(5)").to_owned()
}

#[test]
fn nobody_is_left_with_signals_held_back() {
    let none = "SigBlk:\t0000000000000000";
    let mut engine = Engine::start(pool());
    let script = engine.script(
        "mask.php",
        "<?php echo trim(shell_exec('grep SigBlk: /proc/self/status'));",
    );
    let worker = engine.spawn();
    assert_eq!(held_back(engine.child.id()), none);
    assert_eq!(held_back(worker.pid), none);
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", false);
    assert_eq!(read_response(&mut stream).body(), none);
}
