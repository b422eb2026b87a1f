//! A worker that dies of a signal: what its slot says, how long it waits to be looked
//! at, and that it dies of the signal that it got.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use glasspool_abi::control::{CRASH_PATIENCE, Limits, PoolSpec, Severity};
use glasspool_abi::slot::Stage;
use rustix::process::{Signal, WaitOptions, WaitStatus, waitpid};

use crate::harness::{Engine, Setup, Worker, params, pool, send};

/// Far below [`CRASH_PATIENCE`], far above what dying takes.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Nested deeper than a stack of 8 MiB has room for.
const DEEP: &str =
    "ini_set('memory_limit', -1); $deep = []; for ($i = 0; $i < 200000; $i++) $deep = [$deep];";

const JIT: [(&str, &str); 2] = [("opcache.jit", "tracing"), ("opcache.jit_buffer_size", "32M")];

/// A pool that leaves no core in the tests' folder.
fn no_core() -> PoolSpec {
    PoolSpec {
        limits: Limits {
            core: Some(0),
            ..Limits::default()
        },
        ..pool()
    }
}

/// Starts a request and waits until its worker says that it crashes by that signal.
fn crash(engine: &mut Engine, php: &str, signal: Signal) -> Worker {
    let worker = engine.spawn();
    // Opcache would run another script of the same name again.
    let script = engine.script(&format!("{}.php", worker.pid), &format!("<?php {php}"));
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", false);
    until_crashed(&worker, signal);
    worker
}

fn until_crashed(worker: &Worker, signal: Signal) {
    worker.until(|slot| slot.crash().is_some());
    let crash = worker.slot.crash().expect("just seen");
    assert_eq!(crash.signal, signal.as_raw());
}

fn is_there(worker: &Worker) -> bool {
    let pid = rustix::process::Pid::from_raw(worker.pid).expect("a pid");
    waitpid(Some(pid), WaitOptions::NOHANG).expect("waits").is_none()
}

fn dies_of(status: WaitStatus, signal: Signal) {
    assert_eq!(status.terminating_signal(), Some(signal.as_raw()), "{status:?}");
}

