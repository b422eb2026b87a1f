//! Reloads: proven before anything changes, without a refused request, and leaving
//! nothing behind.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::Signal;

use crate::fastcgi;
use crate::harness::{PATIENCE, Supervised, exists, number_after, start_program};

const SERVING: &str = "ready to handle connections";

fn start(config: &str) -> Supervised {
    let mut supervised = start_program(|folder| {
        std::fs::write(folder.join("config"), config).expect("writes");
        vec!["reloads".to_owned(), folder.display().to_string()]
    });
    supervised.wait_for(SERVING);
    supervised
}

impl Supervised {
    fn configure(&self, config: &str) {
        std::fs::write(self.path("config"), config).expect("writes");
    }

    fn reload(&mut self, config: &str) {
        self.configure(config);
        self.signal(Signal::USR2);
        self.wait_for("Reloading in progress ...");
    }

    /// How often the text has been seen so far.
    fn count(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }

    fn workers(&self) -> Vec<i32> {
        self.children(Some("worker"))
    }

    fn engines(&self) -> Vec<i32> {
        self.children(None)
    }

    /// Waits for the ends of all children but so many workers and engines: one that was
    /// told to end may still be on its way.
    fn settle(&self, workers: usize, engines: usize) {
        let deadline = Instant::now() + PATIENCE;
        while (self.workers().len(), self.engines().len()) != (workers, engines) {
            let found = (self.workers(), self.engines());
            assert!(Instant::now() < deadline, "still there: {found:?}");
            std::thread::yield_now();
        }
    }

    fn descriptors(&self) -> usize {
        let pid = std::fs::read_to_string(self.path("pid")).expect("reads");
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("lists")
            .count()
    }
}

/// One request; what the worker says: its pool and its pid.
fn ask(socket: &Path) -> io::Result<String> {
    fastcgi::ask(socket, &[("REQUEST_METHOD", "GET")])
}

/// Asks again and again until it is stopped; every answer must come.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Load {
    /// Returns once the first request is answered.
    fn on(supervised: &Supervised, pool: &str) -> Load {
        let (begun, begins) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, socket) = (Arc::clone(&stop), supervised.path(&format!("{pool}.sock")));
        let thread = std::thread::spawn(move || {
            let mut answers = 0;
            while !stopped.load(Ordering::Relaxed) {
                ask(&socket).expect("is answered");
                answers += 1;
                // Only the first is waited for.
                begun.send(()).unwrap_or_default();
            }
            answers
        });
        begins.recv().expect("the first request is answered");
        Load { stop, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no request failed")
    }
}

#[test]
fn a_reload_replaces_engine_and_workers_and_keeps_socket_and_pid() {
    let mut supervised = start("pool www 2 worker=serve");
    let (workers, engines) = (supervised.workers(), supervised.engines());
    let load = Load::on(&supervised, "www");
    supervised.reload("pool www 3 worker=serve");
    let pid = std::fs::read_to_string(supervised.path("pid")).expect("reads");
    for text in [
        "reloading: execvp(",
        "using inherited socket fd=",
        &format!("fpm is running, pid {pid}"),
        SERVING,
    ] {
        supervised.wait_for(text);
    }
    for worker in &workers {
        supervised.wait_for_all(&[&format!("child {worker} exited with code 0")]);
    }
    supervised.wait_for_all(&[
        &format!("the engine (pid {}) exited with code 0", engines[0]),
        "pool 0 is gone",
    ]);
    assert!(load.end() > 0);
    assert_eq!((supervised.workers().len(), supervised.engines().len()), (3, 1));
    assert!(workers.iter().chain(&engines).all(|pid| !exists(*pid)));
    let answer = ask(&supervised.path("www.sock")).expect("is answered");
    assert!(supervised.workers().contains(&number_after(&answer, "www ")));
}

