//! Work after the response (`fastcgi_finish_request()`) as a span of its own: the
//! request's span ends with the response, and a trace view shows what the worker did then.

use std::borrow::Cow;

use glasspool_abi::record::{End, FINISHED_EARLY};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Facts, flags, responded_mono_ns, scope, sdk_span_id, sdk_trace_id, trace_state, unix_end};
use crate::semconv::name;
use crate::slow::time;
use crate::still_running::random_span_id;

/// The child span of a request that went on after its response; `None` for others. Its id
/// is drawn anew each time.
pub fn post_response_span(end: &End, facts: &Facts) -> Option<SpanData> {
    let begin = &end.begin;
    let responded = responded_mono_ns(end);
    if end.flags & FINISHED_EARLY == 0 || end.end_mono_ns <= responded {
        return None;
    }
    Some(SpanData {
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
        name: Cow::Borrowed(name::SPAN_POST_RESPONSE),
        start_time: time(unix_end(begin, responded)),
        end_time: time(unix_end(begin, end.end_mono_ns)),
        attributes: vec![
            KeyValue::new(name::PHP_POOL, facts.pool.clone()),
            KeyValue::new(name::PHP_WORKER_ID, i64::from(facts.worker)),
            KeyValue::new(name::PROCESS_PID, i64::from(facts.pid)),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope(),
    })
}
