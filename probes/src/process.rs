//! What `/proc` says of a target: whether it runs, how often it has run, and what it
//! waits in. State and counters need no privilege (proc_pid_stat(5), and
//! Documentation/scheduler/sched-stats.rst for `schedstat`); what it waits in does.
//!
//! All of it is about the main thread, the only one of a PHP worker that runs PHP.

use std::fs::File;
use std::io::{self, Read};

use glasspool_abi::Pid;

pub use crate::syscalls::name as syscall_name;

/// No file of interest is longer; `status` has about 1.5 KiB.
const FILE_CAP: u64 = 8 * 1024;

/// The scheduler's word for what a process does, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// `R`: on a CPU, or waiting for one.
    Running,
    /// `S`: waits for something, and a signal would wake it.
    Sleeping,
    /// `D`: waits and cannot be woken; a disk, or a page of memory.
    DiskSleep,
    /// `T` or `t`: stopped by a signal or held by a tracer.
    Stopped,
    /// `Z` or `X`: has exited.
    Dead,
    /// A letter that this version does not know.
    Other(char),
}

impl RunState {
    /// The state that a letter of `/proc/PID/stat` stands for.
    #[must_use]
    pub fn from_letter(letter: char) -> RunState {
        match letter {
            'R' => RunState::Running,
            'S' => RunState::Sleeping,
            'D' => RunState::DiskSleep,
            'T' | 't' => RunState::Stopped,
            'Z' | 'X' => RunState::Dead,
            other => RunState::Other(other),
        }
    }

    /// Whether memory that only this process writes does not change while it is so.
    #[must_use]
    pub fn is_still(self) -> bool {
        matches!(self, RunState::Sleeping | RunState::DiskSleep | RunState::Stopped)
    }
}

/// How much a process has run. Equal twice, with the process asleep both times: it
/// did not run in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunCounters {
    /// Time on a CPU, nanoseconds.
    pub cpu_ns: u64,
    /// Time spent runnable but waiting for a CPU, nanoseconds.
    pub delay_ns: u64,
    /// Times it was put on a CPU.
    pub timeslices: u64,
}

/// What a sleeping process waits in, as far as the reader may know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wait {
    /// Number of the system call, for this machine's architecture; [`syscall_name`]
    /// names it. `None` if unreadable, or if it is not in one (a page fault).
    pub syscall: Option<u64>,
    /// The kernel function it sleeps in. `None` where the kernel does not tell.
    pub wchan: Option<String>,
}

/// The process's state, or `None` if there is no such process (any more).
#[must_use]
pub fn state(pid: Pid) -> Option<RunState> {
    parse_state(&read(pid, "stat").ok()?)
}

/// How much the process has run, or `None` if it is gone or the kernel does not
/// count (`CONFIG_SCHED_INFO` is off).
#[must_use]
pub fn run_counters(pid: Pid) -> Option<RunCounters> {
    parse_counters(&read(pid, "schedstat").ok()?)
}

/// What the process waits in. Empty for a reader without ptrace access to it
/// (`ptrace_may_access` guards both files).
#[must_use]
pub fn wait(pid: Pid) -> Wait {
    Wait {
        syscall: read(pid, "syscall").ok().and_then(|text| parse_syscall(&text)),
        wchan: read(pid, "wchan")
            .ok()
            .filter(|name| !name.is_empty() && name != "0"),
    }
}

/// The thread that traces this process, if any; of a single-threaded tracer, its pid.
#[must_use]
pub fn tracer(pid: Pid) -> Option<Pid> {
    parse_tracer(&read(pid, "status").ok()?)
}

fn read(pid: Pid, file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/{file}"))?
        .take(FILE_CAP)
        .read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The command name in the second field may hold anything, also `) R (`: the last
/// closing parenthesis ends it.
fn parse_state(stat: &str) -> Option<RunState> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next().map(RunState::from_letter)
}

fn parse_counters(schedstat: &str) -> Option<RunCounters> {
    let mut fields = schedstat.split_ascii_whitespace().map(str::parse);
    let mut next = || fields.next()?.ok();
    let counters = RunCounters {
        cpu_ns: next()?,
        delay_ns: next()?,
        timeslices: next()?,
    };
    // A process that exists has run; three zeros mean that nobody counts.
    (counters.timeslices != 0).then_some(counters)
}

/// `running`, `-1 SP PC` outside of a system call, or its number, arguments, SP, PC.
fn parse_syscall(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_tracer(status: &str) -> Option<Pid> {
    let value = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    value.trim().parse().ok().filter(|&pid| pid != 0).map(Pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_pretend_to_be_a_state() {
        assert_eq!(parse_state("7 (php) R (x) S 1 7 7"), Some(RunState::Sleeping));
        assert_eq!(parse_state("7 (php"), None);
        assert_eq!(parse_state("7 (php)"), None);
    }

    #[test]
    fn counters_that_nobody_counts_are_none() {
        let expected = RunCounters {
            cpu_ns: 5,
            delay_ns: 0,
            timeslices: 3,
        };
        assert_eq!(parse_counters("5 0 3\n"), Some(expected));
        assert_eq!(parse_counters("0 0 0\n"), None);
        assert_eq!(parse_counters("5 0"), None);
    }

    #[test]
    fn a_wait_is_read_in_all_three_forms() {
        assert_eq!(
            parse_syscall("7 0x1 0x2 0x3 0x0 0x0 0x0 0x7ffc 0x7f00\n"),
            Some(7)
        );
        assert_eq!(parse_syscall("running\n"), None);
        assert_eq!(parse_syscall("-1 0x7ffc 0x7f00\n"), None);
    }

    #[test]
    fn the_tracer_is_the_one_in_status() {
        assert_eq!(
            parse_tracer("Name:\tphp\nTracerPid:\t42\nUid:\t0\n"),
            Some(Pid(42))
        );
        assert_eq!(parse_tracer("TracerPid:\t0\n"), None);
    }

    #[test]
    fn this_very_process_runs_and_a_reaped_one_is_gone() {
        let own = Pid(std::process::id().try_into().unwrap());
        assert!(state(own).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid(child.id().try_into().unwrap());
        child.wait().unwrap();
        assert_eq!(state(pid), None);
        assert_eq!(run_counters(pid), None);
        assert_eq!(wait(pid), Wait::default());
    }
}
