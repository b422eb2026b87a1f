//! Spans and log records as text for people.
//!
//! Everything a request brought along (paths, messages, function names) is untrusted:
//! control characters are escaped, so that no request can drive the reader's terminal.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue, Value,
    logs::AnyValue,
    trace::{Event, SpanKind, Status},
};
use opentelemetry_sdk::{logs::SdkLogRecord, trace::SpanData};

use super::{
    Terminal,
    lane::{Failure, Sent, Sink},
};
use crate::{
    metrics::{self, Snapshot},
    semconv::name,
};

/// Work after the response that is worth a person's time, seconds. Each request has some.
const LONG_AFTER_S: f64 = 0.001;

/// Writes all signals to one [`Terminal`].
pub(crate) struct Console(Arc<Mutex<Terminal>>);

impl Console {
    pub(crate) fn new(terminal: Arc<Mutex<Terminal>>) -> Console {
        Console(terminal)
    }

    fn write(&self, render: impl FnOnce(bool) -> String) -> Result<Sent, Failure> {
        let failed = |reason: String| Failure::new(reason);
        let mut terminal = self
            .0
            .lock()
            .map_err(|_| failed("another writer panicked".to_owned()))?;
        let text = render(terminal.colours);
        let written = terminal
            .out
            .write_all(text.as_bytes())
            .and_then(|()| terminal.out.flush());
        written.map_err(|error| failed(format!("cannot write to the terminal: {error}")))?;
        Ok(Sent::default())
    }
}

impl Sink<SpanData> for Console {
    async fn send(&self, batch: Vec<SpanData>) -> Result<Sent, Failure> {
        self.write(|colours| batch.iter().map(|span| render_span(span, colours)).collect())
    }
}

impl Sink<SdkLogRecord> for Console {
    async fn send(&self, batch: Vec<SdkLogRecord>) -> Result<Sent, Failure> {
        self.write(|colours| batch.iter().map(|record| render_log(record, colours)).collect())
    }
}

impl Sink<Snapshot> for Console {
    async fn send(&self, batch: Vec<Snapshot>) -> Result<Sent, Failure> {
        // Totals: the newest says it all.
        let newest = batch.last();
        self.write(|_| escape_lines(&newest.map(metrics::render).unwrap_or_default()))
    }
}

/// One line for the span, then its events indented. Times of day are UTC.
pub fn render_span(span: &SpanData, colours: bool) -> String {
    let paint = Paint(colours);
    let attributes = Attributes(&span.attributes);
    if span.span_kind != SpanKind::Server {
        return render_wait(span, &attributes, &paint);
    }
    let failed = matches!(span.status, Status::Error { .. });
    let status = match attributes.text(name::HTTP_RESPONSE_STATUS_CODE) {
        Some(code) => code.into_owned(),
        None => "---".to_owned(),
    };
    let status = match status.as_bytes().first() {
        _ if failed => paint.red(&status),
        Some(b'4') => paint.yellow(&status),
        _ => paint.green(&status),
    };
    let method = attributes
        .text(name::HTTP_REQUEST_METHOD_ORIGINAL)
        .or(attributes.text(name::HTTP_REQUEST_METHOD))
        .unwrap_or_default();
    let mut target = attributes.text(name::URL_PATH).unwrap_or_default().into_owned();
    if let Some(query) = attributes.text(name::URL_QUERY) {
        target = format!("{target}?{query}");
    }
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();

    let mut line = format!(
        "{}  {status}  {} {}  {}",
        clock(span.start_time),
        escape(&method),
        escape(&target),
        millis(took)
    );
    let after = attributes.number(name::PHP_POST_RESPONSE_DURATION);
    if let Some(seconds) = after.filter(|seconds| *seconds >= LONG_AFTER_S) {
        append(
            &mut line,
            format_args!(" + {:.1} ms after the response", seconds * 1e3),
        );
    }
    if let (Some(user), Some(system)) = (
        attributes.number(name::PHP_CPU_USER_TIME),
        attributes.number(name::PHP_CPU_SYSTEM_TIME),
    ) {
        append(&mut line, format_args!("  cpu {:.1} ms", (user + system) * 1e3));
    }
    if let Some(seconds) = attributes.number(name::PHP_TIME_BLOCKED) {
        append(&mut line, format_args!("  blocked {:.1} ms", seconds * 1e3));
    }
    if let Some(bytes) = attributes.number(name::PHP_MEMORY_PEAK) {
        append(
            &mut line,
            format_args!("  mem {:.1} MiB", bytes / f64::from(1 << 20)),
        );
    }
    for (label, key) in [
        ("pool", name::PHP_POOL),
        ("pid", name::PROCESS_PID),
        ("error", name::ERROR_TYPE),
    ] {
        if let Some(value) = attributes.text(key) {
            append(&mut line, format_args!("  {label} {}", escape(&value)));
        }
    }
    let trace = format!("trace {}", span.span_context.trace_id());
    append(&mut line, format_args!("  {}\n", paint.dim(&trace)));

    if let (Status::Error { description }, true) = (&span.status, span.events.iter().all(is_sample))
        && !description.is_empty()
    {
        append(
            &mut line,
            format_args!("    {}\n", paint.red(&escape(description))),
        );
    }
    let mut before = None;
    for event in span.events.iter() {
        line += &render_event(event, before, &paint);
        before = Some(event);
    }
    line
}

