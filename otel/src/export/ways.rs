//! From where a signal is to go to a lane that goes there.

use std::sync::{Arc, Mutex};

use super::{
    Terminal,
    console::Console,
    lane::{Lane, LaneOptions, Sink},
    lines::{JsonLines, Lines},
    otlp::{Messages, Otlp, PipelineError, Protobuf},
};
use crate::options::{BatchOptions, ExporterKind, SignalOptions};

/// The ways out that all signals share.
pub(super) struct Ways {
    pub(super) console: Arc<Mutex<Terminal>>,
    pub(super) file: Option<Lines>,
    pub(super) stdout: Option<Lines>,
}

/// Which signal, where it goes, and how much of it at a time.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) name: &'static str,
    pub(super) options: &'a SignalOptions,
    pub(super) batch: BatchOptions,
}

impl Way<'_> {
    fn lane(&self, target: &str) -> LaneOptions {
        LaneOptions {
            signal: self.name,
            target: target.to_owned(),
            delay: self.batch.schedule_delay,
            batch: self.batch,
        }
    }
}

impl Ways {
    /// A lane for a signal that goes somewhere.
    pub(super) fn start<S>(
        &self,
        way: Way<'_>,
        size: fn(&S::Item) -> usize,
        signal: S,
    ) -> Result<Option<Lane<S::Item>>, PipelineError>
    where
        S: Messages + Protobuf,
        Console: Sink<S::Item>,
    {
        match way.options.exporter {
            ExporterKind::Otlp => self.send(way, size, signal).map(Some),
            _ => self.write(way, size, signal),
        }
    }

    /// A lane to a collector.
    pub(super) fn send<S: Protobuf>(
        &self,
        way: Way<'_>,
        size: fn(&S::Item) -> usize,
        signal: S,
    ) -> Result<Lane<S::Item>, PipelineError> {
        let target = &way.options.target;
        let sink = Otlp::new(signal, target)?;
        Ok(Lane::start(way.lane(&target.endpoint), sink, size))
    }

    /// A lane to anything else, if the signal goes anywhere.
    pub(super) fn write<S>(
        &self,
        way: Way<'_>,
        size: fn(&S::Item) -> usize,
        signal: S,
    ) -> Result<Option<Lane<S::Item>>, PipelineError>
    where
        S: Messages,
        Console: Sink<S::Item>,
    {
        let lines = |target: &'static str, lines: &Option<Lines>, signal| {
            let lines = lines.clone().ok_or(PipelineError::NoOutput { target })?;
            Ok(Lane::start(way.lane(target), JsonLines::new(signal, lines), size))
        };
        Ok(Some(match way.options.exporter {
            // To a collector is `send`'s.
            ExporterKind::None | ExporterKind::Otlp => return Ok(None),
            ExporterKind::Console => {
                let console = Console::new(self.console.clone());
                Lane::start(way.lane("the terminal"), console, size)
            }
            ExporterKind::OtlpFile => lines("the file of [otel]", &self.file, signal)?,
            ExporterKind::OtlpStdout => lines("standard output", &self.stdout, signal)?,
        }))
    }
}
