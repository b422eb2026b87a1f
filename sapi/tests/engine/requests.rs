//! Requests through the hosted engine: what the slot tells of them, and that nothing a
//! script or a client does harms the worker.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use glasspool_abi::record::{ABORTED, End, FATAL, FINISHED_EARLY, INCIDENT, Text};
use glasspool_abi::slot::Stage;
use glasspool_fastcgi::client::{self, RequestEncoder, ResponseReader};

use crate::harness::{Engine, Worker, half_close, params, pool, read_response, send, with};

fn text(record: &End, text: Text) -> String {
    record.begin.texts.text(text).unwrap_or_default().into_owned()
}

#[test]
fn hello() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script(
        "hello.php",
        "<?php echo 'hello ', php_sapi_name(), ' ', getmypid();",
    );
    let request = with(params(&script), "QUERY_STRING", "a=1");
    let response = engine.request(&with(request, "REQUEST_URI", "/hello.php?a=1"), b"");
    assert_eq!(
        response.body(),
        format!("hello fpm-fcgi {}", worker.pid),
        "{}",
        engine.log()
    );
    assert!(response.ended);
    let record = &worker.records(1)[0];
    assert_eq!((record.status, record.flags, record.begin.number), (200, 0, 1));
    assert_eq!(record.bytes_out, response.body().len() as u64);
    assert!(record.memory_peak > 100_000, "{}", record.memory_peak);
    assert!(record.cpu_user_ns + record.cpu_system_ns > 0);
    assert!(record.end_mono_ns >= record.responded_mono_ns);
    assert!(record.responded_mono_ns > record.begin.start_mono_ns);
    let of = |t| text(record, t);
    assert_eq!(
        (of(Text::Method), of(Text::Path), of(Text::Query)),
        ("GET".into(), "/hello.php".into(), "a=1".into())
    );
    assert_eq!(of(Text::Script), script.display().to_string());
    assert_eq!(
        (of(Text::Scheme), of(Text::Host)),
        ("http".into(), "localhost".into())
    );
}

#[test]
fn php_sees_our_span_as_parent() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script(
        "t.php",
        "<?php echo $_SERVER['HTTP_TRACEPARENT'], '|', $_SERVER['HTTP_TRACESTATE'] ?? '-';",
    );
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = with(
        with(params(&script), "HTTP_TRACEPARENT", given),
        "HTTP_TRACESTATE",
        "a=b",
    );
    let body = engine.request(&request, b"").body();
    let record = &worker.records(1)[0].begin;
    assert_eq!(record.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(
        record.parent.map(|p| p.to_string()).as_deref(),
        Some("b7ad6b7169203331")
    );
    assert_eq!(body, format!("00-{}-{}-01|a=b", record.trace_id, record.span_id));
    let body = engine
        .request(&with(request, "HTTP_TRACEPARENT", "00-nonsense"), b"")
        .body();
    let record = &worker.records(1)[0].begin;
    assert_eq!(record.parent, None);
    assert_eq!(body, format!("00-{}-{}-03|-", record.trace_id, record.span_id));
}

#[test]
fn without_tracing_the_callers_context_passes_through() {
    let mut engine = Engine::start(glasspool_abi::control::PoolSpec {
        tracing: false,
        ..pool()
    });
    let _worker = engine.spawn();
    let script = engine.script("t.php", "<?php echo $_SERVER['HTTP_TRACEPARENT'] ?? '-';");
    assert_eq!(engine.get(&script).body(), "-");
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = with(params(&script), "HTTP_TRACEPARENT", given);
    assert_eq!(engine.request(&request, b"").body(), given);
}

