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
pub(crate) struct Line {
    /// When it was read.
    pub at: Instant,
    pub text: String,
}

/// Which output is read; the other stays ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output alone; standard input is a pipe whose closing ends the program.
    Answers,
    /// Both, as a log; standard input is the null device.
    Log,
}

/// A running program; told to end when dropped, and killed if it does not.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    seen: Vec<Line>,
}

impl Process {
    /// Starts it. `owner` is given the pipe of a log, so that a program which opens
    /// `/proc/self/fd/2` anew as another user may.
    pub(crate) fn spawn(
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that answers yes among those not looked at yet.
    pub(crate) fn wait_for(
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
    pub(crate) fn next_line(&mut self, within: Duration) -> Option<Line> {
        self.lines.recv_timeout(within).ok()
    }

    /// Looks at what has been said by now and goes on from there.
    pub(crate) fn catch_up(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal)
    }

    /// Closes its standard input, or sends the signal; waits for its end and for that of
    /// its output.
    pub(crate) fn stop(&mut self, signal: Option<Signal>, within: Duration) -> Result<ExitStatus> {
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
    pub(crate) fn all_lines(&mut self) -> Result<Vec<Line>> {
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

    /// The last lines that were looked at.
    pub(crate) fn tail(&self) -> String {
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
pub(crate) fn kill(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    kill_process(raw, signal).with_context(|| format!("cannot send {signal:?} to process {pid}"))
}

/// The processes whose parent this is.
pub(crate) fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("no /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile has none.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status_field(&status, "PPid:") == Some(u64::from(parent)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The number behind a key of `/proc/PID/status`.
pub(crate) fn status_field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_files_are_read() {
        let status = "Name:\tx\nPPid:\t42\nVmRSS:\t  1234 kB\n";
        assert_eq!(status_field(status, "PPid:"), Some(42));
        assert_eq!(status_field(status, "VmRSS:"), Some(1234));
        assert_eq!(status_field(status, "VmHWM:"), None);
    }

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleeps");
        let found = children(std::process::id());
        child.kill().and_then(|()| child.wait()).expect("ends");
        assert!(found.expect("lists").contains(&child.id()));
    }
}
