//! The table of php-fpm's directives: name, section, type, and the slot a value goes to.
//!
//! All of php-fpm 8.2 to 8.4's directives are here. Those without effect yet are `Unsupported`, so that a
//! configuration is refused by the directive's name instead of running without it.

use std::time::Duration;

use super::effective::{LogLevel, Mode};
use super::error::Place;
use super::values::ProcessManager;

/// A value and the line it came from, for what can be checked only when everything is read.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// `[global]` as written.
#[derive(Debug, Default)]
pub(super) struct RawGlobal {
    pub(super) error_log: Slot<String>,
    pub(super) pid: Slot<String>,
    pub(super) log_level: Slot<LogLevel>,
    pub(super) daemonize: Slot<bool>,
}

/// One pool section as written.
#[derive(Debug)]
pub(super) struct RawPool {
    pub(super) name: String,
    /// The first header of the section.
    pub(super) place: Place,
    pub(super) listen: Slot<String>,
    pub(super) listen_owner: Slot<String>,
    pub(super) listen_group: Slot<String>,
    pub(super) listen_mode: Slot<Mode>,
    pub(super) listen_backlog: Slot<i32>,
    pub(super) user: Slot<String>,
    pub(super) group: Slot<String>,
    pub(super) chroot: Slot<String>,
    pub(super) chdir: Slot<String>,
    pub(super) clear_env: Slot<bool>,
    pub(super) catch_workers_output: Slot<bool>,
    pub(super) pm: Slot<ProcessManager>,
    pub(super) max_children: Slot<i32>,
    pub(super) max_requests: Slot<i32>,
    pub(super) slowlog: Slot<String>,
    pub(super) slow_timeout: Slot<Duration>,
    pub(super) slow_depth: Slot<i32>,
    /// Arrays in file order, duplicates included.
    pub(super) env: Vec<(String, String)>,
    pub(super) php_values: Vec<(String, String)>,
    pub(super) php_admin_values: Vec<(String, String)>,
}

impl RawPool {
    pub(super) fn new(name: String, place: Place) -> Self {
        Self {
            name,
            place,
            listen: None,
            listen_owner: None,
            listen_group: None,
            listen_mode: None,
            listen_backlog: None,
            user: None,
            group: None,
            chroot: None,
            chdir: None,
            clear_env: None,
            catch_workers_output: None,
            pm: None,
            max_children: None,
            max_requests: None,
            slowlog: None,
            slow_timeout: None,
            slow_depth: None,
            env: Vec::new(),
            php_values: Vec::new(),
            php_admin_values: Vec::new(),
        }
    }
}

/// The last value written for a scalar, if any.
pub(super) type Slot<T> = Option<Placed<T>>;
type Field<S, T> = fn(&mut S) -> &mut Slot<T>;

/// The type of a scalar directive and where it is kept in section `S`.
#[derive(Debug)]
pub(super) enum Scalar<S> {
    Text(Field<S, String>),
    Integer(Field<S, i32>),
    Time(Field<S, Duration>),
    Boolean(Field<S, bool>),
    LogLevel(Field<S, LogLevel>),
    ProcessManager(Field<S, ProcessManager>),
    Mode(Field<S, Mode>),
    Unsupported,
}

/// A scalar directive; names are lower case and compared without regard to case.
#[derive(Debug)]
pub(super) struct Directive<S> {
    pub(super) name: &'static str,
    pub(super) scalar: Scalar<S>,
}

const fn directive<S>(name: &'static str, scalar: Scalar<S>) -> Directive<S> {
    Directive { name, scalar }
}

use Scalar::{Boolean, Integer, Text, Time, Unsupported};

/// `[global]`, in the order of php-fpm's documentation.
pub(super) const GLOBAL: &[Directive<RawGlobal>] = &[
    directive("pid", Text(|global| &mut global.pid)),
    directive("error_log", Text(|global| &mut global.error_log)),
    directive("syslog.ident", Unsupported),
    directive("syslog.facility", Unsupported),
    directive("log_buffering", Unsupported),
    directive("log_level", Scalar::LogLevel(|global| &mut global.log_level)),
    directive("log_limit", Unsupported),
    directive("emergency_restart_threshold", Unsupported),
    directive("emergency_restart_interval", Unsupported),
    directive("process_control_timeout", Unsupported),
    directive("process.max", Unsupported),
    directive("process.priority", Unsupported),
    directive("daemonize", Boolean(|global| &mut global.daemonize)),
    directive("rlimit_files", Unsupported),
    directive("rlimit_core", Unsupported),
    directive("events.mechanism", Unsupported),
    directive("systemd_interval", Unsupported),
];