#[test]
fn whatever_is_wrong_with_a_new_generation_the_old_one_goes_on() {
    let mut supervised = start("pool www 2 worker=serve");
    let _busy = UnixListener::bind(supervised.path("busy.sock")).expect("binds");
    let (workers, engines) = (supervised.workers(), supervised.engines());
    let descriptors = supervised.descriptors();
    let load = Load::on(&supervised, "www");
    for (config, reason) in [
        (
            "refuse line 7 is wrong",
            "the configuration is refused: line 7 is wrong",
        ),
        (
            "pool www 2 worker=serve\npool two 1 listen=busy.sock",
            "Another FPM instance seems to already listen on",
        ),
        (
            "pool www 2 worker=serve listen=no/such/folder",
            "unable to bind listening socket",
        ),
        (
            "pool www 2 worker=serve access_log=no/such/folder",
            "failed to open access log",
        ),
        (
            "pool www 2 worker=serve engine=no-php",
            "did not start: there is none",
        ),
        (
            "pool www 2 worker=serve engine=die",
            "its process exited on signal 6 (SIGABRT",
        ),
        (
            "pool www 2 worker=serve\npool two 1 engine=die",
            "its process exited on signal 6",
        ),
        (
            "pool www 2 worker=unable",
            "[pool www] a worker that was tried with one request failed: no such folder",
        ),
        (
            "pool www 2 worker=crash",
            "[pool www] a worker that was tried with one request failed: it exited on signal 11 (SIGSEGV",
        ),
        (
            "pool www 2\npool two 1 worker=crash",
            "[pool two] a worker that was tried with one request failed",
        ),
    ] {
        supervised.reload(config);
        let line = supervised.wait_for("reload failed: ");
        assert!(line.contains(reason), "{reason:?} is not in {line:?}");
        assert!(line.contains("ERROR: ") && line.ends_with("the running configuration goes on serving"));
    }
    assert!(load.end() > 0);
    supervised.settle(workers.len(), engines.len());
    assert_eq!(
        (supervised.workers(), supervised.engines()),
        (workers, engines.clone())
    );
    assert!(!supervised.path("two.sock").exists());
    // What the failed generations had is gone, if not the moment they failed.
    supervised.reload("pool www 2 worker=serve");
    supervised.wait_for("pool 0 is gone");
    supervised.wait_for_all(&[&format!("the engine (pid {})", engines[0])]);
    assert!(
        supervised.descriptors() <= descriptors,
        "{} > {descriptors}",
        supervised.descriptors()
    );
}

#[test]
fn an_unknown_user_is_refused_and_the_old_generation_goes_on() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root looks for users");
        return;
    }
    let mut supervised = start("pool www 1 worker=serve");
    supervised.reload("pool www 1 worker=serve user=no-such-user");
    let line = supervised.wait_for("reload failed: ");
    assert!(line.contains("cannot get uid for user 'no-such-user'"), "{line}");
    ask(&supervised.path("www.sock")).expect("is answered");
}

/// Begins a request that is answered when the gate is closed; returns both once a worker
/// has it.
fn begin_request(supervised: &Supervised) -> (JoinHandle<io::Result<String>>, UnixStream) {
    let (socket, path) = (supervised.path("www.sock"), supervised.path("gate"));
    let gate = UnixListener::bind(&path).expect("binds");
    let request = std::thread::spawn(move || {
        let path = path.to_str().expect("text");
        fastcgi::ask(&socket, &[("REQUEST_METHOD", "GET"), ("UNTIL", path)])
    });
    let (gate, _) = gate.accept().expect("the worker comes");
    (request, gate)
}

#[test]
fn requests_under_way_end_in_the_old_generation() {
    let mut supervised = start("pool www 1 worker=serve");
    let old = supervised.workers()[0];
    let (request, gate) = begin_request(&supervised);
    supervised.reload("pool www 1 worker=serve");
    supervised.wait_for(SERVING);
    let answer = ask(&supervised.path("www.sock")).expect("is answered");
    assert_ne!(number_after(&answer, "www "), old);
    drop(gate);
    let answer = request.join().expect("ends").expect("is answered");
    assert_eq!(number_after(&answer, "www "), old);
    supervised.wait_for("pool 0 is gone");
}

