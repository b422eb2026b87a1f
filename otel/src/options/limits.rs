//! How much a span or a log record may carry (`OTEL_*_LIMIT`).

use crate::env::Env;

/// The specification's default for each count
/// (`specification/configuration/sdk-environment-variables.md`, "Attribute Limits").
const DEFAULT_COUNT: usize = 128;
/// Upper bound, so that a slip of the finger is noticed.
const MOST: usize = 1_000_000;

/// Limits of one set of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeLimits {
    /// Attributes at most.
    pub count: usize,
    /// Characters of a text at most; `None` for no limit.
    pub value_chars: Option<usize>,
}

/// All limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of a span's own attributes.
    pub span: AttributeLimits,
    /// Events on a span at most.
    pub events: usize,
    /// Attributes of an event at most; their texts have the span's limit.
    pub event_attribute_count: usize,
    /// Links on a span at most.
    pub links: usize,
    /// Attributes of a link at most; likewise.
    pub link_attribute_count: usize,
    /// Of a log record's attributes.
    pub log: AttributeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        let attributes = AttributeLimits {
            count: DEFAULT_COUNT,
            value_chars: None,
        };
        Limits {
            span: attributes,
            events: DEFAULT_COUNT,
            event_attribute_count: DEFAULT_COUNT,
            links: DEFAULT_COUNT,
            link_attribute_count: DEFAULT_COUNT,
            log: attributes,
        }
    }
}

impl Limits {
    pub(super) fn from_env(env: &Env<'_>) -> Limits {
        let count = |name: &str| env.count(name, 0, MOST);
        let defaults = Limits::default();
        let attributes = |signal: &str| AttributeLimits {
            count: count(&format!("OTEL_{signal}_ATTRIBUTE_COUNT_LIMIT"))
                .or_else(|| count("OTEL_ATTRIBUTE_COUNT_LIMIT"))
                .unwrap_or(DEFAULT_COUNT),
            value_chars: count(&format!("OTEL_{signal}_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
                .or_else(|| count("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")),
        };
        Limits {
            span: attributes("SPAN"),
            events: count("OTEL_SPAN_EVENT_COUNT_LIMIT").unwrap_or(defaults.events),
            event_attribute_count: count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT")
                .unwrap_or(defaults.event_attribute_count),
            links: count("OTEL_SPAN_LINK_COUNT_LIMIT").unwrap_or(defaults.links),
            link_attribute_count: count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT")
                .unwrap_or(defaults.link_attribute_count),
            log: attributes("LOGRECORD"),
        }
    }

    /// Limits of an event's attributes.
    pub(crate) fn event_attributes(&self) -> AttributeLimits {
        AttributeLimits {
            count: self.event_attribute_count,
            ..self.span
        }
    }

    /// Limits of a link's attributes.
    pub(crate) fn link_attributes(&self) -> AttributeLimits {
        AttributeLimits {
            count: self.link_attribute_count,
            ..self.span
        }
    }
}
