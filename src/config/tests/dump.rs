//! `-tt`: the same configuration was given to php-fpm 8.2; and what is dumped can be loaded again.

use proptest::prelude::*;

use super::super::{Global, Pool, Settings};
use super::Fixture;

const CONF: &str = "\
[global]
pid = run/x.pid
error_log = /tmp/err.log
daemonize = no
[www]
user = www-data
listen = /run/x/$pool.sock
listen.owner = www-data
pm = dynamic
pm.max_children = 5
pm.min_spare_servers = 1
pm.max_spare_servers = 3
pm.status_path = /status
pm.status_listen = 9001
ping.path = /ping
access.log = /dev/null
access.suppress_path[] = /a
access.suppress_path[] = /b
slowlog = /dev/null
chdir = /
request_slowlog_timeout = 2m
env[A] = b
env[B] = $HOME
env[A] = c
php_value[a] = 1
php_flag[b] = off
php_value[error_log] = e/x
php_admin_value[c] = d
php_admin_flag[d] = on
security.limit_extensions = .php\t.x  .y
rlimit_core = unlimited
listen.mode = 666
[b]
user = 33
listen = 9000
pm = ondemand
pm.max_children = 1
pm.start_servers = 4
chroot = /tmp
";

/// php-fpm's own output, but for `log_level`, where it says `unknown value`.
const EXPECTED: &str = "\
[global]
\tpid = /var/run/x.pid
\terror_log = /tmp/err.log
\tsyslog.ident = php-fpm
\tsyslog.facility = 24
\tlog_buffering = yes
\tlog_level = NOTICE
\tlog_limit = 1024
\temergency_restart_interval = 0s
\temergency_restart_threshold = 0
\tprocess_control_timeout = 0s
\tprocess.max = 0
\tprocess.priority = undefined
\tdaemonize = no
\trlimit_files = 0
\trlimit_core = 0
\tevents.mechanism = epoll
\tsystemd_interval = 10s
\x20
[www]
\tprefix = undefined
\tuser = www-data
\tgroup = undefined
\tlisten = /run/x/www.sock
\tlisten.backlog = -1
\tlisten.acl_users = undefined
\tlisten.acl_groups = undefined
\tlisten.owner = www-data
\tlisten.group = undefined
\tlisten.mode = 666
\tlisten.allowed_clients = undefined
\tprocess.priority = undefined
\tprocess.dumpable = no
\tpm = dynamic
\tpm.max_children = 5
\tpm.start_servers = 2
\tpm.min_spare_servers = 1
\tpm.max_spare_servers = 3
\tpm.max_spawn_rate = 32
\tpm.process_idle_timeout = 10
\tpm.max_requests = 0
\tpm.status_path = /status
\tpm.status_listen = 9001
\tping.path = /ping
\tping.response = pong
\taccess.log = /dev/null
\taccess.format = %R - %u %t \"%m %r\" %s
\taccess.suppress_path[] = /b
\taccess.suppress_path[] = /a
\tslowlog = /dev/null
\trequest_slowlog_timeout = 120s
\trequest_slowlog_trace_depth = 20
\trequest_terminate_timeout = 0s
\trequest_terminate_timeout_track_finished = no
\trlimit_files = 0
\trlimit_core = -1
\tchroot = undefined
\tchdir = /
\tcatch_workers_output = no
\tdecorate_workers_output = yes
\tclear_env = yes
\tsecurity.limit_extensions = .php\t.x  .y
\tenv[A] = c
\tenv[B] = $HOME
\tenv[A] = b
\tphp_value[error_log] = /usr/e/x
\tphp_value[b] = 0
\tphp_value[a] = 1
\tphp_admin_value[d] = 1
\tphp_admin_value[c] = d
\x20
[b]
\tprefix = undefined
\tuser = 33
\tgroup = undefined
\tlisten = 9000
\tlisten.backlog = -1
\tlisten.acl_users = undefined
\tlisten.acl_groups = undefined
\tlisten.owner = undefined
\tlisten.group = undefined
\tlisten.mode = undefined
\tlisten.allowed_clients = undefined
\tprocess.priority = undefined
\tprocess.dumpable = no
\tpm = ondemand
\tpm.max_children = 1
\tpm.start_servers = 4
\tpm.min_spare_servers = 0
\tpm.max_spare_servers = 0
\tpm.max_spawn_rate = 32
\tpm.process_idle_timeout = 10
\tpm.max_requests = 0
\tpm.status_path = undefined
\tpm.status_listen = undefined
\tping.path = undefined
\tping.response = undefined
\taccess.log = undefined
\taccess.format = undefined
\tslowlog = undefined
\trequest_slowlog_timeout = 0s
\trequest_slowlog_trace_depth = 20
\trequest_terminate_timeout = 0s
\trequest_terminate_timeout_track_finished = no
\trlimit_files = 0
\trlimit_core = 0
\tchroot = /tmp
\tchdir = undefined
\tcatch_workers_output = no
\tdecorate_workers_output = yes
\tclear_env = yes
\tsecurity.limit_extensions = .php .phar
\x20
";

#[test]
fn as_php_fpm_prints_it() {
    let dump = Fixture::new(CONF).load().unwrap().dump();
    assert_eq!(dump.join("\n") + "\n", EXPECTED);
}

