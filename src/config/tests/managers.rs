//! `pm` and its numbers.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::{Backlog, LogLevel, ProcessManager};
use super::{Fixture, pool_text, pool_with};

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn manager(lines: &str) -> ProcessManager {
    pool_with(lines)
        .unwrap_or_else(|e| panic!("{lines}: {e}"))
        .manager
}

#[test]
fn managers_that_are_taken() {
    assert_eq!(manager(""), ProcessManager::Static);
    // What belongs to other managers has no effect.
    assert_eq!(
        manager("pm.start_servers = -7\npm.max_spawn_rate = 0"),
        ProcessManager::Static
    );
    let expected = ProcessManager::Dynamic {
        start_servers: n(2),
        min_spare: n(1),
        max_spare: n(3),
        max_spawn_rate: n(64),
    };
    let lines = "pm = Dynamic\npm.max_children = 5\npm.start_servers = 2\npm.min_spare_servers = 1\n\
                 pm.max_spare_servers = 3\npm.max_spawn_rate = 64";
    assert_eq!(manager(lines), expected);
    let on_demand = |seconds| ProcessManager::OnDemand {
        idle_timeout: Duration::from_secs(seconds),
    };
    assert_eq!(manager("pm = ondemand"), on_demand(10));
    assert_eq!(
        manager("pm = ondemand\npm.process_idle_timeout = 2m"),
        on_demand(120)
    );
}

#[test]
fn start_servers_is_worked_out_and_told() {
    for (min, max, expected) in [(1, 3, 2), (1, 1, 1), (2, 5, 3), (1, 5, 3)] {
        let lines = format!(
            "pm = dynamic\npm.max_children = 5\npm.min_spare_servers = {min}\npm.max_spare_servers = {max}"
        );
        let settings = Fixture::new(&pool_text(&lines)).load().unwrap();
        let start = match settings.pools[0].manager {
            ProcessManager::Dynamic { start_servers, .. } => start_servers.get(),
            other => panic!("{other:?}"),
        };
        assert_eq!(start, expected, "{min} to {max}");
        assert_eq!(settings.notices[0].level, LogLevel::Notice);
        let text = format!("[pool www] pm.start_servers is not set. It's been set to {expected}.");
        assert_eq!(settings.notices[0].text, text);
    }
}

#[test]
fn mistakes_are_named_in_php_fpms_order() {
    let table = [
        ("pm = dynamic", "pm.min_spare_servers(0) must be a positive value"),
        (
            "pm.min_spare_servers = 1",
            "pm.max_spare_servers(0) must be a positive value",
        ),
        (
            "pm.max_spare_servers = 9",
            "pm.min_spare_servers(1) and pm.max_spare_servers(9) cannot be greater than pm.max_children(5)",
        ),
        (
            "pm.min_spare_servers = 4\npm.max_spare_servers = 3",
            "pm.max_spare_servers(3) must not be less than pm.min_spare_servers(4)",
        ),
        (
            "pm.min_spare_servers = 2\npm.start_servers = 1",
            "pm.start_servers(1) must not be less than pm.min_spare_servers(2) and not greater than pm.max_spare_servers(3)",
        ),
        (
            "pm.start_servers = 2\npm.max_spawn_rate = 0",
            "pm.max_spawn_rate must be a positive value",
        ),
        (
            "pm = ondemand\npm.process_idle_timeout = 0",
            "pm.process_idle_timeout(0s) must be greater than 0s",
        ),
    ];
    // Each mistake goes away with the lines of the next one, which then is the first.
    let mut lines = "pm.max_children = 5".to_owned();
    for (more, expected) in table {
        lines = format!("{lines}\n{more}");
        let logged = Fixture::new(&pool_text(&lines)).lines();
        let alert = logged.iter().find(|line| line.starts_with("Alert: "));
        assert_eq!(alert, Some(&format!("Alert: [pool www] {expected}")), "{lines}");
    }
    assert!(pool_with(&format!("{lines}\npm.process_idle_timeout = 1")).is_ok());
}

#[test]
fn a_backlog_below_the_default_is_mended_on_demand() {
    let settings = Fixture::new(&pool_text("pm = ondemand\nlisten.backlog = -7"))
        .load()
        .unwrap();
    assert_eq!(settings.notices[0].level, LogLevel::Warning);
    assert_eq!(
        settings.notices[0].text,
        "[pool www] listen.backlog(-7) was too low for the ondemand process manager. I updated it for you to -1."
    );
    assert_eq!(settings.pools[0].backlog, Backlog::KernelMaximum);
    assert!(settings.dump().contains(&"\tlisten.backlog = -1".to_owned()));
    assert!(
        Fixture::new(&pool_text("listen.backlog = -7"))
            .load()
            .unwrap()
            .notices
            .is_empty()
    );
}
