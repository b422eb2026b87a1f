//! A bad value for every directive: php-fpm's line where it has one, and a line of ours that says where it is, what
//! is written there and what is allowed.

use std::collections::BTreeSet;

use super::super::directives::{Array, GLOBAL, POOL};
use super::{Fixture, pool_text};

/// Directive, lines of which the last one is bad, php-fpm's line, our line; `@` is the place of the bad line.
type Row = (&'static str, &'static str, &'static str, &'static str);

const IN_GLOBAL: &[Row] = &[
    (
        "pid",
        "pid = /run/$pool.pid",
        "Error: [@] unable to parse value for entry 'pid': Can't use '$pool' when the pool is not defined",
        "Error: [@] found '/run/$pool.pid', allowed is '$pool' in pool sections only",
    ),
    (
        "error_log",
        "error_log = /tmp/$pool",
        "Error: [@] unable to parse value for entry 'error_log': Can't use '$pool' when the pool is not defined",
        "Error: [@] found '/tmp/$pool', allowed is '$pool' in pool sections only",
    ),
    (
        "syslog.ident",
        "syslog.ident = php-$pool",
        "Error: [@] unable to parse value for entry 'syslog.ident': Can't use '$pool' when the pool is not defined",
        "Error: [@] found 'php-$pool', allowed is '$pool' in pool sections only",
    ),
    (
        "syslog.facility",
        "syslog.facility = local8",
        "Error: [@] unable to parse value for entry 'syslog.facility': invalid value",
        "Error: [@] found 'local8', allowed are auth, authpriv, cron, daemon, ftp, kern, lpr, mail, news, syslog, user, uucp and local0 to local7",
    ),
    (
        "log_buffering",
        "log_buffering = maybe",
        "Error: [@] unable to parse value for entry 'log_buffering': invalid boolean value",
        "Error: [@] found 'maybe', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "log_level",
        "log_level = loud",
        "Error: [@] unable to parse value for entry 'log_level': invalid value for 'log_level'",
        "Error: [@] found 'loud', allowed are debug, notice, warning, error and alert",
    ),
    (
        "log_limit",
        "log_limit = 511",
        "Error: log_limit must be greater than 512",
        "Error: [@] found 'log_limit = 511', allowed are 512 and more",
    ),
    (
        "emergency_restart_threshold",
        "emergency_restart_threshold = some",
        "Error: [@] unable to parse value for entry 'emergency_restart_threshold': is not a valid number (greater or equal than zero)",
        "Error: [@] found 'some', allowed is a whole number from -2147483648 to 2147483647",
    ),
    (
        "emergency_restart_interval",
        "emergency_restart_interval = 5w",
        "Error: [@] unable to parse value for entry 'emergency_restart_interval': unknown suffix used in time value",
        "Error: [@] found '5w', allowed is a whole number of seconds, or one with s, m, h or d",
    ),
    (
        "process_control_timeout",
        "process_control_timeout =",
        "Error: [@] unable to parse value for entry 'process_control_timeout': invalid time value",
        "Error: [@] found '', allowed is a whole number of seconds, or one with s, m, h or d",
    ),
    (
        "process.max",
        "process.max = -1",
        "Error: process_max can't be negative",
        "Error: [@] found 'process.max = -1', allowed are 0, which is without limit, and more",
    ),
    (
        "process.priority",
        "process.priority = -20",
        "Error: process.priority must be included into [-19,20]",
        "Error: [@] found 'process.priority = -20', allowed are -19 to 20",
    ),
    (
        "daemonize",
        "daemonize = \"YES\"",
        "Error: [@] unable to parse value for entry 'daemonize': invalid boolean value",
        "Error: [@] found 'YES', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "rlimit_files",
        "rlimit_files = -1",
        "Error: [@] unable to parse value for entry 'rlimit_files': is not a valid number (greater or equal than zero)",
        "Error: [@] found '-1', allowed is a whole number from 0 to 2147483647",
    ),
    (
        "rlimit_core",
        "rlimit_core = -1",
        "Error: [@] unable to parse value for entry 'rlimit_core': must be greater than zero or 'unlimited'",
        "Error: [@] found '-1', allowed is a whole number of bytes from 0 to 2147483647, or unlimited",
    ),
    (
        "events.mechanism",
        "events.mechanism = kqueue",
        "Error: event mechanism 'kqueue' is not available on this system",
        "Error: [@] found 'events.mechanism = kqueue', allowed is epoll; poll and select are taken for it",
    ),
    (
        "systemd_interval",
        "systemd_interval = -3",
        "Error: [@] unable to parse value for entry 'systemd_interval': invalid time value",
        "Error: [@] found '-3', allowed is a whole number of seconds, or one with s, m, h or d",
    ),
];