#[test]
fn bailouts_leave_the_worker_healthy() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let scripts = [
        ("exit.php", "<?php exit(3);", 200, 0),
        ("fatal.php", "<?php nothing();", 500, FATAL),
        (
            "memory.php",
            "<?php ini_set('memory_limit', '4M'); str_repeat('x', 1 << 26);",
            500,
            FATAL,
        ),
        (
            "throw.php",
            "<?php class Oops extends Exception {} function f() { throw new Oops('no'); } f();",
            500,
            FATAL,
        ),
        (
            "destructor.php",
            "<?php class D { function __destruct() { throw new Exception('late'); } } $d = new D;",
            500,
            FATAL,
        ),
        (
            "shutdown.php",
            "<?php register_shutdown_function(function () { nothing(); }); echo 1;",
            500,
            FATAL,
        ),
        (
            "handler.php",
            "<?php ob_start(function ($b) { nothing(); }); echo 1;",
            500,
            FATAL,
        ),
        (
            "recursion.php",
            "<?php ini_set('memory_limit', '16M'); function f($a) { f($a . 'x'); } f('');",
            500,
            FATAL,
        ),
    ];
    let hello = engine.script("ok.php", "<?php echo 'ok';");
    let mut expected = 0;
    for round in 0..12 {
        for (name, php, status, fatal) in scripts {
            let response = engine.get(&engine.script(name, php));
            assert!(response.ended, "{name}, round {round}: {}", engine.log());
            let record = &worker.records(1)[0];
            assert_eq!((record.status, record.flags & FATAL), (status, fatal), "{name}");
            if name == "throw.php" {
                assert_eq!(text(record, Text::ErrorType), "Oops");
                assert!(text(record, Text::ErrorMessage).starts_with("Uncaught Oops: no in"));
                assert_eq!(record.error_line, 1);
            }
            assert_eq!(engine.get(&hello).body(), "ok");
            assert_eq!(worker.records(1)[0].status, 200);
            expected += 2;
        }
    }
    assert_eq!(engine.get(&hello).body(), "ok");
    assert_eq!(
        worker.records(1)[0].begin.number,
        expected + 1,
        "the same worker served everything"
    );
}

#[test]
fn a_time_limit_ends_the_request_only() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let busy = engine.script("busy.php", "<?php set_time_limit(1); while (true) { }");
    assert!(engine.get(&busy).ended);
    let record = &worker.records(1)[0];
    assert_eq!((record.status, record.flags & FATAL), (500, FATAL));
    let hello = engine.script("ok.php", "<?php echo ini_get('max_execution_time');");
    assert_eq!(engine.get(&hello).body(), "30");
}

#[test]
fn a_kept_connection_serves_many_requests() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script(
        "k.php",
        "<?php echo strlen(file_get_contents('php://input')), $_SERVER['N'];",
    );
    let mut stream = engine.connect();
    for n in 0..20usize {
        let request = with(
            with(params(&script), "N", &format!("/{n}")),
            "REQUEST_METHOD",
            "POST",
        );
        let body = vec![b'x'; n * 10_000];
        let request = with(request, "CONTENT_LENGTH", &body.len().to_string());
        send(&mut stream, &request, &body, true);
        let response = read_response(&mut stream);
        assert_eq!(response.body(), format!("{}/{n}", body.len()));
    }
    assert_eq!(worker.records(20).len(), 20);
    drop(stream);
    assert_eq!(engine.get(&script).body().chars().next(), Some('0'));
}

#[test]
fn a_body_that_php_never_reads_does_not_harm_the_response() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script("unread.php", "<?php echo 'done';");
    let body = vec![b'x'; 3 << 20];
    let request = with(
        with(params(&script), "REQUEST_METHOD", "PUT"),
        "CONTENT_LENGTH",
        &body.len().to_string(),
    );
    let request = with(request, "CONTENT_TYPE", "application/octet-stream");
    for keep in [false, true] {
        let mut stream = engine.connect();
        let mut reading = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || read_response(&mut reading));
        send(&mut stream, &request, &body, keep);
        assert_eq!(reader.join().unwrap().body(), "done");
        if keep {
            send(&mut stream, &params(&script), b"", true);
            assert_eq!(read_response(&mut stream).body(), "done");
        }
    }
    assert_eq!(worker.records(3).len(), 3);
}

