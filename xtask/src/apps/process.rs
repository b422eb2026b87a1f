//! A program that was started here: its output line by line with the time of arrival,
//! waiting for a line or for its end, and the certainty that it ends with its guard.

use std::io::{self, BufRead, BufReader, PipeReader, Write as _};
use std::os::unix::fs::fchown;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Time a program has to end when its guard is dropped, before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line of output.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// When it was read.
    pub at: Instant,
    pub text: String,
}

/// Which output is read; the other stays ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Standard output alone; standard input is a pipe whose closing ends the program.
    Answers,
    /// Both, as a log; standard input is the null device.
    Log,
}

/// A running program; told to end when dropped, and killed if it does not.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    seen: Vec<Line>,
}

impl Process {
    /// Starts it. `owner` is given the pipe of a log, so that a program which opens
    /// `/proc/self/fd/2` anew as another user may.
    pub(super) fn spawn(
        name: &str,
        command: &mut Command,
        output: Output,
        owner: Option<(u32, u32)>,
    ) -> Result<Process> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        if let Some((uid, gid)) = owner {
            fchown(&writer, Some(uid), Some(gid)).context("cannot give a pipe away")?;
        }
        match output {
            Output::Answers => command.stdin(Stdio::piped()),
            Output::Log => command.stdin(Stdio::null()).stderr(writer.try_clone()?),
        };
        command.stdout(writer);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        // The command holds the writing ends; the reader would wait for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Process {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines: read_lines(reader),
            seen: Vec::new(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that answers yes among those not looked at yet.
    pub(super) fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<Line> {
        let by = Instant::now() + within;
        loop {
            match self
                .lines
                .recv_timeout(by.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is_it(&line.text) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{} did not say \"{what}\" within {within:?}; its last lines:\n{}",
                    self.name,
                    self.tail()
                ),
                Err(RecvTimeoutError::Disconnected) => bail!(
                    "{} ended before it said \"{what}\"; its last lines:\n{}",
                    self.name,
                    self.tail()
                ),
            }
        }
    }

    /// Takes the next line, if one comes in time; `None` also at the end of the output.
    pub(super) fn next_line(&mut self, within: Duration) -> Option<Line> {
        self.lines.recv_timeout(within).ok()
    }

    /// Looks at what has been said by now and goes on from there.
    pub(super) fn catch_up(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal)
    }

    /// Closes its standard input, or sends the signal; waits for its end and for that of
    /// its output.
    pub(super) fn stop(&mut self, signal: Option<Signal>, within: Duration) -> Result<ExitStatus> {
        self.stdin = None;
        if let Some(signal) = signal {
            self.signal(signal)?;
        }
        if !self.ended_within(within)? {
            bail!("{} (pid {}) did not end within {within:?}", self.name, self.pid());
        }
        Ok(self.child.wait()?)
    }

    /// All lines it wrote; call when it has ended. An error if something still holds its
    /// output, which means that it left a process behind.
    pub(super) fn all_lines(&mut self) -> Result<Vec<Line>> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(std::mem::take(&mut self.seen)),
                Err(RecvTimeoutError::Timeout) => bail!("a process that {} started still runs", self.name),
            }
        }
    }

    fn ended_within(&mut self, within: Duration) -> Result<bool> {
        if self.child.try_wait()?.is_some() {
            return Ok(true);
        }
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let limit = Timespec::try_from(within).context("the time limit is too long")?;
        let mut ready = [PollFd::new(&pidfd, PollFlags::IN)];
        Ok(poll(&mut ready, Some(&limit))? > 0)
    }

    fn tail(&self) -> String {
        let from = self.seen.len().saturating_sub(10);
        let lines: Vec<&str> = self.seen[from..].iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        self.stdin = None;
        if self.signal(Signal::TERM).is_err() || !self.ended_within(PATIENCE).unwrap_or(false) {
            let told = self.child.kill();
            writeln!(io::stderr(), "xtask: {} had to be killed: {told:?}", self.name).unwrap_or_default();
        }
        // It has ended or was just killed; there is nobody left to tell of an error.
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// Sends a signal to a process that was started here, or by what was started here.
pub(super) fn kill(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    kill_process(raw, signal).with_context(|| format!("cannot send {signal:?} to process {pid}"))
}

fn read_lines(reader: PipeReader) -> Receiver<Line> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for bytes in BufReader::new(reader).split(b'\n') {
            let Ok(bytes) = bytes else { return };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if sender
                .send(Line {
                    at: Instant::now(),
                    text,
                })
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}
