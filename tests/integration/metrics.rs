//! Metrics of a real pool, as a collector gets them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::Signal;

use crate::fastcgi::{ask, script};
use crate::harness::{PATIENCE, launch, skipped};

/// Takes everything that is posted to it; what came to `/v1/metrics` can be received.
fn collector() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some((path, body)) = request(&mut stream) {
                    if path == "/v1/metrics" && tell.send(body).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, told)
}

/// Reads a request, says yes, and returns its path and body.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.get_mut().write_all(answer).ok()?;
    Some((path, body))
}

/// Texts are in protobuf as they are.
fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_pool_is_measured_and_tells_the_collector() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
    let (shown, script_path) = (folder.path().display(), folder.path().join("test.php"));
    fs::write(&script_path, "<?php http_response_code(201); echo 'made';").expect("writes");
    let configuration = format!(
        "[global]\nerror_log = {shown}/error.log\nlog_level = debug\n[shop]\nlisten = {shown}/shop.sock\n\
         listen.mode = 0666\nuser = nobody\npm = static\npm.max_children = 2\n"
    );
    fs::write(folder.path().join("fpm.conf"), configuration).expect("writes");
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
        command.args(arguments).arg(folder.path().join("fpm.conf"));
        command
    };
    let checked = program(&["check", "-R", "-y"]).output().expect("starts");
    if !checked.status.success() {
        let reason = String::from_utf8_lossy(&checked.stderr).into_owned();
        skipped(&format!("metrics of a pool: {}", reason.trim()));
        return;
    }
    let (collector, bodies) = collector();
    let mut command = program(&["-F", "-O", "-R", "-y"]);
    command.envs([
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{collector}").as_str(),
        ),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
    ]);
    let mut supervised = launch(folder, command);
    supervised.wait_for("ready to handle connections");
    let parameters = script(script_path.to_str().expect("text"));
    let answer = ask(&supervised.path("shop.sock"), &parameters).expect("is answered");
    assert_eq!(answer, "made");
    let wanted = [
        "http.server.request.duration",
        "http.response.status_code",
        "php.workers",
        "php.worker.starts",
        "php.observer.rung",
        "php.observer.right",
        "php.observer.looks",
        "otel.sdk.exporter.span.exported",
        "shop",
        "fpm-fcgi",
    ];
    let by = Instant::now() + PATIENCE;
    loop {
        let patience = by.saturating_duration_since(Instant::now());
        let body = bodies.recv_timeout(patience);
        let body = body.unwrap_or_else(|_| panic!("no export has all of {wanted:?}"));
        if wanted.iter().all(|text| contains(&body, text)) {
            break;
        }
    }
    supervised.signal(Signal::TERM);
    assert!(supervised.wait_for_end().success());
}
