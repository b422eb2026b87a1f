//! Holding a running process for as long as one read, with PTRACE_SEIZE and
//! PTRACE_INTERRUPT (ptrace(2)).
//!
//! **Never a sleeping one.** A stop makes timed socket calls, `epoll_wait`, `semop` and
//! others return EINTR, restart flag or not (signal(7)); a script would see an error
//! that nobody else sees. So the state is looked at before the attach and again between
//! attach and interrupt, and anything but running is refused. A process that falls
//! asleep in the microseconds after that cannot be told; it happens to a process that
//! was busy until then, and is all that is left of the problem.
//!
//! **One thread per stop.** The kernel ties a tracee to the *thread* that attached, and
//! detaches it when that thread ends. So each stop has a thread of its own, from attach
//! to detach: whatever happens on it (a panic, a target that does not stop in time and
//! so cannot be detached), the end of the thread lets the target go.
//!
//! SEIZE sends no SIGSTOP and does not change how the parent sees its child, as ATTACH
//! does. A signal that arrives at the wrong moment is passed on.

use std::thread;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use rustix::event::{Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::process::{self, RunState};

/// A stop comes within 10-60 us; the wait gives up its CPU to the target until then.
const SPIN: Duration = Duration::from_micros(300);
/// After that it looks again every so often. The kernel offers no descriptor to wait
/// on for a ptrace stop, and SIGCHLD is not this room's.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000,
};

/// A thread that has been joined is gone within microseconds.
const MAX_THREAD_END: Duration = Duration::from_millis(50);

/// `PTRACE_EVENT_STOP` in the second byte of a stop's status: the trap we asked for, or
/// a group stop. Anything else is a signal on its way to the target.
const EVENT_STOP: i32 = 128;

/// Registers of a held process that matter to a reader of PHP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Next instruction.
    pub instruction: u64,
    /// Native stack pointer.
    pub stack: u64,
    /// Native frame pointer: rbp, or x29.
    pub frame: u64,
    /// Return address of the innermost function: x30. Zero on x86_64, which keeps it
    /// on the stack.
    pub link: u64,
    /// Where PHP's hybrid VM keeps the current frame while it runs: r14, or x27.
    pub vm_frame: u64,
    /// Where it keeps the current position: r15, or x28.
    pub vm_opline: u64,
    /// The system call that was entered, if the process is in one. Only on x86_64.
    pub syscall: Option<u64>,
}