#[test]
fn old_workers_that_take_their_time_are_pushed_where_that_is_configured() {
    let mut supervised = start("timeout 1\npool www 1 worker=serve");
    let old = supervised.workers()[0];
    let (request, _gate) = begin_request(&supervised);
    supervised.reload("pool www 1 worker=serve");
    supervised.wait_for(&format!("sending signal 3 SIGQUIT to child {old}"));
    supervised.wait_for(SERVING);
    supervised.wait_for(&format!("sending signal 15 SIGTERM to child {old}"));
    supervised.wait_for(&format!("child {old} exited on signal 15"));
    assert!(request.join().expect("ends").is_err());
    ask(&supervised.path("www.sock")).expect("is answered");
}

#[test]
fn signals_in_a_row_neither_kill_nor_wedge() {
    let mut supervised = start("pool www 2 worker=serve");
    let load = Load::on(&supervised, "www");
    for _ in 0..50 {
        supervised.signal(Signal::USR2);
        supervised.signal(Signal::HUP);
        std::thread::yield_now();
    }
    assert!(load.end() > 0);
    supervised.configure("pool www 1 worker=serve\npool last 1 worker=serve");
    supervised.signal(Signal::USR2);
    while !supervised.path("last.sock").exists() {
        supervised.wait_for(SERVING);
    }
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    assert!(
        supervised.count("Reloading in progress ...") <= supervised.count(SERVING),
        "each ends before the next"
    );
    assert_eq!(supervised.count("reload failed"), 0);
}

#[test]
fn a_stop_during_a_reload_is_a_stop() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let mut supervised = start("pool www 2 worker=serve");
        supervised.reload("pool www 2 worker=serve\npool two 1 worker=serve");
        supervised.signal(signal);
        assert_eq!(supervised.wait_for_end().code(), Some(0));
        assert!(
            supervised
                .log
                .last()
                .is_some_and(|line| line.ends_with("exiting, bye-bye!"))
        );
        assert!(!supervised.path("www.sock").exists() && !supervised.path("two.sock").exists());
        assert!(!supervised.path("pid").exists());
    }
}

#[test]
fn two_hundred_reloads_leave_nothing_behind() {
    // With one engine and with two.
    let configs = [
        "pool www 1 worker=serve",
        "pool www 2 worker=serve\npool two 1 worker=serve engine=own",
    ];
    let mut supervised = start(configs[0]);
    let load = Load::on(&supervised, "www");
    let (mut settled, mut ended) = (Vec::new(), 0);
    for number in 1..=200 {
        supervised.reload(configs[number % 2]);
        supervised.wait_for(SERVING);
        ended += 2 - number % 2;
        while supervised.count("the engine (pid ") < ended {
            supervised.wait_for("the engine (pid ");
        }
        if number % 2 == 0 {
            supervised.settle(1, 1);
            settled.push(supervised.descriptors());
        }
    }
    assert!(load.end() > 0);
    assert!(!supervised.path("two.sock").exists());
    let (early, late) = (settled[4], *settled.last().expect("many"));
    assert!(late <= early + 2, "descriptors grow: {settled:?}");
}

