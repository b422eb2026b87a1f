//! What is logged for a refusal: php-fpm's lines, word for word, and ours between them.

use super::{Fixture, pool_text};

/// The lines of a configuration and of what it includes.
fn logged(fpm_conf: &str, includes: &[(&str, &str)]) -> Vec<String> {
    let mut fixture = Fixture::new(fpm_conf);
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    for (name, text) in includes {
        fixture.write(name, text);
    }
    fixture.lines()
}

#[test]
fn while_reading() {
    let expected = [
        "Error: [php-fpm.conf:2] unknown entry 'log_levle'",
        "Error: [php-fpm.conf:2] did you mean 'log_level'?",
        "Error: failed to load configuration file 'php-fpm.conf'",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged("[global]\nlog_levle = error", &[]), expected);
}

#[test]
fn in_an_included_file() {
    let files = [("a.conf", "\ninclude = b.conf"), ("b.conf", "zzz = 1")];
    let expected = [
        "Warning: Nothing matches the include pattern 'none*' from php-fpm.conf at line 1.",
        "Error: [b.conf:1] unknown entry 'zzz'",
        "Error: Unable to include b.conf from a.conf at line 2",
        "Error: Unable to include a.conf from php-fpm.conf at line 2",
        "Error: failed to load configuration file 'php-fpm.conf'",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged("include = none*\ninclude = a.conf", &files), expected);
}

#[test]
fn with_the_systems_reason() {
    let fixture = Fixture::new("");
    std::fs::remove_file(fixture.path("php-fpm.conf")).unwrap();
    let expected = [
        "Error: failed to open configuration file 'php-fpm.conf': No such file or directory (2)",
        "Error: failed to load configuration file 'php-fpm.conf'",
        "Error: FPM initialization failed",
    ];
    assert_eq!(fixture.lines(), expected);
    let fixture = Fixture::new("");
    std::fs::remove_file(fixture.path("php-fpm.conf")).unwrap();
    std::fs::create_dir(fixture.path("php-fpm.conf")).unwrap();
    assert!(fixture.lines()[0].ends_with("Is a directory (21)"));
}

#[test]
fn when_everything_is_read() {
    let expected = [
        "Error: No pool defined. at least one pool section must be specified in config file",
        "Error: neither in php-fpm.conf nor in what it includes",
        "Error: failed to post process the configuration",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged("[global]", &[]), expected);
    let expected = [
        "Alert: [pool www] no listen address have been defined!",
        "Error: [php-fpm.conf:2] add 'listen = ADDRESS': a port, ip:port, [ipv6]:port, host:port or the path of a unix socket",
        "Error: failed to post process the configuration",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged("\n[www]", &[]), expected);
    let dynamic = "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 1\nping.path = ping";
    let expected = [
        "Notice: [pool www] pm.start_servers is not set. It's been set to 1.",
        "Error: [pool www] the ping path 'ping' must start with a '/'",
        "Error: [php-fpm.conf:8] found 'ping.path = ping'",
        "Error: failed to post process the configuration",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged(&pool_text(dynamic), &[]), expected);
}

#[test]
fn before_and_after_the_files() {
    let mut fixture = Fixture::new("");
    fixture.prefix = Some("/nonexistent/x".into());
    let expected = [
        "Error: the global prefix '/nonexistent/x' does not exist or is not a directory",
        "Error: FPM initialization failed",
    ];
    assert_eq!(fixture.lines(), expected);
    let expected = [
        "Error: invalid port value '69002'",
        "Error: [php-fpm.conf:5] found 'listen = 127.0.0.1:69002', allowed are 1 to 65535",
        "Error: FPM initialization failed",
    ];
    assert_eq!(logged(&pool_text("listen = 127.0.0.1:69002"), &[]), expected);
}

#[test]
fn in_the_overlay() {
    let expected = [
        "Error: [glasspool.toml:1:6] unknown key 'slo' (did you mean 'slow'?), allowed are php, slow",
        "Error: failed to load configuration file 'glasspool.toml'",
        "Error: FPM initialization failed",
    ];
    let files = [("glasspool.toml", "pool.www.slo = 1")];
    assert_eq!(logged(&pool_text(""), &files)[1..], expected[1..]);
    assert!(logged(&pool_text(""), &files)[0].contains("unknown key 'slo' (did you mean 'slow'?)"));
}

#[test]
fn a_mistake_in_a_pool_still_tells_where_the_log_is() {
    let failure = Fixture::new("[global]\nerror_log = /tmp/e\n[www]")
        .load()
        .expect_err("no address");
    let log = failure.global.and_then(|global| global.error_log);
    assert_eq!(log, Some(super::super::LogTarget::File("/tmp/e".into())));
    let failure = Fixture::new("[global]\nerror_log = /tmp/e\nlog_limit = 1").load();
    assert!(failure.is_err_and(|failure| failure.global.is_none()));
}
