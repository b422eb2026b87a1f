//! A snapshot as Prometheus reads it: its text format 0.0.4, and OpenMetrics 1.0, which
//! alone has exemplars.
//!
//! Names follow specification/compatibility/prometheus_and_openmetrics.md: dots become
//! `_`, units are appended as words, what only grows ends with `_total`, the scope is on
//! every series and the resource is `target_info`. Pure: text in, text out.

mod names;

use std::fmt::Write;
use std::time::Duration;

use opentelemetry::KeyValue;
pub use opentelemetry_sdk::Resource;

use self::names::{Family, label_names};
use super::{DURATION_BOUNDS, Exemplar, Figure, Histogram, Kind, Metric, Snapshot};
use crate::span::scope;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4, which every scraper reads.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// A series in words of its own, whatever our instruments are called.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// Its whole name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Labels and values.
    pub points: Vec<(Vec<(&'static str, String)>, i64)>,
}

impl Format {
    /// What a scraper that sends this `Accept` header gets: OpenMetrics if it names it and
    /// does not like plain text better (RFC 9110, 12.4.2), else the text format.
    pub fn negotiate(accept: &str) -> Format {
        let (mut open, mut text) = (0.0, 0.0);
        // No sane header has more.
        for range in accept.split(',').take(32) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0_f32;
            let mut is_known = true;
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    // 0.0.1 is the same with fewer promises.
                    Some(("version", value)) => is_known = ["1.0.0", "0.0.1", "0.0.4"].contains(&value),
                    Some(_) | None => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = quality.max(open),
                "text/plain" | "text/*" if is_known => text = quality.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// The answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The whole page. Its length is that of the figures: some 150 bytes each, a histogram
/// 17 times that.
pub fn render(snapshot: &Snapshot, resource: &Resource, foreign: &[Foreign], format: Format) -> String {
    let mut page = Page {
        out: String::with_capacity(16 * 1024),
        format,
        scope: scope_labels(),
    };
    page.target(resource);
    for metric in snapshot.metrics.iter().filter(|metric| !metric.points.is_empty()) {
        page.metric(metric);
    }
    for family in foreign.iter().filter(|family| !family.points.is_empty()) {
        page.foreign(family);
    }
    if format == Format::OpenMetrics {
        page.out += "# EOF\n";
    }
    page.out
}

struct Page {
    out: String,
    format: Format,
    /// `otel_scope_name="…",otel_scope_version="…"`.
    scope: String,
}

impl Page {
    fn target(&mut self, resource: &Resource) {
        let (name, kind) = match self.format {
            Format::Text => ("target_info", "gauge"),
            Format::OpenMetrics => ("target", "info"),
        };
        self.head(name, kind, "", "What the figures are of.");
        let attributes = resource
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let attributes: Vec<KeyValue> = attributes.collect();
        let mut labels = String::new();
        push_attributes(&mut labels, &attributes);
        self.sample("target_info", &labels, "1");
        self.end_of_line(None);
    }

    fn metric(&mut self, metric: &Metric) {
        let family = Family::of(metric.instrument);
        let kind = match metric.instrument.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let total = format!("{}_total", family.name);
        let sampled = if metric.instrument.kind == Kind::Counter {
            &total
        } else {
            &family.name
        };
        // OpenMetrics names the family, the text format what is sampled.
        let told = match self.format {
            Format::Text => sampled,
            Format::OpenMetrics => &family.name,
        };
        self.head(told, kind, family.unit, metric.instrument.description);
        for point in &metric.points {
            let mut labels = self.scope.clone();
            push_attributes(&mut labels, &point.attributes);
            match &point.value {
                Figure::Int(value) => self.line(sampled, &labels, &value.to_string()),
                Figure::Float(value) => self.line(sampled, &labels, &value.to_string()),
                Figure::Histogram(histogram) => self.histogram(&family.name, &labels, histogram),
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let bounds = DURATION_BOUNDS.iter().map(|bound| match self.format {
            Format::Text => bound.to_string(),
            // OpenMetrics, "Considerations: Canonical Numbers": 1.0, not 1.
            Format::OpenMetrics => format!("{bound:?}"),
        });
        let bounds: Vec<String> = bounds.chain(["+Inf".to_owned()]).collect();
        let bucket_name = format!("{name}_bucket");
        let mut count = 0;
        for (bucket, (bound, alone)) in bounds.iter().zip(histogram.buckets()).enumerate() {
            count += alone;
            self.sample(
                &bucket_name,
                &format!("{labels},le=\"{bound}\""),
                &count.to_string(),
            );
            self.end_of_line(histogram.exemplars()[bucket].as_ref());
        }
        let sum = histogram.sum().as_secs_f64().to_string();
        self.line(&format!("{name}_sum"), labels, &sum);
        self.line(&format!("{name}_count"), labels, &count.to_string());
    }

    fn foreign(&mut self, family: &Foreign) {
        // Some of these names break the rules of the type that they are of.
        let kind = match self.format {
            Format::Text => "untyped",
            Format::OpenMetrics => "unknown",
        };
        self.head(family.name, kind, "", family.help);
        for (labels, value) in &family.points {
            let mut out = String::new();
            for (name, value) in labels {
                push_label(&mut out, name, value);
            }
            self.line(family.name, &out, &value.to_string());
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        self.push(format_args!("# TYPE {name} {kind}\n"));
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            self.push(format_args!("# UNIT {name} {unit}\n"));
        }
        self.push(format_args!("# HELP {name} "));
        for c in help.chars() {
            match c {
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '"' if self.format == Format::OpenMetrics => self.out += "\\\"",
                c => self.out.push(c),
            }
        }
        self.out.push('\n');
    }

    fn line(&mut self, name: &str, labels: &str, value: &str) {
        self.sample(name, labels, value);
        self.end_of_line(None);
    }

    fn sample(&mut self, name: &str, labels: &str, value: &str) {
        self.push(format_args!("{name}{{{labels}}} {value}"));
    }

    fn end_of_line(&mut self, exemplar: Option<&Exemplar>) {
        if let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) {
            let seconds = Duration::from_nanos(exemplar.ns).as_secs_f64();
            let at = Duration::from_nanos(exemplar.unix_ns);
            self.push(format_args!(
                " # {{trace_id=\"{}\",span_id=\"{}\"}} {seconds} {}.{:03}",
                hex(&exemplar.trace_id.0),
                hex(&exemplar.span_id.0),
                at.as_secs(),
                at.subsec_millis()
            ));
        }
        self.out.push('\n');
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("writing to a string does not fail");
    }
}

fn scope_labels() -> String {
    let scope = scope();
    let mut labels = String::new();
    push_label(&mut labels, "otel_scope_name", scope.name());
    push_label(
        &mut labels,
        "otel_scope_version",
        scope.version().unwrap_or_default(),
    );
    labels
}

fn push_attributes(out: &mut String, attributes: &[KeyValue]) {
    for (name, value) in label_names(attributes) {
        push_label(out, &name, &value);
    }
}

/// Values may have any character; three of them are written otherwise.
fn push_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
