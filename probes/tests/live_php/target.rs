//! A `php` process with everything a reader is told about a worker.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;
use glasspool_probes::Target;
use glasspool_probes::process::{self, RunState};

use crate::build::build;
use crate::live;

/// Long enough for the slowest machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A script in a directory of its own, both removed on drop.
pub(crate) struct Script {
    directory: tempfile::TempDir,
    name: &'static str,
}

pub(crate) fn script(name: &'static str, text: &str) -> Script {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), text).unwrap();
    Script { directory, name }
}

impl Script {
    pub(crate) fn file(&self) -> String {
        self.directory.path().join(self.name).to_str().unwrap().to_owned()
    }
}

/// A running script that has said `ready`; killed on drop.
pub(crate) struct Php {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) pid: Pid,
    pub(crate) mem: File,
    pub(crate) build: PhpBuild,
}

impl Php {
    /// Starts the script, or says why not and returns `None`.
    pub(crate) fn start(script: &Script) -> Option<Php> {
        let version = Command::new("php")
            .args(["-n", "-r", "echo PHP_VERSION, PHP_ZTS;"])
            .output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        match version {
            Ok(version) if version.starts_with("8.2.") && version.ends_with('0') => {}
            other => panic!("needs `php` 8.2 NTS, found {other:?}: run `make deps`"),
        }
        if !cfg!(target_arch = "x86_64") {
            skipped("the table of offsets is x86_64's");
            return None;
        }
        let mut child = live::mortal("php")
            .args(["-d", "opcache.jit=0", "-f", &script.file()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let pid = Pid(child.id().try_into().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let mem = File::open(format!("/proc/{pid}/mem")).unwrap();
        let build = build(pid);
        Some(Php {
            child,
            stdin,
            stdout,
            pid,
            mem,
            build,
        })
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            pid: self.pid,
            mem: self.mem.as_fd(),
            calls: None,
            build: &self.build,
            saved_registers: None,
        }
    }

    /// Waits until the script is in this state for good: the same after it has had a
    /// chance to go on.
    pub(crate) fn wait_for(&self, state: RunState) {
        let began = Instant::now();
        let seen = || (process::state(self.pid), process::run_counters(self.pid));
        loop {
            let before = seen();
            let settled = Instant::now();
            while settled.elapsed() < Duration::from_millis(2) {
                std::thread::yield_now();
            }
            if before.0 == Some(state) && seen() == before {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "still {before:?}");
        }
    }

    /// Writes a line to the script and returns the line it answers, if any.
    pub(crate) fn say(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// Says what is missing where `make test` counts it.
fn skipped(why: &str) {
    live::skipped("live_php", why);
}
