//! About how many bytes an item keeps occupied while it waits. An estimate of memory,
//! close enough to bound a queue; not the size on the wire.

use opentelemetry::{Array, KeyValue, StringValue, Value, logs::AnyValue};
use opentelemetry_sdk::{logs::SdkLogRecord, trace::SpanData};

use crate::metrics::{Figure, Histogram, Snapshot};

/// For kinds of values that we do not make.
const OTHER_VALUE_BYTES: usize = 64;

pub(crate) fn of_span(span: &SpanData) -> usize {
    let events = span.events.iter();
    let events = events.map(|event| size_of_val(event) + event.name.len() + attributes(&event.attributes));
    size_of::<SpanData>() + span.name.len() + attributes(&span.attributes) + events.sum::<usize>()
}

pub(crate) fn of_record(record: &SdkLogRecord) -> usize {
    let value = |value: &AnyValue| match value {
        AnyValue::String(text) => text.as_str().len(),
        AnyValue::Int(_) | AnyValue::Double(_) | AnyValue::Boolean(_) => 0,
        _ => OTHER_VALUE_BYTES,
    };
    let attributes = record.attributes_iter();
    let attributes = attributes.map(|pair| size_of_val(pair) + pair.0.as_str().len() + value(&pair.1));
    size_of::<SdkLogRecord>() + record.body().map_or(0, value) + attributes.sum::<usize>()
}

pub(crate) fn of_snapshot(snapshot: &Snapshot) -> usize {
    let points = snapshot.metrics.iter().flat_map(|metric| &metric.points);
    let points = points.map(|point| {
        let histogram = match &point.value {
            Figure::Histogram(_) => size_of::<Histogram>(),
            Figure::Int(_) | Figure::Float(_) => 0,
        };
        size_of_val(point) + histogram + attributes(&point.attributes)
    });
    size_of::<Snapshot>() + points.sum::<usize>()
}

fn attributes(attributes: &[KeyValue]) -> usize {
    let one = |pair: &KeyValue| {
        let value = match &pair.value {
            Value::String(text) => text.as_str().len(),
            Value::Bool(_) | Value::I64(_) | Value::F64(_) => 0,
            Value::Array(Array::String(texts)) => {
                let text = |text: &StringValue| size_of_val(text) + text.as_str().len();
                texts.iter().map(text).sum()
            }
            _ => OTHER_VALUE_BYTES,
        };
        size_of::<KeyValue>() + pair.key.as_str().len() + value
    };
    attributes.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        semconv::Conventions,
        slow::tests::slow,
        span::{server_span, tests::*},
    };

    #[test]
    fn texts_weigh_what_they_weigh() {
        let span = |stack: usize| {
            let slow = crate::slow::SlowEvent {
                stacktrace: "x".repeat(stack),
                ..slow()
            };
            of_span(&server_span(&end(), &facts(), &[slow], &Conventions::default()))
        };
        assert_eq!(span(1500) - span(500), 1000);
        assert!((1500..6000).contains(&span(100)), "{}", span(100));
        let record = |stack: usize| {
            let slow = crate::slow::SlowEvent {
                stacktrace: "x".repeat(stack),
                ..slow()
            };
            of_record(&slow.to_log_record(&begin(), &facts(), &Conventions::default()))
        };
        assert_eq!(record(1500) - record(500), 1000);
    }
}
