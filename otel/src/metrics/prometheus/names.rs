//! OpenTelemetry's names in Prometheus' alphabet.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;

use crate::metrics::{Instrument, Kind};

/// What a metric is called, without the suffixes of its samples.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: String,
    /// As a word; empty for none.
    pub(super) unit: &'static str,
}

impl Family {
    pub(super) fn of(instrument: &Instrument) -> Family {
        // Units that our instruments have; things that are counted, in braces, are none.
        let unit = match instrument.unit {
            "s" => "seconds",
            "By" => "bytes",
            "1" if instrument.kind == Kind::Gauge => "ratio",
            _ => "",
        };
        let mut name = clean(instrument.name);
        if !unit.is_empty() && !name.ends_with(unit) {
            name.push('_');
            name.push_str(unit);
        }
        Family { name, unit }
    }
}

/// Attributes as labels. Where two become one name their values are joined, in the order
/// of their keys, as the specification wants it.
pub(super) fn label_names(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for pair in sorted {
        let (name, value) = (clean(pair.key.as_str()), pair.value.to_string());
        joined
            .entry(name)
            .and_modify(|before| {
                before.push(';');
                before.push_str(&value);
            })
            .or_insert(value);
    }
    joined.into_iter().collect()
}

/// Letters, digits and single `_`, no digit first. Two at the start would be a name of
/// Prometheus' own.
fn clean(name: &str) -> String {
    let mut clean = String::with_capacity(name.len() + 1);
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if clean.is_empty() && c.is_ascii_digit() {
            clean.push('_');
        }
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    if clean.is_empty() { "_".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::super::super::instruments;
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let name = |instrument| Family::of(instrument).name;
        assert_eq!(
            name(&instruments::REQUEST_DURATION),
            "http_server_request_duration_seconds"
        );
        assert_eq!(name(&instruments::STOP_TIME), "php_observer_stop_time_seconds");
        assert_eq!(name(&instruments::ACTIVE_REQUESTS), "http_server_active_requests");
        assert_eq!(name(&instruments::WORKER_MEMORY), "php_worker_memory_bytes");
        let names: std::collections::BTreeSet<_> = instruments::ALL.iter().map(|i| name(i)).collect();
        assert_eq!(names.len(), instruments::ALL.len());
    }

    #[test]
    fn attributes_that_become_one_label_share_it() {
        let attributes = [
            KeyValue::new("a.b", "2"),
            KeyValue::new("a_b", "3"),
            KeyValue::new("a-.b", "1"),
            KeyValue::new("7", true),
            KeyValue::new("__x", 5),
            KeyValue::new("é", "e"),
        ];
        let expected = [("_", "e"), ("_7", "true"), ("_x", "5"), ("a_b", "1;2;3")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(label_names(&attributes), expected);
    }
}
