//! What `-tt` prints: every setting in php-fpm's form and order, so that tools which read one can read the other.
//!
//! Two values differ: `log_level` is the level in force, where php-fpm 8.2 prints `unknown value` if it is not set, and
//! `events.mechanism` is always epoll.

use std::fmt::Display;
use std::time::Duration;

use super::directives::{PoolLines, RawGlobal, RawPool, Slot};
use super::effective::{Global, ListenAddress, LogLevel, LogTarget, Pool, ProcessManager, Settings};
use super::fpm::RawFpm;

/// php-fpm's word for a text that is not set.
const UNDEFINED: &str = "undefined";
/// What ends a section: the line of a log must not be empty.
const END: &str = " ";

/// Each line of the dump; pools of `pm.status_listen` are left out, as in php-fpm.
pub(super) fn settings(settings: &Settings, written: &RawFpm) -> Vec<String> {
    let mut lines = Lines(vec!["[global]".to_owned()]);
    global(&mut lines, &settings.global, &written.global);
    lines.0.push(END.to_owned());
    for (pool, raw) in settings.pools.iter().zip(&written.pools) {
        lines.0.push(format!("[{}]", raw.name));
        address(&mut lines, pool, raw);
        manager(&mut lines, pool, &raw.lines);
        requests(&mut lines, pool, &raw.lines);
        arrays(&mut lines, &raw.lines);
        lines.0.push(END.to_owned());
    }
    lines.0
}

struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        self.0.push(format!("\t{name} = {value}"));
    }

    fn yes(&mut self, name: &str, on: bool) {
        self.add(name, if on { "yes" } else { "no" });
    }

    fn or_undefined(&mut self, name: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.add(name, value),
            None => self.add(name, UNDEFINED),
        }
    }

    fn text(&mut self, name: &str, slot: &Slot<String>) {
        self.or_undefined(name, value(slot));
    }

    fn seconds(&mut self, name: &str, time: Option<Duration>) {
        self.add(name, format_args!("{}s", time.unwrap_or_default().as_secs()));
    }
}

fn value<T>(slot: &Slot<T>) -> Option<&T> {
    slot.as_ref().map(|placed| &placed.value)
}

/// The number of a slot; php-fpm's for "not set" is 0 unless it says otherwise.
fn number(slot: &Slot<i32>) -> i32 {
    value(slot).copied().unwrap_or(0)
}

fn time(slot: &Slot<Duration>) -> Option<Duration> {
    value(slot).copied()
}

/// php-fpm keeps "unlimited" as −1.
fn core(slot: &Slot<u64>) -> i128 {
    match value(slot).copied().unwrap_or(0) {
        u64::MAX => -1,
        bytes => i128::from(bytes),
    }
}

/// Nice values; 64 is php-fpm's own "not set".
fn priority(slot: &Slot<i32>) -> Option<i32> {
    value(slot).copied().filter(|nice| *nice != 64)
}

fn global(lines: &mut Lines, global: &Global, raw: &RawGlobal) {
    lines.or_undefined("pid", global.pid.as_ref().map(|pid| pid.display()));
    match &global.error_log {
        Some(LogTarget::File(path)) => lines.add("error_log", path.display()),
        Some(LogTarget::Syslog) => lines.add("error_log", "syslog"),
        None => lines.add("error_log", UNDEFINED),
    }
    lines.add("syslog.ident", &global.syslog.ident);
    // As openlog(3) takes it: shifted past the three bits of the severity.
    lines.add("syslog.facility", u32::from(global.syslog.facility) << 3);
    lines.yes("log_buffering", global.log_buffering);
    lines.add("log_level", level(global.log_level));
    lines.add("log_limit", global.log_limit);
    lines.seconds("emergency_restart_interval", time(&raw.emergency_interval));
    lines.add("emergency_restart_threshold", number(&raw.emergency_threshold));
    lines.seconds("process_control_timeout", global.process_control_timeout);
    lines.add("process.max", number(&raw.process_max));
    lines.or_undefined("process.priority", priority(&raw.priority));
    lines.yes("daemonize", global.daemonize);
    lines.add("rlimit_files", number(&raw.rlimit_files));
    lines.add("rlimit_core", core(&raw.rlimit_core));
    lines.add("events.mechanism", "epoll");
    lines.seconds("systemd_interval", global.systemd_interval);
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Notice => "NOTICE",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
        LogLevel::Alert => "ALERT",
    }
}

