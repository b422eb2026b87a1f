//! Why a process may not be read, looked up after a refusal.

use std::io;
use std::os::unix::fs::MetadataExt;

use glasspool_abi::Pid;
use nix::errno::Errno;
use nix::unistd::{Uid, User};

use crate::process;

/// `CAP_DAC_READ_SEARCH` and `CAP_SYS_PTRACE` as bits of `CapEff` (capabilities(7)).
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;

/// What stands between a reader and a process, and the one thing that removes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It has exited.
    #[error("there is no such process (any more)")]
    Gone,
    /// It exists, but `/proc` does not show it (proc(5), `hidepid`).
    #[error(
        "/proc hides it (it is mounted with hidepid; run as root, or in the group that its gid option names)"
    )]
    Hidden,
    /// The kernel protects it, as it does after a change of user.
    #[error(
        "it runs as {user} and is not dumpable (run as root, give CAP_SYS_PTRACE, or set process.dumpable = yes)"
    )]
    NotDumpable {
        /// Its user.
        user: String,
    },
    /// It belongs to somebody else.
    #[error(
        "it runs as {user} and this process as {own} (run as root{}, or give CAP_SYS_PTRACE)",
        if user == "root" { String::new() } else { format!(" or as {user}") }
    )]
    OtherUser {
        /// Its user.
        user: String,
        /// The reader's.
        own: String,
    },
    /// Yama forbids it.
    #[error(
        "Yama (kernel.yama.ptrace_scope = {scope}) {}",
        match scope {
            1 => "allows only descendants, and it is none of this process (give CAP_SYS_PTRACE, or set it to 0)",
            2 => "wants a capability (give CAP_SYS_PTRACE, or set it to 0)",
            _ => "forbids it to everybody (only a reboot ends 3)",
        }
    )]
    Yama {
        /// The value of the setting.
        scope: u8,
    },
    /// The capability is there, but files of mode 0400 need another.
    #[error("files in /proc/PID need CAP_DAC_READ_SEARCH besides CAP_SYS_PTRACE (give it too)")]
    FileMode,
    /// Root without the capability, as in a container.
    #[error(
        "this process is root but lacks CAP_SYS_PTRACE (give it; in a container with --cap-add SYS_PTRACE)"
    )]
    NoCapability,
    /// Another tracer has it, and there can be only one.
    #[error("{program} (process {by}) already traces it (end that one first)")]
    Traced {
        /// Its tracer.
        by: Pid,
        /// The tracer's name, as `ps` shows it.
        program: String,
    },
    /// The kernel does not have the call, or a system call filter hides it.
    #[error("the kernel does not offer the call, or a filter forbids it (allow it in the seccomp profile)")]
    Absent,
    /// All that is known to be needed is there, and yet it was refused: a security
    /// module, a system call filter or another user namespace.
    #[error(
        "{errno} in spite of sufficient capabilities (a security module, a seccomp profile or a user namespace is between)"
    )]
    Policy {
        /// What the call said.
        errno: Errno,
    },
    /// Something that is no matter of rights.
    #[error("{errno}")]
    Failed {
        /// What the call said.
        errno: Errno,
    },
}

impl Obstacle {
    /// What stands behind a call about `pid` that failed with `error`.
    #[must_use]
    pub fn behind(pid: Pid, error: &io::Error) -> Obstacle {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match (errno, error.kind()) {
            (Some(Errno::EPERM | Errno::EACCES), _) | (None, io::ErrorKind::PermissionDenied) => {
                Obstacle::refused(pid, errno.unwrap_or(Errno::EACCES))
            }
            (Some(Errno::ESRCH), _) => Obstacle::Gone,
            (Some(Errno::ENOENT), _) | (None, io::ErrorKind::NotFound) => Obstacle::missing(pid),
            (Some(Errno::ENOSYS), _) => Obstacle::Absent,
            (errno, _) => Obstacle::Failed {
                errno: errno.unwrap_or(Errno::EIO),
            },
        }
    }

