//! One look into a worker: which way to read it, and what is known afterwards.
//!
//! 1. It sleeps, and its run counters are the same before and after: the read is exact
//!    and costs it nothing.
//! 2. It runs: unstopped reads, each checked, up to a number of tries.
//! 3. None passed, stopping is allowed and permitted, and it still runs: it is held for
//!    one read.
//! 4. Otherwise the outer frames, those that do not change, are kept and marked as
//!    partial, with the reason.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;

use crate::memory::{MemFd, ReadError, TargetMemory};
use crate::php::Innermost;
use crate::php::args::Arguments;
use crate::php::check::{Checked, read_checked, read_outer, read_unchanged};
use crate::php::frames::{How, Partial, Stack, StackError, Want, read_held};
use crate::process::{self, RunState, Wait};
use crate::stop::{StopError, with_stopped};

/// A worker falls asleep and wakes while one looks; after so many looks that saw it
/// asleep but not still, it counts as running.
const STILL_TRIES: u32 = 3;

/// How long a target is waited for to stop. One that is on a CPU stops at once; one
/// that waits for a CPU must first get it.
const MAX_STOP_WAIT: Duration = Duration::from_millis(20);

/// A process to look into.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id, for `/proc` and for stopping.
    pub pid: Pid,
    /// Its open `/proc/PID/mem`. Must be of the same process as `pid`.
    pub mem: BorrowedFd<'a>,
    /// The PHP inside it.
    pub build: &'a PhpBuild,
}

/// The same for whatever kind of memory, and what else is known of it.
#[derive(Debug)]
pub(crate) struct Subject<'a, M> {
    pub(crate) pid: Pid,
    pub(crate) memory: &'a M,
    pub(crate) build: &'a PhpBuild,
    /// Whether the VM keeps frame and position in registers ([`Innermost::Registers`]).
    pub(crate) vm_registers: bool,
}

/// How far to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Frames to keep, innermost first.
    pub max_frames: usize,
    /// Unstopped reads of a running target; each takes about 10 us of the reader.
    pub tries: u32,
    /// Whether it may be held.
    pub stop: Stop,
    /// What is told of the arguments of each call.
    pub arguments: Arguments,
}

/// Whether a running target may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// When unstopped reads fail. A sleeping target is not held even then.
    IfNeeded,
    /// Never.
    Never,
    /// Whenever it runs, before any unstopped read: each line is exact.
    Always,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The PHP stack, and how it was obtained.
    pub stack: Stack,
    /// What the target waited in. `None` if it ran.
    pub wait: Option<Wait>,
    /// What the whole look took the reader, monotonic clock. What it took the target
    /// is in [`How::Stopped`], and is zero otherwise.
    pub cost: Duration,
    /// When the look began, wall clock.
    pub taken_at: SystemTime,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The target has exited or has become another program. Ordinary.
    #[error("cannot look into process {pid}: it is gone")]
    Gone {
        /// The process.
        pid: Pid,
    },
    /// Its memory, or the layout, is not readable.
    #[error("cannot look into process {pid}")]
    Read {
        /// The process.
        pid: Pid,
        /// Why.
        #[source]
        source: StackError,
    },
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_frames: 128,
            tries: 100,
            stop: Stop::IfNeeded,
            arguments: Arguments::Types,
        }
    }
}

/// Takes one sample. Blocks for 0.1 ms typically, some milliseconds at worst: not for
/// an event loop.
///
/// The descriptor alone is enough for a sleeping target, and most slow requests sleep;
/// other rights are used where there are any.
pub fn sample(target: &Target<'_>, options: &Options) -> Result<Sample, SampleError> {
    let subject = Subject {
        pid: target.pid,
        memory: &MemFd::new(target.mem),
        build: target.build,
        vm_registers: true,
    };
    sample_subject(&subject, options)
}

