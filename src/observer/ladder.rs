//! What looks can show of each pool's workers, as far as the kernel permits: found out by
//! trying on one of them, told in one line when it changes, and kept for the metrics.

use std::sync::{Arc, Mutex, PoisonError};

use glasspool_probes::rights::{Rights, Rung};

use super::text::Plain;
use crate::logs::ErrorLog;

/// What can be seen of one pool's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LadderView {
    /// Whose.
    pub(super) pool: String,
    /// How much.
    pub(super) rung: Rung,
    /// What cannot be had, in words that do not change.
    pub(super) missing: Vec<&'static str>,
}

/// That of all pools. Clones show the same: the sampler's thread writes, the reports read.
#[derive(Debug, Clone, Default)]
pub(super) struct Ladder(Arc<Mutex<Vec<LadderView>>>);

impl Ladder {
    /// What was found out last, of each pool that has had a worker.
    pub(super) fn views(&self) -> Vec<LadderView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was found out on a worker of that pool, and logs it if it is news.
    pub(super) fn tell(&self, pool: &str, rights: &Rights, log: &ErrorLog) {
        let missing: Vec<_> = rights.missing().into_iter().map(|(what, _)| what).collect();
        let is_whole = missing.is_empty();
        let view = LadderView {
            pool: pool.to_owned(),
            rung: rights.rung(),
            missing,
        };
        if !self.put(view) {
            return;
        }
        let line = format!("[pool {pool}] what a look shows, as tried on {rights}");
        let line = Plain(line);
        if is_whole {
            // Only the supervisor, through whom this goes, knows whether such lines are wanted.
            log.raw(format!("DEBUG: {line}\n").as_bytes());
        } else {
            log.notice(line);
        }
    }

    /// Whether it is news.
    fn put(&self, view: LadderView) -> bool {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match views.iter_mut().find(|known| known.pool == view.pool) {
            Some(known) if *known == view => false,
            Some(known) => {
                *known = view;
                true
            }
            None => {
                views.push(view);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::Pid;
    use glasspool_probes::rights::Obstacle;

    use super::*;
    use crate::config::LogLevel;

    fn rights(pid: i32, hold: Result<(), Obstacle>) -> Rights {
        Rights {
            pid: Pid(pid),
            handed_memory: Some(Ok(())),
            memory: Ok(()),
            vm_read: Ok(()),
            calls: Ok(()),
            descriptors: Ok(()),
            maps: Ok(()),
            files: Ok(()),
            hold,
        }
    }

    #[test]
    fn it_is_told_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = ErrorLog::file(&path, LogLevel::Notice).unwrap();
        let ladder = Ladder::default();
        let denied = || Err(Obstacle::NoCapability);
        ladder.tell("www", &rights(7, denied()), &log);
        // Another worker, the same news.
        ladder.tell("www", &rights(8, denied()), &log);
        ladder.tell("api", &rights(9, denied()), &log);
        let expected = LadderView {
            pool: "www".to_owned(),
            rung: Rung::Unstopped,
            missing: vec!["holding it while it runs"],
        };
        assert_eq!(ladder.clone().views()[0], expected);
        // Nothing to grant.
        ladder.tell("www", &rights(7, Ok(())), &log);
        assert_eq!(ladder.views()[0].rung, Rung::Everything);
        ladder.tell("www", &rights(7, denied()), &log);
        let text = std::fs::read_to_string(path).unwrap();
        let debug = "DEBUG: [pool www] what a look shows, as tried on process 7: PHP and native stacks, waits and peers, \
                     running or blocked";
        assert_eq!(text.lines().nth(2), Some(debug));
        let lines: Vec<_> = text
            .lines()
            .filter_map(|line| line.split("NOTICE: ").nth(1))
            .collect();
        let line = |pool: &str, pid: i32| {
            format!(
                "[pool {pool}] what a look shows, as tried on process {pid}: PHP and native stacks, waits and peers \
                 of a blocked process; without holding it while it runs, because this process is root but lacks \
                 CAP_SYS_PTRACE (give it; in a container with --cap-add SYS_PTRACE)"
            )
        };
        assert_eq!(lines, [line("www", 7), line("api", 9), line("www", 7)]);
    }
}