/// Why a process was not held. None of them leaves it changed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The kernel refuses to trace it.
    #[error(
        "cannot hold process {pid}: ptrace is not permitted (run as root, or give CAP_SYS_PTRACE; kernel.yama.ptrace_scope may forbid it too)"
    )]
    Denied {
        /// The process.
        pid: Pid,
    },
    /// It has exited.
    #[error("cannot hold process {pid}: it has exited")]
    Gone {
        /// The process.
        pid: Pid,
    },
    /// Another tracer has it, and there can be only one.
    #[error("cannot hold process {pid}: process {tracer} already traces it")]
    Busy {
        /// The process.
        pid: Pid,
        /// Its tracer.
        tracer: Pid,
    },
    /// It sleeps: a stop could break what it waits in, and is not needed.
    #[error("did not hold process {pid}: it does not run ({state:?})")]
    NotRunning {
        /// The process.
        pid: Pid,
        /// What it does.
        state: RunState,
    },
    /// It did not stop in time. It has been let go.
    #[error("process {pid} did not stop within {waited:?}")]
    Timeout {
        /// The process.
        pid: Pid,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A system call failed in a way that is none of the above.
    #[error("cannot hold process {pid}: {call}")]
    Kernel {
        /// The process.
        pid: Pid,
        /// The system call.
        call: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

/// Holds `pid` while `look` runs, and returns what it returned, and how long the
/// process was held: from asking for the stop to its release, typically 20-60 us plus
/// the time of `look`. Waits at most `max_wait` for the stop.
///
/// `look` runs on another thread and must not wait for anything: the request that the
/// process serves waits with it. Blocks the calling thread; starts and ends a thread.
/// The caller's process must not wait for `pid` by `waitpid` on another thread meanwhile.
pub fn with_stopped<T: Send>(
    pid: Pid,
    max_wait: Duration,
    look: impl FnOnce(Option<&Registers>) -> T + Send,
) -> Result<(T, Duration), StopError> {
    thread::scope(|scope| {
        let tracer = thread::Builder::new()
            .name("tracer".to_owned())
            .spawn_scoped(scope, || (hold(pid, max_wait, look), rustix::thread::gettid()))
            .map_err(|source| StopError::Kernel {
                pid,
                call: "clone",
                source,
            })?;
        let (held, thread) = tracer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match held {
            Ok(Seen {
                value,
                stop: Some(stop),
                ..
            }) => Ok((value, stop)),
            Ok(Seen {
                value,
                asked,
                stop: None,
            }) => {
                await_end_of_thread(pid, thread);
                Ok((value, asked.elapsed()))
            }
            Err(error) => {
                await_end_of_thread(pid, thread);
                Err(error)
            }
        }
    })
}

/// Tries whether `pid` may be held, without holding it: it is attached to and let go.
/// Neither wakes it, so that what it waits in does not notice. Starts and ends a thread.
pub fn may_hold(pid: Pid) -> Result<(), StopError> {
    let tracer = thread::Builder::new()
        .name("tracer".to_owned())
        .spawn(move || {
            let target = nix::unistd::Pid::from_raw(pid.0);
            let tried = ptrace::seize(target, ptrace::Options::empty());
            let tried = tried.map_err(|errno| refused(pid, "ptrace(SEIZE)", errno));
            (tried, rustix::thread::gettid())
        })
        .map_err(|source| StopError::Kernel {
            pid,
            call: "clone",
            source,
        })?;
    let (tried, thread) = tracer
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // The end of the thread lets it go: a detach needs a target that has stopped.
    await_end_of_thread(pid, thread);
    tried
}

/// What a look at a held process gave.
#[derive(Debug)]
struct Seen<T> {
    value: T,
    /// When the stop was asked for.
    asked: Instant,
    /// How long it lasted; `None` if it lasts until the tracer thread has ended.
    stop: Option<Duration>,
}

/// From attach to detach, on the tracer thread.
fn hold<T>(
    pid: Pid,
    max_wait: Duration,
    look: impl FnOnce(Option<&Registers>) -> T,
) -> Result<Seen<T>, StopError> {
    require_running(pid)?;
    let target = nix::unistd::Pid::from_raw(pid.0);
    ptrace::seize(target, ptrace::Options::empty()).map_err(|errno| refused(pid, "ptrace(SEIZE)", errno))?;
    // From here on a return without a detach is put right by the end of the thread.
    require_running(pid)?;
    let asked = Instant::now();
    ptrace::interrupt(target).map_err(|errno| refused(pid, "ptrace(INTERRUPT)", errno))?;
    let held = Held {
        target,
        release: wait_for_stop(pid, asked, max_wait)?,
    };
    let registers = registers(target);
    let value = look(registers.as_ref());
    let by_detach = matches!(held.release, Release::Detach(_));
    drop(held);
    Ok(Seen {
        value,
        asked,
        stop: by_detach.then(|| asked.elapsed()),
    })
}

/// The kernel lets the target go a few microseconds after the thread can be joined
/// (`exit_notify` comes after `exit_mm` in kernel/exit.c). Until then it would look as
/// if somebody else traced it.
fn await_end_of_thread(pid: Pid, thread: rustix::thread::Pid) {
    let began = Instant::now();
    while process::tracer(pid) == Some(Pid(thread.as_raw_nonzero().get())) && began.elapsed() < MAX_THREAD_END
    {
        thread::yield_now();
    }
}

fn require_running(pid: Pid) -> Result<(), StopError> {
    match process::state(pid) {
        None | Some(RunState::Dead) => Err(StopError::Gone { pid }),
        Some(RunState::Running) => Ok(()),
        // A tracer's stop: say who it is rather than that it does not run.
        Some(state) => match process::tracer(pid).filter(|_| state == RunState::Stopped) {
            Some(tracer) if tracer.0 != rustix::thread::gettid().as_raw_nonzero().get() => {
                Err(StopError::Busy { pid, tracer })
            }
            _ => Err(StopError::NotRunning { pid, state }),
        },
    }
}

fn refused(pid: Pid, call: &'static str, errno: Errno) -> StopError {
    match errno {
        Errno::ESRCH => StopError::Gone { pid },
        // Both the lack of the right and a tracer that was first are EPERM.
        Errno::EPERM | Errno::EACCES => match process::tracer(pid) {
            Some(tracer) => StopError::Busy { pid, tracer },
            None => StopError::Denied { pid },
        },
        other => StopError::Kernel {
            pid,
            call,
            source: other.into(),
        },
    }
}

/// Waits until the target is in a ptrace stop, and says how it has to be released.
///
/// The stop is looked at, not consumed (WNOWAIT): an exit stays there for the parent,
/// and a signal stays with the target should the thread end before it is passed on.
fn wait_for_stop(pid: Pid, asked: Instant, max_wait: Duration) -> Result<Release, StopError> {
    let id = rustix::process::Pid::from_raw(pid.0).ok_or(StopError::Gone { pid })?;
    let options =
        WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(id), options) {
            Ok(Some(status)) => match status.trapping_signal() {
                Some(status) => return Ok(Release::after(status)),
                None => return Err(StopError::Gone { pid }),
            },
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Err(StopError::Gone { pid }),
            Err(errno) => {
                return Err(StopError::Kernel {
                    pid,
                    call: "waitid",
                    source: errno.into(),
                });
            }
        }
        let waited = asked.elapsed();
        if waited >= max_wait {
            return Err(StopError::Timeout { pid, waited });
        }
        if waited < SPIN {
            thread::yield_now();
        } else {
            // An interrupted nap is a shorter nap.
            let _ = poll(&mut [], Some(&NAP)).unwrap_or(0);
        }
    }
}

