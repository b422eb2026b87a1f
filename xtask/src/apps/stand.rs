//! Collector, server and web server around one site: started together, stopped in the
//! order in which nothing is lost, and their accounts compared.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::http::Client;
use super::nginx::{Nginx, Passed};
use super::server::{Pool, Program, Server};
use super::sink::{Received, Sink};
use super::site::Site;
use crate::account::Account;
use crate::process::Line;
use crate::report::Report;

/// Our own pages, served beside the application's as `/probe/NAME`.
const PROBES: [(&str, &str); 3] = [
    ("hello.php", include_str!("pages/hello.php")),
    ("hold.php", include_str!("pages/hold.php")),
    ("early.php", include_str!("pages/early.php")),
];

/// What all stands have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub account: Account,
    pub program: Program,
    pub python: PathBuf,
    pub sink_tool: PathBuf,
    /// Leave the stands' folders for a look at them.
    pub keep: bool,
}

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Grpc,
    Http,
}

/// Everything a check needs, running.
#[derive(Debug)]
pub(super) struct Stand {
    // Dropped in this order.
    nginx: Nginx,
    pub server: Server,
    pub sink: Sink,
    dir: TempDir,
    traced: bool,
}

/// What each side counted, when all have ended.
#[derive(Debug)]
pub(super) struct Accounts {
    pub passed: Passed,
    pub received: Received,
    pub server_log: Vec<Line>,
    /// The slowlog as far as it exists.
    pub slowlog: String,
}

impl Setting {
    /// Whether the server under test makes spans.
    pub(super) fn is_traced(&self) -> bool {
        matches!(self.program, Program::Glasspool(_))
    }
}

impl Stand {
    /// Starts all three.
    pub(super) fn start(setting: &Setting, site: &Site, pool: &Pool, transport: Transport) -> Result<Stand> {
        let account = &setting.account;
        let mut dir = tempfile::Builder::new()
            .prefix("gpapps-")
            .tempdir()
            .context("no temporary folder")?;
        dir.disable_cleanup(setting.keep);
        // nginx's and PHP's user must get in.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), permissions)?;
        account.own(dir.path())?;
        write_probes(&dir.path().join("probe"))?;

        let sink = Sink::start(&setting.python, &setting.sink_tool)?;
        let (protocol, port) = match transport {
            Transport::Grpc => ("grpc", sink.grpc_port),
            Transport::Http => ("http/protobuf", sink.http_port),
        };
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_SERVICE_NAME", site.application.name().to_owned()),
        ];
        let socket = dir.path().join("php.sock");
        let server = Server::start(&setting.program, pool, account, dir.path(), &socket, &environment)?;
        let nginx = Nginx::start(site, account, dir.path(), &socket)?;
        Ok(Stand {
            nginx,
            server,
            sink,
            dir,
            traced: setting.is_traced(),
        })
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.base())
    }

    /// `http://address:port` of the web server.
    pub(super) fn base(&self) -> &str {
        &self.nginx.base
    }

    /// Stops all three; each has then told everything.
    pub(super) fn finish(self) -> Result<Accounts> {
        let passed = self.nginx.finish()?;
        let server_log = self.server.finish()?;
        let received = self.sink.finish()?;
        let slowlog = std::fs::read(self.dir.path().join("slow.log")).unwrap_or_default();
        let slowlog = String::from_utf8_lossy(&slowlog).into_owned();
        Ok(Accounts {
            passed,
            received,
            server_log,
            slowlog,
        })
    }

    /// As [`Stand::finish`]; checks that each request which nginx passed to PHP is one span.
    pub(super) fn finish_exactly(self, report: &mut Report, what: &str) -> Result<Accounts> {
        let traced = self.traced;
        let accounts = self.finish()?;
        let requests = accounts.requests();
        let what = format!("{what}: spans received = {requests} requests passed to PHP, none twice");
        if traced {
            let Received {
                server_spans,
                repeated,
                ..
            } = accounts.received;
            report.check(
                what,
                (server_spans, repeated) == (requests, 0),
                format_args!("{requests} ({:?}), 0 twice", accounts.passed),
                format_args!(
                    "{server_spans}, {repeated} twice; the log says {:?}",
                    accounts.lines_of_losses()
                ),
            );
        } else {
            report.skip(what, "the server under test makes no spans");
        }
        Ok(accounts)
    }
}

impl Accounts {
    /// Requests that nginx passed to PHP.
    pub(super) fn requests(&self) -> u64 {
        self.passed.values().sum()
    }

    /// How many spans the log says are missing, in the observers' last words; `None` if
    /// it says nothing.
    pub(super) fn told_losses(&self) -> Option<u64> {
        let losses = self.lines_of_losses().into_iter().flat_map(losses_in);
        losses.reduce(|a, b| a + b)
    }

    fn lines_of_losses(&self) -> Vec<&str> {
        let lines = self.server_log.iter().map(|line| line.text.as_str());
        lines.filter(|line| line.contains("lost")).collect()
    }
}

/// The numbers of lost spans in an observer's last line.
fn losses_in(line: &str) -> Vec<u64> {
    let (_, losses) = line.split_once("; lost: ").unwrap_or_default();
    let counted = losses.split(", ").filter_map(|loss| loss.split_once(' '));
    let of_spans = counted.filter(|(_, what)| {
        [
            "records overwritten in the rings",
            "garbled records",
            "spans not delivered",
        ]
        .contains(what)
    });
    of_spans.filter_map(|(count, _)| count.parse().ok()).collect()
}

fn write_probes(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in PROBES {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        // opcache leaves files alone that are younger than opcache.file_update_protection.
        let old = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options()
            .append(true)
            .open(&path)?
            .set_modified(old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_spans_are_read() {
        let line = "NOTICE: the observer ends after 5 spans; lost: 3 records overwritten in the rings, \
                    2 spans not delivered, 9 log records not delivered";
        assert_eq!(losses_in(line), [3, 2]);
        assert_eq!(
            losses_in("WARNING: telemetry was lost, signal: traces, lost: 3"),
            [0_u64; 0]
        );
    }
}
