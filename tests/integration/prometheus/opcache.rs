//! Opcache of a real engine, as it is scraped; and what a bad one costs.

use rustix::process::Signal;

use super::stand::{Stand, TEXT};
use crate::harness::{exists, skipped, start as start_fake, wait_until};

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:PORT\"\n";

/// The sum of the series with that name and that label.
fn sum(page: &str, name: &str, label: &str) -> Option<u64> {
    let of_name = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
    let values = page.lines().filter(of_name).map(|line| {
        let value = line.rsplit(' ').next().expect("has a value");
        value.parse::<u64>().expect("is a whole number")
    });
    values.reduce(|sum, value| sum + value)
}

fn start(define: &str) -> Option<Stand> {
    let stand = Stand::start(&format!("[php]\ndefine = [{define}]\n{METRICS}"))?;
    let asked = || {
        sum(
            &stand.scrape(TEXT)?,
            "php_opcache_asks_total",
            "php_engine=\"shop\"",
        )
    };
    wait_until("opcache is asked", || asked().is_some_and(|asks| asks > 0));
    Some(stand)
}

#[test]
fn opcache_is_measured_over_reloads() {
    let settings =
        r#""opcache.enable=1", "opcache.memory_consumption=32", "opcache.file_update_protection=0""#;
    let Some(mut stand) = start(settings) else { return };
    let page = || stand.scrape(TEXT).unwrap_or_default();
    if sum(&page(), "php_opcache_asks_total", "\"off\"") > Some(0) {
        stand.end();
        return skipped("figures of opcache: PHP has none; install it, as make deps does");
    }
    let hits = |page: &str| sum(page, "php_opcache_hits_total", "php_engine=\"shop\"");
    // The first of them is a miss.
    (0..4).for_each(|_| assert_eq!(stand.run("ok.php"), "ok"));
    let mut seen = String::new();
    wait_until("hits are counted", || {
        seen = page();
        hits(&seen) == Some(3)
    });
    let of = |name: &str, label: &str| sum(&seen, name, label);
    let memory = of("php_opcache_memory_bytes", "php_engine=\"shop\"");
    assert_eq!(memory, Some(32 << 20));
    assert!(of("php_opcache_memory_bytes", "\"used\"") > Some(0));
    assert!(of("php_opcache_interned_strings_memory_bytes", "\"used\"") > Some(0));
    assert_eq!(of("php_opcache_scripts", ""), Some(1));
    assert!(of("php_opcache_keys", "") < of("php_opcache_key_limit", ""));
    assert_eq!(of("php_opcache_full", ""), Some(0));
    assert_eq!(of("php_opcache_restarts_total", "\"oom\""), Some(0));
    assert_eq!(of("php_opcache_jit_memory_bytes", ""), None);
    for outcome in ["\"off\"", "\"restricted\""] {
        assert_eq!(of("php_opcache_asks_total", outcome), Some(0), "{outcome}");
    }
    // Another engine, another opcache, and the counts go on.
    stand.reload();
    wait_until("more hits are counted", || {
        assert_eq!(stand.run("ok.php"), "ok");
        let now = hits(&stand.scrape(TEXT).unwrap_or_default());
        assert!(now.is_none_or(|now| now >= 3), "{now:?}");
        now > Some(3)
    });
    stand.end();
}

#[test]
fn an_opcache_that_says_nothing_is_absent_and_the_log_says_why() {
    for (setting, outcome) in [
        ("\"opcache.enable=0\"", "off"),
        (
            "\"opcache.enable=1\", \"opcache.restrict_api=/srv\"",
            "restricted",
        ),
    ] {
        let Some(mut stand) = start(setting) else { return };
        if outcome == "restricted" {
            let line = stand
                .supervised
                .wait_for("there are no metrics of opcache of the engine (pid");
            assert!(
                line.contains("NOTICE") && line.ends_with("opcache.restrict_api is set"),
                "{line}"
            );
        }
        let page = stand.scrape(TEXT).expect("is answered");
        let asks = sum(&page, "php_opcache_asks_total", &format!("\"{outcome}\""));
        assert!(asks > Some(0), "{page}");
        assert!(!page.contains("php_opcache_memory_bytes{"), "{page}");
        assert!(!page.contains("php_opcache_hits_total{"), "{page}");
        assert_eq!(stand.run("ok.php"), "ok");
        stand.end();
    }
}

#[test]
fn one_that_asks_and_hangs_or_dies_is_a_loss_and_no_more() {
    for (behaviour, expected) in [
        ("dies", ": the process that asks it exited "),
        (
            "hangs",
            ": the process that asks it exited on signal 9 (SIGKILL);",
        ),
        ("is not", ": it has none;"),
    ] {
        // Has metrics made. Nobody listens there.
        let measured = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let mut supervised = start_fake(1, &[measured, ("FAKE_OPCACHE", behaviour)]);
        let worker = supervised.started(1)[0];
        let line = supervised.wait_for("has not said how it is");
        assert!(line.contains("WARNING") && line.contains(expected), "{line}");
        assert!(exists(worker));
        supervised.signal(Signal::TERM);
        assert!(supervised.wait_for_end().success());
        // Nor is it taken for a process of an application.
        let log = supervised.log.join("\n");
        assert!(!log.contains("unknown child"), "{log}");
    }
}
