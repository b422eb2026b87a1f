//! The status page in its formats: php-fpm's layouts, byte for byte.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::asked::{Asked, Format};
use super::escape;
use super::fields::{self, Field, Value};
use super::figures::Figures;
use super::openmetrics::openmetrics;

/// Where the label of a line of text ends.
const LABEL_COLUMNS: usize = 22;

/// What a page knows of time.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Seconds since the Unix epoch.
    pub(crate) now: u64,
    /// Where people live who read the page.
    pub(crate) zone: TimeZone,
}

impl Clock {
    /// Such seconds as local time, for example `22/Nov/2026:13:21:15 +0000`.
    fn local(&self, seconds: u64) -> String {
        let time = i64::try_from(seconds).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(time).unwrap_or(Timestamp::MAX);
        let time = time.to_zoned(self.zone.clone());
        time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
    }
}

/// The Content-Type header of a format.
pub(crate) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text => "Content-Type: text/plain",
        Format::Html => "Content-Type: text/html",
        Format::Xml => "Content-Type: text/xml",
        Format::Json => "Content-Type: application/json",
        Format::OpenMetrics => "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}

/// The page.
pub(crate) fn page(asked: Asked, figures: &Figures, clock: &Clock) -> String {
    let mut out = String::with_capacity(
        1024 + if asked.full {
            figures.processes.len() * 512
        } else {
            0
        },
    );
    match asked.format {
        Format::Text => text(&mut out, asked.full, figures, clock),
        Format::Html => html(&mut out, asked.full, figures, clock),
        Format::Xml => xml(&mut out, asked.full, figures, clock),
        Format::Json => json(&mut out, asked.full, figures, clock),
        Format::OpenMetrics => openmetrics(&mut out, &figures.pool, clock.now),
    }
    out
}

fn processes<'a>(figures: &'a Figures, clock: &Clock) -> impl Iterator<Item = [Field<'a>; 13]> {
    let now = clock.now;
    figures
        .processes
        .iter()
        .map(move |process| fields::process(process, now))
}

/// Writes a value; texts and times are the format's own.
fn show(
    out: &mut String,
    value: &Value<'_>,
    text: impl Fn(&mut String, &[u8]),
    time: impl Fn(u64) -> String,
) {
    match value {
        Value::Text(bytes) => text(out, bytes),
        Value::Uri(path, query) => {
            text(out, path);
            out.push('?');
            text(out, query);
        }
        Value::Number(number) => put(out, format_args!("{number}")),
        Value::Time(seconds) => out.push_str(&time(*seconds)),
        Value::Percent(percent) => put(out, format_args!("{percent:.2}")),
    }
}

pub(crate) fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a String takes everything");
}

fn text(out: &mut String, full: bool, figures: &Figures, clock: &Clock) {
    text_lines(out, &fields::pool(&figures.pool, clock.now), clock);
    if full {
        for process in processes(figures, clock) {
            out.push_str("\n************************\n");
            text_lines(out, &process, clock);
        }
    }
}

fn text_lines(out: &mut String, fields: &[Field<'_>], clock: &Clock) {
    for (name, value) in fields {
        let name = if *name == "request uri" {
            "request URI"
        } else {
            name
        };
        put(out, format_args!("{:<LABEL_COLUMNS$}", format!("{name}:")));
        show(out, value, escape::line, |seconds| clock.local(seconds));
        out.push('\n');
    }
}

const HTML_HEAD: &str = r#"<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
<head><title>PHP-FPM Status Page</title></head>
<body>
<table>
"#;

fn html(out: &mut String, full: bool, figures: &Figures, clock: &Clock) {
    out.push_str(HTML_HEAD);
    for (name, value) in fields::pool(&figures.pool, clock.now) {
        put(out, format_args!("<tr><th>{name}</th><td>"));
        show(out, &value, escape::markup, |seconds| clock.local(seconds));
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table>\n");
    if full {
        out.push_str("<table border=\"1\">\n<tr>");
        for name in fields::process_names() {
            put(out, format_args!("<th>{name}</th>"));
        }
        out.push_str("</tr>\n");
        for process in processes(figures, clock) {
            out.push_str("<tr>");
            for (_, value) in &process {
                out.push_str("<td>");
                show(out, value, escape::markup, |seconds| clock.local(seconds));
                out.push_str("</td>");
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>");
    }
    out.push_str("</body></html>");
}

fn xml(out: &mut String, full: bool, figures: &Figures, clock: &Clock) {
    out.push_str("<?xml version=\"1.0\" ?>\n<status>\n");
    for field in fields::pool(&figures.pool, clock.now) {
        xml_element(out, &field);
        out.push('\n');
    }
    if full {
        out.push_str("<processes>\n");
        for process in processes(figures, clock) {
            out.push_str("<process>");
            for field in &process {
                xml_element(out, field);
            }
            out.push_str("</process>\n");
        }
        out.push_str("</processes>\n");
    }
    out.push_str("</status>");
}

fn xml_element(out: &mut String, (name, value): &Field<'_>) {
    let name = name.replace(' ', "-");
    put(out, format_args!("<{name}>"));
    show(out, value, escape::markup, |seconds| seconds.to_string());
    put(out, format_args!("</{name}>"));
}

fn json(out: &mut String, full: bool, figures: &Figures, clock: &Clock) {
    out.push('{');
    json_members(out, &fields::pool(&figures.pool, clock.now));
    if full {
        out.push_str(", \"processes\":[");
        for (index, process) in processes(figures, clock).enumerate() {
            out.push_str(if index == 0 { "{" } else { ",{" });
            json_members(out, &process);
            out.push('}');
        }
        out.push(']');
    }
    out.push('}');
}

fn json_members(out: &mut String, fields: &[Field<'_>]) {
    for (index, (name, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let quote = match value {
            Value::Text(_) | Value::Uri(..) => "\"",
            Value::Number(_) | Value::Time(_) | Value::Percent(_) => "",
        };
        put(out, format_args!("{comma}\"{name}\":{quote}"));
        show(out, value, escape::json, |seconds| seconds.to_string());
        out.push_str(quote);
    }
}