/// Pool sections, in the order of php-fpm's documentation.
pub(super) const POOL: &[Directive<RawPool>] = &[
    directive("prefix", Unsupported),
    directive("user", Text(|pool| &mut pool.user)),
    directive("group", Text(|pool| &mut pool.group)),
    directive("listen", Text(|pool| &mut pool.listen)),
    directive("listen.backlog", Integer(|pool| &mut pool.listen_backlog)),
    directive("listen.acl_users", Unsupported),
    directive("listen.acl_groups", Unsupported),
    directive("listen.owner", Text(|pool| &mut pool.listen_owner)),
    directive("listen.group", Text(|pool| &mut pool.listen_group)),
    directive("listen.mode", Scalar::Mode(|pool| &mut pool.listen_mode)),
    directive("listen.allowed_clients", Unsupported),
    directive("listen.setfib", Unsupported),
    directive("process.priority", Unsupported),
    directive("process.dumpable", Unsupported),
    directive("pm", Scalar::ProcessManager(|pool| &mut pool.pm)),
    directive("pm.max_children", Integer(|pool| &mut pool.max_children)),
    directive("pm.start_servers", Unsupported),
    directive("pm.min_spare_servers", Unsupported),
    directive("pm.max_spare_servers", Unsupported),
    directive("pm.max_spawn_rate", Unsupported),
    directive("pm.process_idle_timeout", Unsupported),
    directive("pm.max_requests", Integer(|pool| &mut pool.max_requests)),
    directive("pm.status_path", Unsupported),
    directive("pm.status_listen", Unsupported),
    directive("ping.path", Unsupported),
    directive("ping.response", Unsupported),
    directive("access.log", Unsupported),
    directive("access.format", Unsupported),
    directive("slowlog", Text(|pool| &mut pool.slowlog)),
    directive("request_slowlog_timeout", Time(|pool| &mut pool.slow_timeout)),
    directive(
        "request_slowlog_trace_depth",
        Integer(|pool| &mut pool.slow_depth),
    ),
    directive("request_terminate_timeout", Unsupported),
    directive("request_terminate_timeout_track_finished", Unsupported),
    directive("rlimit_files", Unsupported),
    directive("rlimit_core", Unsupported),
    directive("chroot", Text(|pool| &mut pool.chroot)),
    directive("chdir", Text(|pool| &mut pool.chdir)),
    directive(
        "catch_workers_output",
        Boolean(|pool| &mut pool.catch_workers_output),
    ),
    directive("decorate_workers_output", Unsupported),
    directive("clear_env", Boolean(|pool| &mut pool.clear_env)),
    directive("security.limit_extensions", Unsupported),
    directive("apparmor_hat", Unsupported),
];

/// An array directive of a pool; php-fpm compares these names with regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Array {
    Env,
    PhpValue,
    PhpFlag,
    PhpAdminValue,
    PhpAdminFlag,
    SuppressPath,
}

impl Array {
    pub(super) const ALL: [Self; 6] = [
        Self::Env,
        Self::PhpValue,
        Self::PhpFlag,
        Self::PhpAdminValue,
        Self::PhpAdminFlag,
        Self::SuppressPath,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::PhpValue => "php_value",
            Self::PhpFlag => "php_flag",
            Self::PhpAdminValue => "php_admin_value",
            Self::PhpAdminFlag => "php_admin_flag",
            Self::SuppressPath => "access.suppress_path",
        }
    }
}

/// The directive of that name.
pub(super) fn find<S>(table: &'static [Directive<S>], name: &str) -> Option<&'static Directive<S>> {
    table
        .iter()
        .find(|directive| directive.name.eq_ignore_ascii_case(name))
}
