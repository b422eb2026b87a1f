//! Scrapers that mean no good: serving goes on, and the observer stays small.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::fastcgi::{ask, script};
use crate::harness::wait_until;

use super::stand::{OPEN_METRICS, Stand, TEXT};

/// Connections that are opened and never say what they want.
const SILENT: usize = 200;
/// A head far longer than any that is read.
const HEAD: usize = 1 << 20;
/// What the observer may grow by.
const MOST_KB: u64 = 8 * 1024;

fn anonymous_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kb = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kb.expect("a line of Linux 4.5").parse().expect("a number")
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    // The queue may be full: that is the attacker's own doing.
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}

/// Sends a head that never ends; whether the other side had enough of it.
fn long_head(address: SocketAddr) -> bool {
    let Some(mut stream) = connect(address) else {
        return true;
    };
    let line = [b'a'; 1024];
    let sent = (0..HEAD / line.len()).try_for_each(|_| stream.write_all(&line));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    sent.is_err() || read.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 4")
}

#[test]
fn hostile_scrapers_delay_nobody_and_take_no_memory() {
    // Spans that nobody takes would fill their queue, which is what it is for.
    let toml = "[metrics]\nlisten = \"127.0.0.1:PORT\"\n[observer]\nhistory_bytes = 0\n";
    let Some(stand) = Stand::with(toml, ("OTEL_TRACES_EXPORTER", "none")) else {
        return;
    };
    let address = stand.address;
    stand.run("ok.php");
    wait_until("metrics are served", || stand.scrape(TEXT).is_some());
    let observer = stand.supervised.children(Some("observer"))[0];
    let before = anonymous_kb(observer);
    let (socket, path) = (
        stand.supervised.path("shop.sock"),
        stand.supervised.path("ok.php"),
    );
    let over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let most = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let parameters = script(path.to_str().expect("text"));
                assert_eq!(ask(&socket, &parameters).expect("is answered"), "ok");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Slow ones: a byte of the head, and another when the last of them has connected.
        let mut silent: Vec<TcpStream> = (0..SILENT).filter_map(|_| connect(address)).collect();
        assert!(silent.len() > SILENT / 2, "{}", silent.len());
        for stream in &mut silent {
            // Those that had to make room are closed by now.
            stream.write_all(b"G").unwrap_or_default();
        }
        let honest = stand.scrape(OPEN_METRICS);
        let mut most = anonymous_kb(observer);
        for _ in 0..8 {
            let all_refused = long_head(address);
            if !all_refused {
                over.store(true, Ordering::Relaxed);
            }
            assert!(all_refused, "a head of 1 MB was read");
            most = most.max(anonymous_kb(observer));
        }
        // Whoever asks for everything and reads nothing.
        let mut unread: Vec<TcpStream> = (0..SILENT).filter_map(|_| connect(address)).collect();
        for stream in &mut unread {
            let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
            stream.write_all(request).unwrap_or_default();
        }
        let after = served.load(Ordering::Relaxed);
        wait_until("requests go on", || served.load(Ordering::Relaxed) > after + 20);
        most = most.max(anonymous_kb(observer));
        over.store(true, Ordering::Relaxed);
        assert!(honest.is_some_and(|page| page.ends_with("# EOF\n")));
        drop((silent, unread));
        most
    });
    assert!(
        most < before + MOST_KB,
        "the observer grew from {before} to {most} kB"
    );
    let total = served.load(Ordering::Relaxed) + 1;
    let counted = format!(" {total}");
    wait_until("every request is counted", || {
        let page = stand.scrape(TEXT).unwrap_or_default();
        let mut lines = page.lines();
        lines.any(|line| {
            line.starts_with("http_server_request_duration_seconds_count{") && line.ends_with(&counted)
        })
    });
    assert_eq!(
        stand.supervised.children(Some("observer")),
        [observer],
        "it is still the same"
    );
    stand.end();
}
