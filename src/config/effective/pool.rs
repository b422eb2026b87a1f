//! Settings of one pool.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::overlay::{AccessForm, LogForm, PoolTrace};

/// Frames of a slow request's backtrace unless configured (php-fpm's own default).
pub const DEFAULT_SLOW_DEPTH: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");

/// Looks into one slow request unless configured: at 1, 2, 4 and 8 times the limit.
pub(in crate::config) const DEFAULT_SLOW_SAMPLES: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");

/// php-fpm's own `access.format`.
pub const DEFAULT_ACCESS_FORMAT: &str = "%R - %u %t \"%m %r\" %s";

/// One pool: its own socket and its own workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Section name; no quotes, control characters or white space but spaces.
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
    /// Most workers.
    pub max_children: NonZeroU32,
    /// How many of them run, and when.
    pub manager: ProcessManager,
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
    /// Looks into one request at most.
    pub slow_samples: NonZeroU32,
    /// Whether a worker may be stopped to be read.
    pub slow_stop: SlowStop,
    /// Whether a slow request has a span of its own, sent while it still runs.
    pub still_running: bool,
    /// Whether the workers' standard output and error go to the error log.
    pub catch_workers_output: bool,
    /// Whether those lines say whose they are.
    pub decorate_workers_output: bool,
    /// Users that get read and write access to the unix socket by ACL.
    pub socket_acl_users: Vec<String>,
    /// Groups that get it.
    pub socket_acl_groups: Vec<String>,
    /// `listen.allowed_clients` as written: the workers judge it.
    pub allowed_clients: Option<String>,
    /// Nice value of the workers.
    pub priority: Option<i32>,
    /// Whether workers leave cores and may be traced by their own user.
    pub dumpable: bool,
    /// AppArmor hat of the workers.
    pub apparmor_hat: Option<String>,
    /// RLIMIT_NOFILE of the workers; `None` leaves it.
    pub rlimit_files: Option<u64>,
    /// RLIMIT_CORE of the workers in bytes, `u64::MAX` without limit; `None` leaves it.
    pub rlimit_core: Option<u64>,
    /// URI of the status page.
    pub status_path: Option<String>,
    /// The pool whose status this one reports; such a pool only exists because of `pm.status_listen`.
    pub status_of: Option<String>,
    /// URI of the ping page.
    pub ping_path: Option<String>,
    /// Body of the ping page.
    pub ping_response: String,
    /// Access log file, absolute.
    pub access_log: Option<PathBuf>,
    /// How its lines look.
    pub access_format: String,
    /// How they look instead, as `glasspool.toml` says.
    pub access_form: Option<AccessForm>,
    /// What the entries of its slow log are.
    pub slow_form: LogForm,
    /// URIs whose harmless requests are left out.
    pub access_suppress: Vec<String>,
    /// Run time after which a request's worker is ended.
    pub terminate_after: Option<Duration>,
    /// Whether that time also counts once the response is complete.
    pub terminate_finished: bool,
    /// Suffixes that a script's path must have; empty allows all.
    pub limit_extensions: Vec<String>,
    /// `[pool.NAME.trace]`: how this pool is sampled where it is not as all.
    pub trace: PoolTrace,
    /// `[pool.NAME.php]`: the PHP of this pool where it is not everybody's.
    pub php: PoolPhp,
}

/// `[pool.NAME.php]`, over `[php]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolPhp {
    /// The stock php executable to host in.
    pub binary: Option<PathBuf>,
    /// php.ini, as `-c` names it.
    pub ini: Option<PathBuf>,
    /// INI entries `name=value`, after and so over those of `[php] define`.
    #[serde(deserialize_with = "crate::config::overlay::defines")]
    pub define: Vec<String>,
}

/// How a pool's number of workers follows its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessManager {
    /// Always `max_children`.
    Static,
    /// Between `start_servers` and `max_children`, with some idle ones in reserve.
    Dynamic {
        /// Workers at the start.
        start_servers: NonZeroU32,
        /// Fewest idle workers.
        min_spare: NonZeroU32,
        /// Most idle workers.
        max_spare: NonZeroU32,
        /// Most workers started in one second; the rate doubles up to it.
        max_spawn_rate: NonZeroU32,
    },
    /// None until a connection comes.
    OnDemand {
        /// Idle time after which a worker is ended.
        idle_timeout: Duration,
    },
}

impl ProcessManager {
    /// php-fpm's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic { .. } => "dynamic",
            Self::OnDemand { .. } => "ondemand",
        }
    }
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
            slow_samples: DEFAULT_SLOW_SAMPLES,
            slow_stop: SlowStop::default(),
            still_running: true,
            catch_workers_output: false,
            manager: ProcessManager::Static,
            decorate_workers_output: true,
            socket_acl_users: Vec::new(),
            socket_acl_groups: Vec::new(),
            allowed_clients: None,
            priority: None,
            dumpable: false,
            apparmor_hat: None,
            rlimit_files: None,
            rlimit_core: None,
            status_path: None,
            status_of: None,
            ping_path: None,
            ping_response: "pong".to_owned(),
            access_log: None,
            access_format: DEFAULT_ACCESS_FORMAT.to_owned(),
            access_form: None,
            slow_form: LogForm::default(),
            access_suppress: Vec::new(),
            terminate_after: None,
            terminate_finished: false,
            limit_extensions: [".php", ".phar"].map(str::to_owned).to_vec(),
            trace: PoolTrace::default(),
            php: PoolPhp::default(),
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
    /// A unix socket at this absolute path. Of one longer than [`MAX_SOCKET_PATH_BYTES`] only so much counts.
    Unix(PathBuf),
}

/// Longest path of a unix socket: `sizeof(sockaddr_un.sun_path)` less the final NUL, see unix(7). php-fpm cuts longer
/// paths, which then are different sockets from the ones the web server is told of: a start warns of that, `-t`
/// refuses it.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

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
    /// Never: a stack that cannot be read unstopped is told in part.
    Never,
    /// Whenever it runs, so that each line is exact. One that is blocked in a system
    /// call is not stopped even then.
    Always,
}
