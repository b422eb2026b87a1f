//! The table of known loads: what the programs say of each, against the scheduler's own
//! counters and against what the load is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use glasspool_waits::record::Kind;
use glasspool_waits::{Cause, Settings, Waits};
use rustix::fs::{FlockOperation, flock};

use crate::database::Database;
use crate::php::{Php, Turn, load, measure, skipped};

/// What a cause may differ by from the load, and from the scheduler's counters.
const PRECISION: Duration = Duration::from_micros(500);
/// What the parts may differ by from the whole.
const EXACT: Duration = Duration::from_micros(100);

/// The load that works inside of the kernel, out of which a busy machine wants to switch it
/// for milliseconds before it can: the scheduler does not read its clock again then
/// (`rq_clock_skip_update` in kernel/sched/core.c), and counts them as a wait for a CPU.
const KERNEL_WORK: &str = "fdatasync";

/// Measures a turn, and compares it with what the scheduler itself counted, which knows
/// no causes: of the worker's time, what is neither on a CPU nor waiting for one.
fn judge(name: &str, waits: &mut Waits, php: &mut Php) -> Turn {
    php.watch(waits, 1);
    let turn = measure(waits, php, 1);
    let times = &turn.times;
    let wall = Duration::from_nanos(times.at_ns - times.began_ns);
    let blocked = Cause::ALL.map(|cause| format!("{cause} {:.2}", ms(times.blocked(cause))));
    println!(
        "{name:<12} wall {:.2} = cpu {:.2} + runqueue {:.2} + {} | scheduler: cpu {:.2}, delay {:.2} | {} missed, {} odd",
        ms(wall),
        ms(times.on_cpu()),
        ms(times.runqueue()),
        blocked.join(", "),
        ms(turn.cpu),
        ms(turn.delay),
        waits.missed(),
        waits.odd(),
    );
    assert!(wall.abs_diff(times.total()) < EXACT, "{name}: {times:?}");
    // The scheduler leaves out of a task's time what interrupts and the hypervisor took.
    let runnable = times.on_cpu() + times.runqueue();
    assert!(runnable + PRECISION > turn.cpu + turn.delay, "{name}: {times:?}");
    let stolen = runnable.saturating_sub(turn.cpu + turn.delay);
    let off = wall.saturating_sub(turn.cpu + turn.delay + stolen);
    assert!(
        times.blocked_total().abs_diff(off) < PRECISION,
        "{name}: {times:?}"
    );
    if name != KERNEL_WORK {
        assert!(
            times.runqueue().abs_diff(turn.delay) < PRECISION,
            "{name}: {times:?}"
        );
    }
    assert_eq!(waits.odd(), 0, "{name}");
    assert_eq!(waits.lost(), 0, "{name}");
    assert!(!turn.waits.iter().any(|wait| wait.fault), "{name}");
    turn
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The wait of a turn that is of this cause and took longest: its stack ends in the script.
fn told<'a>(turn: &'a Turn, cause: Cause, builtin: &str) -> &'a glasspool_waits::Wait {
    let wait = turn.waits.iter().filter(|wait| wait.cause == cause);
    let wait = wait.max_by_key(|wait| wait.blocked);
    let wait = wait.unwrap_or_else(|| panic!("no {cause}: {:#?}", turn.waits));
    assert_eq!(wait.frames.first().unwrap().name(), builtin, "{wait:#?}");
    let main = wait.frames.last().unwrap();
    assert_eq!(
        (main.function.as_str(), main.line_exact),
        ("{main}", true),
        "{wait:#?}"
    );
    wait
}

/// The cause has the load's time, and no other has any to speak of. The script waits for
/// its next turn in a pipe.
fn only(turn: &Turn, cause: Cause, load: Duration) {
    let times = &turn.times;
    // It may be more: a server waits for a CPU, too.
    let time = times.blocked(cause);
    assert!(time + PRECISION > load, "{cause}: {times:?}");
    let rest = times.blocked_total() - time - times.blocked(Cause::Pipe);
    assert!(cause == Cause::Pipe || rest < PRECISION, "{times:?}");
}

#[test]
fn a_sleep_is_a_sleep() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start("function nap() { usleep(50000); }", "nap();");
    let turn = judge("usleep", &mut waits, &mut php);
    only(&turn, Cause::Sleep, Duration::from_millis(50));
    let wait = told(&turn, Cause::Sleep, "usleep");
    assert_eq!(wait.frames[1].function, "nap");
    assert_eq!(wait.frames[1].line, Some(2));
    assert_eq!(wait.place().1, wait.frames.get(1));
    assert!(wait.frames[1].file.as_ref().unwrap().ends_with("/main.php"));
}

/// Answers each request after `delay` and tells how long it held it.
fn serve_http(listener: TcpListener, delay: Duration) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            if length == 0 || buffer.starts_with(b"END") {
                return;
            }
            hold(delay);
            // The client may have gone.
            let _gone = stream
                .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .is_err();
        }
    })
}

