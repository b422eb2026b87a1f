//! Spans below a request's own: in its trace, with ids that are drawn anew each time.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanKind, Status};
use opentelemetry::{KeyValue, SpanId};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::scope;

/// An internal span below that one, without events.
pub(crate) fn child_span(
    parent: &SpanContext,
    name: impl Into<Cow<'static, str>>,
    [start_time, end_time]: [SystemTime; 2],
    attributes: Vec<KeyValue>,
) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            parent.trace_id(),
            random_span_id(),
            parent.trace_flags(),
            false,
            parent.trace_state().clone(),
        ),
        parent_span_id: parent.span_id(),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    }
}

/// Never zero, which is no id (W3C Trace Context, 3.2.2.4). Fewer bytes come only before the
/// kernel's pool is ready (getrandom(2)); such an id is less random.
fn random_span_id() -> SpanId {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    if got < bytes.len() || bytes == [0; 8] {
        bytes[7] |= 1;
    }
    SpanId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_an_id_of_its_own() {
        let ids: std::collections::HashSet<_> = (0..100).map(|_| random_span_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(!ids.contains(&SpanId::INVALID));
    }
}