#[test]
fn finish_request_answers_at_once_and_the_rest_is_recorded() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let gate = engine.folder.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let php = format!(
        "<?php echo 'early'; fastcgi_finish_request(); file_get_contents('{}');",
        gate.display()
    );
    let response = engine.get(&engine.script("later.php", &php));
    assert_eq!(response.body(), "early");
    worker.until(|slot| slot.stage() == Some(Stage::Finished));
    assert!(worker.slot.in_progress().is_some());
    std::fs::write(&gate, "go on").unwrap();
    let record = &worker.records(1)[0];
    assert_eq!(record.flags, FINISHED_EARLY);
    assert!(record.end_mono_ns > record.responded_mono_ns);
}

#[test]
fn a_client_that_goes_away_is_an_aborted_request() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let gate = engine.folder.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let note = engine.folder.path().join("note");
    let php = format!(
        "<?php register_shutdown_function(function () {{ file_put_contents('{}', connection_status()); }});
         file_get_contents('{}'); for ($i = 0; $i < 1000; $i++) {{ echo str_repeat('x', 5000); flush(); }}",
        note.display(),
        gate.display()
    );
    let mut stream = engine.connect();
    send(&mut stream, &params(&engine.script("gone.php", &php)), b"", false);
    drop(stream);
    std::fs::write(&gate, "").unwrap();
    let record = &worker.records(1)[0];
    assert_eq!(record.flags & ABORTED, ABORTED);
    assert_eq!(std::fs::read_to_string(note).unwrap(), "1");
    assert_eq!(
        engine.get(&engine.script("ok.php", "<?php echo 'ok';")).body(),
        "ok"
    );
}

#[test]
fn garbage_costs_its_connection_only_and_is_told() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    let mut whole = Vec::new();
    RequestEncoder::begin(&mut whole, 1, glasspool_fastcgi::Role::Responder, false);
    RequestEncoder::params(
        &mut whole,
        1,
        params(&script).iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())),
    );
    let attacks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        vec![1, 1, 0, 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        whole[..whole.len() / 2].to_vec(),
        whole[..9].to_vec(),
    ];
    for attack in &attacks {
        let mut stream = engine.connect();
        stream.write_all(attack).unwrap();
        half_close(&stream);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_default();
        let record = &worker.records(1)[0];
        assert_eq!(record.flags, INCIDENT, "{attack:?}");
        assert!(!text(record, Text::ErrorMessage).is_empty());
        assert_eq!(engine.get(&script).body(), "ok");
        assert_eq!(worker.records(1)[0].flags, 0);
    }
    drop(engine.connect()); // A health check that says nothing is no incident.
    assert_eq!(engine.get(&script).body(), "ok");
    assert_eq!(worker.records(1)[0].flags, 0);
}

#[test]
fn management_records_and_roles_are_answered() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let mut stream = engine.connect();
    let mut bytes = Vec::new();
    RequestEncoder::get_values(&mut bytes, [&b"FCGI_MPXS_CONNS"[..], b"FCGI_MAX_REQS"]);
    bytes.extend_from_slice(&[1, 77, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[1, 1, 0, 5, 0, 8, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0]);
    stream.write_all(&bytes).unwrap();
    let mut reader = ResponseReader::new();
    let (mut input, mut seen) = (vec![0; 4096], Vec::new());
    while seen.len() < 3 {
        let count = stream.read(&mut input).unwrap();
        assert!(count > 0, "closed after {seen:?}");
        let mut rest = &input[..count];
        while !rest.is_empty() {
            let fed = reader.feed(rest).unwrap();
            rest = &rest[fed.consumed..];
            seen.extend(fed.event);
        }
    }
    assert!(
        matches!(&seen[0], client::Event::Values(v) if v.contains(&(b"FCGI_MPXS_CONNS".to_vec(), b"0".to_vec())))
    );
    assert!(matches!(seen[1], client::Event::UnknownType(77)));
    assert!(
        matches!(seen[2], client::Event::End(e) if e.protocol_status == glasspool_fastcgi::ProtocolStatus::UnknownRole)
    );
}

