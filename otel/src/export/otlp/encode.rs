//! Spans as the bytes of an `ExportTraceServiceRequest` (OTLP's
//! `trace/v1/trace.proto` and `common/v1/common.proto`).
//!
//! Spans are all that comes by tens of thousands a second. By way of `opentelemetry-proto`'s
//! messages each of them takes some fifty allocations, as every key and text becomes a
//! `String` there, and each level of nesting asks for the length of all below it. Here texts
//! go straight from the span to the bytes, which are the same, one by one, as those of the
//! messages: a test compares them.
//!
//! A span is encoded when it comes and not when it is sent: its texts are then read and
//! dropped while the processor has them at hand, and what waits is a third as large.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::{
    Array, KeyValue, SpanId, Value,
    trace::{Event, Link, SpanKind, Status, TraceFlags},
};
use opentelemetry_proto::{
    tonic::{common::v1::InstrumentationScope, resource::v1::Resource},
    transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use super::limits::cut_text;
use crate::{
    options::{AttributeLimits, Limits},
    span::scope,
};

/// What a span and a resource take, about, to begin with enough room.
const SPAN_BYTES: usize = 1024;
const RESOURCE_BYTES: usize = 2048;

/// How many bytes the length in front of a message takes, if that has up to 127, 16,383 or
/// 2,097,151 of them. A wrong guess costs a move of the message.
const SHORT: usize = 1;
const LONG: usize = 2;
const BATCH: usize = 3;

/// Bits of a span's and a link's flags (`trace.proto`, `SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A span as it stands in a request.
#[derive(Debug)]
pub(crate) struct EncodedSpan(Box<[u8]>);

impl EncodedSpan {
    pub(crate) fn new(one: &SpanData, limits: &Limits) -> EncodedSpan {
        let mut wire = Wire(Vec::with_capacity(SPAN_BYTES));
        span(&mut wire, one, limits);
        EncodedSpan(wire.0.into_boxed_slice())
    }

    /// What it takes of memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<EncodedSpan>() + self.0.len()
    }
}

/// The request for a batch, whose spans are all of [`scope`].
pub(super) fn request(batch: &[EncodedSpan], resource: &ResourceAttributesWithSchema) -> Vec<u8> {
    let schema_url = resource.schema_url.as_deref().unwrap_or_default();
    let resource = Resource {
        attributes: resource.attributes.0.clone(),
        ..Resource::default()
    };
    let scope: InstrumentationScope = (scope(), None).into();
    let spans: usize = batch.iter().map(EncodedSpan::bytes).sum();
    let mut request = Wire(Vec::with_capacity(spans + RESOURCE_BYTES));
    request.message(1, BATCH, |of_resource| {
        of_resource.known(1, &resource);
        of_resource.message(2, BATCH, |of_scope| {
            of_scope.known(1, &scope);
            for span in batch {
                of_scope.any_bytes(2, &span.0);
            }
        });
        of_resource.bytes(3, schema_url.as_bytes());
    });
    request.0
}

fn span(wire: &mut Wire, span: &SpanData, limits: &Limits) {
    let context = &span.span_context;
    wire.bytes(1, &context.trace_id().to_bytes());
    wire.bytes(2, &context.span_id().to_bytes());
    wire.bytes(3, context.trace_state().header().as_bytes());
    if span.parent_span_id != SpanId::INVALID {
        wire.bytes(4, &span.parent_span_id.to_bytes());
    }
    wire.bytes(5, span.name.as_bytes());
    wire.number(6, kind(&span.span_kind));
    wire.time(7, span.start_time);
    wire.time(8, span.end_time);
    let dropped = attributes(wire, 9, &span.attributes, limits.span);
    wire.number(10, (span.dropped_attributes_count + dropped).into());
    for one in span.events.iter().take(limits.events) {
        wire.message(11, LONG, |wire| event(wire, one, limits));
    }
    let dropped = beyond(span.events.len(), limits.events);
    wire.number(12, (span.events.dropped_count + dropped).into());
    for one in span.links.iter().take(limits.links) {
        wire.message(13, SHORT, |wire| link(wire, one, limits));
    }
    let dropped = beyond(span.links.len(), limits.links);
    wire.number(14, (span.links.dropped_count + dropped).into());
    wire.message(15, SHORT, |wire| status(wire, &span.status));
    wire.fixed32(16, flags(context.trace_flags(), span.parent_span_is_remote));
}

fn event(wire: &mut Wire, event: &Event, limits: &Limits) {
    wire.time(1, event.timestamp);
    wire.bytes(2, event.name.as_bytes());
    let dropped = attributes(wire, 3, &event.attributes, limits.event_attributes());
    wire.number(4, (event.dropped_attributes_count + dropped).into());
}