#[test]
fn settings_without_a_file_have_no_dump() {
    let pool = super::pool_with("").unwrap();
    assert!(Settings::single(pool).dump().is_empty());
}

/// A configuration file that says what the dump says. The dump itself is for reading: it leaves out quotes, prints
/// the number of the facility and −1 for "unlimited", a depth also where there is no slowlog to need it, and lists
/// arrays with the last line first.
fn as_file(dump: &[String]) -> String {
    let mut lines = Vec::new();
    // The entries of one array that follow each other.
    let mut entries: Vec<String> = Vec::new();
    let mut array = "";
    let mut slowlog = false;
    for line in dump {
        let Some((name, value)) = line.strip_prefix('\t').and_then(|line| line.split_once(" = ")) else {
            lines.extend(entries.drain(..).rev());
            lines.extend(line.starts_with('[').then(|| line.clone()));
            continue;
        };
        slowlog = if name == "slowlog" {
            value != "undefined"
        } else {
            slowlog
        };
        let value = match (name, value) {
            (_, "undefined") => continue,
            ("request_slowlog_trace_depth", _) if !slowlog => continue,
            ("syslog.facility", "24") => "daemon",
            ("syslog.facility", "160") => "local4",
            ("rlimit_core", "-1") => "unlimited",
            (_, value) => value,
        };
        let (quoted, this) = (
            value.replace('\\', "\\\\").replace('"', "\\\""),
            name.split('[').next().unwrap(),
        );
        if this != array {
            lines.extend(entries.drain(..).rev());
            array = this;
        }
        entries.push(format!("{name} = \"{quoted}\""));
    }
    lines.join("\n")
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ;=|&%\\\\\"'#~.,/-]{0,20}"
}

/// Lines of a pool; each may come more than once, and the whole need not be right.
fn pool_line() -> impl Strategy<Value = String> {
    let quote = |text: String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let free = prop::sample::select(vec![
        "user",
        "group",
        "listen.owner",
        "listen.group",
        "ping.response",
        "access.format",
        "slowlog",
        "security.limit_extensions",
        "listen.acl_users",
        "env[A]",
        "env[B]",
        "php_value[a.b]",
        "php_value[error_log]",
        "php_admin_value[c]",
        "prefix",
        "chdir",
        "chroot",
        "listen.allowed_clients",
    ]);
    let number = prop::sample::select(vec![
        "listen.backlog",
        "process.priority",
        "pm.max_children",
        "pm.start_servers",
        "pm.min_spare_servers",
        "pm.max_spare_servers",
        "pm.max_spawn_rate",
        "pm.max_requests",
        "request_slowlog_trace_depth",
        "rlimit_files",
        "rlimit_core",
        "request_terminate_timeout",
        "pm.process_idle_timeout",
        "request_slowlog_timeout",
        "listen.mode",
        "pm.status_listen",
    ]);
    let flag = prop::sample::select(vec![
        "process.dumpable",
        "request_terminate_timeout_track_finished",
        "catch_workers_output",
        "decorate_workers_output",
        "clear_env",
        "php_flag[f]",
        "php_admin_flag[g]",
    ]);
    prop_oneof![
        3 => (free, text()).prop_map(move |(name, text)| format!("{name} = {}", quote(text))),
        3 => (number, 0..20i32).prop_map(|(name, number)| format!("{name} = {number}")),
        2 => (flag, any::<bool>()).prop_map(|(name, on)| format!("{name} = {}", if on { "on" } else { "no" })),
        1 => prop::sample::select(vec![
            "pm = dynamic", "pm = ondemand", "chroot = /tmp", "chdir = /", "prefix = /tmp", "slowlog = /dev/null",
            "access.log = /dev/null", "ping.path = /ping", "pm.status_path = /status", "rlimit_core = unlimited",
            "listen = /run/$pool.sock", "access.suppress_path[] = /a", "access.suppress_path[] = /b",
        ]).prop_map(str::to_owned),
    ]
}

fn compared(settings: &Settings) -> (&Global, &[Pool]) {
    (&settings.global, &settings.pools)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn what_is_dumped_loads_as_the_same_settings(
        lines in prop::collection::vec(pool_line(), 0..6),
        global in prop::sample::subsequence(vec![
            "pid = /run/p", "error_log = syslog", "syslog.facility = local4", "syslog.ident = a b", "log_level = debug",
            "log_limit = 600", "process.max = 7", "emergency_restart_threshold = 3", "emergency_restart_interval = 5",
            "process_control_timeout = 1m", "daemonize = no", "rlimit_core = unlimited", "systemd_interval = 0",
        ], 0..13),
        root in any::<bool>(),
    ) {
        let pool = super::pool_text(&lines.join("\n"));
        let mut fixture = Fixture::new(&format!("[global]\n{}\n{pool}", global.join("\n")));
        (fixture.euid_root, fixture.allow_root) = (root, true);
        if let Ok(settings) = fixture.load() {
            let file = as_file(&settings.dump());
            fixture.write("php-fpm.conf", &file);
            let again = fixture.load();
            let again = again.map_err(|e| TestCaseError::fail(format!("{e}\n{file}")))?;
            prop_assert_eq!(compared(&settings), compared(&again));
            prop_assert_eq!(settings.dump(), again.dump());
        }
    }
}
