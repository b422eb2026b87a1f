//! The snapshot of a sleeping thread, and the test that it has not been awake since.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use glasspool_abi::Pid;
use nix::errno::Errno;

use super::{Fact, Missing, Wait, decode};
use crate::memory::{TargetAddr, TargetMemory};
use crate::process::{self, RunCounters, RunState, Switches};
use crate::rights::Obstacle;

/// A thread that slept when it was looked at.
///
/// A thread that sleeps cannot change its stack. So whatever is read between
/// [`Blocked::read`] and a [`Blocked::is_unchanged`] that says yes is of one moment,
/// unless another thread or process writes to the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Blocked<'a> {
    pid: Pid,
    calls: Option<BorrowedFd<'a>>,
    seen: Seen,
}

/// What is equal as long as the thread has not been awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: RunState,
    counters: Counters,
    /// Or what the kernel said instead (an `errno`).
    place: Result<Place, i32>,
}

/// Where a thread is, as far as the kernel tells without a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Next instruction in user code.
    pub instruction: TargetAddr,
    /// Native stack pointer.
    pub stack: TargetAddr,
}

/// The contents of `/proc/PID/syscall` for a thread that sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// `None` outside of any call.
    call: Option<(u64, [u64; 6])>,
    position: Position,
}

/// How often the thread has run. Either is enough; a kernel may lack the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counters {
    Run(RunCounters),
    Switches(Switches),
}

impl Counters {
    fn read(pid: Pid) -> Option<Counters> {
        process::run_counters(pid)
            .map(Counters::Run)
            .or_else(|| process::switches(pid).map(Counters::Switches))
    }
}

impl<'a> Blocked<'a> {
    /// Looks at the main thread of `pid`; `None` if it does not sleep, or is gone.
    ///
    /// `calls` is its `/proc/PID/syscall`, if it has handed that over. The kernel checks the
    /// right to trace at each read (fs/proc/base.c, `lock_trace`), but the mode of the file,
    /// 0400, only at open: with an open file CAP_SYS_PTRACE alone is enough.
    #[must_use]
    pub fn read(pid: Pid, calls: Option<BorrowedFd<'a>>) -> Option<Blocked<'a>> {
        let seen = Seen::read(pid, calls)?;
        Some(Blocked { pid, calls, seen })
    }

    /// Whether the thread is in the same wait still and has not been awake since.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        Seen::read(self.pid, self.calls) == Some(self.seen)
    }

    /// Which process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether a signal could wake it.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.seen.state
    }

    /// Where its native stack is, or why the kernel does not tell this reader.
    pub fn position(&self) -> Result<Position, Obstacle> {
        match self.seen.place {
            Ok(place) => Ok(place.position),
            Err(errno) => Err(self.obstacle(errno)),
        }
    }

    /// Whether the call was interrupted and goes on as `restart_syscall`, which hides
    /// what it was. The innermost native function tells; see [`Blocked::wait`].
    #[must_use]
    pub fn is_restarted(&self) -> bool {
        matches!(self.seen.place, Ok(Place { call: Some((number, _)), .. })
            if process::syscall_name(number) == Some("restart_syscall"))
    }

    /// How long it has slept so far ([`process::asleep_for`], which may take longer than all
    /// else); `None` also if it has been awake since.
    #[must_use]
    pub fn so_far(&self) -> Option<Duration> {
        process::asleep_for(self.pid).filter(|_| self.is_unchanged())
    }

    /// What the wait means, without how long it has lasted. `innermost` is the innermost
    /// native function, where known; it names a call that was interrupted. Reads the
    /// target's memory and `/proc`, 20 us for each descriptor; valid if
    /// [`Blocked::is_unchanged`] afterwards.
    pub fn wait<M: TargetMemory>(&self, mem: &M, innermost: Option<&str>) -> Wait {
        let mut missing = Vec::new();
        let call = match self.seen.place {
            Ok(place) => place
                .call
                .map(|(number, args)| decode::call(self.pid, mem, number, args, innermost, &mut missing)),
            Err(errno) => {
                missing.push(Missing {
                    what: Fact::Call,
                    pid: self.pid,
                    why: self.obstacle(errno),
                });
                None
            }
        };
        Wait {
            call,
            state: self.seen.state,
            wchan: process::wchan(self.pid),
            so_far: None,
            missing,
        }
    }

    fn obstacle(&self, errno: i32) -> Obstacle {
        Obstacle::behind(self.pid, &io::Error::from_raw_os_error(errno))
    }
}

impl Seen {
    fn read(pid: Pid, calls: Option<BorrowedFd<'_>>) -> Option<Seen> {
        // Before the state: a thread that ran in between must not look untouched.
        let counters = Counters::read(pid)?;
        let state = process::state(pid).filter(|state| state.is_still())?;
        let text = match calls {
            Some(file) => process::read_handed(file),
            None => process::read_all(pid, "syscall"),
        };
        let place = match text {
            // Awake again, in spite of its state a moment ago.
            Ok(text) => Ok(parse(&text)?),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::ESRCH | Errno::ENOENT => return None,
                errno => Err(errno as i32),
            },
        };
        Some(Seen {
            state,
            counters,
            place,
        })
    }
}

/// `-1 SP PC` outside of a system call, or its number, six arguments, SP and PC. A
/// thread that runs is `running`: `None`.
fn parse(text: &str) -> Option<Place> {
    let mut fields = text.split_ascii_whitespace();
    let number: i64 = fields.next()?.parse().ok()?;
    let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let call = match u64::try_from(number) {
        Err(_) => None,
        Ok(number) => Some((number, [hex()?, hex()?, hex()?, hex()?, hex()?, hex()?])),
    };
    let stack = TargetAddr(hex()?);
    Some(Place {
        call,
        position: Position {
            instruction: TargetAddr(hex()?),
            stack,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_file_is_read_in_all_three_forms() {
        let position = Position {
            instruction: TargetAddr(0x7f00),
            stack: TargetAddr(0x7ffc),
        };
        assert_eq!(
            parse("7 0x1 0x2 0x3 0x0 0x0 0xf 0x7ffc 0x7f00\n"),
            Some(Place {
                call: Some((7, [1, 2, 3, 0, 0, 15])),
                position
            })
        );
        assert_eq!(parse("-1 0x7ffc 0x7f00\n"), Some(Place { call: None, position }));
        assert_eq!(parse("running\n"), None);
        assert_eq!(parse("7 0x1 0x2 0x3\n"), None);
        assert_eq!(parse("7 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_thread_that_has_been_awake_is_not_in_the_same_wait() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid(child.id().try_into().unwrap());
        let asleep = || loop {
            if let Some(blocked) = Blocked::read(pid, None).filter(Blocked::is_unchanged)
                && process::syscall_name(blocked.seen.place.unwrap().call.unwrap().0) == Some("read")
            {
                return blocked;
            }
            std::thread::yield_now();
        };
        let first = asleep();
        assert!(first.is_unchanged());
        // It answers, and is in the very same call with the same three arguments again.
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        std::io::Write::write_all(&mut stdin, b"x").unwrap();
        std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
        let second = asleep();
        let read = |blocked: &Blocked<'_>| {
            let (number, args) = blocked.seen.place.unwrap().call.unwrap();
            (number, args[..3].to_vec(), blocked.position())
        };
        assert_eq!(read(&second), read(&first));
        assert!(!first.is_unchanged());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!second.is_unchanged());
        assert!(Blocked::read(pid, None).is_none());
    }
}
