//! Starts a supervisor in a folder of its own and reads its log line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// Longest wait for anything; far above what a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor under test, killed when dropped.
pub(crate) struct Supervised {
    process: Child,
    folder: TempDir,
    lines: Receiver<String>,
    /// Everything read so far.
    pub(crate) log: Vec<String>,
}

/// Starts one with so many workers and these variables.
pub(crate) fn start(workers: u32, variables: &[(&str, &str)]) -> Supervised {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(fake_engine());
    command
        .args([
            "supervise",
            &folder.path().display().to_string(),
            &workers.to_string(),
        ])
        .envs(variables.iter().copied());
    launch(folder, command)
}

/// The same with one worker, and nobody reads its standard error until the sender says so.
pub(crate) fn start_unheard(variables: &[(&str, &str)]) -> (Supervised, mpsc::Sender<()>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(fake_engine());
    command
        .args(["supervise", &folder.path().display().to_string(), "1"])
        .envs(variables.iter().copied());
    let (hear, heard) = mpsc::channel();
    (launch_and_wait(folder, command, heard), hear)
}

/// Starts the fake engine in another role, with the arguments that are made for its folder.
pub(crate) fn start_program(arguments: impl FnOnce(&Path) -> Vec<String>) -> Supervised {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(fake_engine());
    command.args(arguments(folder.path()));
    launch(folder, command)
}

/// Starts the real program, in the foreground and logging to standard error, with the
/// configuration `fpm.conf` of the folder.
pub(crate) fn start_glasspool(folder: TempDir) -> Supervised {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
    command
        .args(["-F", "-O", "-R", "-y"])
        .arg(folder.path().join("fpm.conf"));
    launch(folder, command)
}

pub(crate) fn launch(folder: TempDir, command: Command) -> Supervised {
    let (hear, heard) = mpsc::channel();
    hear.send(()).expect("its receiver is here");
    launch_and_wait(folder, command, heard)
}

fn launch_and_wait(folder: TempDir, mut command: Command, heard: Receiver<()>) -> Supervised {
    let mut process = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts (examples are built by `cargo test`)");
    let stderr = BufReader::new(process.stderr.take().expect("is piped"));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        if heard.recv().is_err() {
            return 0;
        }
        stderr
            .lines()
            .map_while(Result::ok)
            .take_while(|line| sender.send(line.clone()).is_ok())
            .count()
    });
    Supervised {
        process,
        folder,
        lines,
        log: Vec::new(),
    }
}

pub(crate) fn fake_engine() -> PathBuf {
    let own = std::env::current_exe().expect("has one");
    let target = own
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/TEST");
    target.join("examples/fake-engine")
}

impl Supervised {
    /// Reads on until a line contains the text, and returns it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        // A supervisor says something every second, so this is the time for all of it.
        let end = Instant::now() + PATIENCE;
        loop {
            let patience = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(patience) else {
                panic!("no line with {text:?} in:\n{}", self.log.join("\n"));
            };
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads on until each of the texts has been seen, now or before, in any order.
    pub(crate) fn wait_for_all(&mut self, texts: &[&str]) {
        for text in texts {
            if !self.log.iter().any(|line| line.contains(text)) {
                self.wait_for(text);
            }
        }
    }

    /// Reads on until every holder of its standard error is gone.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("still running:\n{}", self.log.join("\n")),
            }
        }
        self.process.wait().expect("waits")
    }

    /// Reads on until so many workers have started, and returns their pids.
    pub(crate) fn started(&mut self, count: usize) -> Vec<i32> {
        (0..count)
            .map(|_| {
                let line = self.wait_for(" started");
                number_after(&line, "] child ")
            })
            .collect()
    }

    /// Ends it in order, requests under way too, so that no worker goes on in its script.
    /// For use in drops: whatever happens, it does not panic.
    pub(crate) fn terminate(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::TERM);
        let end = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// The children of the supervisor that run in this role.
    pub(crate) fn children(&self, role: Option<&str>) -> Vec<i32> {
        let own = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("reads");
        let pids = children
            .split_ascii_whitespace()
            .map(|pid| pid.parse::<i32>().expect("a pid"));
        pids.filter(|pid| role_of(*pid).is_some_and(|found| found.as_deref() == role))
            .collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Position of the first line that contains the text.
    pub(crate) fn position(&self, text: &str) -> usize {
        let found = self.log.iter().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.log.join("\n")))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            for pid in self.children(Some("worker")) {
                kill(pid, Signal::KILL);
            }
            self.signal(Signal::KILL);
            self.process.wait().expect("waits");
        }
    }
}

/// Says what is missing where `make test` counts it: one line, in one write, because other
/// tests write there too.
pub(crate) fn skipped(why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let line = format!("{}\n", why.trim().replace('\n', "; "));
        file.expect("opens").write_all(line.as_bytes()).expect("writes");
    }
}

/// Sends a signal to a process that this test has started.
pub(crate) fn kill(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("above zero");
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => panic!("kill: {e}"),
    }
}

/// Waits for something that only asking shows.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Stops a process that this test has started, and waits until it has.
pub(crate) fn stop(pid: i32) {
    kill(pid, Signal::STOP);
    wait_until(&format!("{pid} is stopped"), || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
}

/// Whether a process exists, if only as a zombie.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The first argument of a process that runs; for a moment in execve(2) it has none to show.
fn role_of(pid: i32) -> Option<Option<String>> {
    loop {
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let command = read("cmdline")?;
        let mut arguments = command.split_terminator('\0');
        if arguments.next().is_some() {
            return Some(arguments.next().map(str::to_owned));
        }
        if read("stat")?.contains(") Z ") {
            return None;
        }
        std::thread::yield_now();
    }
}

/// The number right after the text.
pub(crate) fn number_after(line: &str, text: &str) -> i32 {
    let (_, rest) = line
        .split_once(text)
        .unwrap_or_else(|| panic!("no {text:?} in {line:?}"));
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().expect("a number")
}
