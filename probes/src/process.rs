//! What `/proc` says of a target: whether it runs, how often it has run, and for how long
//! it has slept. None of that needs any privilege (proc_pid_stat(5), and
//! Documentation/scheduler/sched-stats.rst for `schedstat`). What it waits in does, and is
//! [`crate::wait`]'s.
//!
//! All of it is about the main thread, the only one of a PHP worker that runs PHP.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use glasspool_abi::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

pub use crate::syscalls::name as syscall_name;
use crate::task_clock;

/// No file of interest is longer; `status` has about 1.5 KiB.
pub(crate) const FILE_CAP: u64 = 8 * 1024;

/// How exactly the start of a process is told (USER_HZ is 100 on all Linux machines).
const CLOCK_TICK: Duration = Duration::from_millis(10);

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

/// When the process started, as time since boot (`CLOCK_BOOTTIME`), exact to a clock tick.
#[must_use]
pub fn started(pid: Pid) -> Option<Duration> {
    parse_started(&read(pid, "stat").ok()?)
}

/// Whether there is such a process and it has memory. One that ends has none from then
/// on; one that executes another program is never without.
#[must_use]
pub fn has_memory(pid: Pid) -> bool {
    read(pid, "stat").is_ok_and(|stat| parse_memory_bytes(&stat).is_some_and(|bytes| bytes > 0))
}

/// How long a sleeping process has slept so far, or `None` if that cannot be told.
/// Meaningless for one that runs. Needs no privilege; exact to some microseconds, or some
/// milliseconds where a hypervisor takes time away.
///
/// The kernel notes in `se.exec_start` when a task was last on a CPU, on that CPU's clock
/// of task time; see `task_clock`. Takes 20 us, and ten times a second for each CPU
/// 0.1 ms more; `None` if the CPU is not one of ours to use, or the kernel does not tell
/// (`CONFIG_SCHED_DEBUG` is off).
#[must_use]
pub fn asleep_for(pid: Pid) -> Option<Duration> {
    let stat = read(pid, "stat").ok()?;
    let then = parse_exec_start(&read(pid, "sched").ok()?)?;
    let asleep = task_clock::now(parse_cpu(&stat)?)?.saturating_sub(then);
    // Nobody sleeps for longer than he has lived; a virtual machine that was moved has
    // clocks that say so.
    let lived = since_boot().saturating_sub(parse_started(&stat)?) + CLOCK_TICK;
    (asleep <= lived).then_some(asleep)
}

/// The present time of the clock of [`started`].
#[must_use]
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
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

/// The beginning of a file of `/proc` that was opened by somebody else. Leaves its
/// offset, which that other shares, as it is.
pub(crate) fn read_handed(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut bytes = [0; 512];
    let got = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut bytes, 0))?;
    Ok(String::from_utf8_lossy(&bytes[..got]).into_owned())
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

/// Field 22, in clock ticks; the 20th after the command name.
fn parse_started(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.checked_mul(1000)? / per_second))
}

/// Field 23; the 21st after the command name.
fn parse_memory_bytes(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(20)?.parse().ok()
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
pub(crate) fn parse_exec_start(sched: &str) -> Option<Duration> {
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
    fn the_start_is_the_22nd_field_whatever_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 3 1 0 0 20 0 1 0 4242 9 8 7";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(
            parse_started(stat),
            Some(Duration::from_millis(4242 * 1000 / ticks))
        );
        assert_eq!(parse_started("7 (a) S 1"), None);
        let own = Pid(std::process::id().try_into().unwrap());
        assert!(started(own).unwrap() <= since_boot());
    }

    #[test]
    fn what_has_ended_has_no_memory_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid(child.id().try_into().unwrap());
        assert!(has_memory(pid));
        let id = rustix::process::Pid::from_raw(pid.0).unwrap();
        let pidfd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).unwrap();
        child.kill().unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!((state(pid), has_memory(pid)), (Some(RunState::Dead), false));
        child.wait().unwrap();
        assert!(!has_memory(pid));
        assert_eq!(parse_memory_bytes("7 (a) b"), None);
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
        assert_eq!(wchan(pid), None);
    }
}
