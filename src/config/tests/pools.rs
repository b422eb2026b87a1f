//! Each directive, with values that are taken and values that are refused.

use std::time::Duration;

use super::super::*;
use super::{Fixture, pool_refusal, pool_text, pool_with};

fn pool(lines: &str) -> Pool {
    pool_with(lines).unwrap_or_else(|e| panic!("{lines}: {e}"))
}

#[test]
fn scalars_that_are_taken() {
    assert_eq!(pool("").backlog, Backlog::KernelMaximum);
    assert_eq!(pool("listen.backlog = -1").backlog, Backlog::KernelMaximum);
    assert_eq!(pool("listen.backlog = 511").backlog, Backlog::Connections(511));
    assert_eq!(pool("").socket_mode, Mode(0o660));
    assert_eq!(pool("listen.mode = 0666").socket_mode, Mode(0o666));
    assert_eq!(pool("listen.mode = 600").socket_mode, Mode(0o600));
    assert!(pool("").clear_env);
    assert!(!pool("clear_env = no").clear_env);
    assert!(!pool("clear_env = \"off\"").clear_env);
    assert!(!pool("").catch_workers_output);
    assert!(pool("CATCH_workers_Output = YES").catch_workers_output);
    assert_eq!(pool("pm = STATIC\npm.max_children = 7").max_children.get(), 7);
    assert_eq!(pool("").max_requests, None);
    assert_eq!(pool("pm.max_requests = 0").max_requests, None);
    assert_eq!(pool("pm.max_requests = -4").max_requests, None);
    assert_eq!(
        pool("pm.max_requests = 500").max_requests.map(|max| max.get()),
        Some(500)
    );
    assert_eq!(
        pool("slowlog = /var/log/$pool.slow").slowlog,
        Some("/var/log/www.slow".into())
    );
    assert_eq!(pool("slowlog = log/slow").slowlog, Some("/usr/log/slow".into()));
    assert_eq!(pool("chdir = /").chdir, Some("/".into()));
    assert_eq!(pool("chdir =").chdir, None);
}

#[test]
fn the_last_scalar_wins_and_names_have_no_case() {
    assert_eq!(
        pool("pm.max_children = 3\nPM.Max_Children = 4")
            .max_children
            .get(),
        4
    );
    let fixture = Fixture::new(&pool_text(
        "[other]\nlisten = 1\npm = static\npm.max_children = 1\n[WWW]\nlisten.backlog = 9",
    ));
    let pools = fixture.load().unwrap().pools;
    assert_eq!(
        (pools.len(), pools[0].name.as_str(), pools[0].backlog),
        (2, "www", Backlog::Connections(9))
    );
}