fn address(lines: &mut Lines, pool: &Pool, raw: &RawPool) {
    let raw = &raw.lines;
    lines.text("prefix", &raw.prefix);
    lines.text("user", &raw.user);
    lines.text("group", &raw.group);
    match &pool.listen {
        ListenAddress::Unix(path) => lines.add("listen", path.display()),
        ListenAddress::Tcp(_) | ListenAddress::TcpPort(_) => lines.text("listen", &raw.listen),
    }
    let backlog = value(&raw.listen_backlog).copied().unwrap_or(-1);
    let on_demand = matches!(pool.manager, ProcessManager::OnDemand { .. });
    lines.add(
        "listen.backlog",
        if on_demand { backlog.max(-1) } else { backlog },
    );
    lines.text("listen.acl_users", &raw.listen_acl_users);
    lines.text("listen.acl_groups", &raw.listen_acl_groups);
    lines.text("listen.owner", &raw.listen_owner);
    lines.text("listen.group", &raw.listen_group);
    lines.text("listen.mode", &raw.listen_mode);
    lines.text("listen.allowed_clients", &raw.listen_allowed_clients);
    lines.or_undefined("process.priority", priority(&raw.priority));
    lines.yes("process.dumpable", pool.dumpable);
}

fn manager(lines: &mut Lines, pool: &Pool, raw: &PoolLines) {
    lines.add("pm", pool.manager.name());
    lines.add("pm.max_children", pool.max_children);
    let start = match pool.manager {
        ProcessManager::Dynamic { start_servers, .. } => i64::from(start_servers.get()),
        ProcessManager::Static | ProcessManager::OnDemand { .. } => i64::from(number(&raw.start_servers)),
    };
    lines.add("pm.start_servers", start);
    lines.add("pm.min_spare_servers", number(&raw.min_spare_servers));
    lines.add("pm.max_spare_servers", number(&raw.max_spare_servers));
    let rate = value(&raw.max_spawn_rate).copied();
    lines.add("pm.max_spawn_rate", rate.unwrap_or(super::check::MAX_SPAWN_RATE));
    let idle = time(&raw.process_idle_timeout).unwrap_or(super::check::IDLE_TIMEOUT);
    lines.add("pm.process_idle_timeout", idle.as_secs());
    lines.add("pm.max_requests", number(&raw.max_requests));
    lines.or_undefined("pm.status_path", pool.status_path.as_ref());
    lines.text("pm.status_listen", &raw.status_listen);
    lines.or_undefined("ping.path", pool.ping_path.as_ref());
    let response = pool.ping_path.as_ref().map(|_| &pool.ping_response);
    lines.or_undefined("ping.response", response);
}

fn requests(lines: &mut Lines, pool: &Pool, raw: &PoolLines) {
    let log = pool.access_log.as_ref();
    lines.or_undefined("access.log", log.map(|log| log.display()));
    match log {
        Some(_) => lines.add("access.format", &pool.access_format),
        None => lines.text("access.format", &raw.access_format),
    }
    for path in raw.access_suppress.iter().rev() {
        lines.add("access.suppress_path[]", path);
    }
    lines.or_undefined("slowlog", pool.slowlog.as_ref().map(|log| log.display()));
    lines.seconds("request_slowlog_timeout", time(&raw.slow_timeout));
    let depth = value(&raw.slow_depth).copied().filter(|depth| *depth != 0);
    lines.add("request_slowlog_trace_depth", depth.unwrap_or(20));
    lines.seconds("request_terminate_timeout", pool.terminate_after);
    lines.yes(
        "request_terminate_timeout_track_finished",
        pool.terminate_finished,
    );
    lines.add("rlimit_files", number(&raw.rlimit_files));
    lines.add("rlimit_core", core(&raw.rlimit_core));
    lines.or_undefined("chroot", pool.chroot.as_ref().map(|path| path.display()));
    lines.or_undefined("chdir", pool.chdir.as_ref().map(|path| path.display()));
    lines.yes("catch_workers_output", pool.catch_workers_output);
    lines.yes("decorate_workers_output", pool.decorate_workers_output);
    lines.yes("clear_env", pool.clear_env);
    let extensions = value(&raw.limit_extensions).map(String::as_str);
    lines.add("security.limit_extensions", extensions.unwrap_or(".php .phar"));
}

/// php-fpm keeps its lists with the last line first.
fn arrays(lines: &mut Lines, raw: &PoolLines) {
    for (array, entries) in [
        ("env", &raw.env),
        ("php_value", &raw.php_values),
        ("php_admin_value", &raw.php_admin_values),
    ] {
        for (key, value) in entries.iter().rev() {
            lines.add(&format!("{array}[{key}]"), value);
        }
    }
}
