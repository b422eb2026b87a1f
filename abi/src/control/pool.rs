//! A pool, as an engine has to know it: what its workers become.

use serde::{Deserialize, Serialize};

use crate::PoolId;
use crate::trace::Sampler;
use crate::trace::policy::Policy;

/// What a worker of a pool has to become. The default is a pool without any setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The pool's number.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// The identity to take; `None` keeps the supervisor's (not root, or allowed).
    pub identity: Option<Identity>,
    /// chroot(2) to this first.
    pub chroot: Option<String>,
    /// Then chdir(2) to this.
    pub chdir: Option<String>,
    /// Start from an empty environment.
    pub clear_env: bool,
    /// Then set these, in order.
    pub env: Vec<(String, String)>,
    /// PHP settings of the pool, in the order to apply them.
    pub php_values: Vec<PhpSetting>,
    /// Requests after which a worker ends; 0 for never.
    pub max_requests: u64,
    /// Suffixes a script's path must have; empty allows all.
    pub limit_extensions: Vec<String>,
    /// How requests without a deciding caller are sampled.
    pub sampler: Sampler,
    /// Whether spans are made: only then PHP is told that our span is its parent.
    pub tracing: bool,
    /// Whose traces are gone on with, and what else is sampled.
    pub trace: Policy,
    /// Where the pool answers for itself.
    pub pages: Pages,
    /// `listen.allowed_clients` as written; `None` lets everybody in.
    pub allowed_clients: Option<String>,
    /// How access log lines look; `None` without an access log.
    pub access_log: Option<AccessLog>,
    /// Limits and rights of the worker's process.
    pub limits: Limits,
    /// Whether standard output and error are read by the supervisor: only then the end
    /// of each request is marked on standard error.
    pub catch_output: bool,
    /// Whether somebody wants to know what PHP logs. What comes by standard error is not
    /// told again.
    pub tell_lines: bool,
    /// Longest log line in bytes (`log_limit`).
    pub log_limit: u32,
    /// Least severity of a line that workers write to standard error (`log_level`).
    /// [`Severity::Debug`] also adds the place to each line.
    pub log_level: Severity,
}

/// php-fpm's severities, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Severity {
    /// Of use to whoever looks for a fault.
    Debug,
    /// Ordinary.
    #[default]
    Notice,
    /// Something is not as it should be.
    Warning,
    /// Something has failed.
    Error,
    /// Nothing works.
    Alert,
}

/// URIs that are answered by the pool itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// `pm.status_path`.
    pub status_path: Option<String>,
    /// `ping.path`.
    pub ping_path: Option<String>,
    /// `ping.response`.
    pub ping_response: String,
}

/// `access.format` and `access.suppress_path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The format, already checked.
    pub format: String,
    /// Each line is a JSON object, whatever the format says.
    pub json: bool,
    /// URIs whose harmless requests are left out.
    pub suppress: Vec<String>,
}

/// Limits and rights of a worker's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// RLIMIT_NOFILE, soft and hard; `None` leaves it.
    pub files: Option<u64>,
    /// RLIMIT_CORE in bytes, soft and hard, `u64::MAX` for no limit; `None` leaves it.
    pub core: Option<u64>,
    /// Nice value; `None` leaves it.
    pub priority: Option<i32>,
    /// PR_SET_DUMPABLE after the change of identity.
    pub dumpable: bool,
    /// AppArmor hat below the current profile.
    pub apparmor_hat: Option<String>,
}

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// One `php_value` or `php_admin_value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhpSetting {
    /// Name of the INI entry.
    pub name: String,
    /// Its value as text.
    pub value: String,
    /// Not to be changed by the application.
    pub admin: bool,
}
