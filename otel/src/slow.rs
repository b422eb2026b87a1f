//! The sample of a slow, killed or crashed request as a span event and as a log record,
//! same attributes.
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
    tcp::TcpState,
};

/// Longest `code.stacktrace` in bytes: Tempo cuts attributes at 2048 by default
/// (`max_attribute_bytes`), and we would rather cut between frames.
pub const MAX_STACKTRACE_BYTES: usize = 2048;

/// One sample of a request that was still running past its limit, or was at its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlowEvent {
    /// Why it was taken.
    pub cause: Cause,
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
    /// The method that handles the request, as far as classes tell it; not an attribute.
    pub controller: Option<String>,
    /// How the sample was taken.
    pub how: String,
    /// What the worker waited for, if it waited: the same words as long as it is the same wait.
    pub wait: Option<String>,
    /// What else is known of that wait.
    pub waiting: Waiting,
    /// C functions, one per line, innermost first; empty if unknown.
    pub native_stacktrace: String,
    /// What could not be found out, and what would help. One line.
    pub missing: Option<String>,
    /// What the sample cost the worker.
    pub cost: Duration,
    /// Samples of the request that were due since the one before and were not taken,
    /// because the budget for looks was used up.
    pub skipped: u32,
}

/// Why a sample was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cause {
    /// The request took too long.
    #[default]
    Slow,
    /// Its worker was about to be killed, for this reason.
    Terminated(String),
    /// Its worker crashed by this signal, named as in `SIGSEGV`.
    Crashed(String),
}

/// Facts about a wait. All of them unknown if the worker did not wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// In words that are the same for every worker that waits for the same: without the
    /// numbers of its own descriptors.
    pub alike: Option<String>,
    /// Its kind, a short word.
    pub class: Option<&'static str>,
    /// How long it had lasted when the sample was taken.
    pub so_far: Option<Duration>,
    /// The system call.
    pub syscall: Option<String>,
    /// Who was waited for.
    pub peer: Option<Peer>,
    /// The connection, if it is one of TCP and the kernel programs have told of it.
    pub tcp: Option<TcpState>,
    /// The file that was waited for.
    pub file: Option<String>,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// An IP address, or the name of a unix socket.
    pub address: String,
    /// Its port, of an IP address.
    pub port: Option<u16>,
    /// `tcp`, `udp` or `unix`.
    pub transport: Option<String>,
}

impl Cause {
    /// The event's name.
    pub fn event_name(&self) -> &'static str {
        match self {
            Cause::Slow => name::EVENT_SLOW,
            Cause::Terminated(_) => name::EVENT_TERMINATED,
            Cause::Crashed(_) => name::EVENT_CRASHED,
        }
    }
}

impl SlowEvent {
    /// The event for the request's span.
    pub fn to_span_event(&self) -> Event {
        let name = self.cause.event_name();
        Event::new(name, time(self.time_unix_ns), self.attributes(), 0)
    }

    /// The same as a log record with the request's trace context and its main
    /// attributes, for sending while the request still runs.
    pub fn to_log_record(&self, begin: &Begin, facts: &Facts, conventions: &Conventions) -> SdkLogRecord {
        let mut record = new_record();
        record.set_event_name(self.cause.event_name());
        record.set_timestamp(time(self.time_unix_ns));
        record.set_observed_timestamp(time(self.time_unix_ns));
        let (severity, word) = match self.cause {
            Cause::Slow | Cause::Terminated(_) => (Severity::Warn, "WARN"),
            Cause::Crashed(_) => (Severity::Error, "ERROR"),
        };
        record.set_severity_number(severity);
        record.set_severity_text(word);
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

    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
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
        text(name::PHP_WAIT_SYSCALL, &self.waiting.syscall);
        text(name::FILE_PATH, &self.waiting.file);
        text(name::PHP_SAMPLE_MISSING, &self.missing);
        if let Some(peer) = &self.waiting.peer {
            text(name::NETWORK_PEER_ADDRESS, &Some(peer.address.clone()));
            text(name::NETWORK_TRANSPORT, &peer.transport);
        }
        match &self.cause {
            Cause::Slow => {}
            Cause::Terminated(reason) => text(name::PHP_TERMINATION_REASON, &Some(reason.clone())),
            Cause::Crashed(signal) => text(name::PHP_WORKER_EXIT_SIGNAL, &Some(signal.clone())),
        }
        if let Some(port) = self.waiting.peer.as_ref().and_then(|peer| peer.port) {
            attributes.push(KeyValue::new(name::NETWORK_PEER_PORT, i64::from(port)));
        }
        attributes.extend(self.waiting.tcp.iter().flat_map(TcpState::attributes));
        if let Some(class) = self.waiting.class {
            attributes.push(KeyValue::new(name::PHP_WAIT_CLASS, class));
        }
        if let Some(so_far) = self.waiting.so_far {
            attributes.push(KeyValue::new(name::PHP_WAIT_ELAPSED, so_far.as_secs_f64()));
        }
        if let Some(line) = self.line {
            attributes.push(KeyValue::new(name::CODE_LINE_NUMBER, i64::from(line)));
            attributes.push(KeyValue::new(name::PHP_LINE_EXACT, self.line_exact));
        }
        for (key, stack) in [
            (name::CODE_STACKTRACE, &self.stacktrace),
            (name::PHP_NATIVE_STACKTRACE, &self.native_stacktrace),
        ] {
            if !stack.is_empty() {
                attributes.push(KeyValue::new(key, cut_stacktrace(stack)));
            }
        }
        attributes
    }

    /// `GET /slow.php still running after 1.2 s, in mysqli_query (/srv/db.php:42), waiting for …`.
    fn sentence(&self, begin: &Begin) -> String {
        let method = begin.texts.text(Text::Method).unwrap_or("request".into());
        let path = begin.texts.text(Text::Path).unwrap_or_default();
        let age = format!("{:.1} s", self.elapsed.as_secs_f64());
        let mut sentence = match &self.cause {
            Cause::Slow => format!("{method} {path} still running after {age}"),
            Cause::Terminated(reason) => format!("{method} {path} is killed after {age} ({reason})"),
            Cause::Crashed(signal) => format!("{method} {path} crashed with {signal} after {age}"),
        };
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
        if let Some(so_far) = self.waiting.so_far {
            sentence += &format!(", {:.1} s so far", so_far.as_secs_f64());
        }
        sentence.replace(['\n', '\r'], " ")
    }
}

/// The SDK gives records only from a logger. This one belongs to a provider without
/// processors: nothing is ever emitted through it.
static LOGGER: LazyLock<SdkLogger> =
    LazyLock::new(|| SdkLoggerProvider::builder().build().logger("glasspool"));

/// A log record to fill.
pub(crate) fn new_record() -> SdkLogRecord {
    LOGGER.create_log_record()
}

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
pub(crate) fn cut_stacktrace(stacktrace: &str) -> String {
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
#[path = "slow_tests.rs"]
pub(crate) mod tests;
