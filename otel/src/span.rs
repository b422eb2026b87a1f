//! A finished request as a span: pure functions from the worker's record to
//! [`SpanData`], by the conventions for HTTP server spans.
//!
//! The record was written by a worker and is hostile: texts are bounded by `abi`, times
//! are made consistent here, so that no record can make a span that ends before it starts
//! or lies outside what OTLP can say.

use std::{borrow::Cow, str::FromStr, time::Duration};

use glasspool_abi::record::{ABORTED, Begin, End, FATAL, FINISHED_EARLY, Text};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Event, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::{
    rollup,
    semconv::{Conventions, name},
    slow::{SlowEvent, time},
};

/// What the observer knows of a request's worker and the record does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The worker's process id.
    pub pid: u32,
    /// Name of its pool.
    pub pool: String,
    /// Its number within the pool.
    pub worker: u32,
    /// Host name to tell when the request named none.
    pub server_name: Option<String>,
}

/// How a worker ended in the middle of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// By a signal, named as in `SIGKILL`.
    Signal(String),
    /// By `_exit` with that code.
    Exit(i32),
}

/// Each request has some work after its response. From here on it is told, so that the
/// parts of its time (`crate::times`) add up.
const WORTH_TELLING: Duration = Duration::from_micros(50);

/// The span of a request that ended. `slow` are the samples that were taken of it.
///
/// It ends when the response was complete; work after that is the attribute
/// `php.request.post_response_duration`, if PHP asked for it or it is of [`WORTH_TELLING`].
pub fn server_span(end: &End, facts: &Facts, slow: &[SlowEvent], conventions: &Conventions) -> SpanData {
    let begin = &end.begin;
    let fatal = end.flags & FATAL != 0;
    let mut span = unfinished_span(begin, facts, slow, conventions);

    // A request that never answered has no response time; a worker that lies about it
    // gets a span of no length rather than one that ends before its start.
    let responded = if end.responded_mono_ns >= begin.start_mono_ns {
        end.responded_mono_ns
    } else {
        end.end_mono_ns
    };
    let end_unix_ns = unix_end(begin, responded);
    span.end_time = time(end_unix_ns);

    let attributes = &mut span.attributes;
    if end.status != 0 {
        attributes.push(KeyValue::new(
            name::HTTP_RESPONSE_STATUS_CODE,
            i64::from(end.status),
        ));
    }
    attributes.extend([
        KeyValue::new(name::HTTP_REQUEST_BODY_SIZE, int(end.bytes_in)),
        KeyValue::new(name::HTTP_RESPONSE_BODY_SIZE, int(end.bytes_out)),
        KeyValue::new(name::PHP_CPU_USER_TIME, seconds(end.cpu_user_ns)),
        KeyValue::new(name::PHP_CPU_SYSTEM_TIME, seconds(end.cpu_system_ns)),
        KeyValue::new(name::PHP_MEMORY_PEAK, int(end.memory_peak)),
    ]);
    let after_ns = end.end_mono_ns.saturating_sub(responded);
    if end.flags & FINISHED_EARLY != 0 || Duration::from_nanos(after_ns) >= WORTH_TELLING {
        attributes.push(KeyValue::new(name::PHP_POST_RESPONSE_DURATION, seconds(after_ns)));
    }
    if end.flags & ABORTED != 0 {
        // Not an error by the conventions: the client went away.
        attributes.push(KeyValue::new(name::PHP_REQUEST_ABORTED, true));
    }

    if fatal {
        let (error_type, event) = exception(end, end_unix_ns);
        attributes.push(KeyValue::new(name::ERROR_TYPE, error_type));
        span.status = Status::Error {
            description: description(&event),
        };
        span.events.events.push(event);
    } else if end.status >= 500 {
        attributes.push(KeyValue::new(name::ERROR_TYPE, end.status.to_string()));
        // No description: the status code says it all (http-spans.md, "Status").
        span.status = Status::error("");
    }
    span
}