/// How a held process is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// By a detach that delivers this signal, if any.
    Detach(Option<Signal>),
    /// By the end of the thread: the stop holds a real-time signal, which has no name
    /// to pass to a detach; the kernel's own detach leaves it in place.
    EndOfThread,
}

impl Release {
    /// `status` as waitid(2) gives it for a trap: a signal, and the event above it.
    fn after(status: i32) -> Release {
        if status >> 8 == EVENT_STOP {
            return Release::Detach(None);
        }
        match Signal::try_from(status) {
            Ok(signal) => Release::Detach(Some(signal)),
            Err(_) => Release::EndOfThread,
        }
    }
}

/// A process in a ptrace stop; let go on drop.
#[derive(Debug)]
struct Held {
    target: nix::unistd::Pid,
    release: Release,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Release::Detach(signal) = self.release {
            // It fails only if the process has been killed meanwhile.
            let _killed = ptrace::detach(self.target, signal).is_err();
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(target: nix::unistd::Pid) -> Option<Registers> {
    let regs = ptrace::getregs(target).ok()?;
    Some(Registers {
        instruction: regs.rip,
        stack: regs.rsp,
        frame: regs.rbp,
        link: 0,
        vm_frame: regs.r14,
        vm_opline: regs.r15,
        // -1 outside of a system call.
        syscall: Some(regs.orig_rax).filter(|&number| number != u64::MAX),
    })
}

#[cfg(target_arch = "aarch64")]
fn registers(target: nix::unistd::Pid) -> Option<Registers> {
    let regs = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(target).ok()?;
    Some(Registers {
        instruction: regs.pc,
        stack: regs.sp,
        frame: regs.regs[29],
        link: regs.regs[30],
        vm_frame: regs.regs[27],
        vm_opline: regs.regs[28],
        syscall: None,
    })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: nix::unistd::Pid) -> Option<Registers> {
    None
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