#[test]
fn times() {
    let timed = |text: &str| {
        let fixture = Fixture::new(&pool_text(&format!("request_terminate_timeout = {text}")));
        let settings = fixture.load().unwrap_or_else(|e| panic!("{text}: {e}"));
        let seconds = settings.pools[0].terminate_after.map(|after| after.as_secs());
        (seconds.unwrap_or(0), settings.notices)
    };
    for (text, expected) in [
        ("3", 3),
        ("3s", 3),
        ("2m", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("0", 0),
    ] {
        let (seconds, notices) = timed(text);
        assert_eq!((seconds, notices.len()), (expected, 0), "{text}");
    }
    // As in php-fpm, and with a warning, which it does not give.
    for (text, expected) in [
        ("ab3", 0),
        ("m", 0),
        ("3 s", 3),
        ("+3", 3),
        ("1.5h", 3600),
        ("2x3", 2),
    ] {
        let (seconds, notices) = timed(text);
        assert_eq!(seconds, expected, "{text}");
        let warning = format!("'request_terminate_timeout = {text}' counts as {expected}s, as in php-fpm");
        assert!(
            notices[0].level == LogLevel::Warning && notices[0].text.ends_with(&warning),
            "{notices:?}"
        );
    }
    let refused = [
        (
            "",
            "unable to parse value for entry 'request_slowlog_timeout': invalid time value (found '', allowed is",
        ),
        (
            "3x",
            "unknown suffix used in time value (found '3x', allowed is a whole number of seconds",
        ),
        ("250M", "unknown suffix used in time value"),
        ("-3", "invalid time value (found '-3'"),
        ("99999999999", "invalid time value"),
        ("9999999999999999999999d", "invalid time value"),
        ("99999d", "invalid time value"),
    ];
    for (text, expected) in refused {
        let message = pool_refusal(&format!("request_slowlog_timeout = {text}"));
        assert!(
            message.starts_with("[php-fpm.conf:5] ") && message.contains(expected),
            "{text}: {message}"
        );
    }
}

#[test]
fn values_that_are_refused_with_file_and_line() {
    let table = [
        (
            "listen.backlog = 1k",
            "unable to parse value for entry 'listen.backlog': is not a valid number (greater or equal than zero) (found '1k', allowed is a whole number",
        ),
        ("listen.backlog = +5", "(found '+5',"),
        ("listen.backlog = 4294967296", "(found '4294967296',"),
        ("listen.backlog = --5", "(found '--5',"),
        ("listen.backlog = -", "(found '-',"),
        (
            "listen.mode = rw",
            "invalid socket mode (found 'rw', allowed are octal digits from 0 to 0777)",
        ),
        ("listen.mode = 01777", "invalid socket mode"),
        ("listen.mode = 888", "invalid socket mode"),
        (
            "clear_env = maybe",
            "unable to parse value for entry 'clear_env': invalid boolean value (found 'maybe', allowed are yes, no,",
        ),
        ("clear_env = \"YES\"", "invalid boolean value"),
        ("clear_env = ${YES}", "invalid boolean value"),
        (
            "pm = magic",
            "unable to parse value for entry 'pm': invalid process manager (static, dynamic or ondemand) (found 'magic', allowed",
        ),
        (
            "pm.max_children = 0",
            "[pool www] pm.max_children must be a positive value",
        ),
        (
            "pm.max_children = -3",
            "[pool www] pm.max_children must be a positive value",
        ),
        (
            "request_slowlog_timeout = 1",
            "[pool www] 'slowlog' must be specified for use with 'request_slowlog_timeout'",
        ),
        (
            "request_slowlog_trace_depth = 5",
            "[pool www] 'slowlog' must be specified for use with 'request_slowlog_trace_depth'",
        ),
        (
            "slowlog=/dev/null\nrequest_slowlog_trace_depth = -5",
            "[pool www] 'request_slowlog_trace_depth' (-5) must be a positive value",
        ),
        (
            "chroot = none-here",
            "[pool www] the chroot path '/usr/none-here' does not exist or is not a directory",
        ),
        (
            "chroot = /nonexistent/x",
            "[pool www] the chroot path '/nonexistent/x' does not exist or is not a directory",
        ),
        (
            "chdir = none-here",
            "[pool www] the chdir path '/usr/none-here' does not exist or is not a directory",
        ),
        (
            "chdir = /nonexistent/x",
            "[pool www] the chdir path '/nonexistent/x' does not exist or is not a directory",
        ),
        ("env[A] =", "empty value ('env[A]' needs a value"),
        ("env[A] = ${NOPE}", "empty value ("),
        ("env[A=B] = c", "'=' is not allowed"),
        ("env[] = c", "You must provide a key for field 'env'"),
        (
            "php_flag[display_errors] = maybe",
            "error while parsing 'php_flag[display_errors]' : invalid boolean value",
        ),
        ("ENV[A] = b", "unknown directive 'ENV' (did you mean 'env'?)"),
        (
            "php_admin_vlaue[a] = b",
            "unknown directive 'php_admin_vlaue' (did you mean 'php_admin_value'?)",
        ),
        (
            "access.suppress_path[a] = /x",
            "Keys provided to field 'access.suppress_path' are ignored (found the key 'a', allowed is",
        ),
        (
            "access.suppress_path = /x",
            "unknown entry 'access.suppress_path'",
        ),
        ("include[] = x", "You must provide a key for field 'include'"),
        (
            "pm.status_path = status",
            "the status path 'status' must start with a '/'",
        ),
        ("pm.status_path = /", "the status path '/' is not long enough"),
        (
            "ping.path = \"/p\u{e4}\"",
            "must contain only the following characters '[alphanum]/_-.~'",
        ),
        (
            "pm.max_childen = 5",
            "unknown entry 'pm.max_childen' (did you mean 'pm.max_children'?)",
        ),
        ("zzz = 5", "unknown entry 'zzz'"),
        (
            "daemonize = no",
            "unknown entry 'daemonize' (it belongs into [global])",
        ),
        ("# listen = 5", "unknown entry '# listen'"),
    ];
    for (line, expected) in table {
        let message = pool_refusal(line);
        let line_number = 4 + line.lines().count();
        assert!(
            message.starts_with(&format!("[php-fpm.conf:{line_number}] ")) && message.contains(expected),
            "{line}: {message}"
        );
    }
    assert!(!pool_refusal("zzz = 5").contains("did you mean"));
}

#[test]
fn trace_depth() {
    assert_eq!(pool("").slow_depth.get(), 20);
    assert_eq!(pool("request_slowlog_trace_depth = 0").slow_depth.get(), 20);
    assert_eq!(
        pool("slowlog = /dev/null\nrequest_slowlog_trace_depth = 5")
            .slow_depth
            .get(),
        5
    );
}

#[test]
fn env_takes_the_first_line_and_looks_up_variables() {
    let lines = "env[A] = one\nenv[A] = two\nenv[P] = $SPACED\nenv[N] = $NOPE\nenv[X] = ${SPACED}\nenv[POOL] = in-$pool";
    let expected = [
        ("A", "one"),
        ("P", "ex y"),
        ("N", ""),
        ("X", "ex y"),
        ("POOL", "in-www"),
    ];
    assert_eq!(
        pool(lines).env,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn php_values_come_in_the_order_to_apply() {
    let lines = "php_admin_value[memory_limit] = 32M\nphp_value[a] = 1\nphp_flag[a] = off\nphp_value[b] = $pool\n\
                 php_admin_flag[log_errors] = on\nphp_admin_value[extension] = x\nphp_admin_value[extension] = y\n\
                 php_admin_value[error_log] = log/$pool.log\nphp_value[error_reporting] = E_ALL & ~E_NOTICE";
    let table = [
        ("error_reporting", "32759", false),
        ("b", "www", false),
        ("a", "1", false),
        ("error_log", "/usr/log/www.log", true),
        ("extension", "y", true),
        ("extension", "x", true),
        ("log_errors", "1", true),
        ("memory_limit", "32M", true),
    ];
    let expected = table.map(|(name, value, admin)| PhpValue {
        name: name.into(),
        value: value.into(),
        admin,
    });
    assert_eq!(pool(lines).php_values, expected);
    assert_eq!(
        pool("php_admin_value[error_log] = syslog").php_values[0].value,
        "syslog"
    );
    assert_eq!(
        pool("php_value[error_log] = syslog").php_values[0].value,
        "/usr/syslog"
    );
}

#[test]
fn what_only_the_whole_shows() {
    let table = [
        (
            "",
            "No pool defined. at least one pool section must be specified in config file (neither in php-fpm.conf nor",
        ),
        ("[global]\nlog_level = error", "No pool defined."),
        (
            "[www]",
            "[php-fpm.conf:1] [pool www] no listen address have been defined!",
        ),
        (
            "\n[www]\nlisten = 1",
            "[php-fpm.conf:2] [pool www] the process manager is missing (static, dynamic or ondemand)",
        ),
        (
            "[www]\nlisten = 1\npm = static",
            "[php-fpm.conf:1] [pool www] pm.max_children must be a positive value",
        ),
        (
            "listen = 9000",
            "[php-fpm.conf:1] unknown entry 'listen' (it belongs into a pool section)",
        ),
        (
            "env[A] = b",
            "[php-fpm.conf:1] Array are not allowed in the global section ('env[A]' belongs into a pool section)",
        ),
        (
            &pool_text("[b]\nlisten = 9000\npm = static\npm.max_children = 1"),
            "[php-fpm.conf:6] [pool b] unable to set listen address as it's already used in another pool 'www'",
        ),
    ];
    for (text, expected) in table {
        let message = Fixture::new(text).refusal();
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn directories_under_prefix_and_chroot() {
    let mut fixture = Fixture::new(&pool_text(
        "chroot = $prefix/jail\nchdir = /site\nslowlog = slow\nphp_value[error_log] = e\nlisten = a.sock",
    ));
    let root = fixture.directory.path().to_path_buf();
    fixture.prefix = Some(root.clone());
    assert!(
        fixture
            .refusal()
            .contains("jail' does not exist or is not a directory")
    );
    std::fs::create_dir(root.join("jail")).unwrap();
    assert!(
        fixture
            .refusal()
            .contains("the chdir path '/site' within the chroot path")
    );
    std::fs::create_dir(root.join("jail/site")).unwrap();
    let settings = fixture.load().unwrap();
    let pool = &settings.pools[0];
    assert_eq!(
        (pool.chroot.clone(), pool.chdir.clone()),
        (Some(root.join("jail")), Some("/site".into()))
    );
    assert_eq!(pool.listen, ListenAddress::Unix(root.join("a.sock")));
    assert_eq!(pool.slowlog, Some(root.join("slow")));
    assert_eq!(
        pool.php_values[0].value, "e",
        "paths of a chrooted pool are its own"
    );
    let log = LogTarget::File(root.join("log/php-fpm.log"));
    assert_eq!(settings.global.error_log, Some(log));
    fixture.prefix = Some(root.join("nowhere"));
    assert!(
        fixture
            .refusal()
            .starts_with("the global prefix 'nowhere' does not exist")
    );
}

#[test]
fn a_pool_may_have_a_prefix_of_its_own() {
    let lines =
        "prefix = $pool\nlisten = a.sock\naccess.log = a.log\nslowlog = s.log\nchroot = $prefix\nchdir = /";
    let mut fixture = Fixture::new(&pool_text(lines));
    let root = fixture.directory.path().to_path_buf();
    fixture.prefix = Some(root.clone());
    assert!(
        fixture
            .refusal()
            .contains("www' does not exist or is not a directory")
    );
    std::fs::create_dir(root.join("www")).unwrap();
    let pool = fixture.load().unwrap().pools.remove(0);
    let own = |name: &str| root.join("www").join(name);
    assert_eq!(pool.listen, ListenAddress::Unix(own("a.sock")));
    assert_eq!(
        (pool.access_log, pool.slowlog),
        (Some(own("a.log")), Some(own("s.log")))
    );
    assert_eq!(
        (pool.chroot, pool.chdir),
        (Some(root.join("www")), Some("/".into()))
    );
}

#[test]
fn the_rest_of_a_pool() {
    let defaults = pool("");
    let changed = pool(
        "listen.allowed_clients = 127.0.0.1,::1\nprocess.dumpable = on\napparmor_hat = hat\nrlimit_files = 99\n\
         rlimit_core = 7\npm.status_path = /status\nping.path = /ping\nping.response = fine\naccess.log = /dev/null\n\
         access.format = %m\naccess.suppress_path[] = /a\naccess.suppress_path[] = /b\n\
         request_terminate_timeout = 3\nrequest_terminate_timeout_track_finished = yes\n\
         listen.acl_users = a,b\nlisten.acl_groups = c\ndecorate_workers_output = no\nsecurity.limit_extensions = .php5 \t .php",
    );
    let expected = Pool {
        allowed_clients: Some("127.0.0.1,::1".into()),
        dumpable: true,
        apparmor_hat: Some("hat".into()),
        rlimit_files: Some(99),
        rlimit_core: Some(7),
        status_path: Some("/status".into()),
        ping_path: Some("/ping".into()),
        ping_response: "fine".into(),
        access_log: Some("/dev/null".into()),
        access_format: "%m".into(),
        access_suppress: vec!["/a".into(), "/b".into()],
        terminate_after: Some(Duration::from_secs(3)),
        terminate_finished: true,
        decorate_workers_output: false,
        socket_acl_users: vec!["a".into(), "b".into()],
        socket_acl_groups: vec!["c".into()],
        limit_extensions: vec![".php5".into(), ".php".into()],
        ..defaults
    };
    assert_eq!(changed, expected);
    assert!(pool("security.limit_extensions =").limit_extensions.is_empty());
    assert_eq!(pool("ping.response = unused").ping_path, None);
}