/// The span of a request whose worker ended before the request did.
pub fn killed_span(
    begin: &Begin,
    facts: &Facts,
    death: &Death,
    died_mono_ns: u64,
    slow: &[SlowEvent],
    conventions: &Conventions,
) -> SpanData {
    let mut span = unfinished_span(begin, facts, slow, conventions);
    span.end_time = time(unix_end(begin, died_mono_ns));
    let (error_type, description) = match death {
        Death::Signal(signal) => {
            span.attributes
                .push(KeyValue::new(name::PHP_WORKER_EXIT_SIGNAL, signal.clone()));
            (
                signal.clone(),
                format!("worker {} was ended by {signal}", facts.pid),
            )
        }
        Death::Exit(code) => {
            span.attributes
                .push(KeyValue::new(name::PROCESS_EXIT_CODE, i64::from(*code)));
            (
                "worker_exit".to_owned(),
                format!("worker {} exited with code {code}", facts.pid),
            )
        }
    };
    span.attributes.push(KeyValue::new(name::ERROR_TYPE, error_type));
    span.status = Status::error(description);
    span
}

/// All that is known when a request begins; ends when it starts.
fn unfinished_span(begin: &Begin, facts: &Facts, slow: &[SlowEvent], conventions: &Conventions) -> SpanData {
    let method = begin.texts.text(Text::Method).unwrap_or_default();
    // Never the path: it is not a route, and names must be few.
    let name = if conventions.knows_method(&method) {
        method.into_owned()
    } else {
        "HTTP".to_owned()
    };
    let mut attributes = request_attributes(begin, facts, conventions);
    attributes.extend(rollup::attributes(slow));
    let mut events = SpanEvents::default();
    events.events.extend(slow.iter().map(SlowEvent::to_span_event));
    SpanData {
        span_context: SpanContext::new(
            sdk_trace_id(begin),
            sdk_span_id(begin),
            flags(begin),
            false,
            trace_state(begin),
        ),
        parent_span_id: begin
            .parent
            .map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
        parent_span_is_remote: begin.parent.is_some(),
        span_kind: SpanKind::Server,
        name: Cow::Owned(name),
        start_time: time(begin.start_unix_ns),
        end_time: time(begin.start_unix_ns),
        attributes,
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
}

/// What spans and log records of one request have in common.
pub(crate) fn request_attributes(begin: &Begin, facts: &Facts, conventions: &Conventions) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(32);
    let mut push = |key: &'static str, value: Value| attributes.push(KeyValue::new(key, value));
    let text = |text| begin.texts.text(text).map(Cow::into_owned);

    let method = text(Text::Method).unwrap_or_default();
    if conventions.knows_method(&method) {
        push(name::HTTP_REQUEST_METHOD, method.into());
    } else {
        push(name::HTTP_REQUEST_METHOD, "_OTHER".into());
        push(name::HTTP_REQUEST_METHOD_ORIGINAL, method.into());
    }
    push(name::URL_PATH, text(Text::Path).unwrap_or_default().into());
    push(
        name::URL_SCHEME,
        text(Text::Scheme).unwrap_or_else(|| "http".to_owned()).into(),
    );
    if let Some(query) = text(Text::Query) {
        push(name::URL_QUERY, conventions.redact_query(&query).into());
    }

    let host = text(Text::Host);
    let (address, host_port) = host.as_deref().map_or((None, None), split_host);
    if let Some(address) = address.map(str::to_owned).or_else(|| facts.server_name.clone()) {
        push(name::SERVER_ADDRESS, address.into());
    }
    if let Some(port) = host_port.or_else(|| text(Text::Port)?.parse().ok()) {
        push(name::SERVER_PORT, i64::from(port).into());
    }
    if let Some((protocol, version)) = text(Text::Protocol).as_deref().and_then(|p| p.split_once('/')) {
        push(name::NETWORK_PROTOCOL_NAME, protocol.to_ascii_lowercase().into());
        // The conventions say "2" and "3" where servers say HTTP/2.0 and HTTP/3.0.
        let version = version
            .strip_suffix(".0")
            .filter(|major| *major != "1")
            .unwrap_or(version);
        push(name::NETWORK_PROTOCOL_VERSION, version.to_owned().into());
    }
    for (key, kind) in [
        (name::CLIENT_ADDRESS, Text::Client),
        (name::USER_AGENT_ORIGINAL, Text::UserAgent),
        (name::PHP_SCRIPT, Text::Script),
    ] {
        if let Some(value) = text(kind) {
            push(key, value.into());
        }
    }
    push(name::PROCESS_PID, i64::from(facts.pid).into());
    push(name::PHP_POOL, facts.pool.clone().into());
    push(name::PHP_WORKER_ID, i64::from(facts.worker).into());
    attributes
}

