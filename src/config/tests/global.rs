//! `[global]`, with values that are taken.

use std::time::Duration;

use super::super::{EmergencyRestart, Global, LogLevel, LogTarget, Settings, Syslog};
use super::{Fixture, pool_text};

fn settings(lines: &str) -> Settings {
    fixture(lines).load().unwrap_or_else(|e| panic!("{lines}: {e}"))
}

fn fixture(lines: &str) -> Fixture {
    Fixture::new(&format!("{lines}\n{}", pool_text("")))
}

#[test]
fn defaults() {
    let expected = Global {
        error_log: Some(LogTarget::File("/var/log/php-fpm.log".into())),
        daemonize: true,
        ..Global::default()
    };
    assert_eq!(settings("").global, expected);
    // Written out, or written as nothing or zero, they are the same.
    let written = "pid =\nerror_log =\nsyslog.facility = DAEMON\nlog_buffering = yes\nlog_level = Notice\n\
                   log_limit = 1024\nemergency_restart_threshold = 0\nemergency_restart_interval = 0\n\
                   process_control_timeout = 0\nprocess.max = 0\nprocess.priority = 64\ndaemonize = yes\n\
                   rlimit_files = 0\nrlimit_core = 0\nevents.mechanism = epoll\nsystemd_interval = 10";
    assert_eq!(settings(written).global, expected);
}

#[test]
fn everything_set() {
    let mut fixture = fixture(
        "error_log = log/e\npid = run/p\nsyslog.ident = web\nsyslog.facility = LOCAL3\nlog_buffering = no\n\
         log_level = WARN\nlog_limit = 512\nemergency_restart_threshold = 10\nemergency_restart_interval = 1m\n\
         process_control_timeout = 10s\nprocess.max = 128\nprocess.priority = -19\ndaemonize = no\n\
         rlimit_files = 1024\nrlimit_core = unlimited\nevents.mechanism = auto\nsystemd_interval = 0",
    );
    fixture.euid_root = true;
    fixture.allow_root = true;
    let expected = Global {
        error_log: Some(LogTarget::File("/var/log/e".into())),
        pid: Some("/var/run/p".into()),
        log_level: LogLevel::Warning,
        log_limit: 512,
        error_form: crate::config::LogForm::PhpFpm,
        log_buffering: false,
        syslog: Syslog {
            ident: "web".into(),
            facility: 19,
        },
        emergency_restart: Some(EmergencyRestart {
            threshold: 10.try_into().unwrap(),
            interval: Duration::from_secs(60),
        }),
        process_control_timeout: Some(Duration::from_secs(10)),
        process_max: 128.try_into().ok(),
        priority: Some(-19),
        daemonize: false,
        rlimit_files: Some(1024),
        rlimit_core: Some(u64::MAX),
        systemd_interval: None,
    };
    let settings = fixture.load().unwrap();
    assert_eq!(settings.global, expected);
    assert!(settings.notices.is_empty() && settings.start_notices.is_empty());
}

#[test]
fn syslog_in_any_case() {
    assert_eq!(
        settings("error_log = SysLog").global.error_log,
        Some(LogTarget::Syslog)
    );
}

#[test]
fn an_emergency_needs_both_numbers() {
    for lines in [
        "emergency_restart_threshold = 5",
        "emergency_restart_interval = 5",
        "emergency_restart_threshold = -5\nemergency_restart_interval = 5",
    ] {
        assert_eq!(settings(lines).global.emergency_restart, None, "{lines}");
    }
}

#[test]
fn flags_and_the_file() {
    let with = |lines: &str, change: fn(&mut Fixture)| {
        let mut fixture = fixture(lines);
        change(&mut fixture);
        fixture.load().unwrap().global
    };
    let pid = |fixture: &mut Fixture| fixture.pid = Some("g.pid".into());
    assert_eq!(with("", pid).pid, Some("/var/g.pid".into()));
    assert_eq!(
        with("pid = /file.pid", pid).pid,
        Some("/file.pid".into()),
        "the file is later"
    );
    assert!(with("daemonize = no", |fixture| fixture.daemonize = Some(true)).daemonize);
    assert!(!with("daemonize = yes", |fixture| fixture.daemonize = Some(false)).daemonize);
}

#[test]
fn other_event_mechanisms_are_said_to_be_epoll() {
    let settings = settings("events.mechanism = Select");
    let (level, text) = (settings.notices[0].level, settings.notices[0].text.as_str());
    assert_eq!(level, LogLevel::Notice);
    assert!(
        text.ends_with("php-fpm.conf:1] 'events.mechanism = select' is taken for epoll"),
        "{text}"
    );
    assert!(settings.dump().contains(&"\tevents.mechanism = epoll".to_owned()));
}
