//! Each directive, with values that are taken and values that are refused.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::*;
use super::{Fixture, pool_refusal, pool_text, pool_with};

fn pool(lines: &str) -> Pool {
    pool_with(lines).unwrap_or_else(|e| panic!("{lines}: {e}"))
}

#[test]
fn listen_forms() {
    let tcp = |text: &str| ListenAddress::Tcp(text.parse::<SocketAddr>().unwrap());
    let table = [
        ("9001", ListenAddress::TcpPort(9001)),
        ("65535", ListenAddress::TcpPort(65535)),
        ("127.0.0.1:9001", tcp("127.0.0.1:9001")),
        ("0.0.0.0:9001", tcp("0.0.0.0:9001")),
        ("[::1]:9001", tcp("[::1]:9001")),
        ("[::]:9001", tcp("[::]:9001")),
        (
            "/run/php/$pool.sock",
            ListenAddress::Unix("/run/php/www.sock".into()),
        ),
        ("php.sock", ListenAddress::Unix("/usr/php.sock".into())),
    ];
    for (text, expected) in table {
        assert_eq!(pool(&format!("listen = {text}")).listen, expected, "{text}");
    }
    let long = "/".repeat(108);
    let refused = [
        (
            "0",
            "[php-fpm.conf:5] [pool www] invalid port value '0' in 'listen', allowed are 1 to 65535",
        ),
        ("69002", "invalid port value '69002'"),
        ("127.0.0.1:69002", "invalid port value '69002'"),
        ("127.0.0.1:x", "invalid port value 'x'"),
        ("*:9000", "cannot resolve listen address '*:9000': no such host"),
        (":9000", "cannot resolve listen address ':9000'"),
        ("/run/a:1", "the path contains ':'"),
        (&long, "path is too long (found length: 108, maximal length: 107)"),
        (
            "",
            "[php-fpm.conf:1] [pool www] no listen address have been defined!",
        ),
    ];
    for (text, expected) in refused {
        let message = pool_refusal(&format!("listen = {text}"));
        assert!(message.contains(expected), "{text}: {message}");
    }
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
    let table = [("3", 3), ("3s", 3), ("2m", 120), ("1h", 3600), ("1d", 86400)];
    for (text, seconds) in table {
        let lines = format!("slowlog = /s\nrequest_slowlog_timeout = {text}");
        assert_eq!(
            pool(&lines).slow_after,
            Some(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    assert_eq!(pool("request_slowlog_timeout = 0").slow_after, None);
    let refused = [
        (
            "",
            "unable to parse value for entry 'request_slowlog_timeout': invalid time value",
        ),
        (
            "3x",
            "unknown suffix used in time value, allowed are s, m, h and d (found '3x')",
        ),
        ("250ms", "unknown suffix used in time value"),
        ("ab3", "invalid time value"),
        ("99999999999", "invalid time value"),
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
            "unable to parse value for entry 'listen.backlog': is not a valid number (greater or equal than zero) (found '1k')",
        ),
        ("listen.backlog = +5", "(found '+5')"),
        ("listen.backlog = 4294967296", "(found '4294967296')"),
        ("listen.backlog = --5", "(found '--5')"),
        (
            "listen.mode = rw",
            "invalid socket mode, allowed are octal digits up to 0777 (found 'rw')",
        ),
        ("listen.mode = 01777", "invalid socket mode"),
        ("listen.mode = 888", "invalid socket mode"),
        (
            "clear_env = maybe",
            "unable to parse value for entry 'clear_env': invalid boolean value, allowed are yes and no (found 'maybe')",
        ),
        ("clear_env = \"YES\"", "invalid boolean value"),
        ("clear_env = ${YES}", "invalid boolean value"),
        (
            "pm = magic",
            "unable to parse value for entry 'pm': invalid process manager (static, dynamic or ondemand) (found 'magic')",
        ),
        (
            "pm = dynamic",
            "'pm = dynamic' is not supported yet, allowed is static",
        ),
        ("pm = OnDemand", "'pm = ondemand' is not supported yet"),
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
            "slowlog=/s\nrequest_slowlog_trace_depth = -5",
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
        ("env[A] =", "empty value for 'env[A]'"),
        ("env[A] = ${NOPE}", "empty value for 'env[A]'"),
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
            "access.suppress_path[] = /x",
            "directive 'access.suppress_path' is not supported yet",
        ),
        (
            "pm.status_path = /status",
            "directive 'pm.status_path' is not supported yet",
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
        pool("slowlog = /s\nrequest_slowlog_trace_depth = 5")
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
            "No pool defined. at least one pool section must be specified in config file (php-fpm.conf)",
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
            "[php-fpm.conf:1] Array are not allowed in the global section: found 'env[A]'",
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
fn global_directives() {
    let global = |lines: &str| {
        Fixture::new(&format!("{lines}\n{}", pool_text("")))
            .load()
            .map(|s| s.global)
    };
    assert_eq!(global("").unwrap().error_log, Some("/var/log/php-fpm.log".into()));
    assert_eq!(global("").unwrap().pid, None);
    let set = global("error_log = /tmp/e\npid = run/p\nlog_level = WARN\ndaemonize = no").unwrap();
    let expected = Global {
        error_log: Some("/tmp/e".into()),
        pid: Some("/var/run/p".into()),
        log_level: LogLevel::Warning,
    };
    assert_eq!(set, expected);
    let table = [
        (
            "daemonize = yes",
            "'daemonize = yes' is not supported: set it to no",
        ),
        ("error_log = syslog", "'error_log = syslog' is not supported yet"),
        (
            "error_log = /tmp/$pool",
            "Can't use '$pool' when the pool is not defined",
        ),
        (
            "log_level = loud",
            "invalid value for 'log_level', allowed are debug, notice, warning, error and alert (found 'loud')",
        ),
        ("process.max = 5", "directive 'process.max' is not supported yet"),
        (
            "log_levle = error",
            "unknown entry 'log_levle' (did you mean 'log_level'?)",
        ),
    ];
    for (line, expected) in table {
        let message = global(line).expect_err(line).to_string();
        assert!(
            message.contains(expected) && message.contains("php-fpm.conf:1] "),
            "{line}: {message}"
        );
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
    assert_eq!(settings.global.error_log, Some(root.join("log/php-fpm.log")));
    fixture.prefix = Some(root.join("nowhere"));
    assert!(
        fixture
            .refusal()
            .starts_with("the global prefix 'nowhere' does not exist")
    );
}
