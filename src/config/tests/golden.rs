//! A whole file as Debian ships it, its pool reduced to what is supported today.

use super::super::*;
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
;syslog.facility = daemon
log_level = notice
daemonize = no

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
;listen.allowed_clients = 127.0.0.1
pm = static
pm.max_children = 5
pm.max_requests = 500
slowlog = log/$pool.log.slow
request_slowlog_timeout = 5s
request_slowlog_trace_depth = 20
;chroot =
chdir = /
catch_workers_output = yes
clear_env = no
env[HOSTNAME] = $HOSTNAME
env[PATH] = /usr/local/bin:/usr/bin:/bin
env[TMP] = /tmp
php_admin_value[sendmail_path] = \"/usr/sbin/sendmail -t -i -f www@my.domain.com\"
php_flag[display_errors] = off
php_admin_value[error_log] = /var/log/fpm-php.www.log
php_admin_flag[log_errors] = on
php_admin_value[memory_limit] = 32M
";

const EXPECTED: &str = r#"Global {
    error_log: Some(
        "/var/log/php8.2-fpm.log",
    ),
    pid: Some(
        "/run/php/php8.2-fpm.pid",
    ),
    log_level: Notice,
}
name www
listen Unix("/run/php/php8.2-fpm.sock") Connections(511) mode 660 Some(Name("www-data")):Some(Name("www-data"))
user Some(Name("www-data")) group Some(Name("www-data")) chroot None chdir Some("/")
workers 5 requests Some(500) clear_env false catch true
slow Some("PREFIX/log/www.log.slow") Some(5s) 20 IfNeeded
env HOSTNAME=web1
env PATH=/usr/local/bin:/usr/bin:/bin
env TMP=/tmp
php display_errors=0 admin=false
php memory_limit=32M admin=true
php log_errors=1 admin=true
php error_log=/var/log/fpm-php.www.log admin=true
php sendmail_path=/usr/sbin/sendmail -t -i -f www@my.domain.com admin=true
"#;

#[test]
fn debian_files() {
    let mut fixture = Fixture::new(PHP_FPM_CONF);
    fixture.write("pool.d/www.conf", WWW_CONF);
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    fixture.euid_root = true;
    fixture.environment.insert("HOSTNAME".into(), "web1".into());
    let settings = fixture.load().unwrap();
    assert!(settings.notices.is_empty(), "{:?}", settings.notices);
    let text = render(&settings).replace(&fixture.directory.path().display().to_string(), "PREFIX");
    assert_eq!(text, EXPECTED);
}

fn render(settings: &Settings) -> String {
    let mut text = format!("{:#?}\n", settings.global);
    for pool in &settings.pools {
        let Pool {
            name,
            listen,
            backlog,
            socket_owner,
            socket_group,
            socket_mode,
            ..
        } = pool;
        let Pool {
            user,
            group,
            chroot,
            chdir,
            max_children,
            max_requests,
            ..
        } = pool;
        let Pool {
            clear_env,
            catch_workers_output,
            slowlog,
            slow_after,
            slow_depth,
            slow_stop,
            ..
        } = pool;
        text += &format!("name {name}\n");
        text += &format!(
            "listen {listen:?} {backlog:?} mode {:o} {socket_owner:?}:{socket_group:?}\n",
            socket_mode.0
        );
        text += &format!("user {user:?} group {group:?} chroot {chroot:?} chdir {chdir:?}\n");
        text += &format!(
            "workers {max_children} requests {max_requests:?} clear_env {clear_env} catch {catch_workers_output}\n"
        );
        text += &format!("slow {slowlog:?} {slow_after:?} {slow_depth} {slow_stop:?}\n");
        text.extend(
            pool.env
                .iter()
                .map(|(name, value)| format!("env {name}={value}\n")),
        );
        let values = pool.php_values.iter();
        text.extend(values.map(|php| format!("php {}={} admin={}\n", php.name, php.value, php.admin)));
    }
    text
}
