//! System calls per request, by `strace -c`.
//!
//! strace slows a worker down many times over, so nothing is timed while it looks.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::BenchError;
use crate::process::read_text;
use crate::stop::{Stop, Waited, wait_any};

/// strace attaches within milliseconds; a loaded machine may need longer.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// strace, attached to workers and counting.
#[derive(Debug)]
pub struct Counting {
    strace: Child,
    pidfd: OwnedFd,
    summary: PathBuf,
}

impl Counting {
    /// Attaches to `pids`; returns when all of them are traced. The summary goes to a file in `dir`.
    ///
    /// # Errors
    /// strace cannot be started or may not attach.
    pub fn start(strace: &Path, pids: &[u32], dir: &Path, stop: &Stop) -> Result<Self, BenchError> {
        let summary = dir.join("strace-summary");
        let mut command = Command::new(strace);
        command.arg("-c").arg("-f").arg("-o").arg(&summary);
        for pid in pids {
            command.arg("-p").arg(pid.to_string());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let program = strace.display().to_string();
        let strace = command
            .spawn()
            .map_err(|source| BenchError::Spawn { program, source })?;
        let pidfd = pidfd_open(Pid::from_child(&strace), PidfdFlags::empty())
            .map_err(BenchError::system("pidfd_open of strace"))?;
        let mut counting = Self {
            strace,
            pidfd,
            summary,
        };
        counting.wait_attached(pids.len(), stop)?;
        Ok(counting)
    }

    /// strace says "Process 123 attached" for each. Its error output is kept open: it writes there until its end.
    fn wait_attached(&mut self, count: usize, stop: &Stop) -> Result<(), BenchError> {
        let mut said = String::new();
        // Unbuffered reads of a pipe: a line that waits in a buffer would never become ready.
        let mut lines = BufReader::with_capacity(1, self.strace.stderr.take().expect("stderr is piped"));
        let deadline = Instant::now() + ATTACH_LIMIT;
        while said.matches(" attached").count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if stop.wait(lines.get_ref().as_fd(), left)? == Waited::TimedOut {
                return Err(fault("did not attach in time", said));
            }
            match lines.read_line(&mut said) {
                Ok(0) => return Err(fault("may not attach to the workers", said)),
                Ok(_) => {}
                Err(e) => return Err(fault(&format!("cannot be read: {e}"), said)),
            }
        }
        self.strace.stderr = Some(lines.into_inner());
        Ok(())
    }

    /// Detaches, and returns how many system calls there were.
    ///
    /// # Errors
    /// strace does not end, or its summary is not understood.
    pub fn finish(self, stop: &Stop) -> Result<u64, BenchError> {
        self.signal(Signal::INT);
        if stop.wait(self.pidfd.as_fd(), ATTACH_LIMIT)? == Waited::TimedOut {
            return Err(fault("did not end in time", String::new()));
        }
        let text = read_text(&self.summary);
        parse_total(&text).ok_or_else(|| fault("wrote a summary without a total", text))
    }

    fn signal(&self, signal: Signal) {
        // Our child, not reaped yet: the only possible failure is that it has ended.
        pidfd_send_signal(&self.pidfd, signal).unwrap_or_default();
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // strace detaches on SIGTERM. A strace that had to be killed leaves its workers running, too: the kernel
        // detaches them (ptrace(2), unless PTRACE_O_EXITKILL).
        self.signal(Signal::TERM);
        if !matches!(wait_any(&[self.pidfd.as_fd()], ATTACH_LIMIT), Ok(Some(_))) {
            self.signal(Signal::KILL);
        }
        self.strace.wait().map(|_| ()).unwrap_or_default();
    }
}

fn fault(reason: &str, output: String) -> BenchError {
    BenchError::Tool {
        program: "strace".to_owned(),
        reason: reason.to_owned(),
        output,
    }
}

/// The number of calls in the line "100.00 … total". The column before `errors`, which may be empty, is the
/// calls; `usecs/call` is empty in the total of strace before 5.8.
fn parse_total(text: &str) -> Option<u64> {
    let header = text
        .lines()
        .find(|line| line.contains("calls") && line.contains("syscall"))?;
    let end = header.find("calls")? + "calls".len();
    let total = text.lines().rfind(|line| line.trim_end().ends_with(" total"))?;
    total.get(..end)?.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_in_the_column_of_calls() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 35.12    0.004321           8       500           close
 30.00    0.003698           7       500         2 accept4
------ ----------- ----------- --------- --------- ----------------
100.00    0.012304           1      7012        17 total
";
        assert_eq!(parse_total(text), Some(7012));
        let older = text.replace(
            "           1      7012        17 total",
            "                  7012           total",
        );
        assert_eq!(parse_total(&older), Some(7012));
        assert_eq!(parse_total("strace: Process 12 detached\n"), None);
        assert_eq!(parse_total(""), None);
    }
}