#[test]
fn a_body_may_come_from_a_file() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let script = engine.script("body.php", "<?php echo file_get_contents('php://input');");
    let file = engine.folder.path().join("body");
    std::fs::write(&file, "from a file").unwrap();
    let request = with(
        with(params(&script), "REQUEST_METHOD", "POST"),
        "CONTENT_LENGTH",
        "6",
    );
    let request = with(request, "REQUEST_BODY_FILE", &file.display().to_string());
    assert_eq!(
        engine
            .request(&with(request.clone(), "CONTENT_TYPE", "a/b"), b"")
            .body(),
        "from a"
    );
    let missing = with(
        with(request, "CONTENT_TYPE", "a/b"),
        "REQUEST_BODY_FILE",
        "/nowhere",
    );
    let response = engine.request(&missing, b"");
    assert_eq!(response.body(), "");
    assert_eq!(
        String::from_utf8_lossy(&response.stderr),
        "PHP message: PHP Warning:  REQUEST_BODY_FILE: open('/nowhere') failed: No such file or directory (2) in Unknown on line 0"
    );
}

#[test]
fn values_of_a_request_do_not_stay_for_the_next() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let script = engine.script(
        "ini.php",
        "<?php echo ini_get('precision'), ini_get('memory_limit');",
    );
    let before = engine.get(&script).body();
    let request = with(params(&script), "PHP_VALUE", "precision=3");
    let changed = engine
        .request(&with(request, "PHP_ADMIN_VALUE", "memory_limit=77M"), b"")
        .body();
    assert_eq!(changed, "377M");
    assert_eq!(engine.get(&script).body(), before);
}

#[test]
fn two_workers_share_one_opcache() {
    let mut engine = Engine::start(pool());
    let workers: Vec<Worker> = (0..2).map(|_| engine.spawn()).collect();
    let script = engine.script(
        "cached.php",
        "<?php $s = opcache_get_status(true)['scripts'][__FILE__] ?? null;
         echo getmypid(), ' ', opcache_get_status(false)['opcache_statistics']['misses'], ' ', $s['hits'] ?? '-'; usleep(2000);",
    );
    let mut pids = std::collections::HashSet::new();
    let mut misses = std::collections::HashSet::new();
    for _ in 0..200 {
        let body = engine.get(&script).body();
        let words: Vec<&str> = body.split(' ').collect();
        pids.insert(words[0].parse::<i32>().unwrap());
        misses.insert(words[1].to_owned());
        if pids.len() == 2 && misses.len() == 1 {
            break;
        }
        let mut other = engine.connect();
        send(&mut other, &params(&script), b"", false);
        read_response(&mut other);
    }
    assert_eq!(pids, workers.iter().map(|w| w.pid).collect());
    assert_eq!(misses.len(), 1, "compiled once for both: {misses:?}");
}

#[test]
fn a_silent_kept_connection_ends_at_once_on_quit() {
    let mut engine = Engine::start(pool());
    let worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", true);
    assert_eq!(read_response(&mut stream).body(), "ok");
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait().exit_status(), Some(0));
}

#[test]
fn quit_lets_the_request_end_and_does_not_interrupt_its_calls() {
    let mut engine = Engine::start(pool());
    let worker = engine.spawn();
    let gate = engine.folder.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let php = format!("<?php echo file_get_contents('{}');", gate.display());
    let mut stream = engine.connect();
    send(&mut stream, &params(&engine.script("wait.php", &php)), b"", true);
    let writer = std::fs::OpenOptions::new().write(true).open(&gate);
    worker.signal(rustix::process::Signal::QUIT);
    writer.unwrap().write_all(b"whole").unwrap();
    assert_eq!(read_response(&mut stream).body(), "whole");
    assert_eq!(worker.wait().exit_status(), Some(0));
}

#[test]
fn an_idle_worker_ends_at_once_on_quit() {
    let mut engine = Engine::start(pool());
    let worker = engine.spawn();
    worker.signal(rustix::process::Signal::QUIT);
    assert_eq!(worker.wait().exit_status(), Some(0));
}