#[test]
fn workers_that_crash_have_their_engine_replaced_and_no_other() {
    let mut supervised = start("emergency 3\npool www 2 worker=serve\npool two 1 worker=serve engine=own");
    let answer = ask(&supervised.path("two.sock")).expect("is answered");
    let other = number_after(&answer, "two ");
    let engines = supervised.engines();
    for _ in 0..3 {
        let crash = fastcgi::ask(&supervised.path("www.sock"), &[("REQUEST_METHOD", "CRASH")]);
        crash.expect_err("its worker dies");
        supervised.wait_for("exited on signal 11 (SIGSEGV");
    }
    supervised.wait_for("failed processes threshold (3 in 60 sec) is reached, initiating reload");
    supervised.wait_for("the engine of www was replaced");
    supervised.wait_for("the engine (pid ");
    let answer = ask(&supervised.path("two.sock")).expect("is answered");
    assert_eq!(number_after(&answer, "two "), other);
    ask(&supervised.path("www.sock")).expect("is answered");
    let kept = supervised
        .engines()
        .into_iter()
        .filter(|pid| engines.contains(pid));
    assert_eq!(kept.count(), 1);
}

#[test]
fn an_observer_with_other_settings_takes_over_from_the_one_before() {
    let mut supervised = start("pool www 2 worker=serve");
    let before = supervised.children(Some("observer"));
    supervised.reload("pool www 2 worker=serve");
    supervised.wait_for("pool 0 is gone");
    assert_eq!(supervised.children(Some("observer")), before);
    supervised.reload("service shop\npool www 2 worker=serve");
    supervised.wait_for(&format!("observer {}: stops", before[0]));
    supervised.wait_for("starts with 2 descriptors");
    let after = supervised.children(Some("observer"));
    assert_ne!(after, before);
    for worker in supervised.workers() {
        supervised.wait_for_all(&[&format!("observer {}: worker {worker} with 2", after[0])]);
    }
    let complaints = ["starting it again", "serving goes on"];
    assert!(complaints.iter().all(|text| supervised.count(text) == 0));
}

#[test]
fn logs_are_opened_anew_and_only_their_workers_replaced() {
    let mut supervised = start("pool www 2 worker=serve access_log=access.log\npool two 1 worker=serve");
    let answer = ask(&supervised.path("two.sock")).expect("is answered");
    let other = number_after(&answer, "two ");
    let workers = supervised.workers();
    let log = supervised.path("access.log");
    std::fs::rename(&log, supervised.path("access.log.1")).expect("moves");
    supervised.signal(Signal::USR1);
    supervised.wait_for("error log file re-opened");
    supervised.wait_for("access log file re-opened");
    for worker in workers.iter().filter(|pid| **pid != other) {
        supervised.wait_for_all(&[&format!("child {worker} exited with code 0")]);
    }
    assert!(log.exists());
    let answer = ask(&supervised.path("two.sock")).expect("is answered");
    assert_eq!(number_after(&answer, "two "), other);
}

#[test]
fn the_control_socket_tells_how_a_reload_went() {
    let supervised = start("pool www 1 worker=serve");
    let pid = std::fs::read_to_string(supervised.path("pid")).expect("reads");
    assert_eq!(control(&pid, "status").len(), 1);
    let told = control(&pid, "reload");
    assert_eq!(told.last().map(String::as_str), Some("ok"), "{told:?}");
    assert!(told.len() > 2, "{told:?}");
    supervised.configure("refuse line 7 is wrong");
    let told = control(&pid, "reload");
    let expected = "failed: the configuration is refused: line 7 is wrong";
    assert_eq!(told.last().map(String::as_str), Some(expected));
    supervised.configure("pool www 1 worker=crash");
    let told = control(&pid, "reload");
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("failed: [pool www] ")),
        "{told:?}"
    );
}

/// Sends a request to the control socket and returns all that is answered.
fn control(pid: &str, request: &str) -> Vec<String> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let name = format!("glasspool-ctl-{pid}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("short");
    rustix::net::connect(&socket, &address).expect("connects");
    rustix::net::send(&socket, request.as_bytes(), SendFlags::empty()).expect("sends");
    let mut answers = Vec::new();
    loop {
        let mut packet = [0; 4096];
        match rustix::net::recv(&socket, &mut packet, RecvFlags::empty()).expect("receives") {
            (0, _) => return answers,
            (count, _) => answers.push(String::from_utf8_lossy(&packet[..count]).into_owned()),
        }
    }
}
