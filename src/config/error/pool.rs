//! Why one pool is refused.

use super::Shown;
use super::fault::Stage;
use crate::config::effective::LogLevel;

/// Why one pool is refused.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it means and shows its fields"
)]
pub enum PoolFault {
    #[error("the prefix '{path}' does not exist or is not a directory")]
    Prefix { path: Shown },
    #[error("user has not been defined")]
    NoUser,
    #[error("cannot get uid for user '{name}'")]
    UnknownUser { name: Shown },
    #[error("cannot get gid for group '{name}'")]
    UnknownGroup { name: Shown },
    #[error("please specify user and group other than root")]
    Root,
    #[error("no listen address have been defined!")]
    NoListen,
    #[error(
        "cannot bind to UNIX socket '{path}' as path is too long (found length: {found}, maximal length: {limit})"
    )]
    LongSocketPath { path: Shown, found: usize, limit: usize },
    #[error("unable to set listen address as it's already used in another pool '{other}'")]
    ListenTwice { other: Shown },
    #[error("pm.status_listen needs the name '{name}', which another pool has")]
    StatusName { name: Shown },
    #[error("process.priority must be included into [-19,20]")]
    Priority,

    // Process management
    #[error("the process manager is missing (static, dynamic or ondemand)")]
    NoProcessManager,
    #[error("pm.max_children must be a positive value")]
    MaxChildren,
    #[error("pm.min_spare_servers({min}) must be a positive value")]
    MinSpare { min: i32 },
    #[error("pm.max_spare_servers({max}) must be a positive value")]
    MaxSpare { max: i32 },
    #[error(
        "pm.min_spare_servers({min}) and pm.max_spare_servers({max}) cannot be greater than pm.max_children({children})"
    )]
    SpareAboveChildren { min: i32, max: i32, children: i32 },
    #[error("pm.max_spare_servers({max}) must not be less than pm.min_spare_servers({min})")]
    SpareOrder { min: i32, max: i32 },
    #[error(
        "pm.start_servers({start}) must not be less than pm.min_spare_servers({min}) and not greater than pm.max_spare_servers({max})"
    )]
    StartServers { start: i32, min: i32, max: i32 },
    #[error("pm.max_spawn_rate must be a positive value")]
    SpawnRate,
    #[error("pm.process_idle_timeout({seconds}s) must be greater than 0s")]
    IdleTimeout { seconds: u64 },

    // Status and ping
    #[error("the {what} path '{path}' must start with a '/'")]
    PathStart { what: &'static str, path: Shown },
    #[error("the {what} path '{path}' is not long enough")]
    PathShort { what: &'static str, path: Shown },
    #[error("the {what} path '{path}' must contain only the following characters '[alphanum]/_-.~'")]
    PathCharacters { what: &'static str, path: Shown },
    #[error("the ping response page '' is not long enough")]
    PingResponse,

    // Logs
    #[error("'slowlog' must be specified for use with '{directive}'")]
    NoSlowlog { directive: &'static str },
    #[error(
        "'request_slowlog_timeout' ({slow}) can't be greater than 'request_terminate_timeout' ({terminate})"
    )]
    SlowAfterTerminate { slow: u64, terminate: u64 },
    #[error("'request_slowlog_trace_depth' ({found}) must be a positive value")]
    TraceDepth { found: i32 },
    #[error("wrong format for access.format '{format}'")]
    AccessFormat { format: Shown },

    // Directories
    #[error("the chroot path '{path}' must start with a '/'")]
    ChrootStart { path: Shown },
    #[error("the chroot path '{path}' does not exist or is not a directory")]
    ChrootMissing { path: Shown },
    #[error("the chdir path '{path}' does not exist or is not a directory")]
    ChdirMissing { path: Shown },
    #[error(
        "the chdir path '{chdir}' within the chroot path '{chroot}' ('{whole}') does not exist or is not a directory"
    )]
    ChdirInChroot {
        chdir: Shown,
        chroot: Shown,
        whole: Shown,
    },
}

impl PoolFault {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::UnknownUser { .. }
            | Self::UnknownGroup { .. }
            | Self::Root
            | Self::LongSocketPath { .. } => Stage::Starting,
            _ => Stage::PostProcessing,
        }
    }

    /// php-fpm's: alerts for what a pool cannot do without.
    pub(super) fn level(&self) -> LogLevel {
        match self {
            Self::NoUser
            | Self::NoListen
            | Self::NoProcessManager
            | Self::MaxChildren
            | Self::MinSpare { .. }
            | Self::MaxSpare { .. }
            | Self::SpareAboveChildren { .. }
            | Self::SpareOrder { .. }
            | Self::StartServers { .. }
            | Self::SpawnRate
            | Self::IdleTimeout { .. } => LogLevel::Alert,
            _ => LogLevel::Error,
        }
    }

    pub(super) fn allowed(&self) -> Option<String> {
        let text = match self {
            Self::NoUser => "add 'user = NAME', or start with -R".to_owned(),
            Self::UnknownUser { .. } => "allowed are users of this machine, and numbers".to_owned(),
            Self::UnknownGroup { .. } => "allowed are groups of this machine, and numbers".to_owned(),
            Self::Root => "allowed is root only with -R".to_owned(),
            Self::NoListen => {
                "add 'listen = ADDRESS': a port, ip:port, [ipv6]:port, host:port or the path of a unix socket"
                    .to_owned()
            }
            Self::ListenTwice { .. } => "allowed is an address of its own for each pool".to_owned(),
            Self::Priority => "allowed are -19 to 20".to_owned(),
            Self::NoProcessManager => "add 'pm = static', 'pm = dynamic' or 'pm = ondemand'".to_owned(),
            Self::MaxChildren => "allowed are whole numbers from 1".to_owned(),
            Self::MinSpare { .. } | Self::MaxSpare { .. } => {
                "allowed are 1 to pm.max_children with pm = dynamic".to_owned()
            }
            Self::SpareAboveChildren { children, .. } => format!("allowed are 1 to {children}"),
            Self::SpareOrder { min, .. } => format!("allowed are {min} and more"),
            Self::StartServers { min, max, .. } => format!("allowed are {min} to {max}"),
            Self::SpawnRate => "allowed are whole numbers from 1".to_owned(),
            Self::IdleTimeout { .. } => "allowed are times from 1s".to_owned(),
            Self::PathShort { .. } => "allowed are paths of two characters and more".to_owned(),
            Self::PingResponse => "allowed are texts of one character and more".to_owned(),
            Self::NoSlowlog { .. } => "add 'slowlog = FILE'".to_owned(),
            Self::SlowAfterTerminate { terminate, .. } => format!("allowed are up to {terminate}s"),
            Self::TraceDepth { .. } => "allowed are whole numbers from 0, which counts as 20".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}
