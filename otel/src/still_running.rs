//! The early span of a slow request: what backends can show of one that never ends.
//!
//! A span goes out when it has ended, so a request that hangs is not in any backend. At
//! the first look a child span of no length goes out at once, with the request's ids as its
//! parent: the trace can be found, and when the request's own span comes, it falls into
//! place.

use glasspool_abi::record::Begin;
use opentelemetry_sdk::trace::SpanData;

use crate::semconv::{Conventions, name};
use crate::slow::{SlowEvent, time};
use crate::span::{Facts, child_span, context, request_attributes};

/// The span of a look at a request that still runs. It starts and ends at the time of the
/// look and has the attributes of both the look and the request, as those of its parent are
/// not known to anyone yet.
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
    child_span(&context(begin), name::SPAN_STILL_RUNNING, [at, end], attributes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use opentelemetry::trace::SpanKind;

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
}
