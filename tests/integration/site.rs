//! The program as it is called: a folder with a configuration and a link `php-fpm`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{kill, skipped};

/// Longest wait for anything; far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a configuration and a link `php-fpm` to the program.
pub(crate) struct Site(TempDir);

impl Site {
    pub(crate) fn new() -> Site {
        Site::with("", "")
    }

    /// With further lines for `[global]` and for the pool.
    pub(crate) fn with(global: &str, pool: &str) -> Site {
        let site = Site(tempfile::tempdir().expect("a folder"));
        symlink(env!("CARGO_BIN_EXE_glasspool"), site.path("php-fpm")).expect("links");
        let folder = site.0.path().display();
        let conf = format!(
            "[global]\nerror_log = {folder}/error.log\npid = {folder}/pid\n{global}\n\
             [www]\nlisten = {folder}/php.sock\npm = static\npm.max_children = 1\n{pool}\n"
        );
        fs::write(site.path("fpm.conf"), conf).expect("writes");
        site
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("php-fpm"));
        command
            .args(["-R", "-y"])
            .arg(self.path("fpm.conf"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("starts")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.path("pid")).expect("there is a pid file");
        text.parse().expect("only the number")
    }

    pub(crate) fn wait_for(&self, what: &str, mut is_so: impl FnMut(&Site) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(
                Instant::now() < until,
                "not within {PATIENCE:?}: {what}:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Whether PHP and an engine object for it are here; else that is noted.
    pub(crate) fn has_php(&self) -> bool {
        let checked = Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .args(["check", "-R", "-y"])
            .arg(self.path("fpm.conf"))
            .output()
            .expect("starts");
        if !checked.status.success() {
            let reason = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("command line with PHP: {reason}"));
        }
        checked.status.success()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process that this test has started, ended with it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }

    pub(crate) fn ends(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().expect("waits") {
                Some(status) => return status.code(),
                None => assert!(Instant::now() < until, "still runs"),
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill(self.pid(), Signal::TERM);
            self.ends();
        }
    }
}
