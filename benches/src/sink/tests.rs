use std::io::{Read, Write};
use std::net::TcpStream;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::*;

fn post(address: SocketAddr, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: sink\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn spans() -> ExportTraceServiceRequest {
    let slow = Event {
        name: "php.request.slow".to_owned(),
        attributes: vec![
            attribute("php.sample.how", Value::StringValue("unstopped".to_owned())),
            attribute("php.sample.cost", Value::DoubleValue(0.000_025)),
        ],
        ..Event::default()
    };
    let span = |kind: SpanKind, events| Span {
        kind: kind.into(),
        events,
        ..Span::default()
    };
    let spans = vec![
        span(SpanKind::Server, vec![]),
        span(SpanKind::Server, vec![slow]),
        span(SpanKind::Client, vec![]),
    ];
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource = ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource],
    }
}

#[test]
fn spans_are_counted_and_samples_kept() {
    let sink = Sink::start().unwrap();
    let stop = Stop::never().unwrap();
    for _ in 0..2 {
        assert_eq!(
            post(sink.address(), "/v1/traces", &spans().encode_to_vec()),
            "HTTP/1.1 200 OK"
        );
    }
    let received = sink.settle(4, Duration::from_secs(10), &stop).unwrap();
    assert_eq!(
        (received.spans, received.other_spans, received.exports),
        (4, 2, 2)
    );
    let sample = Sample {
        how: "unstopped".to_owned(),
        cost_us: 0.000_025 * 1e6,
    };
    assert_eq!(received.samples, [sample.clone(), sample]);
}

#[test]
fn times_are_added_up_and_what_is_off_is_counted() {
    let request = |parts: [f64; 3], length_ns: u64| Span {
        kind: SpanKind::Server.into(),
        start_time_unix_nano: 7_000_000_000,
        end_time_unix_nano: 7_000_000_000 + length_ns,
        attributes: vec![
            attribute("php.time.on_cpu", Value::DoubleValue(parts[0])),
            attribute("php.time.runqueue", Value::DoubleValue(parts[1])),
            attribute("php.time.blocked", Value::DoubleValue(parts[2])),
            attribute("php.blocked.sleep", Value::DoubleValue(parts[2])),
            attribute("php.cpu.user_time", Value::DoubleValue(parts[0] - 0.000_02)),
            attribute("php.waits.count", Value::IntValue(1)),
            attribute("php.request.post_response_duration", Value::DoubleValue(0.001)),
        ],
        ..Span::default()
    };
    let mut sums = Sums::default();
    for (parts, length_ns) in [
        ([0.002, 0.001, 0.003], 5_000_000),
        ([0.002, 0.001, 0.003], 4_800_000),
        ([0.002, 0.001, 0.003], 8_000_000),
    ] {
        sums.add(&request(parts, length_ns));
    }
    // Without the programs nobody knows of waits.
    let mut untold = request([0.0; 3], 0);
    untold
        .attributes
        .retain(|attribute| attribute.key != "php.waits.count");
    sums.add(&untold);
    assert_eq!((sums.told, sums.untold), (3, 1));
    assert_eq!((sums.beyond_close, sums.beyond_far), (2, 1));
    assert_eq!((sums.parts.min(), sums.causes.max()), (0, 0));
    assert!(sums.cpu.max().abs_diff(20_000) < 50, "{}", sums.cpu.max());
}

#[test]
fn a_wait_for_spans_that_never_come_ends() {
    let sink = Sink::start().unwrap();
    let stop = Stop::never().unwrap();
    assert_eq!(sink.settle(1, Duration::from_millis(1), &stop).unwrap().spans, 0);
}

#[test]
fn what_is_no_export_is_refused_and_counted() {
    let sink = Sink::start().unwrap();
    assert_eq!(post(sink.address(), "/v1/traces", b"\xff\xff"), "HTTP/1.1 200 OK");
    assert_eq!(
        post(sink.address(), "/v1/profiles", b""),
        "HTTP/1.1 404 Not Found"
    );
    assert_eq!(post(sink.address(), "/v1/logs", b""), "HTTP/1.1 200 OK");
    let received = sink.received();
    assert_eq!((received.spans, received.exports, received.refused), (0, 2, 2));
}
