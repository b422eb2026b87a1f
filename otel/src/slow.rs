//! The sample of a slow request as a span event and as a log record, same attributes.
//!
//! Who takes samples and when is not this room's business; it is given finished text.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use glasspool_abi::record::{Begin, Text};
use opentelemetry::{
    KeyValue,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity},
    trace::Event,
};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};

use crate::{
    semconv::{Conventions, name},
    span::{Facts, flags, request_attributes, sdk_span_id, sdk_trace_id},
};

/// Longest `code.stacktrace` in bytes: Tempo cuts attributes at 2048 by default
/// (`max_attribute_bytes`), and we would rather cut between frames.
pub const MAX_STACKTRACE_BYTES: usize = 2048;

/// One sample of a request that was still running past its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowEvent {
    /// Wall clock when the sample was taken, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// Age of the request then.
    pub elapsed: Duration,
    /// One frame per line, innermost first.
    pub stacktrace: String,
    /// Innermost function, fully qualified.
    pub function: Option<String>,
    /// Its file.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Whether the line is exact.
    pub line_exact: bool,
    /// How the sample was taken.
    pub how: String,
    /// What the worker waited for, if it waited.
    pub wait: Option<String>,
    /// What the sample cost the worker.
    pub cost: Duration,
}

impl SlowEvent {
    /// The event for the request's span.
    pub fn to_span_event(&self) -> Event {
        Event::new(name::EVENT_SLOW, time(self.time_unix_ns), self.attributes(), 0)
    }

    /// The same as a log record with the request's trace context and its main
    /// attributes, for sending while the request still runs.
    pub fn to_log_record(&self, begin: &Begin, facts: &Facts, conventions: &Conventions) -> SdkLogRecord {
        let mut record = LOGGER.create_log_record();
        record.set_event_name(name::EVENT_SLOW);
        record.set_timestamp(time(self.time_unix_ns));
        record.set_observed_timestamp(time(self.time_unix_ns));
        record.set_severity_number(Severity::Warn);
        record.set_severity_text("WARN");
        record.set_body(AnyValue::from(self.sentence(begin)));
        record.set_trace_context(sdk_trace_id(begin), sdk_span_id(begin), Some(flags(begin)));
        for attribute in self
            .attributes()
            .into_iter()
            .chain(request_attributes(begin, facts, conventions))
        {
            record.add_attribute(attribute.key, any_value(attribute.value));
        }
        record
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new(name::PHP_REQUEST_ELAPSED, self.elapsed.as_secs_f64()),
            KeyValue::new(name::PHP_SAMPLE_HOW, self.how.clone()),
            KeyValue::new(name::PHP_SAMPLE_COST, self.cost.as_secs_f64()),
        ];
        let mut text = |key, value: &Option<String>| {
            if let Some(value) = value {
                attributes.push(KeyValue::new(key, value.clone()));
            }
        };
        text(name::CODE_FUNCTION_NAME, &self.function);
        text(name::CODE_FILE_PATH, &self.file);
        text(name::PHP_WAIT, &self.wait);
        if let Some(line) = self.line {
            attributes.push(KeyValue::new(name::CODE_LINE_NUMBER, i64::from(line)));
            attributes.push(KeyValue::new(name::PHP_LINE_EXACT, self.line_exact));
        }
        if !self.stacktrace.is_empty() {
            attributes.push(KeyValue::new(
                name::CODE_STACKTRACE,
                cut_stacktrace(&self.stacktrace),
            ));
        }
        attributes
    }

    /// `GET /slow.php still running after 1.2 s, in mysqli_query (/srv/db.php:42), waiting for …`.
    fn sentence(&self, begin: &Begin) -> String {
        let method = begin.texts.text(Text::Method).unwrap_or("request".into());
        let path = begin.texts.text(Text::Path).unwrap_or_default();
        let mut sentence = format!(
            "{method} {path} still running after {:.1} s",
            self.elapsed.as_secs_f64()
        );
        if let Some(function) = &self.function {
            sentence += &format!(", in {function}");
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => sentence += &format!(" ({file}:{line})"),
            (Some(file), None) => sentence += &format!(" ({file})"),
            (None, _) => {}
        }
        if let Some(wait) = &self.wait {
            sentence += &format!(", waiting: {wait}");
        }
        sentence.replace(['\n', '\r'], " ")
    }
}

/// The SDK gives records only from a logger. This one belongs to a provider without
/// processors: nothing is ever emitted through it.
static LOGGER: LazyLock<SdkLogger> =
    LazyLock::new(|| SdkLoggerProvider::builder().build().logger("glasspool"));