#[test]
fn a_worker_ends_after_its_number_of_requests() {
    let mut engine = Engine::start(glasspool_abi::control::PoolSpec {
        max_requests: 3,
        ..pool()
    });
    let mut worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    let mut stream = engine.connect();
    for _ in 0..2 {
        send(&mut stream, &params(&script), b"", true);
        assert_eq!(read_response(&mut stream).body(), "ok");
    }
    send(&mut stream, &params(&script), b"", true);
    assert_eq!(read_response(&mut stream).body(), "ok");
    assert_eq!(
        stream.read(&mut [0; 16]).unwrap(),
        0,
        "the connection is closed after the last one"
    );
    assert_eq!(worker.wait().exit_status(), Some(0));
    assert_eq!(worker.records(3).len(), 3);
}

#[test]
fn workers_are_children_of_the_supervisor_and_hand_over_their_memory() {
    let mut engine = Engine::start(pool());
    let worker = engine.spawn();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid)).unwrap();
    assert!(
        status.contains(&format!("\nPPid:\t{}\n", std::process::id())),
        "{status}"
    );
    let title = std::fs::read(format!("/proc/{}/cmdline", worker.pid)).unwrap();
    assert!(
        title.starts_with(b"php-fpm: pool www\0"),
        "{}",
        String::from_utf8_lossy(&title)
    );
    let gate = engine.folder.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let php = format!(
        "<?php class Repo {{ function find() {{ return file_get_contents('{}'); }} }}\nfunction page() {{ (new Repo)->find(); }}\npage();",
        gate.display()
    );
    let script = engine.script("stack.php", &php);
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", false);
    worker.until(|slot| slot.stage() == Some(Stage::Executing));
    let target = glasspool_probes::Target {
        pid: glasspool_abi::Pid(worker.pid),
        mem: worker.memory.as_ref().expect("handed over").as_fd(),
        calls: None,
        build: &engine.build,
        saved_registers: None,
    };
    let options = glasspool_probes::Options {
        stop: glasspool_probes::Stop::Never,
        ..Default::default()
    };
    let names = || -> Vec<String> {
        let stack = glasspool_probes::sample(&target, &options)
            .expect("readable")
            .stack;
        stack
            .frames
            .iter()
            .map(|f| format!("{}:{}", f.qualified_name(), f.line.unwrap_or(0)))
            .collect()
    };
    let expected = ["file_get_contents:0", "Repo::find:1", "page:2", "{main}:3"];
    let seen = (0..200).map(|_| names()).find(|names| names == &expected);
    assert!(seen.is_some(), "{:?}", names());
    std::fs::write(&gate, "go on").unwrap();
    assert!(read_response(&mut stream).ended);
}

#[test]
fn a_pools_settings_reach_its_scripts() {
    let mut spec = pool();
    let setting = |name: &str, value: &str, admin| glasspool_abi::control::PhpSetting {
        name: name.to_owned(),
        value: value.to_owned(),
        admin,
    };
    spec.php_values = vec![
        setting("precision", "5", false),
        setting("memory_limit", "50M", true),
        setting("disable_functions", "shell_exec", true),
        setting("no.such.entry", "1", false),
    ];
    spec.env = vec![("A".to_owned(), "b".to_owned())];
    let mut engine = Engine::start(spec);
    let _worker = engine.spawn();
    let script = engine.script(
        "s.php",
        "<?php echo ini_get('precision'), ini_get('memory_limit'), var_export(ini_set('memory_limit', '1G'), true),
         ini_set('precision', '6'), getenv('A'), function_exists('shell_exec') ? 'yes' : 'no', getenv('LD_PRELOAD') ? 'leaked' : '', count(getenv());",
    );
    for _ in 0..2 {
        let body = engine.get(&script).body();
        assert!(body.starts_with("550Mfalse5bno"), "{body}");
        assert!(!body.contains("leaked"));
    }
    assert!(
        engine
            .log()
            .contains("ERROR: Unable to set php_value 'no.such.entry'"),
        "{}",
        engine.log()
    );
}

#[test]
fn workers_go_on_when_the_engine_dies_and_end_with_the_supervisor() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo 'ok';");
    engine.child.kill().unwrap();
    engine.child.wait().unwrap();
    let mut stream = engine.connect();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    send(&mut stream, &params(&script), b"", false);
    assert_eq!(read_response(&mut stream).body(), "ok");
}
