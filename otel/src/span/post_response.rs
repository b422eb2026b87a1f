//! Work after the response (`fastcgi_finish_request()`) as a span of its own: the
//! request's span ends with the response, and a trace view shows what the worker did then.

use glasspool_abi::record::{End, FINISHED_EARLY};
use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::SpanData;

use super::{Facts, child_span, context, responded_mono_ns, unix_end};
use crate::semconv::name;
use crate::slow::time;

/// The child span of a request that went on after its response; `None` for others.
pub fn post_response_span(end: &End, facts: &Facts) -> Option<SpanData> {
    let begin = &end.begin;
    let responded = responded_mono_ns(end);
    if end.flags & FINISHED_EARLY == 0 || end.end_mono_ns <= responded {
        return None;
    }
    let attributes = vec![
        KeyValue::new(name::PHP_POOL, facts.pool.clone()),
        KeyValue::new(name::PHP_WORKER_ID, i64::from(facts.worker)),
        KeyValue::new(name::PROCESS_PID, i64::from(facts.pid)),
    ];
    let times = [responded, end.end_mono_ns].map(|mono_ns| time(unix_end(begin, mono_ns)));
    Some(child_span(
        &context(begin),
        name::SPAN_POST_RESPONSE,
        times,
        attributes,
    ))
}
