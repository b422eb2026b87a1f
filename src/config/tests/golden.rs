//! The files that Debian ships, with some of their comments taken for settings.

use super::Fixture;

const PHP_FPM_CONF: &str = "\
;;;;;;;;;;;;;;;;;;;;;
; FPM Configuration ;
;;;;;;;;;;;;;;;;;;;;;

[global]
; Pid file
; Note: the default prefix is /var
; Default Value: none
; Warning: if you change the value here, you need to modify systemd
; service PIDFile= setting to match the value here.
pid = /run/php/php8.2-fpm.pid

; Error log file
error_log = /var/log/php8.2-fpm.log
syslog.facility = daemon
syslog.ident = php-fpm
log_level = notice
log_limit = 4096
log_buffering = no
emergency_restart_threshold = 0
emergency_restart_interval = 0
process_control_timeout = 0
process.max = 128
process.priority = -19
daemonize = yes
rlimit_files = 1024
rlimit_core = 0
events.mechanism = epoll
systemd_interval = 10

include=pool.d/*.conf
";

const WWW_CONF: &str = "\
; Start a new pool named 'www'.
; the variable $pool can be used in any directive and will be replaced by the
; pool name ('www' here)
[www]
;prefix = /path/to/pools/$pool
user = www-data
group = www-data
listen = /run/php/php8.2-fpm.sock
listen.backlog = 511
listen.owner = www-data
listen.group = www-data
listen.mode = 0660
listen.acl_users =
listen.acl_groups =
listen.allowed_clients = 127.0.0.1
;listen.setfib = 1
process.priority = -19
process.dumpable = yes
pm = dynamic
pm.max_children = 5
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
pm.max_spawn_rate = 32
pm.process_idle_timeout = 10s;
pm.max_requests = 500
pm.status_path = /status
pm.status_listen = 127.0.0.1:9001
ping.path = /ping
ping.response = pong
access.log = log/$pool.access.log
access.format = \"%R - %u %t \\\"%m %r%Q%q\\\" %s %f %{milli}d %{kilo}M %C%%\"
access.suppress_path[] = /ping
access.suppress_path[] = /health_check.php
slowlog = log/$pool.log.slow
request_slowlog_timeout = 5s
request_slowlog_trace_depth = 20
request_terminate_timeout = 1m
request_terminate_timeout_track_finished = no
rlimit_files = 1024
rlimit_core = 0
chroot =
chdir = /
catch_workers_output = yes
decorate_workers_output = no
clear_env = no
security.limit_extensions = .php .php3 .php4 .php5 .php7
env[HOSTNAME] = $HOSTNAME
env[PATH] = /usr/local/bin:/usr/bin:/bin
env[TMP] = /tmp
php_admin_value[sendmail_path] = /usr/sbin/sendmail -t -i -f www@my.domain.com
php_flag[display_errors] = off
php_admin_value[error_log] = /var/log/fpm-php.www.log
php_admin_flag[log_errors] = on
php_admin_value[memory_limit] = 32M
";

const EXPECTED: &str = include_str!("golden/debian.txt");

#[test]
fn debian_files() {
    let mut fixture = Fixture::new(PHP_FPM_CONF);
    fixture.write("pool.d/www.conf", WWW_CONF);
    std::fs::create_dir(fixture.path("log")).unwrap();
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    fixture.euid_root = true;
    fixture.environment.insert("HOSTNAME".into(), "web1".into());
    let settings = fixture.test().unwrap();
    assert!(settings.notices.is_empty(), "{:?}", settings.notices);
    assert!(settings.start_notices.is_empty(), "{:?}", settings.start_notices);
    assert_eq!(
        (settings.pools.len(), &*settings.pools[1].name),
        (2, "www_status")
    );
    let text = format!("{:#?}\n{:#?}\n", settings.global, settings.pools[0]);
    let text = text.replace(&fixture.directory.path().display().to_string(), "PREFIX");
    assert_eq!(text, EXPECTED);
}
