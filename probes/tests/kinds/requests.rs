//! What a stock php-fpm worker serves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use glasspool_abi::Pid;
use glasspool_probes::{Access, Options, Process, Stop};

use super::series::{available, wait_asleep};

/// A FastCGI record.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut record = vec![1, kind, 0, 1, len[0], len[1], 0, 0];
    record.extend(content);
    record
}

fn request(script: &str) -> Vec<u8> {
    let mut params = Vec::new();
    for (name, value) in [
        ("SCRIPT_FILENAME", script),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/orders?token=hunter2"),
        ("SCRIPT_NAME", "/index.php"),
        ("QUERY_STRING", "token=hunter2"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        params.push(u8::try_from(name.len()).unwrap());
        params.push(u8::try_from(value.len()).unwrap());
        params.extend(name.bytes().chain(value.bytes()));
    }
    [
        record(1, &[0, 1, 0, 0, 0, 0, 0, 0]),
        record(4, &params),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat()
}

/// A stock php-fpm with one worker, waiting in a script and then idle.
#[test]
fn a_stock_php_fpm_worker_tells_its_request_and_when_it_is_an_old_one() {
    for series in available() {
        let program = format!("php-fpm{}", series.name);
        let Some(fpm) = series.start_fpm(&program) else {
            super::series::skipped(&format!("no {program}"));
            continue;
        };
        let before = SystemTime::now();
        let mut client = UnixStream::connect(&fpm.socket).unwrap();
        client.write_all(&request(&fpm.script)).unwrap();
        // The script connects back when it has begun, and waits for an answer.
        let (mut back, _) = fpm.listener.accept().unwrap();
        let mut pid = [0; 16];
        let got = back.read(&mut pid).unwrap();
        let pid = Pid(std::str::from_utf8(&pid[..got]).unwrap().trim().parse().unwrap());
        wait_asleep(pid);
        let process = Process::open(pid, Access::default()).unwrap();
        let options = Options {
            stop: Stop::Never,
            ..Options::default()
        };
        let stack = process.sample(&options).unwrap().stack;
        let names: Vec<String> = stack.frames.iter().map(|frame| frame.php_name()).collect();
        assert_eq!(names, ["fgets", "serve", "{main}"], "PHP {}", series.name);
        let request = process.request().unwrap();
        assert_eq!(request.method.as_deref(), Some("POST"));
        assert_eq!(request.uri.as_deref(), Some("/orders?token=…"));
        assert_eq!(request.script.as_deref(), Some(fpm.script.as_str()));
        assert!(!request.stale);
        // The script has read `$_SERVER`.
        let began = request.began.unwrap();
        assert!(
            before <= began && began <= SystemTime::now(),
            "{before:?} {began:?}"
        );
        back.write_all(b"go on\n").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        wait_asleep(pid);
        let idle = process.sample(&options).unwrap();
        assert!(idle.stack.frames.is_empty(), "{:?}", idle.stack);
        assert!(process.request().is_none_or(|request| request.stale));
        // The self-test has something to look at in an idle process, too.
        Process::open(pid, Access::default()).unwrap();
    }
}