/// Sends SIGCONT, or whatever else ends the wait, and gives the time until the end.
fn dies_at_once(worker: &Worker, by: Signal, signal: Signal) {
    assert!(is_there(worker), "it did not wait");
    let start = Instant::now();
    worker.signal(by);
    dies_of(worker.wait(), signal);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn a_stack_overflow_is_told_from_a_stack_of_its_own() {
    let mut setup = Setup::of(no_core());
    let jit = JIT.map(|(n, v)| (n.to_owned(), v.to_owned()));
    setup.start.define.extend(jit);
    let mut engine = Engine::set_up(setup);
    for php in [
        format!("{DEEP} serialize($deep);"),
        format!("{DEEP} (new Fiber(fn() => serialize($deep)))->start();"),
        "function f() { $a = [1, 2]; usort($a, 'f'); return 0; } f();".to_owned(),
    ] {
        let worker = crash(&mut engine, &php, Signal::SEGV);
        assert_eq!(worker.slot.stage(), Some(Stage::Executing));
        assert_eq!(worker.slot.in_progress().expect("it has not ended").number, 1);
        dies_at_once(&worker, Signal::CONT, Signal::SEGV);
    }
}

#[test]
fn each_deadly_signal_is_what_the_worker_dies_of() {
    let mut engine = Engine::start(no_core());
    for signal in [Signal::SEGV, Signal::BUS, Signal::ABORT, Signal::ILL, Signal::FPE] {
        let php = format!("posix_kill(getmypid(), {}); echo 'alive';", signal.as_raw());
        let worker = crash(&mut engine, &php, signal);
        dies_at_once(&worker, Signal::CONT, signal);
    }
}

#[test]
fn nobody_is_waited_for_longer_than_half_a_second() {
    let mut engine = Engine::start(no_core());
    for php in [
        "posix_kill(getmypid(), 11);",
        &format!("{DEEP} serialize($deep);"),
    ] {
        let start = Instant::now();
        let worker = crash(&mut engine, php, Signal::SEGV);
        let seen = Instant::now();
        dies_of(worker.wait(), Signal::SEGV);
        assert!(start.elapsed() >= CRASH_PATIENCE, "{:?}", start.elapsed());
        assert!(seen.elapsed() < 2 * CRASH_PATIENCE, "{:?}", seen.elapsed());
    }
}

#[test]
fn stopping_a_crashing_worker_gives_it_no_more_time() {
    let mut engine = Engine::start(no_core());
    let start = Instant::now();
    let worker = crash(&mut engine, "posix_kill(getmypid(), 11);", Signal::SEGV);
    // Signals that would end or disturb a healthy worker do nothing to this one.
    for signal in [Signal::QUIT, Signal::TERM, Signal::USR1, Signal::PROF] {
        worker.signal(signal);
    }
    dies_of(worker.wait(), Signal::SEGV);
    assert!(start.elapsed() >= CRASH_PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn another_deadly_signal_ends_the_wait() {
    let mut engine = Engine::start(no_core());
    let faulting = format!("{DEEP} serialize($deep);");
    for php in ["posix_kill(getmypid(), 11);", &faulting] {
        for second in [Signal::SEGV, Signal::ABORT] {
            let worker = crash(&mut engine, php, Signal::SEGV);
            dies_at_once(&worker, second, Signal::SEGV);
        }
    }
}

#[test]
fn a_worker_crashes_between_requests_too() {
    let mut engine = Engine::start(no_core());
    let worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    assert_eq!(engine.get(&script).body(), "ok");
    worker.until(|slot| slot.stage() == Some(Stage::Accepting));
    worker.signal(Signal::SEGV);
    until_crashed(&worker, Signal::SEGV);
    assert_eq!(worker.slot.in_progress(), None);
    dies_at_once(&worker, Signal::CONT, Signal::SEGV);
}

/// A worker that crashes in a loop of PHP code: the frame that its slot gives is the
/// one that PHP says. Returns the position and where the code of that frame is.
fn crash_in_a_loop(define: &[(&str, &str)]) -> (u64, std::ops::Range<u64>) {
    let mut setup = Setup::of(no_core());
    let define = define.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    setup.start.define.extend(define);
    let mut engine = Engine::set_up(setup);
    let mut worker = engine.spawn();
    let script = engine.script(
        "loop.php",
        "<?php function f($n) { while (true) { $n = $n ^ 5; } } f(1);",
    );
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", false);
    worker.until(|slot| slot.stage() == Some(Stage::Executing));
    let memory = std::fs::File::from(worker.memory.take().expect("was handed over"));
    let word = |address: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).expect("is mapped");
        u64::from_ne_bytes(bytes)
    };
    let frame_at = engine.build.executor_globals + u64::from(engine.build.layout.eg_current_execute_data);
    let caller = |frame: u64| word(frame + u64::from(engine.build.layout.ex_prev));
    // Until it is in the function: its frame has a caller, which is the script.
    worker.until(|_| word(frame_at) != 0 && caller(word(frame_at)) != 0);
    worker.signal(Signal::SEGV);
    until_crashed(&worker, Signal::SEGV);
    let [frame, position] = worker.slot.crash().expect("just seen").registers;
    assert_eq!(frame, word(frame_at));
    let function = word(frame + u64::from(engine.build.layout.ex_func));
    let code = word(function + u64::from(engine.build.layout.op_array_opcodes));
    dies_at_once(&worker, Signal::CONT, Signal::SEGV);
    (position, code..code + 32 * 100)
}

#[test]
fn the_registers_are_those_of_the_virtual_machine() {
    let (position, code) = crash_in_a_loop(&[]);
    assert!(code.contains(&position), "{position:#x} is not in {code:#x?}");
    // Compiled code keeps the frame in its register too, and the position nowhere.
    crash_in_a_loop(&JIT);
}

#[test]
fn what_an_extension_handles_is_left_to_it() {
    let mut setup = Setup::of(PoolSpec {
        log_level: Severity::Debug,
        ..no_core()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let (source, object) = (folder.path().join("own.c"), folder.path().join("own.so"));
    let handler = "#include <signal.h>\n#include <unistd.h>\nstatic void own(int s) { _exit(77); }\n\
                   __attribute__((constructor)) static void install(void) { signal(SIGBUS, own); }\n";
    std::fs::write(&source, handler).expect("writes");
    // It is no extension, but it stays although PHP refuses it.
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-z,nodelete", "-o"])
        .arg(&object)
        .arg(&source)
        .status();
    assert!(compiled.expect("a C compiler").success());
    let define = ("extension".to_owned(), object.display().to_string());
    setup.start.define.push(define);
    let mut engine = Engine::set_up(setup);
    let worker = engine.spawn();
    worker.signal(Signal::BUS);
    assert_eq!(worker.wait().exit_status(), Some(77));
    assert_eq!(worker.slot.crash(), None);
    let log = engine.log();
    let line = "[pool www] SIGBUS is handled by an extension: a crash by it will not be looked into";
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("handled by an extension"))
        .collect();
    assert!(lines.len() == 1 && lines[0].ends_with(line), "{log}");
    // The others are ours.
    let worker = engine.spawn();
    worker.signal(Signal::SEGV);
    until_crashed(&worker, Signal::SEGV);
    dies_at_once(&worker, Signal::CONT, Signal::SEGV);
}
