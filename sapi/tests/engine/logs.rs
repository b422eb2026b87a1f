//! The access log, what workers say on standard error, and who may connect at all.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::{AccessLog, PoolSpec, Severity, ToEngine};

use crate::harness::{Engine, Response, Setup, appending, params, pool, read_response, send, with};
use crate::stock::Stock;

fn logged(format: &str, suppress: &[&str]) -> PoolSpec {
    PoolSpec {
        access_log: Some(AccessLog {
            json: false,
            format: format.to_owned(),
            suppress: suppress.iter().map(|s| (*s).to_owned()).collect(),
        }),
        ..pool()
    }
}

fn stderr(response: &Response) -> String {
    String::from_utf8_lossy(&response.stderr).into_owned()
}

/// Every code whose value does not depend on the moment.
const STEADY: &str = "%%|%R|%u|%m|%r|%Q%q|%f|%l|%s|%n|%{X-A}o|%{x-a}o|%{Content-type}o|%{HTTP_HOST}e|%{NO}e";

#[test]
fn access_log_lines_are_those_of_php_fpm() {
    let mut engine = Engine::set_up(Setup::of(logged(STEADY, &[])));
    let _worker = engine.spawn();
    let access = format!(
        "access.log={}/stock-access.log\naccess.format=\"{STEADY}\"",
        engine.folder.path().display()
    );
    let stock = Stock::with(&engine, &access);
    let script = engine.script(
        "a.php",
        "<?php header('X-A: 1'); header('X-A:   2', false); http_response_code(202);
         register_shutdown_function(function () { http_response_code(500); });",
    );
    let plain = params(&script);
    let requests = [
        plain.clone(),
        with(plain.clone(), "QUERY_STRING", "a=b&c"),
        with(plain.clone(), "HTTP_AUTHORIZATION", "Basic dXNlcjpwYXNz"),
        with(plain.clone(), "CONTENT_LENGTH", "17"),
        with(plain.clone(), "SCRIPT_FILENAME", "/nowhere/x.php"),
        with(plain.clone(), "SCRIPT_FILENAME", "/etc/passwd"),
        with(plain.clone(), "SCRIPT_NAME", ""),
        plain
            .iter()
            .filter(|(n, _)| n != "REQUEST_METHOD")
            .cloned()
            .collect(),
        plain
            .iter()
            .filter(|(n, _)| n != "SCRIPT_FILENAME")
            .cloned()
            .collect(),
        params(&engine.script("fatal.php", "<?php nothing();")),
        params(&engine.script("early.php", "<?php echo 1; fastcgi_finish_request(); echo 2;")),
    ];
    for request in &requests {
        assert_eq!(
            engine.request(request, b"").ended,
            stock.request(request, b"").ended
        );
    }
    let log = engine.folder.path().join("stock-access.log");
    let theirs = || std::fs::read_to_string(&log).unwrap();
    // The last answers leave before their lines are written.
    let until = Instant::now() + Duration::from_secs(20);
    let all = |log: String| log.lines().count() >= requests.len();
    while !(all(theirs()) && all(engine.access_log())) && Instant::now() < until {
        std::thread::yield_now();
    }
    drop(stock);
    let theirs = theirs();
    assert_eq!(engine.access_log(), theirs);
    assert_eq!(theirs.lines().count(), requests.len());
}