const IN_POOL: &[Row] = &[
    (
        "prefix",
        "prefix = /nonexistent/x",
        "Error: [pool www] the prefix '/nonexistent/x' does not exist or is not a directory",
        "Error: [@] found 'prefix = /nonexistent/x'",
    ),
    (
        "user",
        "user = nobody-here",
        "Error: [pool www] cannot get uid for user 'nobody-here'",
        "",
    ),
    (
        "group",
        "group = none-here",
        "Error: [pool www] cannot get gid for group 'none-here'",
        "",
    ),
    (
        "listen",
        "listen = 127.0.0.1:69002",
        "Error: invalid port value '69002'",
        "Error: [@] found 'listen = 127.0.0.1:69002', allowed are 1 to 65535",
    ),
    (
        "listen.backlog",
        "listen.backlog = 1k",
        "Error: [@] unable to parse value for entry 'listen.backlog': is not a valid number (greater or equal than zero)",
        "Error: [@] found '1k', allowed is a whole number from -2147483648 to 2147483647",
    ),
    (
        "listen.acl_users",
        "listen.acl_users = www-data|root",
        "Error: [@] syntax error in the value of 'listen.acl_users': unquoted | computes with integers, found 'www-data': quote the value if it is text",
        "",
    ),
    (
        "listen.acl_groups",
        "listen.acl_groups = 'adm",
        "Error: [@] syntax error, missing closing ' in the value of 'listen.acl_groups'",
        "",
    ),
    (
        "listen.owner",
        "listen.owner = nobody-here",
        "Error: [pool www] cannot get uid for user 'nobody-here': no such name (listen.owner in @)",
        "",
    ),
    (
        "listen.group",
        "listen.group = none-here",
        "Error: [pool www] cannot get gid for group 'none-here': no such name (listen.group in @)",
        "",
    ),
    (
        "listen.mode",
        "listen.mode = rw",
        "Error: [@] unable to parse value for entry 'listen.mode': invalid socket mode",
        "Error: [@] found 'rw', allowed are octal digits from 0 to 0777",
    ),
    (
        "listen.allowed_clients",
        "listen.allowed_clients = \"127.0.0.1",
        "Error: [@] syntax error, missing closing \" or } in the value of 'listen.allowed_clients'",
        "",
    ),
    (
        "listen.setfib",
        "listen.setfib = 5",
        "Error: [@] unknown entry 'listen.setfib'",
        "Error: [@] only FreeBSD has more than one routing table: remove the line",
    ),
    (
        "process.priority",
        "process.priority = 21",
        "Error: [pool www] process.priority must be included into [-19,20]",
        "Error: [@] found 'process.priority = 21', allowed are -19 to 20",
    ),
    (
        "process.dumpable",
        "process.dumpable = 2",
        "Error: [@] unable to parse value for entry 'process.dumpable': invalid boolean value",
        "Error: [@] found '2', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "pm",
        "pm = magic",
        "Error: [@] unable to parse value for entry 'pm': invalid process manager (static, dynamic or ondemand)",
        "Error: [@] found 'magic', allowed are static, dynamic and ondemand",
    ),
    (
        "pm.max_children",
        "pm.max_children = 0",
        "Alert: [pool www] pm.max_children must be a positive value",
        "Error: [@] found 'pm.max_children = 0', allowed are whole numbers from 1",
    ),
    (
        "pm.start_servers",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 1\npm.start_servers = 2",
        "Alert: [pool www] pm.start_servers(2) must not be less than pm.min_spare_servers(1) and not greater than pm.max_spare_servers(1)",
        "Error: [@] found 'pm.start_servers = 2', allowed are 1 to 1",
    ),
    (
        "pm.min_spare_servers",
        "pm = dynamic\npm.min_spare_servers = -1",
        "Alert: [pool www] pm.min_spare_servers(-1) must be a positive value",
        "Error: [@] found 'pm.min_spare_servers = -1', allowed are 1 to pm.max_children with pm = dynamic",
    ),
    (
        "pm.max_spare_servers",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 3",
        "Alert: [pool www] pm.min_spare_servers(1) and pm.max_spare_servers(3) cannot be greater than pm.max_children(2)",
        "Error: [@] found 'pm.max_spare_servers = 3', allowed are 1 to 2",
    ),
    (
        "pm.max_spawn_rate",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 1\npm.start_servers = 1\npm.max_spawn_rate = 0",
        "Alert: [pool www] pm.max_spawn_rate must be a positive value",
        "Error: [@] found 'pm.max_spawn_rate = 0', allowed are whole numbers from 1",
    ),
    (
        "pm.process_idle_timeout",
        "pm = ondemand\npm.process_idle_timeout = 0m",
        "Alert: [pool www] pm.process_idle_timeout(0s) must be greater than 0s",
        "Error: [@] found 'pm.process_idle_timeout = 0', allowed are times from 1s",
    ),
    (
        "pm.max_requests",
        "pm.max_requests = 99999999999",
        "Error: [@] unable to parse value for entry 'pm.max_requests': is not a valid number (greater or equal than zero)",
        "Error: [@] found '99999999999', allowed is a whole number from -2147483648 to 2147483647",
    ),
    (
        "pm.status_path",
        "pm.status_path = /status?full",
        "Error: [pool www] the status path '/status?full' must contain only the following characters '[alphanum]/_-.~'",
        "Error: [@] found 'pm.status_path = /status?full'",
    ),
    (
        "pm.status_listen",
        "pm.status_listen = *:9001",
        "Error: getaddrinfo: no such host; for every address give the port alone",
        "Error: [@] found 'pm.status_listen = *:9001', allowed are port, ip:port, [ipv6]:port, host:port and a unix path without ':'",
    ),
    (
        "ping.path",
        "ping.path = /",
        "Error: [pool www] the ping path '/' is not long enough",
        "Error: [@] found 'ping.path = /', allowed are paths of two characters and more",
    ),
    (
        "ping.response",
        "ping.path = /p\nping.response =",
        "Error: [pool www] the ping response page '' is not long enough",
        "Error: [@] found 'ping.response = ', allowed are texts of one character and more",
    ),
    (
        "access.log",
        "access.log = /nonexistent/a.log",
        "Error: failed to open access log (/nonexistent/a.log): No such file or directory (2)",
        "Error: [@] found 'access.log = /nonexistent/a.log', allowed are files that exist or can be made, and are writable",
    ),
    (
        "access.format",
        "access.log = /dev/null\naccess.format = %e",
        "Error: [pool www] wrong format for access.format '%e'",
        "Error: [@] found 'access.format = %e'",
    ),
    (
        "slowlog",
        "request_slowlog_timeout = 1\nslowlog = /dev",
        "Error: Unable to create or open slowlog(/dev): Is a directory (21)",
        "Error: [@] found 'slowlog = /dev', allowed are files that exist or can be made, and are writable",
    ),
    (
        "request_slowlog_timeout",
        "slowlog = /dev/null\nrequest_terminate_timeout = 4\nrequest_slowlog_timeout = 5",
        "Error: [pool www] 'request_slowlog_timeout' (5) can't be greater than 'request_terminate_timeout' (4)",
        "Error: [@] found 'request_slowlog_timeout = 5', allowed are up to 4s",
    ),
    (
        "request_slowlog_trace_depth",
        "slowlog = /dev/null\nrequest_slowlog_trace_depth = -5",
        "Error: [pool www] 'request_slowlog_trace_depth' (-5) must be a positive value",
        "Error: [@] found 'request_slowlog_trace_depth = -5', allowed are whole numbers from 0, which counts as 20",
    ),
    (
        "request_terminate_timeout",
        "request_terminate_timeout = 250ms!",
        "Error: [@] syntax error in the value of 'request_terminate_timeout': unquoted ! computes with integers, found '250ms': quote the value if it is text",
        "",
    ),
    (
        "request_terminate_timeout_track_finished",
        "request_terminate_timeout_track_finished = \"On\"",
        "Error: [@] unable to parse value for entry 'request_terminate_timeout_track_finished': invalid boolean value",
        "Error: [@] found 'On', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "rlimit_files",
        "rlimit_files = unlimited",
        "Error: [@] unable to parse value for entry 'rlimit_files': is not a valid number (greater or equal than zero)",
        "Error: [@] found 'unlimited', allowed is a whole number from 0 to 2147483647",
    ),
    (
        "rlimit_core",
        "rlimit_core = 1G",
        "Error: [@] unable to parse value for entry 'rlimit_core': is not a valid number (greater or equal than zero)",
        "Error: [@] found '1G', allowed is a whole number of bytes from 0 to 2147483647, or unlimited",
    ),
    (
        "chroot",
        "chroot = a/$prefix/b",
        "Error: [pool www] the chroot path 'a/$prefix/b' must start with a '/'",
        "Error: [@] found 'chroot = a/$prefix/b'",
    ),
    (
        "chdir",
        "chdir = /nonexistent/x",
        "Error: [pool www] the chdir path '/nonexistent/x' does not exist or is not a directory",
        "Error: [@] found 'chdir = /nonexistent/x'",
    ),
    (
        "catch_workers_output",
        "catch_workers_output = si",
        "Error: [@] unable to parse value for entry 'catch_workers_output': invalid boolean value",
        "Error: [@] found 'si', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "decorate_workers_output",
        "decorate_workers_output = si",
        "Error: [@] unable to parse value for entry 'decorate_workers_output': invalid boolean value",
        "Error: [@] found 'si', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "clear_env",
        "clear_env = ${YES}",
        "Error: [@] unable to parse value for entry 'clear_env': invalid boolean value",
        "Error: [@] found 'Yes', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "security.limit_extensions",
        "security.limit_extensions = .php|.phtml",
        "Error: [@] syntax error in the value of 'security.limit_extensions': unquoted | computes with integers, found '.php': quote the value if it is text",
        "",
    ),
    (
        "apparmor_hat",
        "apparmor_hat = 'hat",
        "Error: [@] syntax error, missing closing ' in the value of 'apparmor_hat'",
        "",
    ),
    (
        "env",
        "env[A] = off",
        "Error: [@] empty value",
        "Error: [@] 'env[A]' needs a value that is not empty, nor no, off, false, none or null unquoted",
    ),
    (
        "php_value",
        "php_value[] = E_ALL",
        "Error: [@] You must provide a key for field 'php_value'",
        "Error: [@] allowed is 'php_value[key] = value'",
    ),
    (
        "php_flag",
        "php_flag[display_errors] = maybe",
        "Error: [@] error while parsing 'php_flag[display_errors]' : invalid boolean value",
        "Error: [@] found 'maybe', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "php_admin_value",
        "php_admin_value[memory_limit",
        "Error: [@] syntax error: 'memory_limit' after 'php_admin_value[', allowed is 'php_admin_value[key] = value'",
        "",
    ),
    (
        "php_admin_flag",
        "php_admin_flag[log_errors] = 5",
        "Error: [@] error while parsing 'php_admin_flag[log_errors]' : invalid boolean value",
        "Error: [@] found '5', allowed are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
    ),
    (
        "access.suppress_path",
        "access.suppress_path[] = ping",
        "Error: [@] Values provided to field 'access.suppress_path' must begin with '/'",
        "Error: [@] found 'ping', allowed is a path from the root of the site",
    ),
];

