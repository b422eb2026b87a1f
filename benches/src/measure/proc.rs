//! Processes as `/proc` shows them (proc(5)).

use std::fs;
use std::time::Duration;

/// Most processes looked at under one parent.
const MAX_FAMILY: usize = 4096;

/// CPU time that a process has used, all its threads: the first field of `/proc/PID/task/*/schedstat`, "time
/// spent on the cpu" in nanoseconds (Linux Documentation/scheduler/sched-stats.rst). It is exact when the
/// process sleeps; getrusage(2) counts ticks on some kernels. `None` when the process is gone or the kernel
/// has no schedstats.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that ends meanwhile is missing from both; servers here keep theirs.
        if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
            total += parse_schedstat(&text)?;
        }
    }
    Some(total)
}

/// Memory that would be free if only this process ended ("unique set size"), kilobytes; `None` when the
/// process is gone or may not be looked at.
pub fn unique_set_kb(pid: u32) -> Option<u64> {
    parse_unique_set(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// All processes below `pid`, parents first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut family = children(pid);
    let mut next = 0;
    while next < family.len() && family.len() < MAX_FAMILY {
        let more = children(family[next]);
        family.extend(more);
        next += 1;
    }
    family
}

/// Children of all threads; needs CONFIG_PROC_CHILDREN, which distributions set.
fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn parse_schedstat(text: &str) -> Option<Duration> {
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    let (on_cpu, _waiting, _timeslices) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Duration::from_nanos(on_cpu))
}

fn parse_unique_set(text: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    field("Private_Clean:")?.checked_add(field("Private_Dirty:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_three_numbers() {
        assert_eq!(
            parse_schedstat("142318712 5022 77\n"),
            Some(Duration::from_nanos(142_318_712))
        );
        for wrong in ["", "1 2", "a 2 3", "-1 2 3", "99999999999999999999 2 3"] {
            assert_eq!(parse_schedstat(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_unique_set_is_private_clean_and_dirty() {
        let text = "55d0 ---p 00000000 00:00 0    [rollup]\nRss:    18000 kB\nShared_Clean:  11000 kB\n\
                    Private_Clean:       120 kB\nPrivate_Dirty:       300 kB\nSwap:   0 kB\n";
        assert_eq!(parse_unique_set(text), Some(420));
        assert_eq!(parse_unique_set("Private_Clean: 120 kB\n"), None);
        assert_eq!(
            parse_unique_set("Private_Clean: 120\nPrivate_Dirty: 3 kB\n"),
            None
        );
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut sum = 0u64;
        while cpu_time(pid).unwrap() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(unique_set_kb(pid).unwrap() > 0);
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
