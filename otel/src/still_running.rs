//! The early span of a slow request: what backends can show of one that never ends.
//!
//! A span goes out when it has ended, so a request that hangs is not in any backend. At
//! the first look a child span of no length goes out at once, with the request's ids as its
//! parent: the trace can be found, and when the request's own span comes, it falls into
//! place.

use std::borrow::Cow;

use glasspool_abi::record::Begin;
use opentelemetry::trace::{SpanContext, SpanKind, Status};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::semconv::{Conventions, name};
use crate::slow::{SlowEvent, time};
use crate::span::{Facts, flags, request_attributes, scope, sdk_span_id, sdk_trace_id, trace_state};

/// The span of a look at a request that still runs. It starts and ends at the time of the
/// look and has the attributes of both the look and the request, as those of its parent are
/// not known to anyone yet. Its id is drawn anew each time.
pub fn still_running_span(
    begin: &Begin,
    facts: &Facts,
    look: &SlowEvent,
    conventions: &Conventions,
) -> SpanData {
    let mut attributes = request_attributes(begin, facts, conventions);
    attributes.extend(look.attributes());
    let at = time(look.time_unix_ns);
    // Not quite the same: Jaeger takes a length of zero for a negative one, and puts a warning
    // on the span (its sanitizer of durations).
    let end = time(look.time_unix_ns.saturating_add(1));
    SpanData {
        span_context: SpanContext::new(
            sdk_trace_id(begin),
            random_span_id(),
            flags(begin),
            false,
            trace_state(begin),
        ),
        parent_span_id: sdk_span_id(begin),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(name::SPAN_STILL_RUNNING),
        start_time: at,
        end_time: end,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
}

/// Not zero, which is no id (W3C Trace Context, 3.2.2.4).
pub(crate) fn random_span_id() -> opentelemetry::SpanId {
    let mut bytes = [0; 8];
    // Cut only before the kernel's pool is ready (getrandom(2)); such an id is less random.
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    debug_assert_eq!(got, bytes.len(), "8 bytes are never cut once the pool is ready");
    bytes[7] |= u8::from(bytes == [0; 8]);
    opentelemetry::SpanId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::slow::tests::query;
    use crate::span::server_span;
    use crate::span::tests::{begin, end, facts};

    #[test]
    fn it_is_a_child_without_length_that_says_where_the_request_is() {
        let look = query();
        let span = still_running_span(&begin(), &facts(), &look, &Conventions::default());
        let request = server_span(&end(), &facts(), &[], &Conventions::default());
        assert_eq!(span.name, "php.request.still_running");
        assert_eq!(span.span_kind, SpanKind::Internal);
        assert_eq!(span.span_context.trace_id(), request.span_context.trace_id());
        assert_eq!(
            span.span_context.trace_flags(),
            request.span_context.trace_flags()
        );
        assert_eq!(
            span.span_context.trace_state(),
            request.span_context.trace_state()
        );
        assert_eq!(span.parent_span_id, request.span_context.span_id());
        assert!(!span.parent_span_is_remote && span.span_context.span_id() != span.parent_span_id);
        let at = UNIX_EPOCH + Duration::from_nanos(look.time_unix_ns);
        assert_eq!(
            (span.start_time, span.end_time),
            (at, at + Duration::from_nanos(1))
        );
        let value = |key: &str| {
            let found: Vec<_> = span
                .attributes
                .iter()
                .filter(|kv| kv.key.as_str() == key)
                .collect();
            assert!(found.len() < 2, "{key} is there twice");
            found.first().map(|kv| kv.value.to_string())
        };
        for (key, expected) in [
            (name::PHP_REQUEST_ELAPSED, "1.5"),
            (name::CODE_FUNCTION_NAME, "PDO::query"),
            (name::CODE_FILE_PATH, "/srv/Repo.php"),
            (name::CODE_LINE_NUMBER, "42"),
            (name::PHP_WAIT, "poll on fd 4 -> tcp 10.0.3.7:3306"),
            (name::PHP_POOL, "www"),
            (name::PROCESS_PID, "123"),
            (name::URL_PATH, "/index.php"),
        ] {
            assert_eq!(value(key).as_deref(), Some(expected), "{key}");
        }
        assert!(value(name::CODE_STACKTRACE).is_some_and(|stack| stack.starts_with("#0 sleep()")));
    }

    #[test]
    fn each_has_an_id_of_its_own() {
        let ids: std::collections::HashSet<_> = (0..100).map(|_| random_span_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(!ids.contains(&opentelemetry::SpanId::INVALID));
    }
}
