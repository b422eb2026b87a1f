//! A real Prometheus, and what it is asked.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde_json::Value;

use super::stand::{Stand, free_port, get};
use crate::harness::{kill, wait_until};

/// Debian's program, on a port of its own; ended with this.
pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// `None` without the program.
    pub(super) fn start(stand: &Stand) -> Option<Prometheus> {
        let folder = stand.supervised.path("prometheus");
        fs::create_dir(&folder).expect("makes");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus/glasspool.rules.yml");
        let configuration = format!(
            "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n  evaluation_interval: 500ms\n\
             rule_files: ['{}']\nscrape_configs:\n  - job_name: glasspool\n    static_configs:\n      \
             - targets: ['{}']\n",
            rules.display(),
            stand.address
        );
        fs::write(folder.join("prometheus.yml"), configuration).expect("writes");
        let address = free_port();
        let process = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--enable-feature=exemplar-storage", "--log.level=error"])
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        let prometheus = Prometheus { process, address };
        wait_until("Prometheus is ready", || {
            get(address, "/-/ready", "*/*").is_ok_and(|answer| answer.contains(" 200 "))
        });
        Some(prometheus)
    }

    fn api(&self, path: &str) -> Value {
        let answer = get(self.address, path, "application/json").expect("is answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
        // It sends long answers in chunks: their lengths are lines of their own.
        let body: String = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body.split("\r\n").skip(1).step_by(2).collect()
        } else {
            body.to_owned()
        };
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// Every series of an expression, which must be one.
    pub(super) fn query(&self, expression: &str) -> Vec<Value> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.api(&format!("/api/v1/query?query={encoded}"));
        data["result"].as_array().expect("is a list").clone()
    }

    /// The value of the only series; `None` while there is none.
    pub(super) fn value(&self, expression: &str) -> Option<f64> {
        let series = self.query(expression);
        assert!(series.len() <= 1, "{expression}: {series:?}");
        series.first()?["value"][1].as_str()?.parse().ok()
    }

    /// The expressions of the rules that it has loaded.
    pub(super) fn rules(&self) -> Vec<String> {
        let query = |rule: &Value| rule["query"].as_str().expect("has one").to_owned();
        self.loaded().iter().map(query).collect()
    }

    fn loaded(&self) -> Vec<Value> {
        let data = self.api("/api/v1/rules");
        let groups = data["groups"].as_array().expect("is a list");
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("is a list"));
        rules.cloned().collect()
    }

    pub(super) fn wait_for_healthy_rules(&self) {
        wait_until("every rule was evaluated without an error", || {
            let rules = self.loaded();
            let bad = rules.iter().find(|rule| rule["health"] == "err");
            assert!(bad.is_none(), "{bad:?}");
            rules.iter().all(|rule| rule["health"] == "ok")
        });
    }

    pub(super) fn has_exemplar(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        let data = self.api(&format!(
            "/api/v1/query_exemplars?query=http_server_request_duration_seconds_bucket&start={}&end={}",
            now - 600,
            now + 60
        ));
        let series = data.as_array().expect("is a list");
        let exemplars = series
            .iter()
            .flat_map(|series| series["exemplars"].as_array().expect("is a list"));
        exemplars
            .filter_map(|exemplar| exemplar["labels"]["trace_id"].as_str())
            .any(|id| id.len() == 32)
    }

    pub(super) fn stop(&mut self) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        if matches!(self.process.try_wait(), Ok(None)) {
            kill(pid, Signal::KILL);
            self.process.wait().expect("waits");
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Exit status of promtool and all that it says; `None` without it.
pub(super) fn check(arguments: &[&str], input: &str) -> Option<(Option<i32>, String)> {
    let mut process = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = process.stdin.take().expect("is piped");
    // It reads to the end before it says anything; one that does not read says why.
    stdin.write_all(input.as_bytes()).unwrap_or_default();
    drop(stdin);
    let output = process.wait_with_output().expect("ends");
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}
