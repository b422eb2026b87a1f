//! PROCESS: the supervisor. Holds the listening sockets, starts PHP in an engine, keeps
//! the workers running, and stops everything in order.
//!
//! It runs on one thread: children re-parented to us belong to it, and it never forks
//! PHP itself. It parses nothing that comes from the network and trusts nothing that a
//! worker can write; telemetry is the observer's, a process it only starts and feeds.
//! Signals, messages and ends of processes become events of one loop. Start reading at
//! [`run`], then `phase`, `worker` and `engine` for the tables, `crew` for what is done.

mod backoff;
mod canary;
mod clocks;
mod companion;
mod crew;
mod ctl;
mod cursors;
mod departed;
mod describe;
mod engine;
mod engines;
mod error;
mod figures;
mod generation;
mod heartbeat;
mod host;
mod hosting;
mod identity;
mod last_look;
mod lifecycle;
mod link;
mod loading;
mod management;
mod notify;
mod observer;
mod opcache;
mod output;
mod pages;
mod phase;
mod pid_file;
mod pm;
mod pools;
mod prepare;
mod process;
mod programs;
mod raising;
mod recipe;
mod relay;
mod reload;
mod reopen;
mod run;
mod sampling;
mod scheduling;
mod scoreboard;
mod set_up;
mod sockets;
mod status;
mod successor;
mod switch;
mod telemetry;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;

pub use companion::CompanionSpec;
pub use describe::{AskedPhp, describe};
pub use engine::EngineSource;
pub use error::StartError;
pub use generation::describe_telemetry;
pub use host::{BuildId, Host, HostError, InspectError, choose};
pub use identity::IdentityError;
pub use run::run;
pub use sockets::{Handover, Key, ListenError, Listener, Queue, Sockets, name as listen_name};

use crate::config::{LogLevel, Settings};
use crate::logs::ErrorLog;

/// Longest time that PHP is given to start, after which the start has failed.
pub const START_TIME: std::time::Duration = engine::GREETING_TIME.saturating_add(engine::PHP_TIME);

/// Everything a supervisor is started with.
#[expect(missing_debug_implementations, reason = "holds a function")]
pub struct Launch {
    /// The checked configuration.
    pub settings: Settings,
    /// Where its lines go.
    pub log: ErrorLog,
    /// Whether pools may run as root.
    pub allow_root: bool,
    /// Where engines come from.
    pub engine: EngineSource,
    /// php.ini or its folder, as `-c` names it; before `[php] ini`.
    pub ini: Option<PathBuf>,
    /// Read no php.ini and no scan directory (`-n`).
    pub no_ini: bool,
    /// Compile with information for debuggers and profilers (`-e`).
    pub extended_info: bool,
    /// INI entries as `-d` gives them; after, and so over, those of `[php] define`.
    pub define: Vec<String>,
    /// What this program was called with, its own name first; shown at a reload.
    pub argv: Vec<OsString>,
    /// Reads the configuration again, for a reload.
    pub reload: Reload,
    /// A role that runs beside the pools.
    pub companion: Option<CompanionSpec>,
    /// Called once when connections are handled.
    pub announce: Option<Announce>,
}

impl Launch {
    /// With nothing out of the ordinary.
    pub fn new(settings: Settings, log: ErrorLog) -> Launch {
        let binary = settings.overlay.php.binary.clone();
        Launch {
            settings,
            log,
            allow_root: false,
            engine: EngineSource::Php { binary },
            ini: None,
            no_ini: false,
            extended_info: false,
            define: Vec::new(),
            argv: Vec::new(),
            reload: Box::new(|| {
                let reason = "there is no configuration file to read again".to_owned();
                Err(vec![(LogLevel::Error, reason)])
            }),
            companion: None,
            announce: None,
        }
    }
}

/// Reads the configuration again with the arguments of the start, without side effects.
///
/// # Errors
/// The lines that a start with it would end with.
pub type Reload = Box<dyn Fn() -> Result<Settings, Vec<(LogLevel, String)>>>;

/// Called once when connections are handled.
pub type Announce = Box<dyn FnOnce(&Announcement)>;

/// What runs once connections are handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// PHP's version, for example `8.2.36`.
    pub php: String,
    /// Workers of all pools.
    pub workers: u32,
}

/// Our own pid.
fn own_pid() -> glasspool_abi::Pid {
    glasspool_abi::Pid(rustix::process::getpid().as_raw_nonzero().get())
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of slots, and the same as `Instant`'s.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0);
    whole
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