    /// What would stand behind a refusal.
    #[must_use]
    pub fn of(pid: Pid) -> Obstacle {
        Obstacle::refused(pid, Errno::EPERM)
    }

    /// What `by` stands in the way of, as the only tracer that a process can have.
    #[must_use]
    pub fn traced(by: Pid) -> Obstacle {
        let name = process::read_all(by, "comm").unwrap_or_default();
        let program = match name.trim_end().replace(char::is_control, "\u{fffd}") {
            name if name.is_empty() => "another program".to_owned(),
            name => name,
        };
        Obstacle::Traced { by, program }
    }

    /// Why a file of `/proc/PID` is not there.
    fn missing(pid: Pid) -> Obstacle {
        // Every process has this one, and everybody may see that it is there.
        match std::fs::metadata(format!("/proc/{pid}/stat")) {
            Ok(_) => Obstacle::Failed { errno: Errno::ENOENT },
            Err(_) if exists(pid) => Obstacle::Hidden,
            Err(_) => Obstacle::Gone,
        }
    }

    fn refused(pid: Pid, errno: Errno) -> Obstacle {
        let target = match process::read_all(pid, "status") {
            Ok(text) => uid(&text),
            // Nothing but `hidepid` makes this file unreadable (fs/proc/base.c,
            // `has_pid_permissions`).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Obstacle::Hidden,
            Err(_) => return Obstacle::missing(pid),
        };
        let Some(target) = target else {
            return Obstacle::Gone;
        };
        // The files of a process that is not dumpable are root's, its directory is not
        // (fs/proc/base.c, `task_dump_owner`).
        let owner =
            std::fs::metadata(format!("/proc/{pid}/status")).map_or(target, |meta| Uid::from_raw(meta.uid()));
        Facts {
            target,
            dumpable: owner == target,
            own: Uid::effective(),
            capabilities: process::read_file("/proc/thread-self/status", 8 * 1024)
                .ok()
                .and_then(|text| capabilities(&text))
                .unwrap_or(0),
            tracer: process::tracer(pid),
            yama: process::read_file("/proc/sys/kernel/yama/ptrace_scope", 16)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            errno,
        }
        .judge()
    }
}

/// All that decides.
#[derive(Debug, Clone, Copy)]
struct Facts {
    target: Uid,
    dumpable: bool,
    own: Uid,
    capabilities: u64,
    tracer: Option<Pid>,
    yama: u8,
    errno: Errno,
}

impl Facts {
    fn judge(self) -> Obstacle {
        let may_trace = self.capabilities & SYS_PTRACE != 0;
        let may_open = self.own == self.target || self.capabilities & DAC_READ_SEARCH != 0;
        if may_trace {
            return match (self.tracer, self.yama) {
                (Some(by), _) if self.errno == Errno::EPERM => Obstacle::traced(by),
                (_, 3..) => Obstacle::Yama { scope: self.yama },
                _ if self.errno == Errno::EACCES && !(may_open && self.dumpable) && !self.own.is_root() => {
                    Obstacle::FileMode
                }
                _ => Obstacle::Policy { errno: self.errno },
            };
        }
        if self.own.is_root() {
            return Obstacle::NoCapability;
        }
        if self.own != self.target {
            return Obstacle::OtherUser {
                user: user_name(self.target),
                own: user_name(self.own),
            };
        }
        if !self.dumpable {
            return Obstacle::NotDumpable {
                user: user_name(self.target),
            };
        }
        match self.yama {
            0 => Obstacle::Policy { errno: self.errno },
            scope => Obstacle::Yama { scope },
        }
    }
}