fn link(wire: &mut Wire, link: &Link, limits: &Limits) {
    let context = &link.span_context;
    wire.bytes(1, &context.trace_id().to_bytes());
    wire.bytes(2, &context.span_id().to_bytes());
    wire.bytes(3, context.trace_state().header().as_bytes());
    let dropped = attributes(wire, 4, &link.attributes, limits.link_attributes());
    wire.number(5, (link.dropped_attributes_count + dropped).into());
    wire.fixed32(6, flags(context.trace_flags(), context.is_remote()));
}

fn status(wire: &mut Wire, status: &Status) {
    match status {
        Status::Unset => {}
        Status::Ok => wire.number(3, 1),
        Status::Error { description } => {
            wire.bytes(2, description.as_bytes());
            wire.number(3, 2);
        }
    }
}

fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn flags(flags: TraceFlags, is_remote: bool) -> u32 {
    u32::from(flags.to_u8()) | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 }
}

/// Returns how many were left out.
fn attributes(wire: &mut Wire, tag: u32, attributes: &[KeyValue], limits: AttributeLimits) -> u32 {
    for attribute in attributes.iter().take(limits.count) {
        wire.message(tag, SHORT, |wire| {
            wire.bytes(1, attribute.key.as_str().as_bytes());
            wire.message(2, SHORT, |wire| value(wire, &attribute.value, limits.value_chars));
        });
    }
    beyond(attributes.len(), limits.count)
}

fn beyond(length: usize, most: usize) -> u32 {
    u32::try_from(length.saturating_sub(most)).unwrap_or(u32::MAX)
}

/// What an `AnyValue` has inside. It is there also when it is zero or empty.
fn value(wire: &mut Wire, value: &Value, chars: Option<usize>) {
    match value {
        Value::String(text) => wire.text_value(text.as_str(), chars),
        Value::Bool(value) => wire.bool_value(*value),
        Value::I64(value) => wire.int_value(*value),
        Value::F64(value) => wire.float_value(*value),
        Value::Array(array) => wire.message(5, SHORT, |wire| match array {
            Array::String(list) => values(wire, list, |wire, text| wire.text_value(text.as_str(), chars)),
            Array::Bool(list) => values(wire, list, |wire, value| wire.bool_value(*value)),
            Array::I64(list) => values(wire, list, |wire, value| wire.int_value(*value)),
            Array::F64(list) => values(wire, list, |wire, value| wire.float_value(*value)),
            // There are no others, says `opentelemetry-proto`.
            _ => {}
        }),
        _ => {}
    }
}

fn values<T>(wire: &mut Wire, list: &[T], each: impl Fn(&mut Wire, &T)) {
    for value in list {
        wire.message(1, SHORT, |wire| each(wire, value));
    }
}

/// Protobuf's encoding. A field that is zero or empty is not there.
struct Wire(Vec<u8>);

/// Kinds of fields (protobuf's `Encoding`, "Message Structure").
const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const I32: u64 = 5;

impl Wire {
    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.key(tag, VARINT);
            self.varint(value);
        }
    }

    fn fixed32(&mut self, tag: u32, value: u32) {
        if value != 0 {
            self.key(tag, I32);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Nanoseconds since the epoch; times before it are not there.
    fn time(&mut self, tag: u32, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        if ns != 0 {
            self.key(tag, I64);
            self.0.extend_from_slice(&ns.to_le_bytes());
        }
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.any_bytes(tag, bytes);
        }
    }

    fn any_bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, LEN);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text_value(&mut self, text: &str, chars: Option<usize>) {
        self.any_bytes(1, cut_text(text, chars).as_bytes());
    }

    fn bool_value(&mut self, value: bool) {
        self.key(2, VARINT);
        self.varint(value.into());
    }

    fn int_value(&mut self, value: i64) {
        self.key(3, VARINT);
        self.varint(value.cast_unsigned());
    }

    fn float_value(&mut self, value: f64) {
        self.key(4, I64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message that is one of prost's already.
    fn known(&mut self, tag: u32, message: &impl Message) {
        self.any_bytes(tag, &message.encode_to_vec());
    }

    /// A message whose length is known when it is written; `width` bytes are left for that.
    fn message(&mut self, tag: u32, width: usize, body: impl FnOnce(&mut Wire)) {
        self.key(tag, LEN);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; BATCH][..width]);
        let body_at = self.0.len();
        body(self);
        match u8::try_from(self.0.len() - body_at) {
            Ok(length) if length < 0x80 && width == SHORT => self.0[start] = length,
            _ => {
                let mut length = Wire(Vec::new());
                length.varint((self.0.len() - body_at) as u64);
                self.0.splice(start..body_at, length.0);
            }
        }
    }

    fn key(&mut self, tag: u32, kind: u64) {
        self.varint(u64::from(tag) << 3 | kind);
    }

    fn varint(&mut self, value: u64) {
        match u8::try_from(value) {
            Ok(value) if value < 0x80 => self.0.push(value),
            _ => self.long_varint(value),
        }
    }

    /// Seven bits a byte, the lowest first; the last one lacks the eighth.
    fn long_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests;
