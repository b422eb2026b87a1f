//! A `php` process that does one thing when it is told to, watched by programs of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;
use glasspool_probes::process::{self, RunCounters, RunState};
use glasspool_probes::{Access, Process};
use glasspool_waits::{Settings, SlotIndex, Times, Unavailable, Wait, Waits, WorkerId};

/// Long enough for the slowest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Loads the programs, or says why not where `make test` counts it.
pub(crate) fn load(settings: &Settings) -> Option<Waits> {
    match Waits::load(settings) {
        Ok(waits) => Some(waits),
        Err(
            reason @ (Unavailable::NoTypes { .. }
            | Unavailable::Capabilities { .. }
            | Unavailable::UserNamespace { .. }
            | Unavailable::Seccomp { .. }
            | Unavailable::Lockdown { .. }
            | Unavailable::NoBpf
            | Unavailable::PageSize(_)),
        ) => {
            skipped(&reason.to_string());
            None
        }
        Err(reason) => panic!("{reason}"),
    }
}

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = fs::OpenOptions::new().append(true).create(true).open(file);
        file.unwrap()
            .write_all(format!("waits: {why}\n").as_bytes())
            .unwrap();
    }
}

/// A script that is told when to begin its next turn.
pub(crate) struct Php {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) pid: Pid,
    /// The process id that it believes to have.
    pub(crate) says: String,
    process: Process,
    _directory: tempfile::TempDir,
}

impl Php {
    /// Starts a script: `setup` once, then `turn` whenever told to.
    pub(crate) fn start(setup: &str, turn: &str) -> Php {
        let mut command = Command::new("php");
        command.args(["-d", "opcache.enable_cli=0", "-d", "ffi.enable=1"]);
        Php::start_in(command, setup, turn)
    }

    /// The same with a command that runs `php` with the arguments that it is given.
    pub(crate) fn start_in(mut command: Command, setup: &str, turn: &str) -> Php {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("main.php");
        let script = format!(
            "<?php\n{setup}\necho getmypid(), \"\\n\";\nwhile (fgets(STDIN) !== false) {{\n{turn}\necho \"done\\n\";\n}}\n"
        );
        fs::write(&file, script).unwrap();
        let mut child = command
            .args(["-f", file.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.trim().parse::<i32>().is_ok(), "{line}");
        // The command may have put others in between, and the id that PHP sees may be
        // another one.
        let pid = php_of(Pid(child.id().try_into().unwrap()));
        Php {
            child,
            stdin,
            stdout,
            pid,
            says: line.trim().to_owned(),
            process: Process::open(pid, Access::default()).unwrap(),
            _directory: directory,
        }
    }

    pub(crate) fn build(&self) -> &PhpBuild {
        self.process.build()
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        self.process.pidfd()
    }

    /// Has it watched. It waits for its first turn meanwhile; the first switch makes the
    /// programs know it.
    pub(crate) fn watch(&mut self, waits: &mut Waits, worker: u64) {
        waits
            .register(
                self.process.pidfd(),
                WorkerId(worker),
                SlotIndex(u32::try_from(worker).unwrap()),
                Some(self.process.build()),
            )
            .unwrap();
    }

    /// Has it do its turn, and waits for the end of it.
    pub(crate) fn turn(&mut self) {
        self.begin();
        self.end();
    }

    pub(crate) fn begin(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    pub(crate) fn end(&mut self) {
        self.until("done\n");
        self.settle();
    }

    /// Waits until it has written that line.
    pub(crate) fn until(&mut self, wanted: &str) {
        let mut line = String::new();
        while line != wanted {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended");
        }
    }

    /// Waits until it sleeps and its counters stand still.
    pub(crate) fn settle(&self) -> RunCounters {
        let began = Instant::now();
        loop {
            let before = process::run_counters(self.pid).unwrap();
            if process::state(self.pid) == Some(RunState::Sleeping)
                && process::run_counters(self.pid) == Some(before)
            {
                return before;
            }
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// The process itself or its only child, or child's child, that runs PHP.
fn php_of(pid: Pid) -> Pid {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    match children.split_ascii_whitespace().next() {
        Some(child) => php_of(Pid(child.parse().unwrap())),
        None => pid,
    }
}

/// What one turn cost, told by the programs and by the scheduler's own counters.
pub(crate) struct Turn {
    /// The programs'.
    pub(crate) times: Times,
    /// Longer waits.
    pub(crate) waits: Vec<Wait>,
    /// The scheduler's time on a CPU.
    pub(crate) cpu: Duration,
    /// The scheduler's time from being runnable to running.
    pub(crate) delay: Duration,
}

/// Has a watched process do one turn.
pub(crate) fn measure(waits: &mut Waits, php: &mut Php, worker: u64) -> Turn {
    let slot = SlotIndex(u32::try_from(worker).unwrap());
    // The first switch is missing of a process that was watched in its sleep.
    php.turn();
    waits.drain(usize::MAX, |_| {});
    php.turn();
    waits.drain(usize::MAX, |_| {});
    let counters = php.settle();
    let before = waits.times(slot).unwrap();
    php.turn();
    let after = php.settle();
    let times = waits.times(slot).unwrap().since(&before);
    let mut told = Vec::new();
    waits.drain(usize::MAX, |wait| told.push(wait));
    told.retain(|wait| wait.worker == WorkerId(worker));
    Turn {
        times,
        waits: told,
        cpu: Duration::from_nanos(after.cpu_ns - counters.cpu_ns),
        delay: Duration::from_nanos(after.delay_ns - counters.delay_ns),
    }
}