#[test]
fn figures_of_the_access_log() {
    let format = "%{micro}d %{milli}d %d %{user}C %C %M %{kilo}M %{%s}t %T %p %P";
    let mut engine = Engine::set_up(Setup::of(logged(format, &[])));
    let worker = engine.spawn();
    let script = engine.script(
        "burn.php",
        "<?php $x = str_repeat('x', 20 << 20); $end = hrtime(true) + 30_000_000; while (hrtime(true) < $end);",
    );
    assert!(engine.get(&script).ended);
    let line = engine.access_log();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |index: usize| words[index].parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    assert!((30_000.0..5_000_000.0).contains(&number(0)), "{line}");
    assert!((number(1) - number(0) / 1_000.0).abs() < 0.01, "{line}");
    assert!((number(2) - number(0) / 1_000_000.0).abs() < 0.001, "{line}");
    assert!(number(3) > 10.0 && number(4) >= number(3), "{line}");
    assert!(
        number(5) >= f64::from(20 << 20) && number(6) == (number(5) / 1024.0).floor(),
        "{line}"
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!((now.unwrap().as_secs_f64() - number(7)).abs() < 60.0, "{line}");
    let shape: String = words[8..10].join(" ").replace(|c: char| c.is_ascii_digit(), "0");
    let (date, zone) = shape.split_at(21);
    assert!(
        date.starts_with("00/") && date.ends_with("/0000:00:00:00 "),
        "{line}"
    );
    assert!(matches!(zone, "+0000" | "-0000"), "{line}");
    assert_eq!(words[10], worker.pid.to_string());
    assert_eq!(words[11], std::process::id().to_string());
}

#[test]
fn a_line_that_is_too_long_is_cut_and_told_of() {
    let mut engine = Engine::set_up(Setup::of(logged("%{LONG}e", &[])));
    let _worker = engine.spawn();
    let script = engine.script("ok.php", "<?php");
    for (bytes, cut) in [(1023, false), (1024, true), (5000, true)] {
        let response = engine.request(&with(params(&script), "LONG", &"x".repeat(bytes)), b"");
        let told = "the log buffer is full (1024). The access log request has been truncated.";
        assert_eq!(stderr(&response), if cut { told } else { "" });
        let line = engine.access_log();
        assert_eq!(line.lines().last().map(str::len), Some(1023), "{bytes}");
        assert_eq!(
            engine.log().contains(&format!("NOTICE: {told}\n")),
            cut,
            "{}",
            engine.log()
        );
    }
}

#[test]
fn harmless_requests_may_be_left_out() {
    let mut engine = Engine::set_up(Setup::of(logged("%m %r%Q%q %s", &["/quiet.php"])));
    let _worker = engine.spawn();
    let quiet = params(&engine.script(
        "quiet.php",
        "<?php if (isset($_SERVER['FAIL'])) http_response_code(500);",
    ));
    engine.request(&quiet, b"");
    engine.request(&with(quiet.clone(), "REQUEST_METHOD", "HEAD"), b"");
    assert_eq!(engine.access_log(), "");
    engine.request(&with(quiet.clone(), "REQUEST_METHOD", "POST"), b"");
    engine.request(&with(quiet.clone(), "QUERY_STRING", "a"), b"");
    engine.request(&with(quiet.clone(), "CONTENT_LENGTH", "1"), b"x");
    engine.request(&with(quiet.clone(), "FAIL", "1"), b"");
    engine.get(&engine.script("loud.php", "<?php"));
    let expected = [
        "POST /quiet.php 200",
        "GET /quiet.php?a 200",
        "GET /quiet.php 200",
        "GET /quiet.php 500",
        "GET /loud.php 200",
    ];
    assert_eq!(engine.access_log().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_log_that_was_opened_anew_is_for_later_workers() {
    let mut engine = Engine::set_up(Setup::of(logged("%r", &[])));
    let first = engine.spawn();
    let script = engine.script("a.php", "<?php");
    engine.get(&script);
    let fresh = engine.folder.path().join("fresh.log");
    let reopened = ToEngine::AccessLog { pool: PoolId(0) };
    engine
        .control
        .send(&reopened, &[appending(&fresh).as_fd()])
        .unwrap();
    first.signal(rustix::process::Signal::QUIT);
    assert_eq!(first.wait().exit_status(), Some(0));
    let _second = engine.spawn();
    engine.get(&script);
    assert_eq!(engine.access_log(), "/a.php\n");
    assert_eq!(std::fs::read_to_string(fresh).unwrap(), "/a.php\n");
}

#[test]
fn a_pipe_that_nobody_reads_does_not_hold_the_worker() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut setup = Setup::of(logged("%{FILL}e", &[]));
    setup.access_log = Some(OwnedFd::from(writer));
    let mut engine = Engine::set_up(setup);
    let _worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    let request = with(params(&script), "FILL", &"x".repeat(1000));
    for _ in 0..8 {
        assert_eq!(engine.request(&request, b"").body(), "ok");
    }
    reader.read_exact(&mut [0; 1001]).unwrap();
    let response = engine.request(&request, b"");
    assert_eq!(
        stderr(&response),
        "the access log took nothing for a while: 7 lines were dropped"
    );
}

#[test]
fn messages_of_php_are_cut_at_the_limit() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let script = engine.script("log.php", "<?php error_log(str_repeat('e', (int)$_SERVER['N']));");
    let room = 1024 - "NOTICE: PHP message: \n".len();
    for n in [room, room + 1, 9000] {
        let response = engine.request(&with(params(&script), "N", &n.to_string()), b"");
        let message = if n > room {
            format!("PHP message: {}...", "e".repeat(room - 3))
        } else {
            format!("PHP message: {}", "e".repeat(n))
        };
        assert_eq!(stderr(&response), message);
        assert_eq!(engine.log().lines().last(), Some(&*format!("NOTICE: {message}")));
    }
}

#[test]
fn the_level_decides_about_standard_error_only() {
    for level in [Severity::Debug, Severity::Warning] {
        let mut engine = Engine::start(PoolSpec {
            log_level: level,
            ..pool()
        });
        let _worker = engine.spawn();
        let script = engine.script("log.php", "<?php error_log(\"a\\nb\"); error_log('c');");
        assert_eq!(stderr(&engine.get(&script)), "PHP message: a\nb; PHP message: c");
        let missing = params(&engine.folder.path().join("no.php"));
        assert_eq!(stderr(&engine.request(&missing, b"")), "Primary script unknown");
        let log = engine.log();
        match level {
            Severity::Debug => {
                let place = |line: &str| {
                    let (_, rest) = line.split_once("(), line ").expect("a place");
                    rest.split_once(": ").map(|(_, text)| text.to_owned())
                };
                let lines: Vec<&str> = log.lines().collect();
                assert!(lines[0].starts_with("NOTICE: "), "{log}");
                assert_eq!(place(lines[0]).as_deref(), Some("PHP message: a"));
                assert_eq!(lines[1], "b");
                assert!(lines[3].starts_with("DEBUG: run_script(), line "), "{log}");
                assert_eq!(place(lines[3]).as_deref(), Some("Primary script unknown"));
            }
            _ => assert_eq!(log, ""),
        }
    }
}

#[test]
fn the_end_of_a_requests_output_is_marked() {
    let mut engine = Engine::start(PoolSpec {
        catch_output: true,
        ..pool()
    });
    let worker = engine.spawn();
    let script = engine.script(
        "out.php",
        "<?php register_shutdown_function(function () { file_put_contents('php://stderr', 'shut'); });
         file_put_contents('php://stderr', 'open');",
    );
    assert!(engine.get(&script).ended);
    assert!(engine.get(&script).ended);
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait().exit_status(), Some(0));
    assert_eq!(engine.log(), "openshut\0fscf\0openshut\0fscf\0");
}