/// [`sample()`] of whatever can be read.
pub(crate) fn sample_subject<M: TargetMemory + Sync>(
    subject: &Subject<'_, M>,
    options: &Options,
) -> Result<Sample, SampleError> {
    let taken_at = SystemTime::now();
    let began = Instant::now();
    let pid = subject.pid;
    let (stack, wait) = look(subject, options).map_err(|source| match source {
        StackError::Memory(ReadError::Gone) => SampleError::Gone { pid },
        source => SampleError::Read { pid, source },
    })?;
    Ok(Sample {
        stack,
        wait,
        cost: began.elapsed(),
        taken_at,
    })
}

fn look<M: TargetMemory + Sync>(
    subject: &Subject<'_, M>,
    options: &Options,
) -> Result<(Stack, Option<Wait>), StackError> {
    let running = |stack| (stack, None);
    if let Some((stack, wait)) = read_still(subject, options)? {
        return Ok((stack, Some(wait)));
    }
    let want = options.want();
    let (tries, defect) = match read_checked(subject.memory, subject.build, &want, options.tries)? {
        Checked::Stack(stack) => return Ok(running(stack)),
        Checked::GaveUp { tries, defect } => (tries, defect),
    };
    let reason = match options.stop {
        Stop::Never => Partial::Moving { tries, defect },
        Stop::IfNeeded | Stop::Always => match read_stopped(subject, options) {
            Ok(stack) => return stack.map(running),
            Err(StopError::Gone { .. }) => return Err(ReadError::Gone.into()),
            Err(refused) => {
                // What keeps a process from being held is often that it sleeps now.
                if let Some((stack, wait)) = read_still(subject, options)? {
                    return Ok((stack, Some(wait)));
                }
                Partial::NotStopped {
                    tries,
                    stop: refused.to_string(),
                }
            }
        },
    };
    read_outer(subject.memory, subject.build, &want, reason).map(running)
}

/// Reads a target that sleeps; `None` if it does not, or not long enough.
///
/// A process in state S or D has left its user code; if its counters did not move
/// until after the read, it has not been back. The state is looked at on both sides
/// because a process can be marked as sleeping for a moment before it really leaves
/// the CPU, and the stack is compared as well: that costs two reads and leaves nothing
/// to the scheduler's accounting.
fn read_still<M: TargetMemory>(
    target: &Subject<'_, M>,
    options: &Options,
) -> Result<Option<(Stack, Wait)>, StackError> {
    for _ in 0..STILL_TRIES {
        let before = process::run_counters(target.pid);
        let state = process::state(target.pid);
        let Some(state) = state.filter(|state| state.is_still()) else {
            return Ok(None);
        };
        // Before a call that may sleep PHP saves its position; before a page fault
        // (state D) or a stop it does not.
        let innermost = match state {
            RunState::Sleeping => Innermost::Saved,
            _ => Innermost::Stale,
        };
        let stack = read_unchanged(target.memory, target.build, &options.want(), innermost)?;
        let wait = process::wait(target.pid);
        let still = process::state(target.pid) == Some(state)
            && before.is_some()
            && process::run_counters(target.pid) == before;
        if let Some(stack) = stack.filter(|_| still) {
            return Ok(Some((stack, wait)));
        }
    }
    Ok(None)
}

/// Reads a target that is held meanwhile. The outer error is the stop's.
fn read_stopped<M: TargetMemory + Sync>(
    target: &Subject<'_, M>,
    options: &Options,
) -> Result<Result<Stack, StackError>, StopError> {
    let want = options.want();
    let (stack, stop) = with_stopped(target.pid, MAX_STOP_WAIT, |registers| {
        let registers = registers.filter(|_| target.vm_registers);
        read_held(target.memory, target.build, &want, registers)
    })?;
    Ok(stack.map(|stack| match stack.how {
        How::Exact => Stack {
            how: How::Stopped { stop },
            ..stack
        },
        _ => stack,
    }))
}

// === impl Options ===

impl Options {
    fn want(&self) -> Want {
        Want {
            max_frames: self.max_frames,
            arguments: self.arguments.clone(),
        }
    }
}
