//! What this reader may do with a process: tried, not deduced.
//!
//! The kernel's rules (ptrace(2), "Ptrace access mode checking") depend on users,
//! capabilities, the dumpable flag, Yama, user namespaces and system call filters; no
//! reader guesses them right. So [`Rights::try_all`] tries each way once, harmlessly,
//! and only a refusal makes it look for the reason.
//!
//! Ladder, best first: everything; everything but holding a running process; PHP frames
//! only (from a memory descriptor that the process handed over); the system call only;
//! the state only. [`Rights`] prints as one line for the log.

mod obstacle;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use glasspool_abi::Pid;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::memory::{MemFd, ReadError, TargetAddr, TargetMemory};
use crate::process;
use crate::stop::{StopError, may_hold};

pub use obstacle::Obstacle;

/// What may be done, or why not.
pub type Right = Result<(), Obstacle>;

/// What a process has handed over of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Handed<'a> {
    /// Its open `/proc/PID/mem`.
    pub memory: Option<BorrowedFd<'a>>,
    /// Its open `/proc/PID/syscall`.
    pub calls: Option<BorrowedFd<'a>>,
}

/// What this reader may do with one process. Found out by trying; may change when the
/// process changes its user or its dumpable flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The process.
    pub pid: Pid,
    /// Read its memory through a descriptor that it handed over. `None`: it gave none.
    pub handed_memory: Option<Right>,
    /// Open its `/proc/PID/mem`.
    pub memory: Right,
    /// Read its memory with `process_vm_readv`.
    pub vm_read: Right,
    /// See the system call it is in, and where its stack is, without holding it.
    pub calls: Right,
    /// Duplicate its descriptors, to name the peers of its sockets.
    pub descriptors: Right,
    /// See which files are mapped where.
    pub maps: Right,
    /// Open the files it has mapped, as it sees them.
    pub files: Right,
    /// Hold it.
    pub hold: Right,
}

/// How much a look at a process can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Whether it runs.
    StateOnly,
    /// The system call or at least the kernel function it waits in.
    WaitOnly,
    /// PHP frames. A running process may give outer frames only.
    PhpOnly,
    /// PHP and native frames and waits, but a running process cannot be held.
    Unstopped,
    /// All there is.
    Everything,
}

impl Rights {
    /// Tries everything once on `pid`, its files through `handed` where it gave them. The
    /// process notices nothing. Takes about 0.3 ms.
    #[must_use]
    pub fn try_all(pid: Pid, handed: Handed<'_>) -> Rights {
        let tried = |result: io::Result<()>| result.map_err(|error| Obstacle::behind(pid, &error));
        Rights {
            pid,
            handed_memory: handed.memory.map(|fd| tried(read_something(&MemFd::new(fd)))),
            memory: tried(open(pid, "mem")),
            vm_read: tried(vm_read(pid)),
            calls: tried(match handed.calls {
                Some(file) => process::read_handed(file).map(drop),
                None => process::read_all(pid, "syscall").map(drop),
            }),
            descriptors: tried(copy_none(pid)),
            maps: tried(process::read_all(pid, "maps").map(drop)),
            files: tried(std::fs::metadata(format!("/proc/{pid}/root/")).map(drop)),
            hold: may_hold(pid).map_err(|error| match error {
                StopError::Gone { .. } => Obstacle::Gone,
                StopError::Busy { tracer, .. } => Obstacle::traced(tracer),
                StopError::Kernel { source, .. } => Obstacle::behind(pid, &source),
                StopError::Denied { .. } | StopError::NotRunning { .. } | StopError::Timeout { .. } => {
                    Obstacle::of(pid)
                }
            }),
        }
    }

    /// Whether its memory can be read, in whatever way.
    #[must_use]
    pub fn reads_memory(&self) -> bool {
        self.handed_memory == Some(Ok(())) || self.memory.is_ok() || self.vm_read.is_ok()
    }

    /// The highest rung that is reached.
    #[must_use]
    pub fn rung(&self) -> Rung {
        let native = self.calls.is_ok() && self.maps.is_ok() && self.files.is_ok();
        match (self.reads_memory(), native, self.hold.is_ok()) {
            (true, true, true) => Rung::Everything,
            (true, true, false) => Rung::Unstopped,
            (true, false, _) => Rung::PhpOnly,
            (false, _, _) if self.calls.is_ok() => Rung::WaitOnly,
            (false, _, _) => Rung::StateOnly,
        }
    }

    /// What is missing, each with its reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, &Obstacle)> {
        let memory = match self.reads_memory() {
            true => &Ok(()),
            false => &self.memory,
        };
        let each = [
            ("memory", memory),
            ("system calls", &self.calls),
            ("peers of sockets", &self.descriptors),
            (
                "mapped files",
                if self.maps.is_err() {
                    &self.maps
                } else {
                    &self.files
                },
            ),
            ("holding it while it runs", &self.hold),
        ];
        each.into_iter()
            .filter_map(|(what, right)| Some((what, right.as_ref().err()?)))
            .collect()
    }
}

