use std::borrow::Cow;
use std::time::Duration;

use opentelemetry::{
    StringValue, TraceId,
    trace::{SpanContext, TraceState},
};
use opentelemetry_sdk::{
    Resource as SdkResource,
    trace::{SpanEvents, SpanLinks},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::export::otlp::{EncodedSpans, Messages, Protobuf, Spans};

fn any_value() -> impl Strategy<Value = Value> {
    // Lengths on both sides of what one, two and three bytes can say.
    let text = prop_oneof![
        5 => "\\PC{0,20}",
        1 => (100usize..140).prop_map(|length| "x".repeat(length)),
        1 => (16_300usize..16_500).prop_map(|length| "y".repeat(length)),
    ];
    let text = text.prop_map(StringValue::from);
    prop_oneof![
        text.clone().prop_map(Value::String),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        vec(text, 0..4).prop_map(|list| Value::Array(Array::String(list))),
        vec(any::<i64>(), 0..4).prop_map(|list| Value::Array(Array::I64(list))),
        vec(any::<f64>(), 0..4).prop_map(|list| Value::Array(Array::F64(list))),
        vec(any::<bool>(), 0..4).prop_map(|list| Value::Array(Array::Bool(list))),
    ]
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute = ("[a-z.]{0,12}", any_value()).prop_map(|(key, value)| KeyValue::new(key, value));
    vec(attribute, 0..6)
}

fn any_time() -> impl Strategy<Value = SystemTime> {
    prop_oneof![
        any::<u64>().prop_map(|ns| UNIX_EPOCH + Duration::from_nanos(ns)),
        Just(UNIX_EPOCH - Duration::from_secs(1)),
    ]
}

fn any_context() -> impl Strategy<Value = SpanContext> {
    let state = prop_oneof![Just(""), Just("a=1"), Just("a=1,b@c=2")];
    (
        any::<[u8; 16]>(),
        any::<[u8; 8]>(),
        any::<u8>(),
        any::<bool>(),
        state,
    )
        .prop_map(|(trace, span, flags, is_remote, state)| {
            let state: TraceState = state.parse().unwrap_or_default();
            let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
            SpanContext::new(trace, span, TraceFlags::new(flags), is_remote, state)
        })
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Unset),
        Just(Status::Ok),
        ".{0,200}".prop_map(Status::error)
    ]
}

fn any_span() -> impl Strategy<Value = SpanData> {
    let event = (".{0,9}", any_time(), any_attributes(), 0u32..3);
    let event =
        event.prop_map(|(name, time, attributes, dropped)| Event::new(name, time, attributes, dropped));
    let link = (any_context(), any_attributes(), 0u32..3);
    let link = link.prop_map(|(context, attributes, dropped)| Link::new(context, attributes, dropped));
    let kinds = [
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    let head = (
        any_context(),
        any::<[u8; 8]>(),
        any::<bool>(),
        proptest::sample::select(kinds.to_vec()),
    );
    let times = (any_time(), any_time());
    let lists = (any_attributes(), vec(event, 0..4), vec(link, 0..4), any_status());
    ("\\PC{0,20}", head, times, lists).prop_map(|(name, head, times, lists)| {
        let (span_context, parent, parent_span_is_remote, span_kind) = head;
        let (attributes, some_events, some_links, status) = lists;
        let mut events = SpanEvents::default();
        events.events = some_events;
        let mut links = SpanLinks::default();
        links.links = some_links;
        SpanData {
            span_context,
            parent_span_id: SpanId::from_bytes(parent),
            parent_span_is_remote,
            span_kind,
            name: Cow::Owned(name),
            start_time: times.0,
            end_time: times.1,
            attributes,
            dropped_attributes_count: 1,
            events,
            links,
            status,
            instrumentation_scope: scope(),
        }
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let chars = proptest::option::of(0usize..8);
    let tight =
        (0usize..5, chars, 0usize..4, 0usize..4).prop_map(|(count, value_chars, events, links)| Limits {
            span: AttributeLimits { count, value_chars },
            events,
            event_attribute_count: count,
            links,
            link_attribute_count: links,
            ..Limits::default()
        });
    prop_oneof![Just(Limits::default()), tight]
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_the_messages(
        batch in vec(any_span(), 1..6),
        limits in any_limits(),
        schema_url in prop_oneof![Just(""), Just("https://schemas.example/1.0")],
    ) {
        let attributes = [KeyValue::new("service.name", "shop")];
        let resource = SdkResource::builder_empty().with_schema_url(attributes, schema_url).build();
        let encoded = batch.iter().map(|span| EncodedSpan::new(span, &limits));
        let bytes = EncodedSpans::new(&resource).encode(encoded.collect());
        let messages = Spans::new(&resource, limits).request(batch);
        prop_assert_eq!(bytes, messages.encode_to_vec());
    }
}

#[test]
fn numbers_of_every_length_are_written_as_prost_does() {
    for shift in 0..64 {
        for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
            let mut expected = Vec::new();
            prost::encoding::encode_varint(value, &mut expected);
            let mut wire = Wire(Vec::new());
            wire.varint(value);
            assert_eq!(wire.0, expected);
        }
    }
}
