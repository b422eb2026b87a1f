//! PROCESS: the supervisor. Holds the listening sockets, starts PHP in an engine, keeps
//! the workers running, and stops everything in order.
//!
//! It runs on one thread: children re-parented to us belong to it, and it never forks
//! PHP itself. It parses nothing that comes from the network and trusts nothing that a
//! worker can write; telemetry is the observer's, a process it only starts and feeds.
//! Signals, messages and ends of processes become events of one loop. Start reading at
//! [`run`], then `phase`, `worker` and `engine` for the tables, `crew` for what is done.

mod backoff;
mod companion;
mod crew;
mod cursors;
mod departed;
mod engine;
mod error;
mod host;
mod hosting;
mod identity;
mod link;
mod listener;
mod observer;
mod output;
mod phase;
mod pid_file;
mod pools;
mod process;
mod run;
mod set_up;
mod telemetry;
mod worker;

use std::path::PathBuf;

pub use companion::CompanionSpec;
pub use engine::EngineSource;
pub use error::StartError;
pub use host::{BuildId, Host, HostError, InspectError, choose};
pub use identity::IdentityError;
pub use listener::{ListenError, name as listen_name};
pub use run::run;

use crate::config::Settings;
use crate::logs::ErrorLog;

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
    /// INI entries as `-d` gives them; after, and so over, those of `[php] define`.
    pub define: Vec<String>,
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
            define: Vec::new(),
            companion: None,
            announce: None,
        }
    }
}

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
