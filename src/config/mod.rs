//! The configuration room: php-fpm.conf and `glasspool.toml` in, checked values out.
//!
//! Start with [`load`], then `effective` for what comes out. On the way: `ini` (the dialect's syntax), `directives`
//! (the table of names and types), `fpm` (files, sections, includes), `assign` (one line into its section), `overlay`
//! (`glasspool.toml`), `check` (what only the whole can tell), `error` (every refusal, as one catalogue), `failure`
//! (a refusal as php-fpm logs it), `dump` (what `-tt` prints).
//!
//! The first mistake stops the load and nothing is half-applied. Deliberately not done here: making or opening log
//! files and sockets, changing identity, reading `OTEL_*` (the telemetry crate does, and it wins), logging (what
//! deserves a line is returned).
//!
//! Differences from php-fpm, all refusals of what it misreads in silence, are listed at the parsers that make them.

pub mod access_format;
mod accounts;
mod assign;
mod check;
mod directives;
mod dump;
mod effective;
mod error;
mod failure;
mod fpm;
#[doc(hidden)]
pub mod fuzzing;
mod ini;
mod listen;
mod overlay;
mod php_values;
#[cfg(test)]
mod tests;
mod values;

use std::path::{Path, PathBuf};

pub use accounts::{Account, AccountLookup, SystemAccounts, check_accounts};
pub use effective::{
    Backlog, DEFAULT_ACCESS_FORMAT, DEFAULT_LOG_LIMIT, DEFAULT_SLOW_DEPTH, EmergencyRestart, Environment,
    Global, Identity, ListenAddress, LogLevel, LogTarget, MAX_SOCKET_PATH_BYTES, Mode, Notice, PhpValue,
    Pool, PoolPhp, ProcessManager, Settings, SlowStop, Syslog,
};
pub use error::{BadValue, ConfigError, Fault, Nearest, Place, PoolFault, Shown};
pub use failure::LoadFailure;
pub use overlay::{
    AccessForm, DEFAULT_QUEUE_BYTES, Ebpf, EbpfMode, Exporter, LogForm, Logs, Metrics, Observer, Otel,
    Overlay, Php, PoolOverlay, PoolRule, PoolTrace, Protocol, Sampler, Secret, Slow, Trace, scrape_host,
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
    /// Pid file by php-fpm's `-g`; a `pid` in the file is later and wins.
    pub pid: Option<PathBuf>,
    /// php-fpm's `-D` (true) or `-F` (false), which win over `daemonize` in the file.
    pub daemonize: Option<bool>,
    /// The environment that `${NAME}` and `env[X] = $NAME` read.
    pub environment: Environment,
    /// Whether the effective user is root; otherwise users, groups and the like are ignored with a notice.
    pub euid_root: bool,
    /// php-fpm's `-R`: pools may run as root, and need no user.
    pub allow_root: bool,
    /// Who exists on this machine; asked by [`check_accounts`] only.
    pub lookup: &'a dyn AccountLookup,
}

/// Reads and checks the configuration. Reads files, stats directories, may resolve host names of `listen` lines;
/// changes nothing. Users and groups are looked up when workers start, and for a test by [`check_accounts`].
///
/// # Errors
/// The first mistake, with its file and line and what php-fpm would log; see [`LoadFailure::lines`].
pub fn load(request: &LoadRequest<'_>) -> Result<Settings, LoadFailure> {
    let mut notices = Vec::new();
    let mut global = None;
    match load_with(request, &mut notices, &mut global) {
        Ok(settings) => Ok(Settings { notices, ..settings }),
        Err((error, file)) => Err(LoadFailure {
            notices,
            error,
            global: global.map(Box::new),
            file,
        }),
    }
}

/// `[php]` of the overlay beside that file, where there is one in order: for questions about PHP itself, which need no
/// pools. Resolves no names.
pub fn hosted_php(fpm_conf: &Path) -> Option<Php> {
    let read = overlay::read(&fpm_conf.with_file_name(OVERLAY_FILE), false);
    read.ok().flatten().map(|(overlay, _)| overlay.php)
}

/// The file that is to blame goes with the error.
fn load_with(
    request: &LoadRequest<'_>,
    notices: &mut Vec<Notice>,
    global: &mut Option<Global>,
) -> Result<Settings, (ConfigError, PathBuf)> {
    let conf = |error| (error, request.fpm_conf.clone());
    let prefixes = Prefixes::of(request).map_err(conf)?;
    let raw = fpm::read(
        &request.fpm_conf,
        &prefixes.install,
        &request.environment,
        notices,
    );
    let raw = raw.map_err(conf)?;
    let (path, required) = match &request.overlay {
        Some(path) => (path.clone(), true),
        None => (request.fpm_conf.with_file_name(OVERLAY_FILE), false),
    };
    let toml = |error| (error, path.clone());
    let mut overlay = Overlay::default();
    if let Some((read, source)) = overlay::read(&path, required).map_err(toml)? {
        let pools: Vec<&str> = raw.pools.iter().map(|pool| pool.name.as_str()).collect();
        overlay::refuse_unknown_pools(&read, &source, &pools, &request.fpm_conf).map_err(toml)?;
        overlay = read;
    }
    check::settings(raw, overlay, request, &prefixes, notices, global).map_err(conf)
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
        let absolute = std::path::absolute(given).map_err(|e| ConfigError::open(given, None, e))?;
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