/// A pool on TCP and where to connect to it, by IPv4 and by IPv6.
fn on_tcp(list: Option<&str>, format: &str) -> (Engine, [(IpAddr, u16); 2]) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let mut setup = Setup::of(logged(format, &[]));
    setup.spec.allowed_clients = list.map(str::to_owned);
    setup.listener = Some(OwnedFd::from(listener));
    let hosts = ["127.0.0.1", "::1"].map(|host| (host.parse().expect("an address"), port));
    (Engine::set_up(setup), hosts)
}

/// The body of a script's answer, or nothing if the connection was closed without one.
fn ask(engine: &Engine, host: (IpAddr, u16)) -> String {
    let script = engine.script("ok.php", "<?php echo 'ok';");
    let mut stream = TcpStream::connect(host).expect("connects");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("sets");
    let mut bytes = Vec::new();
    send(&mut bytes, &params(&script), b"", false);
    // A peer that is turned away may find the connection reset.
    let _reset = stream.write_all(&bytes);
    read_response(&mut stream).body()
}

#[test]
fn only_allowed_clients_get_in() {
    for (list, expected) in [
        (None, ["ok", "ok"]),
        (Some("127.0.0.1"), ["ok", ""]),
        (Some("::1"), ["", "ok"]),
        // php-fpm compares 96 bits and lets ::1 in here.
        (Some("::2"), ["", ""]),
        (Some("xxx"), ["", ""]),
    ] {
        let (mut engine, hosts) = on_tcp(list, "%R %r");
        let _worker = engine.spawn();
        assert_eq!(hosts.map(|host| ask(&engine, host)), expected, "{list:?}");
        let log = engine.log();
        let mut lines = log.lines();
        if list == Some("xxx") {
            assert_eq!(
                lines.next(),
                Some("ERROR: Wrong IP address 'xxx' in listen.allowed_clients")
            );
            assert_eq!(lines.next(), Some("ERROR: There are no allowed addresses"));
        }
        let mut access = String::new();
        for ((host, _), expected) in hosts.iter().zip(expected) {
            if expected == "ok" {
                access += &format!("{host} /ok.php\n");
            } else {
                let line = format!("ERROR: Connection disallowed: IP address '{host}' has been dropped.");
                assert_eq!(lines.next(), Some(&*line));
            }
        }
        assert_eq!(lines.next(), None, "{log}");
        assert_eq!(engine.access_log(), access);
    }
}
