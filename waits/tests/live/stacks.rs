//! Requests that end at once after their wait, each with a stack that is known beforehand:
//! the next request uses their memory again. The programs leave out what they know already
//! of a request; what they take over from one to the next is somebody else's stack.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::{Access, Process};
use glasspool_waits::{Record, Settings, SlotIndex, Wait, WorkerId};

use crate::php::{PATIENCE, skipped};
use crate::watch::Watch;

/// How many requests, unless `GLASSPOOL_WAITS` says more.
const FEW: u64 = 2000;
/// Scripts, all of the same shape: their parts fall into the same places.
const SCRIPTS: u64 = 61;
const SLOT: u32 = 3;

/// What request `n` runs, and how deep.
fn script(n: u64) -> (u64, u64) {
    (n % SCRIPTS, n % 7)
}

/// Its lines begin here.
fn first_line(script: u64) -> u32 {
    u32::try_from(script).unwrap() % 37 + 2
}

fn write_scripts(directory: &Path) {
    for script in 0..SCRIPTS {
        let pad = "\n".repeat(usize::try_from(first_line(script)).unwrap() - 2);
        let text = format!(
            "<?php\n{pad}namespace N{script:02};\n\
             function leaf{script:02}() {{ \\usleep(150); }}\n\
             class K{script:02} {{ static function m{script:02}($d) {{ if ($d > 0) self::m{script:02}($d - 1);\n\
             else leaf{script:02}(); }} }}\n\
             $f = function ($d) {{\n\
             K{script:02}::m{script:02}($d); }};\n\
             $f((int) $_SERVER['QUERY_STRING']);\n"
        );
        fs::write(directory.join(format!("s{script:02}.php")), text).unwrap();
    }
}

/// The stack of request `n`, innermost first: as the waits' own frames show themselves.
fn expected(directory: &Path, n: u64) -> Vec<String> {
    let (script, depth) = script(n);
    let file = directory.join(format!("s{script:02}.php"));
    let at = |line| format!("{}:{}", file.display(), first_line(script) + line);
    let method = format!("N{script:02}\\K{script:02}::m{script:02}");
    let mut frames = vec![
        "usleep".to_owned(),
        format!("N{script:02}\\leaf{script:02} {}", at(1)),
        format!("{method} {}", at(3)),
    ];
    frames.extend((0..depth).map(|_| format!("{method} {}", at(2))));
    frames.push(format!("N{script:02}\\{{closure}} {}", at(5)));
    frames.push(format!("{{main}} {}", at(6)));
    frames
}

/// A php-cgi that serves FastCGI, one request after the other.
struct Server {
    child: Child,
    socket: PathBuf,
    process: Process,
}

impl Server {
    fn start(directory: &Path, opcache: bool) -> Server {
        let socket = directory.join("cgi.sock");
        let child = Command::new("php-cgi")
            .args(["-b", socket.to_str().unwrap(), "-d", "opcache.jit=0"])
            .args(["-d", "opcache.file_update_protection=0"])
            .args(["-d", &format!("opcache.enable={}", u8::from(opcache))])
            .env("PHP_FCGI_MAX_REQUESTS", "0")
            .env_remove("PHP_FCGI_CHILDREN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        let pid = Pid(child.id().try_into().unwrap());
        Server {
            process: Process::open(pid, Access::default()).unwrap(),
            child,
            socket,
        }
    }

    /// Has it run a script, and returns once the answer is complete.
    fn request(&self, script: &Path, query: &str) -> io::Result<()> {
        let mut parameters = Vec::new();
        for (name, value) in [
            ("SCRIPT_FILENAME", script.to_str().unwrap()),
            ("REQUEST_METHOD", "GET"),
            ("QUERY_STRING", query),
            ("REDIRECT_STATUS", "200"),
        ] {
            parameters.extend([
                u8::try_from(name.len()).unwrap(),
                u8::try_from(value.len()).unwrap(),
            ]);
            parameters.extend(name.bytes().chain(value.bytes()));
        }
        // Begin, as responder; the parameters and their end; no input.
        let mut packets = packet(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
        packets.extend(packet(4, &parameters));
        packets.extend(packet(4, &[]));
        packets.extend(packet(5, &[]));
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&packets)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        assert!(!String::from_utf8_lossy(&answer).contains("rror"), "{answer:?}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// A FastCGI record.
fn packet(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = vec![1, kind, 0, 1, high, low, 0, 0];
    bytes.extend(content);
    bytes
}

/// Right, not the wait that is meant, or wrong.
fn judge(directory: &Path, wait: &Wait) -> Option<bool> {
    let found: Vec<_> = wait.frames.iter().map(ToString::to_string).collect();
    // The answer, or the compiler, may take long as well.
    if found.first().is_none_or(|innermost| innermost != "usleep") {
        return None;
    }
    let right = found == expected(directory, wait.request) && !wait.cut && !wait.fault;
    if !right {
        println!("request {}: {wait:#?}", wait.request);
    }
    Some(right)
}

fn every_stack_is_its_requests_own(opcache: bool) {
    let settings = Settings {
        wait_threshold: Duration::from_micros(100),
        ..Settings::default()
    };
    if Command::new("php-cgi").arg("-v").output().is_err() {
        skipped("there is no php-cgi");
        return;
    }
    let Some(mut watch) = Watch::load(&settings) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    write_scripts(directory.path());
    let server = Server::start(directory.path(), opcache);
    let page = watch.page(SLOT);
    let (worker, slot) = (WorkerId(1), SlotIndex(SLOT));
    let build = server.process.build();
    watch
        .roster
        .register(server.process.pidfd(), worker, slot, Some(build))
        .unwrap();
    let wanted = std::env::var("GLASSPOOL_WAITS").ok();
    let requests = wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(FEW);
    let (mut right, mut wrong, mut others) = (0_u64, 0_u64, 0_u64);
    for n in 1..=requests {
        let (script, depth) = script(n);
        let file = directory.path().join(format!("s{script:02}.php"));
        // As its worker does, which has slept in accept since it ended the one before.
        page.set_request(n);
        server.request(&file, &depth.to_string()).unwrap();
        if n % 100 == 0 || n == requests {
            watch.records.drain(usize::MAX, |record| {
                let Record::Wait(wait) = record else { return };
                match judge(directory.path(), &wait) {
                    Some(true) => right += 1,
                    Some(false) => wrong += 1,
                    None => others += 1,
                }
            });
        }
    }
    let (lost, missed) = (watch.eye.lost(), watch.eye.missed());
    println!(
        "{requests} requests: {right} stacks right, {wrong} wrong, {others} of other waits, {lost} lost, {missed} missed (opcache {opcache})"
    );
    assert_eq!((wrong, lost, watch.records.malformed()), (0, 0, 0));
    assert_eq!(watch.eye.odd(), 0);
    // Who is put off the CPU right before its sleep may have nothing left of it.
    assert!(right > requests / 10 * 9);
}

#[test]
fn without_opcache_every_stack_is_its_requests_own() {
    every_stack_is_its_requests_own(false);
}

#[test]
fn with_opcache_every_stack_is_its_requests_own() {
    every_stack_is_its_requests_own(true);
}