pub(crate) fn time(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

fn any_value(value: opentelemetry::Value) -> AnyValue {
    match value {
        opentelemetry::Value::Bool(value) => AnyValue::Boolean(value),
        opentelemetry::Value::I64(value) => AnyValue::Int(value),
        opentelemetry::Value::F64(value) => AnyValue::Double(value),
        opentelemetry::Value::String(value) => AnyValue::String(value),
        other => AnyValue::from(other.to_string()),
    }
}

/// Keeps whole frames (lines) from the top within [`MAX_STACKTRACE_BYTES`] and says how
/// many are missing. A first frame that is too long by itself is cut inside.
fn cut_stacktrace(stacktrace: &str) -> String {
    /// Room for `… 4294967295 more` and its line break.
    const NOTE_BYTES: usize = 24;
    if stacktrace.len() <= MAX_STACKTRACE_BYTES {
        return stacktrace.to_owned();
    }
    let room = MAX_STACKTRACE_BYTES - NOTE_BYTES;
    let end = match stacktrace.as_bytes()[..=room].iter().rposition(|b| *b == b'\n') {
        Some(end) if end > 0 => end,
        _ => (0..=room)
            .rev()
            .find(|at| stacktrace.is_char_boundary(*at))
            .unwrap_or(0),
    };
    let (kept, rest) = stacktrace.split_at(end);
    let missing = rest
        .trim_start_matches('\n')
        .lines()
        .count()
        .min(u32::MAX as usize);
    format!("{kept}\n… {missing} more")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::span::tests::{begin, facts};

    pub(crate) fn slow() -> SlowEvent {
        SlowEvent {
            time_unix_ns: 1_700_000_001_500_000_001,
            elapsed: Duration::from_millis(1500),
            stacktrace: "#0 sleep()\n#1 /srv/a.php(3): wait()\n#2 {main}".into(),
            function: Some("sleep".into()),
            file: Some("/srv/a.php".into()),
            line: Some(3),
            line_exact: true,
            how: "mem-fd".into(),
            wait: Some("sleep 1.4 s".into()),
            cost: Duration::from_micros(20),
        }
    }

    #[test]
    fn the_log_record_stands_alone() {
        let begin = begin();
        let record = slow().to_log_record(&begin, &facts(), &Conventions::default());
        assert_eq!(record.event_name(), Some("php.request.slow"));
        assert_eq!(record.severity_number(), Some(Severity::Warn));
        assert_eq!(record.timestamp(), Some(time(1_700_000_001_500_000_001)));
        let context = record.trace_context().expect("has a context");
        assert_eq!(context.trace_id.to_bytes(), begin.trace_id.0);
        assert_eq!(context.span_id.to_bytes(), begin.span_id.0);
        assert_eq!(context.trace_flags.map(|f| f.to_u8()), Some(3));
        let Some(AnyValue::String(body)) = record.body() else {
            panic!("no body")
        };
        assert_eq!(
            body.as_str(),
            "GET /index.php still running after 1.5 s, in sleep (/srv/a.php:3), waiting: sleep 1.4 s"
        );
        let keys: Vec<_> = record.attributes_iter().map(|(key, _)| key.as_str()).collect();
        for key in [
            "code.stacktrace",
            "php.request.elapsed",
            "url.path",
            "process.pid",
            "php.pool",
        ] {
            assert_eq!(keys.iter().filter(|k| **k == key).count(), 1, "{key} in {keys:?}");
        }
    }

    #[test]
    fn a_long_stack_is_cut_between_frames() {
        let frames: Vec<_> = (0..100)
            .map(|n| format!("#{n} /srv/app/src/File.php({n}): function_{n}()"))
            .collect();
        let cut = cut_stacktrace(&frames.join("\n"));
        assert!(cut.len() <= MAX_STACKTRACE_BYTES);
        let lines: Vec<_> = cut.lines().collect();
        let (note, kept) = lines.split_last().expect("has lines");
        assert_eq!(kept, &frames[..kept.len()]);
        assert_eq!(*note, format!("… {} more", 100 - kept.len()));
        assert!(kept.len() > 40, "{}", kept.len());
    }

    proptest! {
        #[test]
        fn any_stack_is_cut_to_size(stack in "[aé\n€]{0,3000}") {
            let cut = cut_stacktrace(&stack);
            prop_assert!(cut.len() <= MAX_STACKTRACE_BYTES);
            if stack.len() <= MAX_STACKTRACE_BYTES {
                prop_assert_eq!(cut, stack);
            }
        }
    }
}
