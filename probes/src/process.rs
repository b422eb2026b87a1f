//! What `/proc` says of a target: whether it runs, how often it has run, and what it
//! waits in. State and counters need no privilege (proc_pid_stat(5), and
//! Documentation/scheduler/sched-stats.rst for `schedstat`); what it waits in does.
//!
//! All of it is about the main thread, the only one of a PHP worker that runs PHP.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use glasspool_abi::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};

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

/// How often a process has left a CPU; where [`RunCounters`] are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Switches {
    /// Because it went to sleep.
    pub voluntary: u64,
    /// Because another was to run.
    pub involuntary: u64,
}

/// What a sleeping process waits in, as far as the reader may know: the number and the
/// kernel function only. [`crate::wait`] tells much more.
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
        wchan: wchan(pid),
    }
}

/// The kernel function that the process sleeps in, or `None` if it does not sleep or
/// the reader may not know.
#[must_use]
pub fn wchan(pid: Pid) -> Option<String> {
    read(pid, "wchan")
        .ok()
        .filter(|name| !name.is_empty() && name != "0")
        .map(|name| name.replace(char::is_control, ""))
}

/// How often the process has left a CPU, or `None` if it is gone.
#[must_use]
pub fn switches(pid: Pid) -> Option<Switches> {
    parse_switches(&read(pid, "status").ok()?)
}

/// How long a sleeping process has slept so far, or `None` if that cannot be told.
/// Meaningless for one that runs. Needs no privilege; exact to some microseconds.
///
/// The kernel notes in `se.exec_start` when a task was last on a CPU, on *that CPU's*
/// clock of task time, which leaves out interrupts and what a hypervisor took away: the
/// clocks of two CPUs differ by seconds after some hours. So a thread of ours goes to
/// that very CPU, and its own value is the time there now. Takes 0.1 ms, or as long as
/// the CPU is busy with others; `None` if the CPU is not one of ours to use, or the
/// kernel does not tell (`CONFIG_SCHED_DEBUG` is off).
#[must_use]
pub fn asleep_for(pid: Pid) -> Option<Duration> {
    let cpu = parse_cpu(&read(pid, "stat").ok()?)?;
    let then = parse_exec_start(&read(pid, "sched").ok()?)?;
    let now = std::thread::Builder::new()
        .name("clock".to_owned())
        .spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).ok()?;
            // The value is renewed when another task is chosen.
            std::thread::yield_now();
            parse_exec_start(&read_file("/proc/thread-self/sched", FILE_CAP).ok()?)
        });
    now.ok()?.join().ok()??.checked_sub(then)
}

/// The thread that traces this process, if any; of a single-threaded tracer, its pid.
#[must_use]
pub fn tracer(pid: Pid) -> Option<Pid> {
    parse_tracer(&read(pid, "status").ok()?)
}

/// Whether the process of a pidfd (pidfd_open(2)) has ended; its number may belong to
/// another by now.
#[must_use]
pub fn has_exited(pidfd: impl AsFd) -> bool {
    const NOW: rustix::event::Timespec = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    // A poll that fails tells nothing; the reads themselves still do.
    matches!(poll(&mut fds, Some(&NOW)), Ok(1..))
}

/// A file of `/proc/PID`, its first 8 KiB.
pub(crate) fn read_all(pid: Pid, file: &str) -> io::Result<String> {
    read(pid, file)
}

/// A file's first `cap` bytes as text.
pub(crate) fn read_file(path: &str, cap: u64) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(cap).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read(pid: Pid, file: &str) -> io::Result<String> {
    read_file(&format!("/proc/{pid}/{file}"), FILE_CAP)
}

/// The command name in the second field may hold anything, also `) R (`: the last
/// closing parenthesis ends it.
fn parse_state(stat: &str) -> Option<RunState> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next().map(RunState::from_letter)
}

/// The CPU that it was last on: field 39, or the 37th after the command name.
fn parse_cpu(stat: &str) -> Option<usize> {
    let (_, rest) = stat.rsplit_once(')')?;
    let cpu = rest.split_ascii_whitespace().nth(36)?.parse().ok()?;
    (cpu < CpuSet::MAX_CPU).then_some(cpu)
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

fn parse_switches(status: &str) -> Option<Switches> {
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse().ok()
    };
    Some(Switches {
        voluntary: value("voluntary_ctxt_switches:")?,
        involuntary: value("nonvoluntary_ctxt_switches:")?,
    })
}

/// `se.exec_start : 16303305.229584`, milliseconds and a fraction of six digits.
fn parse_exec_start(sched: &str) -> Option<Duration> {
    let line = sched
        .lines()
        .find_map(|line| line.strip_prefix("se.exec_start"))?;
    let (millis, nanos) = line.trim_start().strip_prefix(':')?.trim().split_once('.')?;
    let nanos: u64 = nanos.parse().ok().filter(|_| nanos.len() == 6)?;
    Some(Duration::from_millis(millis.parse().ok()?) + Duration::from_nanos(nanos))
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
    fn the_cpu_is_told_and_one_that_cannot_be_named_is_not() {
        let stat = |cpu: &str| format!("7 (a) b) S {} {cpu} 0 0", ["0"; 35].join(" "));
        assert_eq!(parse_cpu(&stat("3")), Some(3));
        assert_eq!(parse_cpu(&stat("4096")), None);
        assert_eq!(parse_cpu(&stat("-1")), None);
        assert_eq!(parse_cpu("7 (php) S 1"), None);
    }

    #[test]
    fn switches_and_the_last_run_are_read() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        let expected = Switches {
            voluntary: 7,
            involuntary: 3,
        };
        assert_eq!(parse_switches(status), Some(expected));
        assert_eq!(parse_switches("voluntary_ctxt_switches:\t7\n"), None);
        let sched = "php (1, #threads: 1)\nse.exec_start      :      16303305.229584\nse.vruntime : 1\n";
        let expected = Duration::from_nanos(16_303_305_229_584);
        assert_eq!(parse_exec_start(sched), Some(expected));
        assert_eq!(parse_exec_start("se.exec_start : 1\n"), None);
        assert_eq!(parse_exec_start("se.exec_start : 1.5\n"), None);
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