#[test]
fn every_directive_refuses_something() {
    let names = |rows: &[Row]| rows.iter().map(|row| row.0).collect::<BTreeSet<_>>();
    let global: BTreeSet<_> = GLOBAL.iter().map(|directive| directive.name).collect();
    assert_eq!(names(IN_GLOBAL), global);
    let pool = POOL.iter().map(|directive| directive.name);
    let pool: BTreeSet<_> = pool.chain(Array::ALL.map(Array::name)).collect();
    assert_eq!(names(IN_POOL), pool);
    // Anchored in numbers, so that a directive cannot leave both sides unseen: php-fpm 8.4 has these.
    assert_eq!((global.len(), pool.len()), (17, 48));
}

#[test]
fn in_global() {
    for row in IN_GLOBAL {
        let text = format!("[global]\n{}\n{}", row.1, pool_text(""));
        assert_refused(row, &Fixture::new(&text), 1 + row.1.lines().count());
    }
}

#[test]
fn in_a_pool() {
    for row in IN_POOL {
        assert_refused(row, &Fixture::new(&pool_text(row.1)), 4 + row.1.lines().count());
    }
}

fn assert_refused((name, lines, first, ours): &Row, fixture: &Fixture, line: usize) {
    let place = format!("php-fpm.conf:{line}");
    let logged = fixture.lines();
    let place_of = |text: &str| text.replace('@', &place);
    let at = logged.iter().position(|logged| *logged == place_of(first));
    let at = at.unwrap_or_else(|| panic!("{name}: {lines}: {logged:#?}"));
    let earlier = logged[..at].iter().any(|logged| logged.starts_with("Alert: "));
    assert!(!earlier, "{name}: another mistake came first: {logged:#?}");
    let next = &logged[at + 1];
    if ours.is_empty() {
        let closing = [
            "Error: failed to load",
            "Error: failed to post",
            "Error: FPM initialization failed",
        ];
        assert!(
            closing.iter().any(|text| next.starts_with(text)),
            "{name}: {logged:#?}"
        );
    } else {
        assert_eq!(*next, place_of(ours), "{name}");
    }
    assert_eq!(
        logged.last().map(String::as_str),
        Some("Error: FPM initialization failed")
    );
}
