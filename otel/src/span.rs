//! A finished request as a span: pure functions from the worker's record to
//! [`SpanData`], by the conventions for HTTP server spans.
//!
//! The record was written by a worker and is hostile: texts are bounded by `abi`, times
//! are made consistent here, so that no record can make a span that ends before it starts
//! or lies outside what OTLP can say. What a request is like is in `attributes.rs`, why it
//! is here at all in `kept.rs`, spans below it in `child.rs` and
//! `post_response.rs`.

mod attributes;
mod child;
mod kept;
mod post_response;

use std::{borrow::Cow, str::FromStr, time::Duration};

use glasspool_abi::record::{ABORTED, Begin, End, FATAL, FINISHED_EARLY, Text};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::{
    rollup,
    semconv::{Conventions, name},
    slow::{SlowEvent, time},
};

pub(crate) use self::{attributes::request_attributes, child::child_span};
pub use self::{kept::Kept, post_response::post_response_span};

/// What the observer knows of a request's worker and the record does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The worker's process id.
    pub pid: u32,
    /// Name of its pool.
    pub pool: String,
    /// Its number within the pool.
    pub worker: u32,
    /// When it was seen to exist, monotonic clock of the machine, nanoseconds.
    pub born_mono_ns: u64,
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
/// `php.request.post_response_duration`, if PHP asked for it or it took 50 us or more.
pub fn server_span(end: &End, facts: &Facts, slow: &[SlowEvent], conventions: &Conventions) -> SpanData {
    let begin = &end.begin;
    let fatal = end.flags & FATAL != 0;
    let mut span = unfinished_span(begin, facts, slow, conventions);

    let responded = responded_mono_ns(end);
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
    if !begin.sampled {
        span.attributes.push(Kept::Killed.attribute());
    }
    span.status = Status::error(description);
    span
}

/// Whether somebody has said what the request is called.
pub fn has_route(span: &SpanData) -> bool {
    let mut attributes = span.attributes.iter();
    attributes.any(|attribute| attribute.key.as_str() == name::HTTP_ROUTE)
}

/// Calls a request so whose span has no route.
pub fn give_route(span: &mut SpanData, route: String) {
    span.name = Cow::Owned(format!("{} {route}", span.name));
    span.attributes.push(KeyValue::new(name::HTTP_ROUTE, route));
}

/// All that is known when a request begins; ends when it starts.
fn unfinished_span(begin: &Begin, facts: &Facts, slow: &[SlowEvent], conventions: &Conventions) -> SpanData {
    let method = begin.texts.text(Text::Method).unwrap_or_default();
    let method = if conventions.knows_method(&method) {
        &method
    } else {
        "HTTP"
    };
    // Never the path: it is not a route, and names must be few.
    let name = match attributes::route(begin, conventions) {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let mut attributes = request_attributes(begin, facts, conventions);
    attributes.extend(attributes::own_attributes(begin, facts));
    attributes.extend(rollup::attributes(slow));
    let mut events = SpanEvents::default();
    events.events.extend(slow.iter().map(SlowEvent::to_span_event));
    let mut links = SpanLinks::default();
    links.links.extend(attributes::link(begin));
    SpanData {
        span_context: context(begin),
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
        links,
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
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

/// When the response was complete. A request that never answered has no such time; a
/// worker that lies about it gets a span of no length rather than one that ends before its
/// start.
fn responded_mono_ns(end: &End) -> u64 {
    if end.responded_mono_ns >= end.begin.start_mono_ns {
        end.responded_mono_ns
    } else {
        end.end_mono_ns
    }
}

/// Of a request's own span.
pub(crate) fn context(begin: &Begin) -> SpanContext {
    SpanContext::new(
        sdk_trace_id(begin),
        sdk_span_id(begin),
        flags(begin),
        false,
        trace_state(begin),
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
    let text = begin.texts.text(Text::TraceState);
    text.and_then(|text| TraceState::from_str(&text).ok())
        .unwrap_or_default()
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
pub(crate) mod tests;
