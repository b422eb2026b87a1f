//! Opcache as a fork of the engine asks it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use glasspool_abi::Pid;
use glasspool_abi::control::{Channel, EngineStart, FromEngine, OpcacheAnswer, OpcacheFigures, ToEngine};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use crate::harness::{Engine, Setup, engine_start, pool};

/// Asks, and waits until the process that asked has ended.
fn ask(engine: &Engine) -> OpcacheAnswer {
    let (ours, theirs) = Channel::pair().expect("a pair");
    let theirs = OwnedFd::from(theirs);
    engine
        .control
        .send(&ToEngine::AskOpcache, &[theirs.as_fd()])
        .expect("sends");
    drop(theirs);
    let FromEngine::OpcacheAsked { pid: Ok(Pid(pid)) } = engine.control.receive().expect("answers").0 else {
        panic!("no process")
    };
    let (answer, _) = ours.receive().expect("it answers");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    let ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), ends).expect("it is our child");
    // What it was when it ended.
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("reads");
    let is = |line: &str| status.lines().any(|found| found == line);
    assert!(is("CapPrm:\t0000000000000000"), "{status}");
    if rustix::process::geteuid().is_root() {
        assert!(
            is("Uid:\t65534\t65534\t65534\t65534") && is("Groups:\t "),
            "{status}"
        );
    }
    let (_, status) = waitpid(Some(pid), WaitOptions::empty())
        .expect("it is our child")
        .expect("it has ended");
    assert_eq!(status.exit_status(), Some(0));
    answer
}

fn told(engine: &Engine) -> OpcacheFigures {
    match ask(engine) {
        OpcacheAnswer::Told(figures) => figures,
        other => panic!("{other:?}"),
    }
}

fn engine(settings: &[(&str, &str)]) -> Engine {
    let mut start = engine_start();
    let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    start.define.extend(settings);
    Engine::set_up(Setup {
        start,
        ..Setup::of(pool())
    })
}

#[test]
fn what_workers_do_is_seen() {
    let mut engine = engine(&[
        ("opcache.memory_consumption", "64"),
        ("opcache.jit_buffer_size", "1M"),
        ("opcache.jit", "tracing"),
        // About what scripts may call.
        ("disable_functions", "opcache_get_status"),
    ]);
    let worker = engine.spawn();
    let before = told(&engine);
    assert_eq!((before.scripts, before.hits, before.full), (0, 0, false));
    let script = engine.script("a.php", "<?php echo 'a';");
    for _ in 0..4 {
        assert_eq!(engine.get(&script).body(), "a");
    }
    let after = told(&engine);
    assert_eq!((after.scripts, after.hits, after.misses), (1, 3, 1));
    assert!(after.keys >= 1 && after.key_limit > after.keys, "{after:?}");
    assert_eq!(after.memory.iter().sum::<u64>(), 64 << 20);
    assert!(after.memory[0] > before.memory[0]);
    assert!(after.strings[0] > 0 && after.strings[1] > 0, "{after:?}");
    assert!(after.jit.iter().sum::<u64>() > 0, "{after:?}");
    // The worker has noticed nothing, and the next ones neither.
    assert_eq!(engine.get(&script).body(), "a");
    assert_eq!(told(&engine).hits, 4);
    drop(worker);
}

#[test]
fn a_restart_that_is_due_is_left_to_workers() {
    let mut engine = engine(&[]);
    let _worker = engine.spawn();
    let reset = engine.script("reset.php", "<?php opcache_reset(); echo 'reset';");
    assert_eq!(engine.get(&reset).body(), "reset");
    for _ in 0..2 {
        assert_eq!(told(&engine).restarts, [0, 0, 0]);
    }
    let script = engine.script("a.php", "<?php echo 'a';");
    assert_eq!(engine.get(&script).body(), "a");
    assert_eq!(told(&engine).restarts, [0, 0, 1]);
}

#[test]
fn preloaded_scripts_are_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    let allowed = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), allowed).expect("chmod");
    let script = folder.path().join("preload.php");
    std::fs::write(&script, "<?php class Known {} function known() {}").expect("writes");
    let script = script.display().to_string();
    let preload = [
        ("opcache.preload", script.as_str()),
        ("opcache.preload_user", "nobody"),
    ];
    let mut engine = engine(&preload);
    let before = told(&engine);
    assert!(before.memory[0] > 0, "{before:?}");
    let _worker = engine.spawn();
    let script = engine.script("a.php", "<?php known(); echo Known::class;");
    assert_eq!(engine.get(&script).body(), "Known");
    assert_eq!(told(&engine).misses, before.misses + 1);
}

#[test]
fn what_is_off_or_restricted_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display().to_string();
    for (settings, expected) in [
        (vec![("opcache.enable", "0")], OpcacheAnswer::Off),
        (
            vec![
                ("opcache.file_cache", folder.as_str()),
                ("opcache.file_cache_only", "1"),
            ],
            OpcacheAnswer::Off,
        ),
        (vec![("opcache.restrict_api", "/srv")], OpcacheAnswer::Restricted),
    ] {
        let mut engine = engine(&settings);
        assert_eq!(ask(&engine), expected);
        // And again, and workers are none the wiser.
        let _worker = engine.spawn();
        let script = engine.script("a.php", "<?php echo 'a';");
        assert_eq!(engine.get(&script).body(), "a");
        assert_eq!(ask(&engine), expected);
    }
}

#[test]
fn a_php_without_opcache_has_nothing_to_say() {
    let mut engine = Engine::set_up(Setup {
        start: EngineStart {
            no_ini: true,
            define: Vec::new(),
            ..engine_start()
        },
        ..Setup::of(pool())
    });
    let _worker = engine.spawn();
    assert_eq!(ask(&engine), OpcacheAnswer::Off);
}

/// What one ask costs in processor time, for the documents: run it with
/// `--ignored --nocapture`.
#[test]
#[ignore = "it measures, and asserts nothing"]
fn opcache_cost() {
    const ASKS: u32 = 500;
    let mut engine = engine(&[]);
    let _worker = engine.spawn();
    let script = engine.script("a.php", "<?php echo 'a';");
    assert_eq!(engine.get(&script).body(), "a");
    // Fields 14 to 17 of proc_pid_stat(5), of the engine with what it has reaped and of the
    // processes that asked, which are ours.
    let ticks = |process: &str, fields: std::ops::Range<usize>| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("reads");
        let (_, rest) = stat.rsplit_once(") ").expect("has a name");
        let fields = rest.split(' ').skip(fields.start - 3).take(fields.len());
        fields.map(|field| field.parse::<u64>().expect("a number")).sum()
    };
    let process = engine.child.id().to_string();
    let all = || [ticks(&process, 14..18), ticks("self", 16..18)];
    let (before, since) = (all(), std::time::Instant::now());
    (0..ASKS).for_each(|_| assert!(told(&engine).scripts > 0));
    let (after, wall) = (all(), since.elapsed());
    for (who, (after, before)) in ["engine", "asker"].into_iter().zip(after.into_iter().zip(before)) {
        let us = (after - before) * 10_000 / u64::from(ASKS);
        println!("{who}: {us} us of processor time an ask");
    }
    println!("{:?} an ask", wall / ASKS);
}