/// Lets time pass: that is the load, and nobody waits for an event.
fn hold(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

fn http(address: &str, name: &str) {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let Ok(listener) = TcpListener::bind((address, 0)) else {
        skipped(&format!("there is no {address} here"));
        return;
    };
    let server = listener.local_addr().unwrap();
    let load = Duration::from_millis(200);
    let serving = serve_http(listener, load);
    let mut php = Php::start("", &format!("file_get_contents('http://{server}/slow');"));
    let turn = judge(name, &mut waits, &mut php);
    only(&turn, Cause::Network, load);
    let wait = told(&turn, Cause::Network, "file_get_contents");
    assert_eq!(wait.peer().unwrap().to_string(), server.to_string());
    let Kind::Socket {
        tcp: Some(tcp),
        protocol: 6,
        ..
    } = wait.descriptor.as_ref().unwrap().kind
    else {
        panic!("{wait:#?}");
    };
    assert_eq!((tcp.state, tcp.receive_queue), (1, 0));
    drop(php);
    std::net::TcpStream::connect(server)
        .unwrap()
        .write_all(b"END")
        .unwrap();
    serving.join().unwrap();
}

#[test]
fn an_http_server_is_the_network_and_named() {
    http("127.0.0.1", "http");
}

#[test]
fn so_is_one_of_ipv6() {
    http("::1", "http6");
}

#[test]
fn a_unix_socket_is_named_by_its_path_in_read_and_in_select() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let load = Duration::from_millis(40);
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length == 1) {
            hold(load);
            if stream.write_all(b"x").is_err() {
                return;
            }
        }
    });
    let setup = format!("$s = stream_socket_client('unix://{}');", path.display());
    let turn = "fwrite($s, 'a'); fread($s, 1);\n\
         fwrite($s, 'a'); $r = [$s]; $w = $e = null; stream_select($r, $w, $e, 5); fread($s, 1);";
    let mut php = Php::start(&setup, turn);
    let turn = judge("unix", &mut waits, &mut php);
    only(&turn, Cause::Network, load * 2);
    let peer = format!("unix:{}", path.display());
    let waits: Vec<_> = turn
        .waits
        .iter()
        .filter(|wait| wait.cause == Cause::Network)
        .collect();
    let names: Vec<_> = waits.iter().map(|wait| wait.frames[0].name()).collect();
    assert_eq!(names, ["fread", "stream_select"]);
    for wait in waits {
        assert_eq!(wait.peer().unwrap().to_string(), peer);
    }
    drop(php);
    serving.join().unwrap();
}

#[test]
fn a_datagram_is_named_by_where_it_goes() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap();
    let setup = format!("$s = fsockopen('udp://127.0.0.1', {});", server.port());
    let mut php = Php::start(&setup, "stream_set_timeout($s, 0, 30000); fread($s, 1);");
    let turn = judge("udp", &mut waits, &mut php);
    only(&turn, Cause::Network, Duration::from_millis(30));
    let wait = told(&turn, Cause::Network, "fread");
    assert_eq!(wait.peer().unwrap().to_string(), server.to_string());
}

#[test]
fn a_database_is_named_and_its_sleep_is_the_network() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let Some(database) = Database::start() else {
        return;
    };
    let load = Duration::from_millis(120);
    let by_tcp = format!(
        "$d = new PDO('mysql:host=127.0.0.1;port={}', 'root', '');",
        database.port
    );
    let by_socket = format!(
        "$d = mysqli_init(); $d->real_connect(null, 'root', '', '', 0, '{}');",
        database.socket().display()
    );
    let server: SocketAddr = ([127, 0, 0, 1], database.port).into();
    for (name, setup, builtin, peer) in [
        ("pdo", by_tcp, "PDO::query", server.to_string()),
        (
            "mysqli",
            by_socket,
            "mysqli::query",
            format!("unix:{}", database.socket().display()),
        ),
    ] {
        let mut php = Php::start(&setup, "$r = $d->query('SELECT SLEEP(0.12)'); $r = null;");
        let turn = judge(name, &mut waits, &mut php);
        only(&turn, Cause::Network, load);
        let wait = told(&turn, Cause::Network, builtin);
        assert_eq!(wait.peer().unwrap().to_string(), peer);
        waits
            .unregister(php.pidfd(), glasspool_waits::WorkerId(1))
            .unwrap();
    }
}

#[test]
fn a_file_lock_is_a_lock_with_the_name_of_the_file() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().file_name().unwrap().to_str().unwrap().to_owned();
    let held = Duration::from_millis(60);
    let setup = format!("$f = fopen('{}', 'r+');", file.path().display());
    // Its turn comes when it asks for it, and the lock some time later.
    let mut php = Php::start(
        &setup,
        "echo \"locking\\n\"; flock($f, LOCK_EX); flock($f, LOCK_UN);",
    );
    php.watch(&mut waits, 1);
    php.turn();
    flock(file.as_file(), FlockOperation::LockExclusive).unwrap();
    php.begin();
    php.until("locking\n");
    php.settle();
    let began = waits.going_on(php.pidfd()).unwrap();
    assert_eq!((began.cause, began.blocked), (Cause::Lock, None));
    assert_eq!(began.frames[0].name(), "flock");
    hold(held);
    flock(file.as_file(), FlockOperation::Unlock).unwrap();
    php.end();
    let mut ended = Vec::new();
    waits.drain(usize::MAX, |wait| ended.push(wait));
    let wait = ended.iter().find(|wait| wait.cause == Cause::Lock).unwrap();
    assert_eq!(wait.began_ns, began.began_ns);
    assert!(wait.blocked.unwrap() + PRECISION > held, "{wait:#?}");
    assert_eq!(
        (&wait.frames, &wait.descriptor),
        (&began.frames, &began.descriptor)
    );
    let Kind::File { name: told, .. } = &wait.descriptor.as_ref().unwrap().kind else {
        panic!("{wait:#?}");
    };
    assert_eq!(*told, name);
}

