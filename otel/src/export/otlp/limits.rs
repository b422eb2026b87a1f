//! Cuts what is about to be sent to the operator's limits
//! (`specification/common/README.md`, "Attribute Limits"). Resources and metrics are exempt
//! from them, says the specification.
//!
//! What is cut off is counted where OTLP has a field for it.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};

use crate::options::{AttributeLimits, Limits};

pub(super) fn cut_span(span: &mut Span, limits: &Limits) {
    span.dropped_attributes_count += cut(&mut span.attributes, limits.span);
    span.dropped_events_count += cut_list(&mut span.events, limits.events);
    for event in &mut span.events {
        event.dropped_attributes_count += cut(&mut event.attributes, limits.event_attributes());
    }
    span.dropped_links_count += cut_list(&mut span.links, limits.links);
    for link in &mut span.links {
        link.dropped_attributes_count += cut(&mut link.attributes, limits.link_attributes());
    }
}

pub(super) fn cut_record(record: &mut LogRecord, limits: &Limits) {
    record.dropped_attributes_count += cut(&mut record.attributes, limits.log);
}

/// Returns how many were dropped.
fn cut(attributes: &mut Vec<KeyValue>, limits: AttributeLimits) -> u32 {
    let dropped = cut_list(attributes, limits.count);
    if let Some(chars) = limits.value_chars {
        for attribute in attributes {
            if let Some(value) = &mut attribute.value {
                cut_value(value, chars);
            }
        }
    }
    dropped
}

fn cut_list<T>(list: &mut Vec<T>, most: usize) -> u32 {
    let dropped = list.len().saturating_sub(most);
    list.truncate(most);
    u32::try_from(dropped).unwrap_or(u32::MAX)
}

/// Texts, also within lists; values of other types have no length.
fn cut_value(value: &mut AnyValue, chars: usize) {
    match &mut value.value {
        Some(Value::StringValue(text)) => text.truncate(cut_text(text, Some(chars)).len()),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(|value| cut_value(value, chars)),
        _ => {}
    }
}

/// The first characters of a text; all without a limit.
pub(super) fn cut_text(text: &str, chars: Option<usize>) -> &str {
    match chars.and_then(|chars| text.char_indices().nth(chars)) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};

    use super::*;

    fn attributes(texts: &[&str]) -> Vec<KeyValue> {
        let attribute = |text: &&str| KeyValue {
            key: "k".into(),
            value: Some(AnyValue {
                value: Some(Value::StringValue((*text).to_owned())),
            }),
            key_strindex: 0,
        };
        texts.iter().map(attribute).collect()
    }

    #[test]
    fn everything_is_cut_to_its_own_limit_and_counted() {
        let mut span = Span {
            attributes: attributes(&["öäüß", "b", "c"]),
            events: vec![
                Event {
                    attributes: attributes(&["12345", "2"]),
                    ..Event::default()
                };
                3
            ],
            links: vec![
                Link {
                    attributes: attributes(&["1", "2", "3"]),
                    ..Link::default()
                };
                2
            ],
            ..Span::default()
        };
        let limits = Limits {
            span: AttributeLimits {
                count: 2,
                value_chars: Some(3),
            },
            events: 2,
            event_attribute_count: 1,
            links: 1,
            link_attribute_count: 0,
            log: AttributeLimits {
                count: 1,
                value_chars: None,
            },
        };
        cut_span(&mut span, &limits);
        assert_eq!((span.attributes.len(), span.dropped_attributes_count), (2, 1));
        assert_eq!(span.attributes, attributes(&["öäü", "b"]));
        assert_eq!((span.events.len(), span.dropped_events_count), (2, 1));
        assert_eq!(span.events[1].attributes, attributes(&["123"]));
        assert_eq!(span.events[1].dropped_attributes_count, 1);
        assert_eq!((span.links.len(), span.dropped_links_count), (1, 1));
        assert_eq!(span.links[0].dropped_attributes_count, 3);

        let mut record = LogRecord {
            attributes: attributes(&["long enough", "b"]),
            ..LogRecord::default()
        };
        cut_record(&mut record, &limits);
        assert_eq!(record.attributes, attributes(&["long enough"]));
        assert_eq!(record.dropped_attributes_count, 1);
    }
}
