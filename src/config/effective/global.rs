//! Settings of the supervisor.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::LogLevel;
use crate::config::overlay::LogForm;

/// Longest log line unless configured (php-fpm's own default), bytes.
pub const DEFAULT_LOG_LIMIT: usize = 1024;

/// Settings of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Where the error log goes; `None` (never from a file) is standard error.
    pub error_log: Option<LogTarget>,
    /// Pid file, absolute.
    pub pid: Option<PathBuf>,
    /// Least severity that is logged.
    pub log_level: LogLevel,
    /// Longest log line in bytes, at least 512.
    pub log_limit: usize,
    /// What lines of the error log are, where it is a file.
    pub error_form: LogForm,
    /// Whether each log line is written by one call.
    pub log_buffering: bool,
    /// Ident and facility for [`LogTarget::Syslog`].
    pub syslog: Syslog,
    /// Deaths by SIGSEGV or SIGBUS within a time after which PHP is started anew.
    pub emergency_restart: Option<EmergencyRestart>,
    /// Time that workers have for their request on a graceful stop or reload; `None` is without limit.
    pub process_control_timeout: Option<Duration>,
    /// Most workers of all pools together.
    pub process_max: Option<NonZeroU32>,
    /// Nice value of the supervisor; only root can give it effect.
    pub priority: Option<i32>,
    /// Whether to go into the background.
    pub daemonize: bool,
    /// RLIMIT_NOFILE of the supervisor, soft and hard; `None` leaves it.
    pub rlimit_files: Option<u64>,
    /// RLIMIT_CORE of the supervisor in bytes, soft and hard, `u64::MAX` without limit; `None` leaves it.
    pub rlimit_core: Option<u64>,
    /// Period of status notifications to the service manager; `None` sends none.
    pub systemd_interval: Option<Duration>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            error_log: None,
            pid: None,
            log_level: LogLevel::default(),
            log_limit: DEFAULT_LOG_LIMIT,
            error_form: LogForm::default(),
            log_buffering: true,
            syslog: Syslog::default(),
            emergency_restart: None,
            process_control_timeout: None,
            process_max: None,
            priority: None,
            daemonize: false,
            rlimit_files: None,
            rlimit_core: None,
            systemd_interval: Some(Duration::from_secs(10)),
        }
    }
}

/// Where the error log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// This file, absolute.
    File(PathBuf),
    /// syslog(3).
    Syslog,
}

/// `syslog.ident` and `syslog.facility`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// What stands in front of each line.
    pub ident: String,
    /// Number of the facility, not shifted (LOG_DAEMON is 3).
    pub facility: u8,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            ident: "php-fpm".to_owned(),
            facility: 3,
        }
    }
}

/// `emergency_restart_threshold` and `emergency_restart_interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmergencyRestart {
    /// So many crashes …
    pub threshold: NonZeroU32,
    /// … within this time.
    pub interval: Duration,
}