/// Whether there is such a process, whatever `/proc` shows (kill(2) with signal 0).
fn exists(pid: Pid) -> bool {
    let Some(raw) = Some(pid.0).filter(|&number| number > 0) else {
        return false;
    };
    let answer = rustix::process::Pid::from_raw(raw).map(rustix::process::test_kill_process);
    matches!(answer, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// A user's name, or its number where it has none.
fn user_name(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// The effective user, the second of the four numbers after `Uid:`.
fn uid(status: &str) -> Option<Uid> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Uid::from_raw)
}

fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Facts = Facts {
        target: Uid::from_raw(4_000_001),
        dumpable: true,
        own: Uid::from_raw(4_000_001),
        capabilities: 0,
        tracer: None,
        yama: 0,
        errno: Errno::EPERM,
    };

    #[test]
    fn each_reason_is_found_and_names_its_remedy() {
        let other = Uid::from_raw(4_000_002);
        let root = Uid::from_raw(0);
        let user = || "uid 4000001".to_owned();
        let cases = [
            (OPEN, Obstacle::Policy { errno: Errno::EPERM }, "seccomp"),
            (
                Facts {
                    dumpable: false,
                    ..OPEN
                },
                Obstacle::NotDumpable { user: user() },
                "process.dumpable = yes",
            ),
            (
                Facts {
                    own: other,
                    dumpable: false,
                    ..OPEN
                },
                Obstacle::OtherUser {
                    user: user(),
                    own: "uid 4000002".to_owned(),
                },
                "run as root",
            ),
            (
                Facts { own: root, ..OPEN },
                Obstacle::NoCapability,
                "--cap-add SYS_PTRACE",
            ),
            (
                Facts { yama: 1, ..OPEN },
                Obstacle::Yama { scope: 1 },
                "allows only descendants, and it is none of this process (give CAP_SYS_PTRACE, or set it to 0)",
            ),
            (
                Facts { yama: 2, ..OPEN },
                Obstacle::Yama { scope: 2 },
                "wants a capability (give CAP_SYS_PTRACE",
            ),
            (
                Facts {
                    yama: 3,
                    capabilities: SYS_PTRACE,
                    ..OPEN
                },
                Obstacle::Yama { scope: 3 },
                "reboot",
            ),
            (
                Facts {
                    own: root,
                    capabilities: SYS_PTRACE,
                    tracer: Some(Pid(-5)),
                    ..OPEN
                },
                Obstacle::Traced {
                    by: Pid(-5),
                    program: "another program".to_owned(),
                },
                "another program (process -5) already traces it",
            ),
            (
                Facts {
                    own: other,
                    capabilities: SYS_PTRACE,
                    errno: Errno::EACCES,
                    ..OPEN
                },
                Obstacle::FileMode,
                "CAP_DAC_READ_SEARCH",
            ),
        ];
        for (facts, expected, remedy) in cases {
            let obstacle = facts.judge();
            assert_eq!(obstacle, expected, "{facts:?}");
            assert!(obstacle.to_string().contains(remedy), "{obstacle}");
        }
    }

    #[test]
    fn a_file_that_is_missing_and_a_process_that_is_missing_are_told_apart() {
        let not_found = || io::Error::from_raw_os_error(Errno::ENOENT as i32);
        let own = Pid(std::process::id().try_into().unwrap());
        assert_eq!(
            Obstacle::behind(own, &not_found()),
            Obstacle::Failed { errno: Errno::ENOENT }
        );
        for number in [0, -1, i32::MAX] {
            assert_eq!(Obstacle::behind(Pid(number), &not_found()), Obstacle::Gone);
            assert_eq!(Obstacle::of(Pid(number)), Obstacle::Gone);
        }
    }

    #[test]
    fn status_is_read() {
        let status = "Name:\tphp\nUid:\t0\t33\t33\t33\nCapEff:\t0000000000080004\n";
        assert_eq!(uid(status), Some(Uid::from_raw(33)));
        assert_eq!(capabilities(status), Some(SYS_PTRACE | DAC_READ_SEARCH));
        assert_eq!(uid("Uid:\t0\n"), None);
        assert_eq!(capabilities("CapEff:\tx\n"), None);
    }
}
