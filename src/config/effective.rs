//! The checked configuration: what the rest of the program works with, units as types.
//!
//! Everything here is plain data with public fields, so that `glasspool serve DIR` and tests make a
//! configuration without a file. Nothing here reads files, and accounts stay names: whoever needs ids asks the
//! system at that moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::error::Place;
use super::overlay::Overlay;

/// Frames of a slow request's backtrace unless configured (php-fpm's own default).
pub const DEFAULT_SLOW_DEPTH: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `[global]` says.
    pub global: Global,
    /// At least one pool, in file order.
    pub pools: Vec<Pool>,
    /// What `glasspool.toml` says beyond the pools; its `[slow]` values are already applied to `pools`.
    pub overlay: Overlay,
    /// What is worth telling but no reason to refuse, in the order found.
    pub notices: Vec<Notice>,
}

impl Settings {
    /// One pool and nothing else: what `glasspool serve DIR` needs.
    pub fn single(pool: Pool) -> Self {
        Self {
            global: Global::default(),
            pools: vec![pool],
            overlay: Overlay::default(),
            notices: Vec::new(),
        }
    }
}

/// Settings of the supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Global {
    /// Where the error log goes; `None` (never from a file) is standard error.
    pub error_log: Option<PathBuf>,
    /// Pid file, absolute.
    pub pid: Option<PathBuf>,
    /// Least severity that is logged.
    pub log_level: LogLevel,
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

/// One pool: its own socket and its own workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Section name; no whitespace, quotes or control characters.
    pub name: String,
    /// Where the workers accept.
    pub listen: ListenAddress,
    /// Queue length asked of listen(2).
    pub backlog: Backlog,
    /// Owner of the unix socket; by name it also gives the group unless `socket_group` is set.
    pub socket_owner: Option<Identity>,
    /// Group of the unix socket.
    pub socket_group: Option<Identity>,
    /// Permission bits of the unix socket.
    pub socket_mode: Mode,
    /// User of the workers; only root can give it effect.
    pub user: Option<Identity>,
    /// Group of the workers; without it the user's primary group.
    pub group: Option<Identity>,
    /// Root directory of the workers, absolute and existing; only root can give it effect.
    pub chroot: Option<PathBuf>,
    /// Working directory, as seen inside `chroot`.
    pub chdir: Option<PathBuf>,
    /// Whether workers start with an empty environment.
    pub clear_env: bool,
    /// Variables of the workers, each name once, `$NAME` already looked up.
    pub env: Vec<(String, String)>,
    /// Number of workers.
    pub max_children: NonZeroU32,
    /// Requests after which a worker is replaced; `None` is never.
    pub max_requests: Option<NonZeroU64>,
    /// INI values in the order to apply them: a later one of the same name wins.
    pub php_values: Vec<PhpValue>,
    /// File for the backtraces of slow requests.
    pub slowlog: Option<PathBuf>,
    /// Run time after which a request is slow; `None` looks at no request.
    pub slow_after: Option<Duration>,
    /// Most frames in one backtrace.
    pub slow_depth: NonZeroU32,
    /// Whether a worker may be stopped to be read.
    pub slow_stop: SlowStop,
    /// Whether the workers' standard output and error go to the error log.
    pub catch_workers_output: bool,
}

impl Pool {
    /// A pool with php-fpm's defaults for everything that is not given.
    pub fn new(name: impl Into<String>, listen: ListenAddress, max_children: NonZeroU32) -> Self {
        Self {
            name: name.into(),
            listen,
            backlog: Backlog::default(),
            socket_owner: None,
            socket_group: None,
            socket_mode: Mode::default(),
            user: None,
            group: None,
            chroot: None,
            chdir: None,
            clear_env: true,
            env: Vec::new(),
            max_children,
            max_requests: None,
            php_values: Vec::new(),
            slowlog: None,
            slow_after: None,
            slow_depth: DEFAULT_SLOW_DEPTH,
            slow_stop: SlowStop::default(),
            catch_workers_output: false,
        }
    }
}

/// Where a pool listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// This address only.
    Tcp(SocketAddr),
    /// This port on `::` for both families; where that cannot be bound, on `0.0.0.0`.
    TcpPort(u16),
    /// A unix socket at this absolute path, at most 107 bytes long.
    Unix(PathBuf),
}

/// The queue length of a listening socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backlog {
    /// As long as the kernel allows (`net.core.somaxconn`); php-fpm writes −1.
    #[default]
    KernelMaximum,
    /// At most this many connections.
    Connections(u32),
}

/// Permission bits, 0 to 0o777.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o660)
    }
}

/// A user or group as the operator named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// To be looked up in the account database.
    Name(String),
    /// A number, used as it is.
    Id(u32),
}

/// An INI setting of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhpValue {
    /// INI name.
    pub name: String,
    /// Value as PHP's INI handlers take it; flags are `1` and `0`.
    pub value: String,
    /// Whether scripts and `.user.ini` are kept from changing it.
    pub admin: bool,
}

/// Whether the observer may stop a running worker to read its stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowStop {
    /// Only when reading without stopping gave nothing consistent.
    #[default]
    IfNeeded,
    /// Never: a stack that cannot be read unstopped is given up.
    Never,
}

/// The environment that `${NAME}` and `env[X] = $NAME` read.
pub type Environment = BTreeMap<String, String>;
