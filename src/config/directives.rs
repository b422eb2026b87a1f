//! The table of php-fpm's directives: name, section, type, and the slot a value goes to.
//!
//! All of php-fpm 8.2 to 8.4's directives are here, so that none is ever passed over in silence.

use std::time::Duration;

use super::effective::LogLevel;
use super::error::Place;
use super::values::ManagerName;

/// A value and the line it came from, for what can be checked only when everything is read.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// `[global]` as written.
#[derive(Debug, Clone, Default)]
pub(super) struct RawGlobal {
    pub(super) pid: Slot<String>,
    pub(super) error_log: Slot<String>,
    pub(super) syslog_ident: Slot<String>,
    pub(super) syslog_facility: Slot<u8>,
    pub(super) log_buffering: Slot<bool>,
    pub(super) log_level: Slot<LogLevel>,
    pub(super) log_limit: Slot<i32>,
    pub(super) emergency_threshold: Slot<i32>,
    pub(super) emergency_interval: Slot<Duration>,
    pub(super) process_control_timeout: Slot<Duration>,
    pub(super) process_max: Slot<i32>,
    pub(super) priority: Slot<i32>,
    pub(super) daemonize: Slot<bool>,
    pub(super) rlimit_files: Slot<i32>,
    pub(super) rlimit_core: Slot<u64>,
    pub(super) events_mechanism: Slot<String>,
    pub(super) systemd_interval: Slot<Duration>,
}

/// One pool section as written.
#[derive(Debug, Clone)]
pub(super) struct RawPool {
    pub(super) name: String,
    /// The first header of the section.
    pub(super) place: Place,
    pub(super) lines: PoolLines,
}

/// The lines of a pool section.
#[derive(Debug, Clone, Default)]
pub(super) struct PoolLines {
    pub(super) prefix: Slot<String>,
    pub(super) user: Slot<String>,
    pub(super) group: Slot<String>,
    pub(super) listen: Slot<String>,
    pub(super) listen_backlog: Slot<i32>,
    pub(super) listen_acl_users: Slot<String>,
    pub(super) listen_acl_groups: Slot<String>,
    pub(super) listen_owner: Slot<String>,
    pub(super) listen_group: Slot<String>,
    /// Octal digits; kept as text, because a dump shows it as written.
    pub(super) listen_mode: Slot<String>,
    pub(super) listen_allowed_clients: Slot<String>,
    pub(super) priority: Slot<i32>,
    pub(super) dumpable: Slot<bool>,
    pub(super) pm: Slot<ManagerName>,
    pub(super) max_children: Slot<i32>,
    pub(super) start_servers: Slot<i32>,
    pub(super) min_spare_servers: Slot<i32>,
    pub(super) max_spare_servers: Slot<i32>,
    pub(super) max_spawn_rate: Slot<i32>,
    pub(super) process_idle_timeout: Slot<Duration>,
    pub(super) max_requests: Slot<i32>,
    pub(super) status_path: Slot<String>,
    pub(super) status_listen: Slot<String>,
    pub(super) ping_path: Slot<String>,
    pub(super) ping_response: Slot<String>,
    pub(super) access_log: Slot<String>,
    pub(super) access_format: Slot<String>,
    pub(super) slowlog: Slot<String>,
    pub(super) slow_timeout: Slot<Duration>,
    pub(super) slow_depth: Slot<i32>,
    pub(super) terminate_timeout: Slot<Duration>,
    pub(super) terminate_finished: Slot<bool>,
    pub(super) rlimit_files: Slot<i32>,
    pub(super) rlimit_core: Slot<u64>,
    pub(super) chroot: Slot<String>,
    pub(super) chdir: Slot<String>,
    pub(super) catch_workers_output: Slot<bool>,
    pub(super) decorate_workers_output: Slot<bool>,
    pub(super) clear_env: Slot<bool>,
    pub(super) limit_extensions: Slot<String>,
    pub(super) apparmor_hat: Slot<String>,
    /// Arrays in file order, duplicates included.
    pub(super) env: Vec<(String, String)>,
    pub(super) php_values: Vec<(String, String)>,
    pub(super) php_admin_values: Vec<(String, String)>,
    pub(super) access_suppress: Vec<String>,
}

/// The last value written for a scalar, if any.
pub(super) type Slot<T> = Option<Placed<T>>;
type Field<S, T> = fn(&mut S) -> &mut Slot<T>;

