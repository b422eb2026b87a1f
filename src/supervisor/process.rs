//! Child processes: held by pidfd, reaped one by one.
//!
//! Never `waitpid(-1)`: it would also take the ptrace stops and the children that
//! somebody else here waits for. Processes that scripts leave behind are re-parented to
//! the supervisor, a child subreaper, and are looked for in `/proc` instead.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;

use glasspool_abi::Pid;
use glasspool_abi::control::Ended;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::Interest;

use super::{notify, raising, sockets};
use crate::readiness;

/// A child that has not been reaped yet, so its pid is still its own.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) pid: Pid,
    /// Also handed to the observer, hence shared.
    pub(super) pidfd: Arc<OwnedFd>,
}

impl Child {
    /// Starts a program. The command's own standard streams decide what it inherits:
    /// everything else is close-on-exec, and variables about that are left out.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
        for (name, _) in std::env::vars_os() {
            if sockets::is_private(&name) || notify::is_private(&name) || name == raising::VARIABLE {
                command.env_remove(name);
            }
        }
        let started = command.spawn()?;
        let pid = i32::try_from(started.id()).map_err(io::Error::other)?;
        Child::adopt(Pid(pid))
    }

    /// Takes hold of a process that is our child already.
    pub(super) fn adopt(pid: Pid) -> io::Result<Child> {
        let raw = rustix_pid(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Child {
            pid,
            pidfd: Arc::new(pidfd),
        })
    }

    /// Sends a signal. A child that has just ended is not an error: its end is on its way.
    pub(super) fn signal(&self, signal: Signal) {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(_) => {}
        }
    }

    /// Waits until it has ended, and reaps it.
    pub(super) async fn ended(self) -> io::Result<Ended> {
        let pidfd = readiness::ready(self.pidfd, Interest::READABLE)?;
        loop {
            // A pidfd is readable once its process is a zombie (pidfd_open(2)).
            let mut guard = pidfd.readable().await?;
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let status = rustix::io::retry_on_intr(|| {
                rustix::process::waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(pidfd.get_ref())), how)
            })?;
            match status.and_then(|status| ended_of(&status)) {
                Some(ended) => return Ok(ended),
                None => guard.clear_ready(),
            }
        }
    }
}

fn ended_of(status: &WaitIdStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Exited(code)),
        (None, Some(signal)) => Some(Ended::Killed {
            signal,
            core: status.dumped(),
        }),
        (None, None) => None,
    }
}

fn rustix_pid(pid: Pid) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.0).filter(|_| pid.0 > 0)
}

/// SIGKILL by number, for a child that cannot be held by a pidfd. Only for processes
/// that nobody has reaped.
pub(super) fn kill_unheld(pid: Pid) {
    if let Some(pid) = rustix_pid(pid) {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(_) => {}
        }
    }
}

/// Our children, by pid, whoever started them. Empty where the kernel does not list
/// them (CONFIG_PROC_CHILDREN): orphans then stay zombies until we exit.
pub(super) fn list_children() -> Vec<Pid> {
    // The runtime has one thread, and orphans go to a process's first one.
    let own = std::process::id();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    listed
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok().map(Pid))
        .collect()
}

/// Reaps every dead child that is not in `known`, and says how each ended.
pub(super) fn reap_orphans(known: &BTreeSet<Pid>) -> Vec<(Pid, Ended)> {
    let strangers = list_children().into_iter().filter(|pid| !known.contains(pid));
    let reaped = strangers.filter_map(|pid| {
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::Pid(rustix_pid(pid)?), how).ok()??;
        Some((pid, ended_of(&status)?))
    });
    reaped.collect()
}

/// Whether the process has this slot's memory file mapped: a worker is known by its
/// slot when nobody is left to say its pid.
pub(super) fn has_slot_mapped(pid: Pid, inode: u64) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    // Address, permissions, offset, device, inode, path (proc_pid_maps(5)).
    maps.lines().any(|line| {
        let found = line
            .split_ascii_whitespace()
            .nth(4)
            .and_then(|inode| inode.parse().ok());
        found == Some(inode) && line.contains("/memfd:glasspool-slot")
    })
}

/// How a process ended, in php-fpm's words.
pub(super) fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exited(code) => format!("with code {code}"),
        Ended::Killed { signal, core } => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown", |signal| signal.as_str());
            let core = if core { " - core dumped" } else { "" };
            format!("on signal {signal} ({name}{core})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    }

    #[test]
    fn a_child_is_reaped_with_its_status() {
        runtime().block_on(async {
            let child = Child::spawn(Command::new("sh").args(["-c", "exit 3"])).expect("starts");
            assert_eq!(child.ended().await.expect("waits"), Ended::Exited(3));
            let child = Child::spawn(Command::new("sleep").arg("1000")).expect("starts");
            child.signal(Signal::KILL);
            let ended = child.clone().ended().await.expect("waits");
            assert_eq!(
                ended,
                Ended::Killed {
                    signal: 9,
                    core: false
                }
            );
            assert!(!list_children().contains(&child.pid));
        });
    }

    #[test]
    fn a_worker_is_known_by_its_slot() {
        use glasspool_abi::slot::{SLOT_HEAD_BYTES, SlotWriter, ring_bytes};
        let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
        let slots = [(); 2].map(|()| glasspool_abi::create_slot_memory(bytes).expect("makes"));
        let [mapped, other] = slots
            .each_ref()
            .map(|slot| rustix::fs::fstat(slot).expect("stats").st_ino);
        let _writer = SlotWriter::map(&slots[0], bytes).expect("maps");
        assert!(has_slot_mapped(super::super::own_pid(), mapped));
        assert!(!has_slot_mapped(super::super::own_pid(), other));
    }

    #[test]
    fn ends_are_told_in_php_fpms_words() {
        assert_eq!(describe(Ended::Exited(0)), "with code 0");
        assert_eq!(
            describe(Ended::Killed {
                signal: 9,
                core: false
            }),
            "on signal 9 (SIGKILL)"
        );
        assert_eq!(
            describe(Ended::Killed {
                signal: 11,
                core: true
            }),
            "on signal 11 (SIGSEGV - core dumped)"
        );
    }
}
