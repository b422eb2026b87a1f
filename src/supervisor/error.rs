//! Why the supervisor did not come up. Once it runs, trouble is logged and dealt with.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::host::HostError;
use super::identity::IdentityError;
use super::sockets::ListenError;
use crate::logs::Errno;

/// The start failed; everything that had been started is gone again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No PHP executable can host the engine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A pool cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Metrics cannot be fetched where they should be.
    #[error(
        "cannot serve metrics at {address}: {why} (see [metrics] listen in glasspool.toml, and OTEL_EXPORTER_PROMETHEUS_HOST and …_PORT)"
    )]
    Metrics {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// A user or group is unknown or not allowed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The engine's process could not be started.
    #[error("cannot start the engine in {}: {source}", binary.display())]
    Spawn {
        /// The PHP executable.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process ended, or went wrong, before PHP was asked to start.
    #[error("{} does not host the engine: {reason} (is it a stock PHP executable, without file capabilities, set-user-id or another LD_PRELOAD?)", binary.display())]
    NotHosting {
        /// The PHP executable.
        binary: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Engine object and program were not built together.
    #[error("the engine object in {} speaks version {theirs} of the control protocol, this program version {ours} (build both from the same source)", binary.display())]
    Version {
        /// The PHP executable.
        binary: PathBuf,
        /// The object's version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// PHP itself did not start.
    #[error("PHP in {} did not start: {reason} (its own messages are above)", binary.display())]
    Php {
        /// The PHP executable.
        binary: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A pool's slow log.
    #[error("[pool {pool}] Unable to create or open slowlog({}): {}", path.display(), Errno(source))]
    SlowLog {
        /// Whose.
        pool: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pool's access log.
    #[error("failed to open access log ({}): {}", path.display(), Errno(source))]
    AccessLog {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pid file.
    #[error("Unable to create the PID file ({}).: {}", path.display(), Errno(source))]
    PidFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that takes our place on a reload.
    #[error("failed to reload: execvp({}) failed: {}", program.display(), Errno(source))]
    Successor {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel programs, which the configuration insists on.
    #[error("the kernel programs do not run, and ebpf.mode is \"required\": {reason}")]
    Programs {
        /// Why, and what would help.
        reason: String,
    },
    /// The system refuses something basic.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// The exit status, as php-fpm chooses it: 70 (EX_SOFTWARE) when PHP itself fails,
    /// else 78 (EX_CONFIG).
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Php { .. } | StartError::Successor { .. } => 70,
            StartError::Host(_)
            | StartError::Listen(_)
            | StartError::Metrics { .. }
            | StartError::Identity(_)
            | StartError::Spawn { .. }
            | StartError::NotHosting { .. }
            | StartError::Version { .. }
            | StartError::SlowLog { .. }
            | StartError::AccessLog { .. }
            | StartError::PidFile { .. }
            | StartError::Programs { .. }
            | StartError::System { .. } => 78,
        }
    }

    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> StartError {
        move |source| StartError::System {
            what,
            source: source.into(),
        }
    }
}

/// A time as php-fpm writes it: `1.234567 seconds`.
pub(super) fn seconds(time: Duration) -> String {
    format!("{}.{:06} seconds", time.as_secs(), time.subsec_micros())
}
