//! The scheduler's clocks of task time, one per CPU.
//!
//! They leave out interrupts and what a hypervisor took away, so the clocks of two CPUs
//! differ by seconds after some hours, and nothing but a task that runs on a CPU can read
//! that CPU's: a thread of ours goes there. That takes 0.1 ms, or as long as the CPU is
//! busy with others; so what it finds is used for a tenth of a second, in which the clock
//! falls behind the time by what was taken away in it: nothing, or some milliseconds on a
//! virtual machine whose host is busy.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::process::{FILE_CAP, parse_exec_start, read_file};

/// See the module.
const VALID: Duration = Duration::from_millis(100);

/// What the clocks of these CPUs said, and when. No more entries than CPUs.
static READ: Mutex<BTreeMap<usize, (Instant, Duration)>> = Mutex::new(BTreeMap::new());

/// The present time of that CPU's clock; `None` if the CPU is not one of ours to use, or
/// the kernel does not tell (`CONFIG_SCHED_DEBUG` is off).
pub(crate) fn now(cpu: usize) -> Option<Duration> {
    let before = READ
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&cpu)
        .copied();
    if let Some((at, clock)) = before
        && at.elapsed() < VALID
    {
        return Some(clock + at.elapsed());
    }
    // Not under the lock: another CPU's clock may be wanted meanwhile.
    let clock = read(cpu)?;
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    read.insert(cpu, (Instant::now(), clock));
    Some(clock)
}

fn read(cpu: usize) -> Option<Duration> {
    let reader = std::thread::Builder::new()
        .name("clock".to_owned())
        .spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).ok()?;
            // The value is renewed when another task is chosen.
            std::thread::yield_now();
            parse_exec_start(&read_file("/proc/thread-self/sched", FILE_CAP).ok()?)
        });
    reader.ok()?.join().ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_forward_and_is_read_seldom() {
        let first = now(0).expect("CPU 0 is ours to use");
        let second = now(0).expect("and still is");
        assert!(second >= first);
        assert!(now(4096).is_none(), "there is no such CPU");
    }
}
