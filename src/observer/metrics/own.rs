//! CPU time and memory of processes, as the kernel counts them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::observer::scoreboard::Scoreboard;

/// Values of `cpu.mode`.
pub(super) const CPU_MODES: [&str; 2] = ["user", "system"];

/// Memory of workers is looked up this often at most: it takes some 10 µs for each, and
/// meanwhile nothing else is done here.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Memory of each pool's workers, when it was looked up last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    at: Option<Instant>,
    bytes: BTreeMap<String, u64>,
}

impl Memory {
    /// By pool; without those whose workers cannot be seen, as with `hidepid` (proc(5)).
    pub(super) fn of_pools(&mut self, board: &Scoreboard) -> &BTreeMap<String, u64> {
        if self.at.is_some_and(|at| at.elapsed() < LOOK_UP) {
            return &self.bytes;
        }
        self.at = Some(Instant::now());
        self.bytes.clear();
        for worker in board.workers.values().filter(|worker| worker.gone.is_none()) {
            if let Some(bytes) = bytes(Some(worker.process.pid)) {
                let pool = worker.requests.facts.pool.clone();
                *self.bytes.entry(pool).or_default() += bytes;
            }
        }
        &self.bytes
    }
}

/// Memory that a process, or this one, shares with nobody: resident pages but those of
/// files and shared memory (proc_pid_statm(5)), as is opcache's.
pub(super) fn bytes(pid: Option<Pid>) -> Option<u64> {
    let whose = pid.map_or_else(|| "self".to_owned(), |pid| pid.0.to_string());
    let statm = std::fs::read_to_string(format!("/proc/{whose}/statm")).ok()?;
    let mut pages = statm.split_ascii_whitespace().skip(1);
    let mut next = || pages.next()?.parse::<u64>().ok();
    let (resident, shared) = (next()?, next()?);
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(resident.saturating_sub(shared) * page)
}

/// CPU time of this process, user and system.
pub(super) fn cpu_times() -> [Duration; 2] {
    let time = |time: TimeVal| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    getrusage(UsageWho::RUSAGE_SELF).map_or([Duration::ZERO; 2], |usage| {
        [time(usage.user_time()), time(usage.system_time())]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_process_alone() {
        // What other tests of this process take or give back meanwhile is not known.
        let own = vec![1u8; 64 << 20];
        let told = bytes(None).expect("is told");
        assert!(told >= own.len() as u64, "{told} with {}", own.len());
        let pid = Pid(std::process::id().cast_signed());
        assert!(bytes(Some(pid)).is_some_and(|bytes| bytes > 48 << 20));
        assert_eq!(bytes(Some(Pid(-1))), None);
    }
}
