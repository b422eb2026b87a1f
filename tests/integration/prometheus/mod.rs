//! Metrics as Prometheus fetches them: from a real pool, by a real Prometheus, and by those
//! who only pretend to.

mod hostile;
mod opcache;
mod server;
pub(crate) mod stand;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use self::server::{Prometheus, check};
use self::stand::{OPEN_METRICS, Stand, TEXT, free_port};
use crate::fastcgi::{ask, script};
use crate::harness::{kill, skipped, wait_until};

fn packaged(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    fs::read_to_string(path).expect("is in the source tree")
}

/// All expressions of the dashboard, its variables filled in.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&packaged("grafana/glasspool.json")).expect("is JSON");
    let panels = dashboard["panels"].as_array().expect("has panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("has targets"));
    let filled = targets.map(|target| {
        let text = target["expr"].as_str().expect("has an expression");
        let text = text.replace("$__rate_interval", "1m");
        text.replace("$pool", ".*").replace("$instance", ".*")
    });
    filled.collect()
}

/// The names of our metrics in an expression: not those of labels, which stand in `by (…)`
/// and before `=`.
fn metrics_in(expression: &str) -> Vec<String> {
    let parts = expression.split(" by (").enumerate();
    let parts = parts.filter_map(|(at, part)| {
        if at == 0 {
            Some(part)
        } else {
            Some(part.split_once(')')?.1)
        }
    });
    let mut names = Vec::new();
    for part in parts {
        let mut rest = part;
        while let Some(start) = rest.find(|c: char| c.is_ascii_lowercase()) {
            let word = &rest[start..];
            let end = word.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
            let (word, next) = word.split_at(end.unwrap_or(word.len()));
            let is_ours = ["php_", "http_server_", "otel_sdk_"]
                .iter()
                .any(|start| word.starts_with(start));
            if is_ours && !next.starts_with(['=', '!']) {
                names.push(word.to_owned());
            }
            rest = next;
        }
    }
    names
}

#[test]
fn a_real_prometheus_finds_all_that_dashboard_and_alerts_ask_for() {
    let Some(mut stand) = Stand::start("[metrics]\nlisten = \"127.0.0.1:PORT\"\nphpfpm_names = true\n")
    else {
        return;
    };
    let Some(mut prometheus) = Prometheus::start(&stand) else {
        return skipped("a real Prometheus: install Debian's prometheus, as make deps does");
    };
    for name in ["ok.php", "ok.php", "fails.php", "slow.php"] {
        stand.run(name);
    }
    stand.supervised.wait_for("executing too slow");
    // One death, for the series that only deaths make.
    let worker = stand.workers[0];
    kill(worker, Signal::KILL);
    stand.supervised.wait_for(" started");
    stand.reload();

    wait_until("the target is up", || {
        prometheus.value("up{job=\"glasspool\"}") == Some(1.0)
    });
    let one = |query: &str| prometheus.value(query) == Some(1.0);
    for query in [
        "php_reloads_total{php_reload_outcome=\"succeeded\"}",
        "php_requests_slow_total{php_pool=\"shop\"}",
        "php_worker_deaths_total{php_pool=\"shop\",php_worker_exit_signal=\"SIGKILL\"}",
        "php_worker_starts_total{php_pool=\"shop\",php_worker_start_reason=\"replacement\"}",
        "http_server_request_duration_seconds_count{http_response_status_code=\"503\",error_type=\"503\"}",
        "sum(phpfpm_up{pool=\"shop\"})",
    ] {
        wait_until(query, || one(query));
    }
    wait_until("every request is counted", || {
        prometheus.value("sum(http_server_request_duration_seconds_count)") == Some(4.0)
    });
    let first_start = "php_worker_starts_total{php_worker_start_reason=\"first\"}";
    // Those of the reload too.
    wait_until(first_start, || prometheus.value(first_start) == Some(4.0));
    assert_eq!(prometheus.value("sum(phpfpm_total_processes)"), Some(2.0));

    let rules = prometheus.rules();
    assert!(rules.len() >= 10, "{rules:?}");
    let dashboard = dashboard();
    assert!(dashboard.len() >= 16, "{dashboard:?}");
    let names: BTreeSet<String> = rules
        .iter()
        .chain(&dashboard)
        .flat_map(|text| metrics_in(text))
        .collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        wait_until(&name, || prometheus.value(&format!("count({name})")).is_some());
    }
    for expression in rules.iter().chain(&dashboard) {
        prometheus.query(expression);
    }
    wait_until("an exemplar leads to a trace", || prometheus.has_exemplar());
    prometheus.wait_for_healthy_rules();

    // Six at once for two workers: four wait, then two, for longer than a second.
    std::thread::scope(|scope| {
        let (socket, path) = (
            stand.supervised.path("shop.sock"),
            stand.supervised.path("slow.php"),
        );
        for _ in 0..6 {
            let (socket, path) = (socket.clone(), path.clone());
            scope.spawn(move || {
                let parameters = script(path.to_str().expect("text"));
                assert_eq!(ask(&socket, &parameters).expect("is answered"), "slept");
            });
        }
    });
    let waited = "php_pool_queue_time_seconds_total{php_pool=\"shop\"}";
    wait_until("connections have waited", || {
        prometheus.value(waited).is_some_and(|seconds| seconds > 0.5)
    });

    // Another observer serves at the same place.
    let observer = stand.supervised.children(Some("observer"))[0];
    kill(observer, Signal::KILL);
    stand.supervised.wait_for("the observer (pid");
    wait_until("its successor answers", || {
        stand
            .scrape(TEXT)
            .is_some_and(|page| page.contains("php_workers{"))
    });
    prometheus.stop();
    stand.end();
}

