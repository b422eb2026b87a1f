//! The FastCGI server under test, Glasspool or stock php-fpm, with a generated php-fpm.conf.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::account::Account;
use crate::process::{Line, Output, Process, children};

/// PHP and its engine come up in less than a second; a busy machine has more time.
const START_TIME: Duration = Duration::from_secs(60);

/// What is under test.
#[derive(Debug, Clone)]
pub(super) enum Program {
    Glasspool(PathBuf),
    /// To try the checks themselves.
    PhpFpm(PathBuf),
}

/// The pool's settings that differ between checks.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    pub workers: u32,
    /// Requests after which a worker is replaced; 0 means never.
    pub max_requests: u32,
    /// Further lines of the pool's section.
    pub lines: Vec<String>,
}

/// The kinds of process a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Observer,
    Engine,
    Worker,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pub process: Process,
}

impl Pool {
    pub(super) fn of(workers: u32) -> Pool {
        Pool {
            workers,
            ..Pool::default()
        }
    }

    fn conf(&self, account: &Account, dir: &Path, socket: &Path) -> String {
        let (dir, socket, workers) = (dir.display(), socket.display(), self.workers);
        let mut conf = format!(
            "[global]\nerror_log = /proc/self/fd/2\npid = {dir}/server.pid\ndaemonize = no\n\n\
             [www]\nlisten = {socket}\nlisten.mode = 0660\npm = static\npm.max_children = {workers}\n\
             pm.max_requests = {}\nslowlog = {dir}/slow.log\nrequest_slowlog_timeout = 1s\n\
             catch_workers_output = yes\n\
             php_admin_value[upload_max_filesize] = 64M\nphp_admin_value[post_max_size] = 64M\n\
             php_admin_value[memory_limit] = 256M\n",
            self.max_requests
        );
        let mut line = |text: &str| writeln!(conf, "{text}").expect("a string takes everything");
        if let Account::Root { web } = account {
            for key in ["user", "listen.owner"] {
                line(&format!("{key} = {}", web.name));
            }
            for key in ["group", "listen.group"] {
                line(&format!("{key} = {}", web.gid));
            }
        }
        self.lines.iter().for_each(|text| line(text));
        conf
    }
}

impl Server {
    /// Starts it and waits until it serves.
    pub(super) fn start(
        program: &Program,
        pool: &Pool,
        account: &Account,
        dir: &Path,
        socket: &Path,
        environment: &[(&str, String)],
    ) -> Result<Server> {
        let conf = dir.join("php-fpm.conf");
        std::fs::write(&conf, pool.conf(account, dir, socket))?;
        let (name, binary) = match program {
            Program::Glasspool(path) => ("glasspool", path),
            Program::PhpFpm(path) => ("php-fpm", path),
        };
        let arguments = [OsString::from("-F"), "-y".into(), conf.into_os_string()];
        let mut command = account.command(binary);
        command
            .args(arguments)
            .envs(environment.iter().map(|(k, v)| (k, v)));
        // No telemetry settings but these.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"OTEL_") {
                command.env_remove(name);
            }
        }
        let mut process = Process::spawn(name, &mut command, Output::Log, account.owner())?;
        process.wait_for("ready to handle connections", START_TIME, |line| {
            line.contains("ready to handle connections")
        })?;
        Ok(Server { process })
    }

    /// Waits for a worker that is started from now on; its pid.
    pub(super) fn wait_for_new_worker(&mut self, within: Duration) -> Result<u32> {
        let line = self
            .process
            .wait_for("child N started", within, |line| started(line).is_some())?;
        Ok(started(&line.text).expect("the line that was waited for"))
    }

    /// The processes it has now, of one kind.
    pub(super) fn processes(&self, role: Role) -> Result<Vec<u32>> {
        let mut found = children(self.process.pid())?;
        found.retain(|pid| {
            let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            role_of(&title) == Some(role)
        });
        Ok(found)
    }

    /// Its five sets of capabilities (inheritable, permitted, effective, bounding, ambient).
    pub(super) fn capabilities(&self) -> Result<Vec<u64>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let sets = status
            .lines()
            .filter_map(|line| line.strip_prefix("Cap")?.split_once(':'));
        sets.map(|(_, set)| u64::from_str_radix(set.trim(), 16).context("no hexadecimal number"))
            .collect()
    }

    /// Lets it finish all requests and export everything; what it logged.
    pub(super) fn finish(mut self) -> Result<Vec<Line>> {
        self.process.stop(Some(Signal::QUIT), Duration::from_secs(60))?;
        self.process.all_lines()
    }
}

/// The pid in `[pool www] child 123 started`.
fn started(line: &str) -> Option<u32> {
    let (before, _) = line.split_once(" started")?;
    let (_, pid) = before.rsplit_once("child ")?;
    pid.parse().ok()
}

fn role_of(cmdline: &[u8]) -> Option<Role> {
    let cmdline = String::from_utf8_lossy(cmdline);
    if cmdline.starts_with("php-fpm: pool ") {
        Some(Role::Worker)
    } else if cmdline.starts_with("glasspool: engine") {
        Some(Role::Engine)
    } else if cmdline.starts_with("glasspool\0observer") || cmdline.starts_with("glasspool: observer") {
        Some(Role::Observer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_title() {
        assert_eq!(role_of(b"php-fpm: pool www\0\0\0"), Some(Role::Worker));
        assert_eq!(
            role_of(b"glasspool: engine (/usr/sbin/php-fpm8.2)\0"),
            Some(Role::Engine)
        );
        assert_eq!(role_of(b"glasspool\0observer\0"), Some(Role::Observer));
        assert_eq!(role_of(b"php-fpm: master process (x)\0"), None);
    }

    #[test]
    fn a_started_worker_is_named_in_the_log() {
        assert_eq!(
            started("[01-Jan-2026 00:00:00] NOTICE: [pool www] child 123 started"),
            Some(123)
        );
        assert_eq!(
            started("NOTICE: [pool www] child 12 exited with code 0 after 1.2 seconds from start"),
            None
        );
    }
}
