//! Requests that are made to break whoever reads them: each is answered or refused, costs
//! at most one span, and leaves the pool as it was.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::RequestEncoder;
use serde_json::Value;

use super::{Plan, Stand, collector, is_server, scratch, to};
use crate::collector::{each, text};
use crate::harness::PATIENCE;

/// Longest text of a record: it has 4088 bytes for all of them (`abi`).
const LONGEST: usize = 4096;

/// What becomes of a request.
#[derive(PartialEq, Eq)]
enum Fate {
    Answered,
    /// Its connection is closed before it became a request.
    Refused,
    /// It is a request, and the script does not run.
    Silent,
}

/// Sends a request with these parameters; whether it was answered with what the script
/// prints. One that is refused gets its connection closed.
fn is_answered(stand: &Stand, params: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let mut connection = UnixStream::connect(stand.supervised.path("sock")).expect("connects");
    connection.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut request = Vec::new();
    RequestEncoder::begin(&mut request, 1, Role::Responder, false);
    let script = stand.supervised.path("hello.php").display().to_string();
    let own = [
        ("SCRIPT_FILENAME", script.as_str()),
        ("SCRIPT_NAME", "/hello.php"),
    ];
    let own = own.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    RequestEncoder::params(&mut request, 1, own.iter().chain(params).cloned());
    RequestEncoder::stdin_end(&mut request, 1);
    // It may be refused before all of it was read.
    let _sent = connection.write_all(&request).is_ok();
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    if let Err(e) = &read {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}");
    }
    answer.windows(5).any(|window| window == b"hello")
}

fn params(pairs: &[(&str, &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
        .collect()
}

/// All texts of a span.
fn texts(span: &Value) -> Vec<&str> {
    each(span, "attributes")
        .filter_map(|attribute| attribute["value"]["stringValue"].as_str())
        .collect()
}

#[test]
fn hostile_requests_cost_a_span_each_and_nothing_else() {
    let scratch = scratch();
    let collector = collector(&scratch);
    let plan = Plan {
        scripts: &[("hello.php", "<?php echo 'hello';")],
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &to(&collector)) else {
        return;
    };
    let invalid: &[u8] = b"\xff\xfe\x80/\xc3\x28\xed\xa0\x80\xf5";
    let control: Vec<u8> = (0..32).chain([127]).collect();
    let megabyte = [b"/".as_slice(), &vec![b'a'; 1_000_000]].concat();
    let of_everything = |value: &[u8]| {
        params(&[
            ("REQUEST_METHOD", value),
            ("REQUEST_URI", value),
            ("QUERY_STRING", value),
            ("SERVER_PROTOCOL", value),
            ("HTTP_HOST", value),
            ("SERVER_PORT", value),
            ("REMOTE_ADDR", value),
            ("REQUEST_SCHEME", value),
            ("HTTP_USER_AGENT", value),
            ("HTTP_TRACEPARENT", value),
            ("HTTP_TRACESTATE", value),
            ("HTTP_BAGGAGE", value),
            ("CONTENT_TYPE", value),
        ])
    };
    let headers = |count: usize| -> Vec<_> {
        (0..count)
            .map(|number| (format!("HTTP_X_{number}").into_bytes(), b"value".to_vec()))
            .chain(params(&[
                ("REQUEST_METHOD", b"GET"),
                ("REQUEST_URI", b"/headers"),
            ]))
            .collect()
    };
    let uri = params(&[("REQUEST_METHOD", b"GET"), ("REQUEST_URI", &megabyte)]);
    let query = [b"/q?".as_slice(), &vec![b'&'; 100_000]].concat();
    let query = params(&[
        ("REQUEST_METHOD", b"GET"),
        ("REQUEST_URI", &query),
        ("QUERY_STRING", &query[3..]),
    ]);
    // What does not fit is refused, and that is told; one without a method has no answer.
    let cases = [
        ("a URI of 1 MB", uri, Fate::Answered),
        ("4,000 headers", headers(4_000), Fate::Answered),
        ("10,000 headers", headers(10_000), Fate::Refused),
        ("100,000 empty parameters in the query", query, Fate::Answered),
        ("invalid UTF-8 everywhere", of_everything(invalid), Fate::Answered),
        (
            "control characters everywhere",
            of_everything(&control),
            Fate::Answered,
        ),
        ("nothing but empty values", of_everything(b""), Fate::Answered),
        (
            "100 KB everywhere",
            of_everything(&vec![b'x'; 100 << 10]),
            Fate::Refused,
        ),
        ("no parameters", Vec::new(), Fate::Silent),
    ];
    for (what, params, fate) in &cases {
        assert_eq!(is_answered(&stand, params), *fate == Fate::Answered, "{what}");
        // Who comes next notices nothing.
        assert_eq!(stand.run("hello.php"), "hello", "after {what}");
    }
    let log = stand.finish();
    assert!(!log.contains("exited on signal"), "{log}");
    let spans = collector.spans();
    let servers = spans.iter().filter(|span| is_server(span));
    assert_eq!(spans.len(), servers.count());
    // The receiver refuses a request with a text that is not UTF-8, so what is here is sound.
    let refused = cases.iter().filter(|case| case.2 == Fate::Refused).count();
    assert_eq!(log.matches("connection dropped: ").count(), refused, "{log}");
    assert_eq!(spans.len(), 2 * cases.len() - refused, "{log}");
    for span in &spans {
        let longest = texts(span).into_iter().map(str::len).max();
        assert!(longest.is_some_and(|longest| longest <= LONGEST), "{longest:?}");
        assert_eq!(
            span["traceId"].as_str().map(str::len),
            Some(24),
            "16 bytes in base64"
        );
    }
    let invalid: Vec<_> = spans
        .iter()
        .filter_map(|span| text(span, "user_agent.original"))
        .filter(|agent| agent.contains('\u{fffd}'))
        .collect();
    assert_eq!(invalid.len(), 1, "what is no text is replaced");
    assert!(!log.contains("lost"), "{log}");
}