/// One line: `12:01:02.123Z    waited 50.0 ms in mysqli_query (/srv/db.php:42) for network
/// 127.0.0.1:3306 …`.
fn render_wait(span: &SpanData, attributes: &Attributes<'_>, paint: &Paint) -> String {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    let mut line = format!("waited {} in {}", millis(took), escape(&span.name));
    if let (Some(file), Some(number)) = (
        attributes.text(name::CODE_FILE_PATH),
        attributes.text(name::CODE_LINE_NUMBER),
    ) {
        append(&mut line, format_args!(" ({}:{number})", escape(&file)));
    }
    let class = attributes.text(name::PHP_WAIT_CLASS).unwrap_or_default();
    append(&mut line, format_args!(" for {class}"));
    let with = attributes
        .text(name::NETWORK_PEER_ADDRESS)
        .or(attributes.text(name::FILE_NAME));
    if let Some(with) = with {
        append(&mut line, format_args!(" {}", escape(&with)));
    }
    if let Some(port) = attributes.text(name::NETWORK_PEER_PORT) {
        append(&mut line, format_args!(":{port}"));
    }
    let trace = paint.dim(&format!("trace {}", span.span_context.trace_id()));
    format!("{}    {line}  {trace}\n", clock(span.start_time))
}

/// One line for the record, then its stack indented.
pub fn render_log(record: &SdkLogRecord, colours: bool) -> String {
    let paint = Paint(colours);
    let time = record
        .timestamp()
        .or(record.observed_timestamp())
        .unwrap_or(UNIX_EPOCH);
    let body = record.body().map(any_text).unwrap_or_default();
    let severity = record.severity_text().unwrap_or("INFO");
    let mut out = format!("{}  {}  {}", clock(time), paint.yellow(severity), escape(&body));
    if let Some(context) = record.trace_context() {
        append(
            &mut out,
            format_args!("  {}", paint.dim(&format!("trace {}", context.trace_id))),
        );
    }
    out.push('\n');
    let stack = record
        .attributes_iter()
        .find(|(key, _)| key.as_str() == name::CODE_STACKTRACE);
    if let Some((_, stack)) = stack {
        indent(&mut out, &any_text(stack));
    }
    out
}

fn is_sample(event: &Event) -> bool {
    [name::EVENT_SLOW, name::EVENT_TERMINATED, name::EVENT_CRASHED].contains(&event.name.as_ref())
}

