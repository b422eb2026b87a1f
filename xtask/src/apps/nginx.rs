//! The web server in front, and its exact account of what it passed to PHP.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::site::Site;
use crate::account::Account;
use crate::process::{Output, Process};

/// Time to answer what is under way when it is stopped.
const STOP_TIME: Duration = Duration::from_secs(60);

/// A running nginx.
#[derive(Debug)]
pub(super) struct Nginx {
    process: Process,
    log: PathBuf,
    /// `http://address:port`.
    pub base: String,
}

/// How many requests nginx passed to PHP, by the status that their clients got.
pub(super) type Passed = BTreeMap<String, u64>;

impl Nginx {
    /// Starts it on a free port; its files are in `dir`, and so are the pages of ours
    /// that it serves as `/probe/NAME.php`.
    pub(super) fn start(site: &Site, account: &Account, dir: &Path, socket: &Path) -> Result<Nginx> {
        let listen = free_address()?;
        let log = dir.join("passed.log");
        let text = configure(&site.nginx_conf(socket, &listen)?, &log, dir, socket);
        let path = dir.join("nginx.conf");
        std::fs::write(&path, text)?;
        let mut command = account.command(Path::new("/usr/sbin/nginx"));
        command
            .arg("-c")
            .arg(&path)
            .args(["-e", "stderr", "-g", "daemon off;"]);
        let mut process = Process::spawn("nginx", &mut command, Output::Log, account.owner())?;
        process.wait_for("start worker process ", Duration::from_secs(20), |line| {
            line.contains("start worker process ")
        })?;
        Ok(Nginx {
            process,
            log,
            base: format!("http://{listen}"),
        })
    }

    /// Stops it when it has answered everything; what it passed to PHP.
    pub(super) fn finish(mut self) -> Result<Passed> {
        self.process.stop(Some(Signal::QUIT), STOP_TIME)?;
        let text = std::fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let mut passed = Passed::new();
        for status in String::from_utf8_lossy(&text).lines().filter_map(parse) {
            *passed.entry(status.to_owned()).or_default() += 1;
        }
        Ok(passed)
    }
}

/// The tool's nginx.conf with a log of the PHP locations, room for uploads, messages to
/// standard error, and our own pages.
fn configure(conf: &str, log: &Path, dir: &Path, socket: &Path) -> String {
    let mut out = String::with_capacity(conf.len() + 1024);
    let access_log = format!("access_log {} passed;", log.display());
    for line in conf.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("error_log ") {
            out.push_str("error_log stderr notice;\n");
            continue;
        }
        if trimmed.starts_with("location / ") {
            let (root, socket) = (dir.display(), socket.display());
            out.push_str(&format!(
                "    location ^~ /probe/ {{\n      root {root};\n      include /etc/nginx/fastcgi_params;\n      \
                 fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n      \
                 fastcgi_pass unix:{socket};\n      {access_log}\n    }}\n"
            ));
        }
        out.push_str(line);
        out.push('\n');
        if trimmed == "http {" {
            out.push_str("  log_format passed '$status\\t$upstream_addr';\n");
            out.push_str("  client_max_body_size 64m;\n");
        }
        if trimmed.starts_with("fastcgi_pass ") {
            out.push_str(&format!("      {access_log}\n"));
        }
    }
    out
}

/// The status in a line of the log; `None` for a request that nginx answered itself.
fn parse(line: &str) -> Option<&str> {
    let (status, upstream) = line.split_once('\t')?;
    (upstream != "-").then_some(status)
}

pub(super) fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_php_location_has_the_log_and_nothing_else() {
        let conf = "error_log /x/error.log;\nhttp {\n  access_log off;\n  server {\n    location / { try_files a b; }\n    \
                    location ~ p {\n      fastcgi_pass unix:/s;\n    }\n  }\n}\n";
        let out = configure(conf, Path::new("/d/passed.log"), Path::new("/d"), Path::new("/s"));
        assert_eq!(out.matches("access_log /d/passed.log passed;").count(), 2);
        assert_eq!(out.matches("fastcgi_pass").count(), 2);
        assert!(out.contains("access_log off;") && out.contains("error_log stderr notice;"));
    }

    #[test]
    fn what_nginx_answered_itself_was_not_passed() {
        assert_eq!(parse("404\t-"), None);
        assert_eq!(parse("200\tunix:/s"), Some("200"));
    }
}
