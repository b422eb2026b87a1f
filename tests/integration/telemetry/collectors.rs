//! Collectors that hang, break off, refuse, and say too much: no request notices, and what
//! did not arrive is counted to the number.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Plan, Stand};

const REQUESTS: usize = 20;
/// Far above what a request takes, far below what waiting for a collector would.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// What a collector does with each export request, after it has read it or not.
#[derive(Debug, Clone)]
enum Does {
    /// Reads nothing and says nothing.
    Hang,
    /// Closes with what it has not read, which resets the connection.
    Reset,
    /// Reads, and closes its side only.
    HalfClose,
    /// Reads, and says this.
    Answer(Vec<u8>),
}

fn answer(head: &str, body: &[u8]) -> Does {
    let head = format!(
        "HTTP/1.1 {head}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Does::Answer([head.as_bytes(), body].concat())
}

/// Starts one on a thread; where it listens.
fn collector(does: Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("is bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let does = does.clone();
            std::thread::spawn(move || serve(connection, &does));
        }
    });
    format!("http://{address}")
}

fn serve(mut connection: TcpStream, does: &Does) {
    match does {
        Does::Hang => {
            // Until the other side gives up; nothing is read, so this never returns data.
            while matches!(connection.peek(&mut [0; 1]), Ok(1)) {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
        Does::Reset => {
            // Closing with unread data sends RST (RFC 2525, 2.17).
            connection.peek(&mut [0; 1]).map(drop).unwrap_or_default();
        }
        Does::HalfClose => {
            if read_request(&mut connection).is_some() {
                connection.shutdown(Shutdown::Write).unwrap_or_default();
                connection.read(&mut [0; 1]).map(drop).unwrap_or_default();
            }
        }
        Does::Answer(answer) => {
            while read_request(&mut connection).is_some() && connection.write_all(answer).is_ok() {}
        }
    }
}

/// Reads one whole HTTP request.
fn read_request(connection: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.split('\r').next()?;
    let mut body = vec![0; length.parse().ok()?];
    connection.read_exact(&mut body).ok()
}

/// Twenty requests under such a collector: the error log, when all has ended.
fn under(does: Does) -> Option<String> {
    let plan = Plan {
        scripts: &[("hello.php", "<?php echo 'hello';")],
        ..Plan::default()
    };
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector(does.clone())),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        // What a request would last that waits for an export.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        ("OTEL_LOGS_EXPORTER", "none".to_owned()),
        ("OTEL_METRICS_EXPORTER", "none".to_owned()),
    ];
    let stand = Stand::start(&plan, &variables)?;
    for _ in 0..REQUESTS {
        let began = Instant::now();
        assert_eq!(stand.run("hello.php"), "hello");
        assert!(began.elapsed() < AT_ONCE, "{:?} under {does:?}", began.elapsed());
    }
    Some(stand.finish())
}

/// How many spans the observer's last word says were lost.
fn lost(log: &str) -> usize {
    let Some((before, _)) = log.split_once(" spans not delivered") else {
        return 0;
    };
    let number = before.rsplit(' ').next().expect("a word");
    number.parse().expect("a number")
}

#[test]
fn those_that_take_nothing_cost_every_span_and_no_time() {
    let none: &[u8] = b"";
    for does in [
        Does::Hang,
        Does::Reset,
        Does::HalfClose,
        answer("400 Bad Request", none),
        answer("401 Unauthorized", none),
        answer("404 Not Found", none),
        answer("429 Too Many Requests\r\nretry-after: 3600", none),
        answer("500 Internal Server Error", none),
        answer("503 Service Unavailable", none),
        Does::Answer(b"\x00\xffnot HTTP\r\n\r\n".to_vec()),
    ] {
        let shown = format!("{does:?}");
        let Some(log) = under(does) else { return };
        assert_eq!(lost(&log), REQUESTS, "{shown}: {log}");
    }
}

#[test]
fn those_that_say_too_much_have_taken_everything() {
    let much = vec![b'x'; 5 << 20];
    for does in [answer("200 OK", &much), answer("200 OK", b"\xff\xff\xff")] {
        let Some(log) = under(does) else { return };
        assert_eq!(lost(&log), 0, "{log}");
    }
}

#[test]
fn what_is_rejected_of_a_batch_is_lost_and_the_reason_is_told() {
    // ExportTraceServiceResponse { partial_success { rejected_spans: 1, error_message: "no" } }
    let partial = [0x0a, 0x06, 0x08, 0x01, 0x12, 0x02, b'n', b'o'];
    let Some(log) = under(answer("200 OK", &partial)) else {
        return;
    };
    let exports = lost(&log);
    assert!((1..=REQUESTS).contains(&exports), "one of each batch: {log}");
    assert!(log.contains("rejected: no"), "{log}");
}