/// One line: what is possible, what is missing and why, and the one thing to do.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {}", self.pid, self.rung())?;
        let missing = self.missing();
        let mut told: Vec<&Obstacle> = Vec::new();
        for (_, obstacle) in &missing {
            if told.contains(obstacle) {
                continue;
            }
            told.push(obstacle);
            let whats: Vec<&str> = missing
                .iter()
                .filter(|(_, other)| other == obstacle)
                .map(|(what, _)| *what)
                .collect();
            write!(f, "; without {}, because {obstacle}", whats.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rung::Everything => "PHP and native stacks, waits and peers, running or blocked",
            Rung::Unstopped => "PHP and native stacks, waits and peers of a blocked process",
            Rung::PhpOnly => "PHP stacks",
            Rung::WaitOnly => "what it waits in, no stack",
            Rung::StateOnly => "whether it runs, nothing else",
        })
    }
}

fn open(pid: Pid, file: &str) -> io::Result<()> {
    File::open(format!("/proc/{pid}/{file}")).map(drop)
}

/// Nothing is mapped at address 8; the kernel says so to those who may know.
fn read_something(mem: &MemFd<BorrowedFd<'_>>) -> io::Result<()> {
    match mem.read(TargetAddr(8), &mut [0]) {
        Ok(()) | Err(ReadError::Fault { .. }) => Ok(()),
        Err(ReadError::Gone) => Err(io::ErrorKind::NotFound.into()),
        Err(ReadError::Denied) => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

fn vm_read(pid: Pid) -> io::Result<()> {
    let mut byte = [0];
    let remote = RemoteIoVec { base: 8, len: 1 };
    let read = process_vm_readv(
        nix::unistd::Pid::from_raw(pid.0),
        &mut [io::IoSliceMut::new(&mut byte)],
        &[remote],
    );
    match read {
        Ok(_) | Err(nix::errno::Errno::EFAULT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks for a descriptor that no process has: the kernel checks the right first
/// (kernel/pid.c, `__pidfd_fget`), so nothing is ever duplicated.
fn copy_none(pid: Pid) -> io::Result<()> {
    let raw = rustix::process::Pid::from_raw(pid.0).ok_or(io::ErrorKind::NotFound)?;
    let handle = pidfd_open(raw, PidfdFlags::empty())?;
    match pidfd_getfd(handle, i32::MAX, PidfdGetfdFlags::empty()) {
        Ok(_) | Err(rustix::io::Errno::BADF) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(right: &Right) -> Rights {
        Rights {
            pid: Pid(7),
            handed_memory: None,
            memory: right.clone(),
            vm_read: right.clone(),
            calls: right.clone(),
            descriptors: right.clone(),
            maps: right.clone(),
            files: right.clone(),
            hold: right.clone(),
        }
    }

    #[test]
    fn each_rung_has_its_line() {
        let not_dumpable = Obstacle::NotDumpable {
            user: "www-data".to_owned(),
        };
        let denied = Err(not_dumpable.clone());
        let everything = all(&Ok(()));
        assert_eq!(everything.rung(), Rung::Everything);
        assert_eq!(
            everything.to_string(),
            "process 7: PHP and native stacks, waits and peers, running or blocked"
        );
        let traced = Rights {
            hold: Err(Obstacle::Traced {
                by: Pid(9),
                program: "gdb".to_owned(),
            }),
            ..everything
        };
        assert_eq!(traced.rung(), Rung::Unstopped);
        assert_eq!(
            traced.to_string(),
            "process 7: PHP and native stacks, waits and peers of a blocked process; without holding it while \
             it runs, because gdb (process 9) already traces it (end that one first)"
        );
        let handed = Rights {
            handed_memory: Some(Ok(())),
            ..all(&denied)
        };
        assert_eq!(handed.rung(), Rung::PhpOnly);
        assert_eq!(
            handed.to_string(),
            "process 7: PHP stacks; without system calls, peers of sockets, mapped files, holding it while it \
             runs, because it runs as www-data and is not dumpable (run as root, give CAP_SYS_PTRACE, or set \
             process.dumpable = yes)"
        );
        let waits = Rights {
            calls: Ok(()),
            ..all(&denied)
        };
        assert_eq!(waits.rung(), Rung::WaitOnly);
        assert_eq!(all(&denied).rung(), Rung::StateOnly);
        assert!(
            all(&denied)
                .to_string()
                .contains("whether it runs, nothing else; without memory, system calls")
        );
    }

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_may_not_be_read() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid(child.id().try_into().unwrap());
        child.wait().unwrap();
        let rights = Rights::try_all(pid, Handed::default());
        assert_eq!(
            rights,
            Rights {
                pid,
                ..all(&Err(Obstacle::Gone))
            }
        );
    }
}
