//! The configuration room: php-fpm.conf and `glasspool.toml` in, checked values out.
//!
//! Start with [`load`], then `effective` for what comes out. On the way: `ini` (the dialect's syntax), `directives`
//! (the table of names and types), `fpm` (files, sections, includes), `overlay` (`glasspool.toml`), `check` (what
//! only the whole can tell), `error` (every refusal, as one catalogue).
//!
//! The first mistake stops the load and nothing is half-applied. Deliberately not done here: opening log files or
//! sockets, changing identity, reading `OTEL_*` (the telemetry crate does, and it wins), logging (what deserves a
//! line is returned as notices).
//!
//! Differences from php-fpm, all refusals of what it misreads in silence, are listed at the parsers that make them.

mod accounts;
mod check;
mod directives;
mod effective;
mod error;
mod fpm;
mod ini;
mod listen;
mod overlay;
mod php_values;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;

pub use accounts::{Account, AccountLookup, SystemAccounts};
pub use effective::{
    Backlog, DEFAULT_SLOW_DEPTH, Environment, Global, Identity, ListenAddress, LogLevel, Mode, Notice,
    PhpValue, Pool, Settings, SlowStop,
};
pub use error::{BadValue, ConfigError, Fault, Nearest, Place, PoolFault, Shown};
pub use overlay::{
    DEFAULT_QUEUE_BYTES, Exporter, Observer, Otel, Overlay, Php, PoolOverlay, Protocol, Sampler, Secret,
    Slow, Trace,
};

/// The name under which the overlay is looked for beside php-fpm.conf.
pub const OVERLAY_FILE: &str = "glasspool.toml";

/// php-fpm's compiled install prefix on Debian, for relative paths without `-p`.
const INSTALL_PREFIX: &str = "/usr";
/// php-fpm's compiled localstatedir on Debian, for a relative `pid` and `error_log` without `-p`.
const STATE_PREFIX: &str = "/var";

/// What to load, and the facts of the process that the checks depend on.
#[expect(
    missing_debug_implementations,
    reason = "an account database has nothing to show"
)]
pub struct LoadRequest<'a> {
    /// php-fpm.conf, used as given.
    pub fpm_conf: PathBuf,
    /// `glasspool.toml` by name, which then must exist; otherwise one beside `fpm_conf` is read if there is one.
    pub overlay: Option<PathBuf>,
    /// Start of relative paths (php-fpm's `-p`); must be a directory.
    pub prefix: Option<PathBuf>,
    /// The environment that `${NAME}` and `env[X] = $NAME` read.
    pub environment: Environment,
    /// Whether the effective user is root: then pools need a user, otherwise it is ignored with a notice.
    pub euid_root: bool,
    /// Who exists on this machine.
    pub lookup: &'a dyn AccountLookup,
}

/// Reads and checks the configuration. Reads files, stats directories, may resolve host names of `listen` lines;
/// changes nothing.
///
/// # Errors
/// The first mistake, with its file and line; see [`Fault`].
pub fn load(request: &LoadRequest<'_>) -> Result<Settings, ConfigError> {
    let prefixes = Prefixes::of(request)?;
    let raw = fpm::read(&request.fpm_conf, &prefixes.install, &request.environment)?;
    let (path, required) = match &request.overlay {
        Some(path) => (path.clone(), true),
        None => (request.fpm_conf.with_file_name(OVERLAY_FILE), false),
    };
    let mut overlay = Overlay::default();
    if let Some((read, source)) = overlay::read(&path, required)? {
        let pools: Vec<&str> = raw.pools.iter().map(|pool| pool.name.as_str()).collect();
        overlay::refuse_unknown_pools(&read, &source, &pools, &request.fpm_conf)?;
        overlay = read;
    }
    check::settings(raw, overlay, request, &prefixes)
}

/// Where relative paths start; absolute.
struct Prefixes {
    /// For all paths but those below.
    install: PathBuf,
    /// For `pid` and `error_log`.
    state: PathBuf,
}

impl Prefixes {
    fn of(request: &LoadRequest<'_>) -> Result<Self, ConfigError> {
        let Some(given) = &request.prefix else {
            return Ok(Self {
                install: INSTALL_PREFIX.into(),
                state: STATE_PREFIX.into(),
            });
        };
        let absolute = std::path::absolute(given).map_err(|e| ConfigError::io(given, None, e))?;
        if !absolute.is_dir() {
            let path = Shown::from(given.as_path());
            return Err(ConfigError::without_place(Fault::GlobalPrefix { path }));
        }
        Ok(Self {
            install: absolute.clone(),
            state: absolute,
        })
    }
}
