//! What each record becomes.

mod place;

use std::time::{Duration, UNIX_EPOCH};

use glasspool_abi::trace::{SpanId, TraceId};
use opentelemetry::Value;
use proptest::prelude::*;

use super::attributes::split_host;
use super::*;
use crate::slow::tests::slow;

const START: u64 = 1_700_000_000_000_000_001;

pub(crate) fn facts() -> Facts {
    Facts {
        pid: 123,
        pool: "www".into(),
        worker: 4,
        born_mono_ns: 2_000_000_000,
        server_name: None,
    }
}

pub(crate) fn begin() -> Begin {
    let texts = [
        (Text::Method, "GET"),
        (Text::Path, "/index.php"),
        (Text::Query, "a=1&sig=secret"),
        (Text::Script, "/srv/index.php"),
        (Text::Scheme, "https"),
        (Text::Host, "shop.example:8443"),
        (Text::Port, "80"),
        (Text::Client, "192.0.2.7"),
        (Text::UserAgent, "curl/8"),
        (Text::Protocol, "HTTP/1.1"),
        (Text::TraceState, "rojo=00f067aa0ba902b7"),
    ];
    Begin {
        number: 7,
        start_unix_ns: START,
        start_mono_ns: 5_000_000_000,
        trace_id: TraceId([0x11; 16]),
        span_id: SpanId([0x22; 8]),
        parent: Some(SpanId([0x33; 8])),
        sampled: true,
        random: true,
        texts: texts
            .map(|(kind, text)| (kind, text.as_bytes().to_vec()))
            .into_iter()
            .collect(),
    }
}

pub(crate) fn end() -> End {
    End {
        begin: begin(),
        responded_mono_ns: 5_312_400_003,
        end_mono_ns: 5_500_000_003,
        status: 200,
        flags: 0,
        bytes_in: 10,
        bytes_out: 2_048,
        cpu_user_ns: 2_500_000,
        cpu_system_ns: 600_000,
        memory_peak: 2 << 20,
        error_level: 0,
        error_line: 0,
        times: glasspool_abi::times::Known::Nothing,
    }
}

fn with_texts(begin: &Begin, texts: &[(Text, &str)]) -> Begin {
    let all = [
        Text::Method,
        Text::Path,
        Text::Scheme,
        Text::Query,
        Text::Host,
        Text::Port,
    ];
    let old = all
        .iter()
        .filter_map(|kind| Some((*kind, begin.texts.get(*kind)?.to_vec())));
    let new = texts.iter().map(|(kind, text)| (*kind, text.as_bytes().to_vec()));
    Begin {
        texts: old.chain(new).collect(),
        ..begin.clone()
    }
}

fn span(end: &End) -> SpanData {
    server_span(end, &facts(), &[], &Conventions::default())
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    let found: Vec<_> = span
        .attributes
        .iter()
        .filter(|kv| kv.key.as_str() == key)
        .collect();
    assert!(found.len() <= 1, "{key} is there twice");
    found.first().map(|kv| kv.value.clone())
}

#[test]
fn an_ordinary_request() {
    let span = span(&end());
    assert_eq!(span.name, "GET");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.span_context.trace_id().to_bytes(), [0x11; 16]);
    assert_eq!(span.span_context.span_id().to_bytes(), [0x22; 8]);
    assert_eq!(span.span_context.trace_flags().to_u8(), 3);
    assert_eq!(span.span_context.trace_state().header(), "rojo=00f067aa0ba902b7");
    assert_eq!(span.parent_span_id.to_bytes(), [0x33; 8]);
    assert!(span.parent_span_is_remote);
    assert_eq!(span.start_time, UNIX_EPOCH + Duration::from_nanos(START));
    assert_eq!(span.end_time, span.start_time + Duration::from_nanos(312_400_003));
    assert_eq!(span.status, Status::Unset);
    for (key, value) in [
        ("http.request.method", Value::from("GET")),
        ("url.path", "/index.php".into()),
        ("url.query", "a=1&sig=REDACTED".into()),
        ("url.scheme", "https".into()),
        ("http.response.status_code", 200.into()),
        ("server.address", "shop.example".into()),
        ("server.port", 8443.into()),
        ("client.address", "192.0.2.7".into()),
        ("network.protocol.name", "http".into()),
        ("network.protocol.version", "1.1".into()),
        ("user_agent.original", "curl/8".into()),
        ("http.request.body.size", 10.into()),
        ("http.response.body.size", 2048.into()),
        ("process.pid", 123.into()),
        ("php.pool", "www".into()),
        ("php.worker.id", 4.into()),
        ("php.script", "/srv/index.php".into()),
        ("php.cpu.user_time", 0.0025.into()),
        ("php.cpu.system_time", 0.0006.into()),
        ("php.memory.peak", 2_097_152.into()),
    ] {
        assert_eq!(attribute(&span, key), Some(value), "{key}");
    }
    for absent in ["error.type", "http.route", "php.request.aborted"] {
        assert_eq!(attribute(&span, absent), None, "{absent}");
    }
}

#[test]
fn an_unknown_method_never_becomes_a_name() {
    let begin = with_texts(&begin(), &[(Text::Method, "BREW")]);
    let span = span(&End { begin, ..end() });
    assert_eq!(span.name, "HTTP");
    assert_eq!(attribute(&span, "http.request.method"), Some("_OTHER".into()));
    assert_eq!(
        attribute(&span, "http.request.method_original"),
        Some("BREW".into())
    );
}