/// The `exception` event of a fatal error, and its type.
fn exception(end: &End, unix_ns: u64) -> (String, Event) {
    // An end record's own texts follow those of the begin record it repeats.
    let text = |text| end.begin.texts.text(text).map(Cow::into_owned);
    let error_type = text(Text::ErrorType).unwrap_or_else(|| "fatal_error".to_owned());
    let mut attributes = vec![KeyValue::new(name::EXCEPTION_TYPE, error_type.clone())];
    if let Some(message) = text(Text::ErrorMessage) {
        // PHP appends the trace of an uncaught exception to its message
        // (Zend/zend_exceptions.c, zend_exception_error).
        let (message, stacktrace) = match message.split_once("\nStack trace:\n") {
            Some((message, stacktrace)) => (message.to_owned(), Some(stacktrace.to_owned())),
            None => (message, None),
        };
        attributes.push(KeyValue::new(name::EXCEPTION_MESSAGE, message));
        attributes.extend(stacktrace.map(|trace| KeyValue::new(name::EXCEPTION_STACKTRACE, trace)));
    }
    if let Some(file) = text(Text::ErrorFile) {
        attributes.push(KeyValue::new(name::CODE_FILE_PATH, file));
        attributes.push(KeyValue::new(name::CODE_LINE_NUMBER, i64::from(end.error_line)));
    }
    (
        error_type,
        Event::new(name::EVENT_EXCEPTION, time(unix_ns), attributes, 0),
    )
}

fn description(exception: &Event) -> Cow<'static, str> {
    let message = exception
        .attributes
        .iter()
        .find(|kv| kv.key.as_str() == name::EXCEPTION_MESSAGE);
    message.map_or(Cow::Borrowed("PHP fatal error"), |kv| {
        Cow::Owned(kv.value.as_str().into_owned())
    })
}

/// `name:port`, `[v6]:port` or either without a port.
fn split_host(host: &str) -> (Option<&str>, Option<u16>) {
    let (address, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => match host.rsplit_once(':') {
            Some((address, port)) if !address.contains(':') => (address, Some(port)),
            _ => (host, None),
        },
    };
    (
        (!address.is_empty()).then_some(address),
        port.and_then(|port| port.parse().ok()),
    )
}

/// Wall clock at which a monotonic time of this request was, from the request's own pair
/// of start times. At least the start, at most what 64 bits of nanoseconds can say.
pub(crate) fn unix_end(begin: &Begin, mono_ns: u64) -> u64 {
    begin
        .start_unix_ns
        .saturating_add(mono_ns.saturating_sub(begin.start_mono_ns))
}

pub(crate) fn flags(begin: &Begin) -> TraceFlags {
    // The sampled bit stays as it was decided, also on spans that are kept because they
    // were slow or failed: the flag says what other services were told.
    TraceFlags::new(u8::from(begin.sampled) | u8::from(begin.random) << 1)
}

pub(crate) fn sdk_trace_id(begin: &Begin) -> TraceId {
    TraceId::from_bytes(begin.trace_id.0)
}

pub(crate) fn sdk_span_id(begin: &Begin) -> SpanId {
    SpanId::from_bytes(begin.span_id.0)
}

fn trace_state(begin: &Begin) -> TraceState {
    let text = begin.texts.text(Text::TraceState).unwrap_or_default();
    TraceState::from_str(&text).unwrap_or_default()
}

/// The scope of all that this crate makes.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("glasspool")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use glasspool_abi::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;
    use crate::slow::tests::slow;

    const START: u64 = 1_700_000_000_000_000_001;

    pub(crate) fn facts() -> Facts {
        Facts {
            pid: 123,
            pool: "www".into(),
            worker: 4,
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
}
