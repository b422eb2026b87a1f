//! What the server holds: processes, descriptors, memory, read from `/proc`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use glasspool_benches::stop::Stop;

use super::site::Site;
use crate::process::{children, status_field};
use crate::report::Report;

/// Workers of pools that end and start by themselves come and go; so many processes more
/// or less are no leak.
const PROCESSES_OF_GRACE: usize = 4;
/// As many descriptors of those processes: pidfd, slot and pipes.
const DESCRIPTORS_OF_GRACE: usize = 24;
/// What an allocator may keep.
const MEMORY_OF_GRACE_KIB: u64 = 16 * 1024;
/// Time that ended generations have to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks: what other processes' children do is no event that can be waited for.
const PAUSE: Duration = Duration::from_millis(200);
/// So many looks in a row must find the same processes.
const SAME_LOOKS: u32 = 10;

/// One look: the supervisor and its children, by pid.
#[derive(Debug, Clone)]
pub(super) struct Census(BTreeMap<u32, Process>);

#[derive(Debug, Clone)]
struct Process {
    /// The first words of its command line.
    title: String,
    /// Open descriptors.
    descriptors: usize,
    /// Resident memory.
    memory_kib: u64,
}

impl Census {
    /// Looks once.
    pub(super) fn take(site: &Site) -> Result<Self> {
        let supervisor = site.process.pid();
        let mut found = BTreeMap::new();
        found.insert(
            supervisor,
            Process::read(supervisor).context("the supervisor is gone")?,
        );
        for pid in children(supervisor)? {
            // One that ended meanwhile has nothing.
            found.extend(Process::read(pid).map(|process| (pid, process)));
        }
        Ok(Self(found))
    }

    /// Looks until the processes stay the same for a while: drained workers are gone then.
    pub(super) fn settled(site: &Site, stop: &Stop) -> Result<Self> {
        let by = Instant::now() + PATIENCE;
        let mut last = Self::take(site)?;
        let mut same = 0;
        while same < SAME_LOOKS {
            stop.pause(PAUSE)?;
            let now = Self::take(site)?;
            same = if now.0.keys().eq(last.0.keys()) {
                same + 1
            } else {
                0
            };
            last = now;
            if Instant::now() > by {
                bail!(
                    "after {PATIENCE:?} processes still come and go: {:?}",
                    last.titles()
                );
            }
        }
        Ok(last)
    }

    /// Nothing has piled up. `early` is a look when all that is allocated once had been
    /// allocated.
    pub(super) fn compare(before: &Self, early: &Self, after: &Self, report: &mut Report) {
        let (old, new) = (before.0.len(), after.0.len());
        report.check(
            format_args!("processes: {old} before, {new} after"),
            new <= old + PROCESSES_OF_GRACE,
            format_args!("at most {PROCESSES_OF_GRACE} more"),
            format_args!("{:?}", after.titles()),
        );
        for (pid, now) in &after.0 {
            let (Some(then), Some(early)) = (before.0.get(pid), early.0.get(pid)) else {
                continue;
            };
            let title = &now.title;
            report.check(
                format_args!(
                    "descriptors of \"{title}\": {} before, {} after",
                    then.descriptors, now.descriptors
                ),
                now.descriptors <= then.descriptors + DESCRIPTORS_OF_GRACE,
                format_args!("at most {DESCRIPTORS_OF_GRACE} more"),
                now.descriptors,
            );
            report.check(
                format_args!(
                    "memory of \"{title}\": {} KiB early, {} KiB after",
                    early.memory_kib, now.memory_kib
                ),
                now.memory_kib <= early.memory_kib + MEMORY_OF_GRACE_KIB,
                format_args!("at most {MEMORY_OF_GRACE_KIB} KiB more"),
                now.memory_kib,
            );
        }
    }

    fn titles(&self) -> Vec<&str> {
        self.0.values().map(|process| process.title.as_str()).collect()
    }
}

impl Process {
    /// `None` when it is gone. A process that has ended and was not reaped counts, and
    /// has neither title nor memory.
    fn read(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Some(Self {
            title: shown(&cmdline),
            descriptors,
            memory_kib: status_field(&status, "VmRSS:").unwrap_or(0),
        })
    }
}

/// A command line without its NULs, and not all of it.
fn shown(cmdline: &[u8]) -> String {
    let text = String::from_utf8_lossy(cmdline).replace('\0', " ");
    text.trim_end().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_shortened() {
        assert_eq!(shown(b"php-fpm: pool www\0\0\0"), "php-fpm: pool www");
        assert_eq!(shown(&[b'x'; 1000]).len(), 60);
    }

    #[test]
    fn a_process_is_read() {
        let own = Process::read(std::process::id()).expect("is there");
        assert!(own.descriptors >= 3 && own.memory_kib > 0, "{own:?}");
    }
}
