//! Where exporters write that send nothing: the terminal, standard output, and the file
//! that the supervisor has opened. Each of the last two is a thread, so there is one only
//! where it is wanted.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_otel::export::{self, Lines};
use glasspool_otel::options::{ExporterKind, Options};

use super::report::OpenTerminal;
use crate::logs::ErrorLog;

/// What pipelines are given: they are made twice.
pub(super) struct Outputs {
    terminal: OpenTerminal,
    file: Option<Lines>,
    stdout: Option<Lines>,
}

impl Outputs {
    pub(super) fn new(options: &Options, terminal: OpenTerminal, log: &ErrorLog) -> Outputs {
        let signals = [&options.traces, &options.logs, &options.metrics];
        let start = |kind, file: fn() -> std::io::Result<Option<File>>| {
            let wanted = signals.iter().any(|signal| signal.exporter == kind);
            let lines = wanted.then(|| file().and_then(Lines::start)).transpose();
            lines.unwrap_or_else(|e| {
                log.error(format_args!("cannot write telemetry as lines: {e}"));
                None
            })
        };
        Outputs {
            terminal,
            // The file itself comes from the supervisor, who may open it.
            file: start(ExporterKind::OtlpFile, || Ok(None)),
            stdout: start(ExporterKind::OtlpStdout, || {
                let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
                Ok(Some(File::from(stdout)))
            }),
        }
    }

    /// For a pipeline.
    pub(super) fn open(&self) -> export::Outputs {
        export::Outputs {
            terminal: (self.terminal)(),
            file: self.file.clone(),
            stdout: self.stdout.clone(),
        }
    }

    /// The file was opened, or opened anew.
    pub(super) fn replace_file(&self, file: OwnedFd) {
        if let Some(lines) = &self.file {
            lines.replace(File::from(file));
        }
    }
}
