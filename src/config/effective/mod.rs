//! The checked configuration: what the rest of the program works with, units as types.
//!
//! Everything here is plain data with public fields, so that `glasspool serve DIR` and tests make a
//! configuration without a file. Nothing here reads files, and accounts stay names: whoever needs ids asks the
//! system at that moment.

mod global;
mod pool;

use std::collections::BTreeMap;

pub use global::{DEFAULT_LOG_LIMIT, EmergencyRestart, Global, LogTarget, Syslog};
pub(super) use pool::DEFAULT_SLOW_SAMPLES;
pub use pool::{
    Backlog, DEFAULT_ACCESS_FORMAT, DEFAULT_SLOW_DEPTH, Identity, ListenAddress, MAX_SOCKET_PATH_BYTES, Mode,
    PhpValue, Pool, PoolPhp, ProcessManager, SlowStop,
};

use super::dump;
use super::error::Place;
use super::fpm::RawFpm;
use super::overlay::Overlay;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `[global]` says.
    pub global: Global,
    /// At least one pool, in file order.
    pub pools: Vec<Pool>,
    /// What `glasspool.toml` says beyond the pools; its `[slow]` values are already applied to `pools`.
    pub overlay: Overlay,
    /// What is worth telling but no reason to refuse, in the order found; for a test of the configuration, too.
    pub notices: Vec<Notice>,
    /// What is worth telling when the pools are started: above all what is ignored without being root.
    pub start_notices: Vec<Notice>,
    /// As written, for [`dump`](Self::dump).
    pub(in crate::config) written: Option<Box<RawFpm>>,
}

impl Settings {
    /// One pool and nothing else: what `glasspool serve DIR` needs.
    pub fn single(pool: Pool) -> Self {
        Self {
            global: Global::default(),
            pools: vec![pool],
            overlay: Overlay::default(),
            notices: Vec::new(),
            start_notices: Vec::new(),
            written: None,
        }
    }

    /// The configuration as `-tt` prints it, one log line each: php-fpm's form and order. Nothing for settings that
    /// came from no file.
    pub fn dump(&self) -> Vec<String> {
        let written = self.written.as_deref();
        written.map_or_else(Vec::new, |written| dump::settings(self, written))
    }
}

/// php-fpm's severities, least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the log's own words")]
pub enum LogLevel {
    Debug,
    #[default]
    Notice,
    Warning,
    Error,
    Alert,
}

/// Something worth one log line that did not stop the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Severity to log it with.
    pub level: LogLevel,
    /// The line it is about, if there is one.
    pub place: Option<Place>,
    /// The text, php-fpm's where it has one.
    pub text: String,
}

/// The environment that `${NAME}` and `env[X] = $NAME` read.
pub type Environment = BTreeMap<String, String>;