/// The type of a scalar directive and where it is kept in section `S`.
#[derive(Debug)]
pub(super) enum Scalar<S> {
    Text(Field<S, String>),
    Integer(Field<S, i32>),
    /// An integer that must not be negative.
    Count(Field<S, i32>),
    Time(Field<S, Duration>),
    Boolean(Field<S, bool>),
    LogLevel(Field<S, LogLevel>),
    Facility(Field<S, u8>),
    CoreLimit(Field<S, u64>),
    Manager(Field<S, ManagerName>),
    Mode(Field<S, String>),
    /// php-fpm has it on other systems; here it says `unknown entry`, and so do we, with the reason.
    OtherPlatform(&'static str),
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

use Scalar::{Boolean, CoreLimit, Count, Facility, Integer, Manager, OtherPlatform, Text, Time};

/// `[global]`, in the order of php-fpm's documentation.
pub(super) const GLOBAL: &[Directive<RawGlobal>] = &[
    directive("pid", Text(|global| &mut global.pid)),
    directive("error_log", Text(|global| &mut global.error_log)),
    directive("syslog.ident", Text(|global| &mut global.syslog_ident)),
    directive("syslog.facility", Facility(|global| &mut global.syslog_facility)),
    directive("log_buffering", Boolean(|global| &mut global.log_buffering)),
    directive("log_level", Scalar::LogLevel(|global| &mut global.log_level)),
    directive("log_limit", Integer(|global| &mut global.log_limit)),
    directive(
        "emergency_restart_threshold",
        Integer(|global| &mut global.emergency_threshold),
    ),
    directive(
        "emergency_restart_interval",
        Time(|global| &mut global.emergency_interval),
    ),
    directive(
        "process_control_timeout",
        Time(|global| &mut global.process_control_timeout),
    ),
    directive("process.max", Integer(|global| &mut global.process_max)),
    directive("process.priority", Integer(|global| &mut global.priority)),
    directive("daemonize", Boolean(|global| &mut global.daemonize)),
    directive("rlimit_files", Count(|global| &mut global.rlimit_files)),
    directive("rlimit_core", CoreLimit(|global| &mut global.rlimit_core)),
    directive("events.mechanism", Text(|global| &mut global.events_mechanism)),
    directive("systemd_interval", Time(|global| &mut global.systemd_interval)),
];

/// Pool sections, in the order of php-fpm's documentation.
pub(super) const POOL: &[Directive<PoolLines>] = &[
    directive("prefix", Text(|pool| &mut pool.prefix)),
    directive("user", Text(|pool| &mut pool.user)),
    directive("group", Text(|pool| &mut pool.group)),
    directive("listen", Text(|pool| &mut pool.listen)),
    directive("listen.backlog", Integer(|pool| &mut pool.listen_backlog)),
    directive("listen.acl_users", Text(|pool| &mut pool.listen_acl_users)),
    directive("listen.acl_groups", Text(|pool| &mut pool.listen_acl_groups)),
    directive("listen.owner", Text(|pool| &mut pool.listen_owner)),
    directive("listen.group", Text(|pool| &mut pool.listen_group)),
    directive("listen.mode", Scalar::Mode(|pool| &mut pool.listen_mode)),
    directive(
        "listen.allowed_clients",
        Text(|pool| &mut pool.listen_allowed_clients),
    ),
    directive(
        "listen.setfib",
        OtherPlatform("only FreeBSD has more than one routing table: remove the line"),
    ),
    directive("process.priority", Integer(|pool| &mut pool.priority)),
    directive("process.dumpable", Boolean(|pool| &mut pool.dumpable)),
    directive("pm", Manager(|pool| &mut pool.pm)),
    directive("pm.max_children", Integer(|pool| &mut pool.max_children)),
    directive("pm.start_servers", Integer(|pool| &mut pool.start_servers)),
    directive(
        "pm.min_spare_servers",
        Integer(|pool| &mut pool.min_spare_servers),
    ),
    directive(
        "pm.max_spare_servers",
        Integer(|pool| &mut pool.max_spare_servers),
    ),
    directive("pm.max_spawn_rate", Integer(|pool| &mut pool.max_spawn_rate)),
    directive(
        "pm.process_idle_timeout",
        Time(|pool| &mut pool.process_idle_timeout),
    ),
    directive("pm.max_requests", Integer(|pool| &mut pool.max_requests)),
    directive("pm.status_path", Text(|pool| &mut pool.status_path)),
    directive("pm.status_listen", Text(|pool| &mut pool.status_listen)),
    directive("ping.path", Text(|pool| &mut pool.ping_path)),
    directive("ping.response", Text(|pool| &mut pool.ping_response)),
    directive("access.log", Text(|pool| &mut pool.access_log)),
    directive("access.format", Text(|pool| &mut pool.access_format)),
    directive("slowlog", Text(|pool| &mut pool.slowlog)),
    directive("request_slowlog_timeout", Time(|pool| &mut pool.slow_timeout)),
    directive(
        "request_slowlog_trace_depth",
        Integer(|pool| &mut pool.slow_depth),
    ),
    directive(
        "request_terminate_timeout",
        Time(|pool| &mut pool.terminate_timeout),
    ),
    directive(
        "request_terminate_timeout_track_finished",
        Boolean(|pool| &mut pool.terminate_finished),
    ),
    directive("rlimit_files", Count(|pool| &mut pool.rlimit_files)),
    directive("rlimit_core", CoreLimit(|pool| &mut pool.rlimit_core)),
    directive("chroot", Text(|pool| &mut pool.chroot)),
    directive("chdir", Text(|pool| &mut pool.chdir)),
    directive(
        "catch_workers_output",
        Boolean(|pool| &mut pool.catch_workers_output),
    ),
    directive(
        "decorate_workers_output",
        Boolean(|pool| &mut pool.decorate_workers_output),
    ),
    directive("clear_env", Boolean(|pool| &mut pool.clear_env)),
    directive(
        "security.limit_extensions",
        Text(|pool| &mut pool.limit_extensions),
    ),
    directive("apparmor_hat", Text(|pool| &mut pool.apparmor_hat)),
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

/// The text of a slot where it says anything; an empty text is php-fpm's way to say "not set".
pub(super) fn given(slot: &Slot<String>) -> Option<&Placed<String>> {
    slot.as_ref().filter(|placed| !placed.value.is_empty())
}

/// The directive of that name.
pub(super) fn find<S>(table: &'static [Directive<S>], name: &str) -> Option<&'static Directive<S>> {
    table
        .iter()
        .find(|directive| directive.name.eq_ignore_ascii_case(name))
}