#[test]
fn a_futex_is_a_lock_with_its_address() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    // FUTEX_WAIT on a word that nobody wakes, for 40 ms.
    let setup = "$c = FFI::cdef('long syscall(long n, int *w, long op, long v, long long *t, int *w2, long v3);', 'libc.so.6');\n\
         $w = FFI::new('int'); $t = FFI::new('long long[2]'); $t[1] = 40000000;";
    let number = if cfg!(target_arch = "x86_64") { 202 } else { 98 };
    let turn = format!("$c->syscall({number}, FFI::addr($w), 0, 0, $t, null, 0);");
    let mut php = Php::start(setup, &turn);
    let turn = judge("futex", &mut waits, &mut php);
    only(&turn, Cause::Lock, Duration::from_millis(40));
    let wait = turn.waits.iter().find(|wait| wait.cause == Cause::Lock).unwrap();
    assert!(wait.futex.is_some() && wait.descriptor.is_none(), "{wait:#?}");
}

#[test]
fn a_child_that_writes_late_is_a_pipe() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start("", "shell_exec('exec sleep 0.03');");
    let turn = judge("shell_exec", &mut waits, &mut php);
    assert!(turn.times.blocked(Cause::Pipe) > Duration::from_millis(29));
    let wait = told(&turn, Cause::Pipe, "shell_exec");
    assert_eq!(wait.descriptor.as_ref().unwrap().kind, Kind::Pipe);
}

#[test]
fn what_is_written_through_to_the_disk_is_the_disk() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    // Beside the build, which is on a disk more often than /tmp is.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let setup = format!(
        "$f = fopen('{}', 'w'); $b = str_repeat('x', 4 << 20);",
        file.path().display()
    );
    let mut php = Php::start(
        &setup,
        "for ($i = 0; $i < 5; $i++) { fwrite($f, $b); fdatasync($f); }",
    );
    let turn = judge(KERNEL_WORK, &mut waits, &mut php);
    if turn.times.blocked(Cause::Disk) < Duration::from_millis(1) {
        skipped("writing 20 MB takes no time here: this is no disk");
        return;
    }
    let rest = turn.times.blocked_total() - turn.times.blocked(Cause::Disk) - turn.times.blocked(Cause::Pipe);
    assert!(rest < PRECISION, "{:?}", turn.times);
    if let Some(wait) = turn.waits.iter().find(|wait| wait.cause == Cause::Disk) {
        assert!(
            ["fdatasync", "fwrite"].contains(&&*wait.frames[0].function),
            "{wait:#?}"
        );
    }
}

/// 100 ms of the process's own CPU time.
const COMPUTE: &str = "\
function cpu() { $u = getrusage(); return $u['ru_utime.tv_sec'] * 1e6 + $u['ru_utime.tv_usec'] \
+ $u['ru_stime.tv_sec'] * 1e6 + $u['ru_stime.tv_usec']; }
function compute() { $until = cpu() + 100000; while (cpu() < $until); }";

#[test]
fn computing_is_no_wait() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start(COMPUTE, "compute();");
    let turn = judge("cpu", &mut waits, &mut php);
    assert!(
        turn.times.on_cpu() > Duration::from_millis(99),
        "{:?}",
        turn.times
    );
    let waited = turn.times.blocked_total() - turn.times.blocked(Cause::Pipe);
    assert!(waited < PRECISION, "{:?}", turn.times);
}

#[test]
fn waiting_for_a_busy_cpu_is_the_run_queue() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let cpus = thread::available_parallelism().unwrap().get();
    let burners: Vec<_> = (0..cpus * 2)
        .map(|_| Burner(Command::new("php").args(["-r", "while (true);"]).spawn().unwrap()))
        .collect();
    let mut php = Php::start(COMPUTE, "compute();");
    let turn = judge("cpu, loaded", &mut waits, &mut php);
    assert!(
        turn.times.on_cpu() > Duration::from_millis(99),
        "{:?}",
        turn.times
    );
    assert!(
        turn.times.runqueue() > Duration::from_millis(20),
        "{:?}",
        turn.times
    );
    drop(burners);
}

/// A process that computes until this is dropped.
struct Burner(std::process::Child);

impl Drop for Burner {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.0.kill().is_err();
        let _reaped = self.0.wait().is_err();
    }
}
