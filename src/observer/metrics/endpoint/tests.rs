use std::net::{SocketAddr, TcpListener as StdListener};

use glasspool_otel::metrics::Snapshot;
use glasspool_otel::metrics::prometheus::Resource;
use glasspool_otel::options::{FileDefaults, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Metrics;
use super::*;

/// An endpoint, and an observer's loop that has nothing else to do.
fn serving() -> (Endpoint, SocketAddr) {
    let listener = StdListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("is bound");
    let (endpoint, questions) = Endpoint::start(listener.into()).expect("starts");
    answer_with_nothing(questions);
    (endpoint, address)
}

fn answer_with_nothing(mut questions: mpsc::Receiver<Question>) {
    let (options, _) = Options::from_env(&std::collections::HashMap::new(), FileDefaults::default());
    let mut metrics = Metrics::new(&options, None);
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let snapshot = Snapshot {
                start_unix_ns: 1,
                time_unix_ns: 2,
                metrics: Vec::new(),
            };
            let resource = Resource::builder_empty().build();
            drop(question.send(metrics.new_scrape(snapshot, resource)));
        }
    });
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // A refusal may come, and the connection end, before all of it is written.
    stream.write_all(request.as_bytes()).await.unwrap_or_default();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap_or_default();
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn only_metrics_are_served_in_the_format_that_is_asked_for() {
    let (_endpoint, address) = serving();
    let get = |what: &str, header: &str| format!("{what} HTTP/1.1\r\nhost: x\r\n{header}\r\n");
    let text = ask(address, &get("GET /metrics", "")).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(
        text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(text.ends_with("target_info{} 1\n"), "{text}");
    let open = ask(
        address,
        &get("GET /metrics?x=1", "accept: application/openmetrics-text\r\n"),
    )
    .await;
    assert!(open.ends_with("# EOF\n"), "{open}");
    let head = ask(address, &get("HEAD /metrics", "")).await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for (what, status) in [("GET /", 404), ("GET /metrics/", 404), ("POST /metrics", 405)] {
        let refused = ask(address, &get(what, "content-length: 0\r\n")).await;
        assert!(
            refused.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {refused}"
        );
    }
    let odd = get("GET /metrics", "accept: \u{e9}\r\naccept: text/plain\r\n");
    assert!(ask(address, &odd).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_unix_socket_is_as_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    let (_endpoint, questions) = Endpoint::start(listener.into()).expect("starts");
    answer_with_nothing(questions);
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("connects");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let (_endpoint, address) = serving();
    let long = "x".repeat(1 << 20);
    for request in [
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\nhost: {long}\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)),
    ] {
        let answer = ask(address, &request).await;
        // A reset, which is what unread bytes make of a close, may overtake the answer.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

#[tokio::test]
async fn who_does_not_ask_makes_room_for_who_does() {
    let (_endpoint, address) = serving();
    let mut silent = Vec::new();
    for _ in 0..4 * CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(b"GET /met").await.expect("writes");
        silent.push(stream);
    }
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..3 {
        assert!(ask(address, request).await.starts_with("HTTP/1.1 200 "));
    }
    // The first ones are gone, the last ones are still waited for.
    let mut byte = [0];
    let closed = silent[0].read(&mut byte).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    let last = silent.last_mut().expect("there are some");
    let waiting = timeout(Duration::from_millis(20), last.read(&mut byte)).await;
    assert!(waiting.is_err(), "{waiting:?}");
}

#[tokio::test]
async fn without_an_observer_nobody_waits() {
    let listener = StdListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("is bound");
    let (endpoint, questions) = Endpoint::start(listener.into()).expect("starts");
    drop(questions);
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(ask(address, request).await.starts_with("HTTP/1.1 503 "));
    drop(endpoint);
}
