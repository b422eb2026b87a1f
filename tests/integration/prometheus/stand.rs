//! A pool of real PHP whose metrics can be fetched.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::fastcgi::{ask, script};
use crate::harness::{PATIENCE, Supervised, launch, skipped};

const SERVING: &str = "ready to handle connections";
/// What scrapers accept.
pub(crate) const TEXT: &str = "text/plain";
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// See the module.
pub(super) struct Stand {
    pub(super) supervised: Supervised,
    /// Where metrics are fetched.
    pub(super) address: SocketAddr,
    pub(super) workers: Vec<i32>,
}

/// A port that nobody listens at now.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("is bound")
}

impl Stand {
    /// With this `glasspool.toml`, in which `PORT` becomes a free one.
    pub(super) fn start(toml: &str) -> Option<Stand> {
        // Nobody is there: what is not delivered is counted.
        Stand::with(toml, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"))
    }

    /// The same, with this variable.
    pub(super) fn with(toml: &str, variable: (&str, &str)) -> Option<Stand> {
        let address = free_port();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("sets");
        for (name, text) in [
            ("ok.php", "<?php echo 'ok';"),
            ("fails.php", "<?php http_response_code(503); echo 'no';"),
            ("slow.php", "<?php usleep(600000); echo 'slept';"),
        ] {
            fs::write(path.join(name), text).expect("writes");
        }
        let shown = path.display();
        let configuration = format!(
            "[global]\nerror_log = {shown}/error.log\nlog_level = debug\n[shop]\nlisten = {shown}/shop.sock\n\
             listen.mode = 0666\nuser = nobody\npm = static\npm.max_children = 2\nslowlog = {shown}/slow.log\n"
        );
        fs::write(path.join("fpm.conf"), configuration).expect("writes");
        let toml = toml.replace("PORT", &address.port().to_string());
        write_toml(path, &format!("{toml}[slow]\nafter = \"200ms\"\nsamples = 1\n"));
        let checked = program(path, &["check", "-R"]).output().expect("starts");
        if !checked.status.success() {
            let reason = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("metrics for Prometheus: {}", reason.trim()));
            return None;
        }
        let mut command = program(path, &["-F", "-O", "-R"]);
        command.env("OTEL_METRICS_EXPORTER", "none");
        command.env(variable.0, variable.1);
        let mut supervised = launch(folder, command);
        let workers = supervised.started(2);
        supervised.wait_for(SERVING);
        Some(Stand {
            supervised,
            address,
            workers,
        })
    }

    pub(super) fn configure(&self, toml: &str) {
        write_toml(&self.supervised.path(""), toml);
    }

    pub(super) fn run(&self, name: &str) -> String {
        let path = self.supervised.path(name);
        let answer = ask(
            &self.supervised.path("shop.sock"),
            &script(path.to_str().expect("text")),
        );
        answer.expect("is answered")
    }

    pub(super) fn reload(&mut self) {
        self.supervised.signal(Signal::USR2);
        self.supervised.wait_for("Reloading in progress ...");
        self.supervised.wait_for(SERVING);
    }

    /// What a second one with the same configuration says before it ends.
    pub(super) fn start_another(&self) -> String {
        let path = self.supervised.path("");
        let conf = fs::read_to_string(path.join("fpm.conf")).expect("reads");
        let other = path.join("other");
        fs::create_dir(&other).expect("makes");
        fs::write(other.join("fpm.conf"), conf.replace("shop.sock", "other.sock")).expect("writes");
        fs::copy(path.join("glasspool.toml"), other.join("glasspool.toml")).expect("copies");
        let output = program(&other, &["-F", "-O", "-R"]).output().expect("starts");
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The page; `None` while nobody answers.
    pub(super) fn scrape(&self, accept: &str) -> Option<String> {
        let page = get(self.address, "/metrics", accept).ok()?;
        let (head, body) = page.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    }

    pub(super) fn end(mut self) {
        self.supervised.signal(Signal::TERM);
        assert!(self.supervised.wait_for_end().success());
    }
}

fn write_toml(folder: &Path, toml: &str) {
    fs::write(folder.join("glasspool.toml"), toml).expect("writes");
}

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
    command
        .args(arguments)
        .arg("-y")
        .arg(folder.join("fpm.conf"))
        .env_remove("OTEL_METRICS_EXPORTER");
    command
}

/// Fetches a page; head and body as they came.
pub(crate) fn get(address: SocketAddr, path: &str, accept: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
