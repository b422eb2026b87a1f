//! Children: started in a process group of their own, stopped by pid, never left behind.
//!
//! This program is made a child subreaper (prctl(2)), so that what a killed server leaves behind
//! becomes our child and is found. Descendants are held by pidfd: a number used again cannot be hit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitid,
};

use crate::BenchError;
use crate::measure::proc;
use crate::stop::{Stop, Waited, wait_any};

/// How long a server may take to stop when asked; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long a killed process may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Most of a log that is read back.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// Makes orphans of our children our children.
///
/// # Errors
/// prctl(2) failed.
pub fn adopt_orphans() -> Result<(), BenchError> {
    set_child_subreaper(Some(getpid())).map_err(BenchError::system("prctl(PR_SET_CHILD_SUBREAPER)"))
}

/// A running program and its descendants; dropping it stops them all.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    output: PathBuf,
    stop_signal: Signal,
}

impl Process {
    /// Starts `command` with standard output and error going to the file `output`; `stop_signal` is what
    /// asks it to end.
    ///
    /// # Errors
    /// The output file cannot be made, or the program not started.
    pub fn spawn(mut command: Command, output: &Path, stop_signal: Signal) -> Result<Self, BenchError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(output).map_err(BenchError::file("create", output))?;
        let again = file.try_clone().map_err(BenchError::system("dup"))?;
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .process_group(0);
        let child = command.spawn().map_err(|source| BenchError::Spawn {
            program: name.clone(),
            source,
        })?;
        // Nobody reaps the child before us, so its number is still its own.
        let pidfd = pidfd_open(pid_of(child.id()), PidfdFlags::empty())
            .map_err(BenchError::system(format!("pidfd_open of {name}")))?;
        Ok(Self {
            name,
            child,
            pidfd,
            output: output.to_owned(),
            stop_signal,
        })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// The program as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its standard output and error go.
    pub fn output_path(&self) -> &Path {
        &self.output
    }

    /// What it has written to standard output and error.
    pub fn output(&self) -> String {
        read_text(&self.output)
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// waitpid(2) failed.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, BenchError> {
        self.child
            .try_wait()
            .map_err(BenchError::system(format!("wait for {}", self.name)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// A signal to us, or it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration, stop: &Stop) -> Result<ExitStatus, BenchError> {
        match stop.wait(self.pidfd.as_fd(), limit)? {
            Waited::Ready => self
                .child
                .wait()
                .map_err(BenchError::system(format!("wait for {}", self.name))),
            Waited::TimedOut => Err(self.fault(format!("did not end within {limit:?}"))),
        }
    }

    /// Sends a signal; that it has ended already is no error.
    pub fn signal(&self, signal: Signal) {
        // A pidfd of our own child: the only possible failure is ESRCH, it has ended.
        pidfd_send_signal(&self.pidfd, signal).unwrap_or_default();
    }

    /// An error about this process, with the end of its output.
    pub fn fault(&self, reason: impl Into<String>) -> BenchError {
        BenchError::Tool {
            program: self.name.clone(),
            reason: reason.into(),
            output: self.output(),
        }
    }

    fn stop_all(&mut self) -> io::Result<()> {
        let family = hold(&proc::descendants(self.pid()));
        if self.child.try_wait()?.is_none() {
            self.signal(self.stop_signal);
            if wait_any(&[self.pidfd.as_fd()], STOP_LIMIT)
                .ok()
                .flatten()
                .is_none()
            {
                self.signal(Signal::KILL);
            }
            self.child.wait()?;
        }
        for descendant in &family {
            // Those that ended with their parent answer ESRCH.
            pidfd_send_signal(descendant, Signal::KILL).unwrap_or_default();
        }
        for descendant in &family {
            wait_any(&[descendant.as_fd()], KILL_LIMIT).unwrap_or_default();
            // Orphans became our children; those whose parent still lives are not ours to reap.
            waitid(
                WaitId::PidFd(descendant.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            )
            .unwrap_or_default();
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to be told: errors here mean that the process is gone.
        self.stop_all().unwrap_or_default();
    }
}

/// Runs a program to its end and returns what it wrote; fails if it does.
///
/// # Errors
/// It cannot be started, does not end within `limit`, or its status is not 0.
pub fn run_tool(command: Command, output: &Path, limit: Duration, stop: &Stop) -> Result<String, BenchError> {
    let mut process = Process::spawn(command, output, Signal::TERM)?;
    let status = process.wait(limit, stop)?;
    if !status.success() {
        return Err(process.fault(format!("failed with {status}")));
    }
    Ok(process.output())
}

/// The text of a file that may not exist, at most its first megabyte.
pub fn read_text(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // A log that cannot be read leaves a message without its tail, no more.
    if let Ok(file) = File::open(path) {
        file.take(MAX_LOG_BYTES)
            .read_to_end(&mut bytes)
            .unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last kilobytes of a log, which may be long.
pub fn read_tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    const BYTES: u64 = 64 << 10;
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let end = file.seek(SeekFrom::End(0)).unwrap_or(0);
        file.seek(SeekFrom::Start(end.saturating_sub(BYTES)))
            .and_then(|_| file.take(BYTES).read_to_end(&mut bytes))
            .unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where a program is: as given when it names a path, else the first in `PATH`, else in the two
/// folders for administrators that a user's `PATH` leaves out.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let candidates = folders.map(|folder| folder.join(name));
    let given = name.contains('/').then(|| PathBuf::from(name));
    given.into_iter().chain(candidates).find(|path| path.is_file())
}

fn hold(pids: &[u32]) -> Vec<OwnedFd> {
    let open = |pid: &u32| pidfd_open(pid_of(*pid), PidfdFlags::empty()).ok();
    pids.iter().filter_map(open).collect()
}

fn pid_of(pid: u32) -> Pid {
    let number = i32::try_from(pid).expect("Linux pids are below 2^22");
    Pid::from_raw(number).expect("a started process has a pid above 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_its_family_along() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("output");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo started; wait"]);
        let process = Process::spawn(command, &output, Signal::TERM).unwrap();
        let stop = Stop::never().unwrap();
        while process.output().is_empty() {
            stop.pause(Duration::from_millis(1)).unwrap();
        }
        let family = hold(&proc::descendants(process.pid()));
        assert_eq!(family.len(), 1);
        drop(process);
        assert_eq!(wait_any(&[family[0].as_fd()], KILL_LIMIT).unwrap(), Some(0));
    }

    #[test]
    fn a_failing_tool_tells_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let stop = Stop::never().unwrap();
        let error = run_tool(command, &dir.path().join("o"), Duration::from_secs(5), &stop).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no such thing"),
            "{text}"
        );
    }
}
