//! A failed load as php-fpm's log has it.

use std::path::PathBuf;

use super::effective::{Global, LogLevel, Notice};
use super::error::{ConfigError, Fault, PoolFault, Stage};

/// Why there are no settings, and what was worth telling before.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct LoadFailure {
    /// What was noticed before the mistake, in the order found.
    pub notices: Vec<Notice>,
    /// The mistake. `Display` says it in one line, place and help included.
    pub error: ConfigError,
    /// `[global]`, where it was in order: php-fpm writes a mistake in a pool to the error log, too.
    pub global: Option<Box<Global>>,
    /// The file that cannot be loaded, as it was named.
    pub(super) file: PathBuf,
}

impl LoadFailure {
    /// Everything to log, in order: the notices, php-fpm's line for the mistake, a line of our own with its place and
    /// what is allowed, and php-fpm's closing lines.
    ///
    /// The second line is apart because log tools and php-fpm's tests match the first one to its end.
    pub fn lines(&self) -> Vec<(LogLevel, String)> {
        let notices = self.notices.iter();
        let mut lines: Vec<(LogLevel, String)> = notices
            .map(|notice| (notice.level, notice.text.clone()))
            .collect();
        lines.push((self.error.fault().level(), self.first_line()));
        let mut error = |text: String| lines.push((LogLevel::Error, text));
        if let Some(help) = self.help_line() {
            error(help);
        }
        for include in self.error.includes() {
            let (file, line) = (super::Shown::from(&*include.at.file), include.at.line);
            error(format!(
                "Unable to include {} from {file} at line {line}",
                include.file
            ));
        }
        match self.error.fault().stage() {
            Stage::Reading => error(format!(
                "failed to load configuration file '{}'",
                super::Shown::from(self.file.as_path())
            )),
            Stage::PostProcessing => error("failed to post process the configuration".to_owned()),
            Stage::Arguments | Stage::Starting => {}
        }
        error("FPM initialization failed".to_owned());
        lines
    }

    fn first_line(&self) -> String {
        let message = self.error.message();
        match self.error.place().filter(|_| self.error.fault().names_place()) {
            Some(place) => format!("[{place}] {message}"),
            None => message,
        }
    }

    fn help_line(&self) -> Option<String> {
        // php-fpm's tests compare the whole output for these two, so there is no room for another line.
        let whole = matches!(
            self.error.fault(),
            Fault::Pool {
                fault: PoolFault::UnknownUser { .. } | PoolFault::UnknownGroup { .. },
                ..
            }
        );
        if whole {
            return None;
        }
        let help = self.error.help();
        match (self.error.place(), help) {
            (Some(place), Some(help)) => Some(format!("[{place}] {help}")),
            (None, help) => help,
            // The first line has said the place already.
            (Some(_), None) if self.error.fault().names_place() => None,
            (Some(place), None) => Some(format!("[{place}] the mistake is here")),
        }
    }
}
