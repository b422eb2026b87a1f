//! The load generator against a small FastCGI server in this process, which can be told to misbehave.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use glasspool_fastcgi::{Event, Limits, ProtocolStatus, RequestReader, ResponseWriter};

use super::*;
use crate::stop::Stop;

/// What the server does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers each request; closes when the request says so.
    Answer(&'static str),
    /// Sends half an answer and closes.
    Half,
    /// Reads and never answers.
    Silent,
    /// Says that it is overloaded.
    Overloaded,
}

/// Serves connections one after the other until `connections` have been served; returns how many requests came.
fn serve<S: Read + Write>(
    mut accept: impl FnMut() -> S + Send + 'static,
    connections: usize,
    manner: Manner,
) -> JoinHandle<u64> {
    std::thread::spawn(move || (0..connections).map(|_| connection(accept(), manner)).sum())
}

fn connection(mut stream: impl Read + Write, manner: Manner) -> u64 {
    let mut reader = RequestReader::new(Limits::default());
    let mut writer = ResponseWriter::new();
    let mut requests = 0;
    let mut input = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut input) {
        let mut rest = &input[..count];
        while let fed @ glasspool_fastcgi::Fed { event: Some(_), .. } =
            reader.feed(rest, &mut Vec::new()).unwrap()
        {
            rest = &rest[fed.consumed..];
            if fed.event != Some(Event::StdinEnd) {
                continue;
            }
            requests += 1;
            let keep = reader.keep_alive();
            writer.begin(reader.request_id());
            match manner {
                Manner::Answer(text) => {
                    writer.stdout(format!("Content-type: text/plain\r\n\r\n{text}").as_bytes());
                    writer.end(0, ProtocolStatus::RequestComplete);
                }
                Manner::Half => writer.stdout(b"Content-type: text/plain\r\n\r\nhello"),
                Manner::Silent => continue,
                Manner::Overloaded => writer.end(0, ProtocolStatus::Overloaded),
            }
            stream.write_all(writer.pending()).unwrap();
            writer.clear_pending();
            if !keep || matches!(manner, Manner::Half) {
                return requests;
            }
            reader.next_request();
        }
    }
    requests
}

fn unix(dir: &tempfile::TempDir) -> (UnixListener, Address) {
    let path = dir.path().join("socket");
    (UnixListener::bind(&path).unwrap(), Address::Unix(path))
}

fn load(address: Address, bound: Bound, keep: bool) -> Load {
    Load {
        address,
        keep,
        clients: NonZeroU32::new(3).unwrap(),
        bound,
        patience: Duration::from_secs(20),
        params: request::params(std::path::Path::new("/srv"), "/hello.php", "a=b"),
        expect: b"hello".to_vec(),
    }
}

#[test]
fn every_request_has_its_connection_and_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = unix(&dir);
    let server = serve(move || listener.accept().unwrap().0, 50, Manner::Answer("hello"));
    let mut answers = 0;
    let stop = Stop::never().unwrap();
    let load = load(address, Bound::Count(50), false);
    let outcome = run_each(&load, &stop, &mut |answer| {
        assert!(answer.ends_with(b"\r\n\r\nhello"));
        answers += 1;
    });
    let outcome = outcome.unwrap();
    assert_eq!(
        (outcome.sent, outcome.answered, answers, outcome.latency.len()),
        (50, 50, 50, 50)
    );
    assert_eq!(outcome.errors, Errors::default());
    assert!(outcome.per_second() > 0.0 && outcome.percentile_us(50.0) <= outcome.percentile_us(99.0));
    assert_eq!(server.join().unwrap(), 50);
}

#[test]
fn kept_connections_carry_many_requests_over_tcp() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        unreachable!("bound to IPv4")
    };
    // One client: this server takes connections one after the other.
    let server = serve(move || listener.accept().unwrap().0, 1, Manner::Answer("hello"));
    let load = Load {
        clients: NonZeroU32::MIN,
        ..load(Address::Tcp(address), Bound::Count(40), true)
    };
    let outcome = run(&load, &Stop::never().unwrap()).unwrap();
    assert_eq!((outcome.answered, outcome.errors.total()), (40, 0));
    assert_eq!(server.join().unwrap(), 40);
}

#[test]
fn wrong_answers_are_told_from_broken_ones() {
    let cases = [
        (Manner::Answer("bye"), (0, 10), "bye"),
        (Manner::Overloaded, (0, 10), "Overloaded"),
        (Manner::Half, (10, 0), "closed before"),
    ];
    for (manner, (broken, wrong), words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (listener, address) = unix(&dir);
        let server = serve(move || listener.accept().unwrap().0, 10, manner);
        let outcome = run(&load(address, Bound::Count(10), false), &Stop::never().unwrap()).unwrap();
        let Errors {
            broken: found_broken,
            wrong: found_wrong,
            first,
            ..
        } = outcome.errors;
        assert_eq!((outcome.answered, found_broken, found_wrong), (0, broken, wrong));
        assert!(
            first.as_ref().is_some_and(|first| first.contains(words)),
            "{first:?}"
        );
        server.join().unwrap();
    }
}

#[test]
fn silence_is_late_and_an_absent_server_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, address) = unix(&dir);
    let server = serve(move || listener.accept().unwrap().0, 3, Manner::Silent);
    let patience = Duration::from_millis(10);
    let stop = Stop::never().unwrap();
    let outcome = run(
        &Load {
            patience,
            ..load(address, Bound::Count(3), false)
        },
        &stop,
    )
    .unwrap();
    assert_eq!((outcome.sent, outcome.answered, outcome.errors.late), (3, 0, 3));
    server.join().unwrap();

    let absent = Address::Unix(dir.path().join("nobody"));
    let outcome = run(
        &load(absent, Bound::Time(Duration::from_secs(3600)), false),
        &stop,
    )
    .unwrap();
    assert_eq!((outcome.sent, outcome.errors.connect), (0, 100));
}