#[test]
fn promtool_finds_nothing_to_say() {
    let Some(stand) = Stand::start("[metrics]\nlisten = \"127.0.0.1:PORT\"\nphpfpm_names = true\n") else {
        return;
    };
    stand.run("ok.php");
    stand.run("fails.php");
    let answered = |page: &String| page.contains("http_response_status_code=\"503\"");
    wait_until("both are counted", || {
        stand.scrape(TEXT).as_ref().is_some_and(answered)
    });
    let text = stand.scrape(TEXT).expect("is answered");
    assert!(!text.contains("trace_id"), "{text}");
    let open = stand.scrape(OPEN_METRICS).expect("is answered");
    assert!(
        open.ends_with("# EOF\n") && open.contains("# {trace_id=\""),
        "{open}"
    );
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/glasspool.rules.yml");
    match check(&["check", "metrics"], &text) {
        None => return skipped("promtool: install Debian's prometheus, as make deps does"),
        Some(said) => assert_eq!(said, (Some(0), String::new()), "{text}"),
    }
    let said = check(&["check", "rules", rules.to_str().expect("text")], "");
    assert_eq!(said.expect("is there").0, Some(0));
    stand.end();
}

#[test]
fn metrics_are_not_served_where_they_cannot_be() {
    let Some(mut stand) = Stand::start("[metrics]\nlisten = \"127.0.0.1:PORT\"\n") else {
        return;
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = taken.local_addr().expect("is bound");
    let _held = std::net::TcpListener::bind(taken);
    let own = stand.address;
    stand.configure(&format!(
        "[metrics]\nlisten = \"{own}\"\n[slow]\nafter = \"9s\"\n"
    ));
    stand.reload();
    // Others want what we have: a second start with the same configuration.
    let refused = stand.start_another();
    let expected = format!("cannot serve metrics at {own}: Address already in use");
    assert!(refused.contains(&expected), "{refused}");
    // And we want what others have.
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let held = (held.local_addr().expect("is bound"), held);
    stand.configure(&format!("[metrics]\nlisten = \"{}\"\n", held.0));
    stand.supervised.signal(Signal::USR2);
    stand.supervised.wait_for(&format!(
        "reload failed: cannot serve metrics at {}: Address already in use",
        held.0
    ));
    let failed = "php_reloads_total{otel_scope_name=\"glasspool\"";
    wait_until("the failure is counted", || {
        let page = stand.scrape(TEXT).unwrap_or_default();
        let mut lines = page.lines().filter(|line| line.starts_with(failed));
        lines.any(|line| line.ends_with("php_reload_outcome=\"failed\"} 1"))
    });
    // A free port is taken up by a reload, and the one before it let go of.
    let next = free_port();
    stand.configure(&format!("[metrics]\nlisten = \"{next}\"\n"));
    stand.reload();
    stand.address = next;
    wait_until("metrics are at the new port", || stand.scrape(TEXT).is_some());
    wait_until("the old one is free", || std::net::TcpListener::bind(own).is_ok());
    stand.end();
}
