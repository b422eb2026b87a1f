//! What the telemetry pipeline has to say of itself, as lines of the error log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::text::Plain;
use crate::logs::ErrorLog;

/// Writes our own crates' warnings and errors; what libraries say would repeat them.
#[derive(Debug)]
pub(super) struct Diagnostics(pub(super) ErrorLog);

impl Subscriber for Diagnostics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN && metadata.target().starts_with("glasspool")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let line = Plain(line.message + &line.fields).to_string();
        if *event.metadata().level() == Level::ERROR {
            self.0.error(line);
        } else {
            self.0.warning(line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

impl Line {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let written = match field.name() {
            "message" => self.message.write_fmt(value),
            name => write!(self.fields, ", {name}: {value}"),
        };
        written.expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;

    #[test]
    fn a_warning_becomes_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = ErrorLog::file(&path, LogLevel::Notice).unwrap();
        tracing::subscriber::with_default(Diagnostics(log), || {
            tracing::warn!(signal = "traces", lost = 3, "telemetry was\nlost");
            tracing::info!("not this");
            tracing::warn!(target: "hyper", "nor this");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.ends_with("WARNING: telemetry was\\nlost, signal: traces, lost: 3\n"),
            "{text}"
        );
    }
}