#[test]
fn status_codes() {
    let not_found = span(&End { status: 404, ..end() });
    assert_eq!(
        (not_found.status.clone(), attribute(&not_found, "error.type")),
        (Status::Unset, None)
    );
    let broken = span(&End { status: 503, ..end() });
    assert_eq!(broken.status, Status::error(""));
    assert_eq!(attribute(&broken, "error.type"), Some("503".into()));
    assert_eq!(
        attribute(&span(&End { status: 0, ..end() }), "http.response.status_code"),
        None
    );
    let aborted = span(&End {
        flags: ABORTED,
        ..end()
    });
    assert_eq!(
        (aborted.status.clone(), attribute(&aborted, "php.request.aborted")),
        (Status::Unset, Some(true.into()))
    );
}

#[test]
fn a_fatal_error_is_an_exception_event() {
    let begin = with_texts(
        &begin(),
        &[
            (Text::ErrorType, "RuntimeException"),
            (
                Text::ErrorMessage,
                "Uncaught RuntimeException: no\nStack trace:\n#0 {main}",
            ),
            (Text::ErrorFile, "/srv/a.php"),
        ],
    );
    let span = span(&End {
        begin,
        flags: FATAL,
        error_line: 9,
        ..end()
    });
    assert_eq!(span.status, Status::error("Uncaught RuntimeException: no"));
    assert_eq!(attribute(&span, "error.type"), Some("RuntimeException".into()));
    assert_eq!(span.events.len(), 1);
    assert_eq!(span.events[0].name, "exception");
    let mut expected = vec![
        KeyValue::new("exception.type", "RuntimeException"),
        KeyValue::new("exception.message", "Uncaught RuntimeException: no"),
        KeyValue::new("exception.stacktrace", "#0 {main}"),
        KeyValue::new("code.file.path", "/srv/a.php"),
        KeyValue::new("code.line.number", 9),
    ];
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    let mut got = span.events[0].attributes.clone();
    got.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(got, expected);
}

#[test]
fn work_after_the_response_is_an_attribute_if_asked_for_or_long() {
    let told = |flags, after_ns| {
        let responded_mono_ns = end().responded_mono_ns;
        let span = span(&End {
            flags,
            end_mono_ns: responded_mono_ns + after_ns,
            ..end()
        });
        attribute(&span, "php.request.post_response_duration")
    };
    assert_eq!(told(FINISHED_EARLY, 1_000), Some(0.000_001.into()));
    assert_eq!(told(0, 50_000), Some(0.000_05.into()));
    assert_eq!(told(0, 49_999), None);
}

#[test]
fn a_killed_request_is_an_error() {
    let conventions = Conventions::default();
    let death = Death::Signal("SIGKILL".into());
    let span = killed_span(&begin(), &facts(), &death, 6_000_000_000, &[slow()], &conventions);
    assert_eq!(span.end_time, span.start_time + Duration::from_secs(1));
    assert_eq!(span.status, Status::error("worker 123 was ended by SIGKILL"));
    assert_eq!(attribute(&span, "error.type"), Some("SIGKILL".into()));
    assert_eq!(attribute(&span, "php.worker.exit_signal"), Some("SIGKILL".into()));
    assert_eq!(span.events.len(), 1);
    let span = killed_span(&begin(), &facts(), &Death::Exit(255), 0, &[], &conventions);
    assert_eq!(span.end_time, span.start_time);
    assert_eq!(attribute(&span, "process.exit.code"), Some(255.into()));
}

#[test]
fn slow_samples_are_events_and_a_short_summary() {
    let span = server_span(&end(), &facts(), &[slow(), slow()], &Conventions::default());
    assert_eq!(span.events.len(), 2);
    assert_eq!(span.events[0].name, "php.request.slow");
    assert_eq!(
        span.events[0].timestamp,
        UNIX_EPOCH + Duration::from_nanos(1_700_000_001_500_000_001)
    );
    assert_eq!(attribute(&span, "php.request.slow_samples"), Some(2.into()));
    assert_eq!(attribute(&span, "code.function.name"), Some("sleep".into()));
}

#[test]
fn hosts() {
    assert_eq!(split_host("a.example"), (Some("a.example"), None));
    assert_eq!(split_host("a.example:81"), (Some("a.example"), Some(81)));
    assert_eq!(split_host("[::1]:81"), (Some("::1"), Some(81)));
    assert_eq!(split_host("[::1]"), (Some("::1"), None));
    assert_eq!(split_host("::1"), (Some("::1"), None));
    assert_eq!(split_host("a:99999"), (Some("a"), None));
    assert_eq!(split_host(":80"), (None, Some(80)));
}

proptest! {
    #[test]
    fn no_record_makes_a_span_that_ends_before_it_starts(
        unix: u64, mono: u64, responded: u64, ended: u64, flags: u64, status: u32, texts in ".{0,40}",
    ) {
        let mut begin = with_texts(&begin(), &[(Text::Host, &texts), (Text::TraceState, &texts), (Text::Protocol, &texts)]);
        begin.start_unix_ns = unix;
        begin.start_mono_ns = mono;
        let end = End { begin, responded_mono_ns: responded, end_mono_ns: ended, flags, status, ..end() };
        let span = server_span(&end, &facts(), &[slow()], &Conventions::default());
        prop_assert!(span.start_time <= span.end_time);
        let nanos = span.end_time.duration_since(UNIX_EPOCH).expect("after the epoch").as_nanos();
        prop_assert!(nanos <= u128::from(u64::MAX));
        prop_assert!(span.name == "GET");
    }
}