/// A sample whose stack is that of the one `before` it does not repeat it.
fn render_event(event: &Event, before: Option<&Event>, paint: &Paint) -> String {
    let attributes = Attributes(&event.attributes);
    let stack_before = before
        .filter(|before| is_sample(before))
        .and_then(|before| Attributes(&before.attributes).text(name::CODE_STACKTRACE));
    let same = stack_before.is_some() && stack_before == attributes.text(name::CODE_STACKTRACE);
    let place = match (
        attributes.text(name::CODE_FILE_PATH),
        attributes.text(name::CODE_LINE_NUMBER),
    ) {
        (Some(file), Some(line)) => Some(format!("{file}:{line}")),
        (file, _) => file.map(Cow::into_owned),
    };
    let (head, stack) = if is_sample(event) {
        let cause = match event.name.as_ref() {
            name::EVENT_TERMINATED => match attributes.text(name::PHP_TERMINATION_REASON) {
                Some(reason) => format!("killed ({reason})"),
                None => "killed".to_owned(),
            },
            name::EVENT_CRASHED => match attributes.text(name::PHP_WORKER_EXIT_SIGNAL) {
                Some(signal) => format!("crashed ({signal})"),
                None => "crashed".to_owned(),
            },
            _ => "slow".to_owned(),
        };
        let mut head = format!(
            "{cause} after {:.2} s",
            attributes.number(name::PHP_REQUEST_ELAPSED).unwrap_or(0.0)
        );
        if let Some(function) = attributes.text(name::CODE_FUNCTION_NAME) {
            append(&mut head, format_args!(" in {function}"));
        }
        if let Some(place) = place {
            append(&mut head, format_args!(" ({place})"));
        }
        if let Some(wait) = attributes.text(name::PHP_WAIT) {
            append(&mut head, format_args!(", waiting: {wait}"));
        }
        if let Some(seconds) = attributes.number(name::PHP_WAIT_ELAPSED) {
            append(&mut head, format_args!(", {seconds:.2} s so far"));
        }
        if same {
            head.push_str(", the same stack");
        }
        (
            paint.yellow(&escape(&head)),
            attributes.text(name::CODE_STACKTRACE).filter(|_| !same),
        )
    } else {
        let mut head = event.name.clone().into_owned();
        if let Some(kind) = attributes.text(name::EXCEPTION_TYPE) {
            append(&mut head, format_args!(" {kind}"));
        }
        if let Some(message) = attributes.text(name::EXCEPTION_MESSAGE) {
            append(&mut head, format_args!(": {message}"));
        }
        if let Some(place) = place {
            append(&mut head, format_args!(" at {place}"));
        }
        (
            paint.red(&escape(&head)),
            attributes.text(name::EXCEPTION_STACKTRACE),
        )
    };
    let mut out = format!("    {head}\n");
    if let Some(stack) = stack {
        indent(&mut out, &stack);
    }
    out
}

fn indent(out: &mut String, stack: &str) {
    for frame in stack.lines() {
        append(out, format_args!("        {}\n", escape(frame)));
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

/// Time of day in UTC, `12:01:02.123Z`.
fn clock(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let of_day = since.as_secs() % 86_400;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{:03}Z",
        since.subsec_millis()
    )
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

/// Control characters, and those that reorder text, as escapes.
fn escape(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    Cow::Owned(out)
}

/// The same for text of several lines.
fn escape_lines(text: &str) -> String {
    text.lines()
        .fold(String::new(), |out, line| out + &escape(line) + "\n")
}

fn any_text(value: &AnyValue) -> Cow<'_, str> {
    match value {
        AnyValue::String(text) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(format!("{other:?}")),
    }
}

struct Attributes<'a>(&'a [KeyValue]);

impl<'a> Attributes<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0
            .iter()
            .find(|pair| pair.key.as_str() == key)
            .map(|pair| &pair.value)
    }

    fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).map(Value::as_str)
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::F64(number) => Some(*number),
            Value::I64(number) => Some(*number as f64),
            _ => None,
        }
    }
}

/// SGR colours (ECMA-48), or none.
struct Paint(bool);

impl Paint {
    fn red(&self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn green(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn dim(&self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
