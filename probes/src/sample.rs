//! One look into a worker: which way to read it, and what is known afterwards.
//!
//! 1. It sleeps, and its run counters are the same before and after: the read is exact
//!    and costs it nothing. Only then is what it waits in of the same moment.
//! 2. It runs: unstopped reads, each checked, up to a number of tries.
//! 3. None passed, stopping is allowed and permitted, and it still runs: it is held for
//!    one read. With [`Stop::Always`] this comes before 2.
//! 4. Otherwise the outer frames, those that do not change, are kept and marked as
//!    partial, with the reason.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;

use crate::memory::{MemFd, ReadError, TargetMemory};
use crate::native::{Copied, NativeStack, Natives};
use crate::php::Innermost;
use crate::php::args::Arguments;
use crate::php::check::{Checked, read_checked, read_outer, read_unchanged};
use crate::php::frames::{How, Partial, Stack, StackError, Want};
use crate::php::held::HeldReader;
use crate::process::RunState;
use crate::stop::{Registers, StopError, with_stopped};
use crate::wait::{Blocked, Wait};

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
    /// Its open `/proc/PID/syscall`, likewise. `None`: opened by path, which takes more
    /// rights.
    pub calls: Option<BorrowedFd<'a>>,
    /// The PHP inside it.
    pub build: &'a PhpBuild,
    /// The registers in which PHP's VM keeps its frame and its position, as the process
    /// itself saved them before it went to sleep where it is now: in its handler of a
    /// signal that ends it. Believed only where they fit the frames.
    pub saved_registers: Option<[u64; 2]>,
}

/// The same for whatever kind of memory, and what else is known of it.
#[derive(Debug)]
pub(crate) struct Subject<'a, M> {
    pub(crate) pid: Pid,
    pub(crate) memory: &'a M,
    pub(crate) calls: Option<BorrowedFd<'a>>,
    pub(crate) build: &'a PhpBuild,
    /// Whether the VM keeps frame and position in registers ([`Innermost::Registers`]).
    pub(crate) vm_registers: bool,
    pub(crate) saved_registers: Option<[u64; 2]>,
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
    /// What the target waited in, at the moment of the stack. `None` if it ran.
    pub wait: Option<Wait>,
    /// The native stack of that moment. `None` if it was not asked for, or the target ran
    /// and was not held. Without the right to read it, it is empty and says why.
    pub native: Option<NativeStack>,
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

/// Takes one sample. Blocks for 0.3 ms typically, some milliseconds at worst: not for
/// an event loop.
///
/// The descriptor alone is enough for the PHP stack of a sleeping target, and most slow
/// requests sleep; other rights are used where there are any.
pub fn sample(target: &Target<'_>, options: &Options) -> Result<Sample, SampleError> {
    sample_target(target, options, None)
}

/// The same with the native stack of a target that sleeps or is held. Costs 10 us more when
/// the object files are known, and up to 0.1 s for the first stack of a PHP.
pub fn sample_with_native(
    target: &Target<'_>,
    options: &Options,
    natives: Natives<'_>,
) -> Result<Sample, SampleError> {
    sample_target(target, options, Some(natives))
}

fn sample_target(
    target: &Target<'_>,
    options: &Options,
    natives: Option<Natives<'_>>,
) -> Result<Sample, SampleError> {
    let subject = Subject {
        pid: target.pid,
        memory: &MemFd::new(target.mem),
        calls: target.calls,
        build: target.build,
        vm_registers: true,
        saved_registers: target.saved_registers,
    };
    sample_subject(&subject, options, natives)
}

/// [`sample()`] of whatever can be read.
pub(crate) fn sample_subject<M: TargetMemory + Sync>(
    subject: &Subject<'_, M>,
    options: &Options,
    natives: Option<Natives<'_>>,
) -> Result<Sample, SampleError> {
    let taken_at = SystemTime::now();
    let began = Instant::now();
    let pid = subject.pid;
    let seen = look(subject, options, natives).map_err(|source| match source {
        StackError::Memory(ReadError::Gone) => SampleError::Gone { pid },
        source => SampleError::Read { pid, source },
    })?;
    Ok(Sample {
        stack: seen.stack,
        wait: seen.wait,
        native: seen.native,
        cost: began.elapsed(),
        taken_at,
    })
}

/// What one moment gave.
struct Seen {
    stack: Stack,
    wait: Option<Wait>,
    native: Option<NativeStack>,
}

impl Seen {
    /// Of a target that ran, and was not held.
    fn running(stack: Stack) -> Seen {
        Seen {
            stack,
            wait: None,
            native: None,
        }
    }
}

fn look<M: TargetMemory + Sync>(
    subject: &Subject<'_, M>,
    options: &Options,
    mut natives: Option<Natives<'_>>,
) -> Result<Seen, StackError> {
    if let Some(seen) = read_still(subject, options, &mut natives)? {
        return Ok(seen);
    }
    if options.stop == Stop::Always
        && let Held::Seen(seen) = hold(subject, options, &mut natives)?
    {
        return Ok(*seen);
    }
    let want = options.want();
    let (tries, defect) = match read_checked(subject.memory, subject.build, &want, options.tries)? {
        Checked::Stack(stack) => return Ok(Seen::running(stack)),
        Checked::GaveUp { tries, defect } => (tries, defect),
    };
    let reason = match options.stop {
        Stop::Never => Partial::Moving { tries, defect },
        Stop::IfNeeded | Stop::Always => match hold(subject, options, &mut natives)? {
            Held::Seen(seen) => return Ok(*seen),
            Held::Refused(refused) => Partial::NotStopped {
                tries,
                stop: refused.to_string(),
            },
        },
    };
    read_outer(subject.memory, subject.build, &want, reason).map(Seen::running)
}

/// Reads a target that sleeps; `None` if it does not, or not long enough.
///
/// A process in state S or D has left its user code; if its counters did not move
/// until after the read, it has not been back. The state is looked at on both sides
/// because a process can be marked as sleeping for a moment before it really leaves
/// the CPU, and the stack is compared as well: that costs two reads and leaves nothing
/// to the scheduler's accounting.
fn read_still<M: TargetMemory>(
    subject: &Subject<'_, M>,
    options: &Options,
    natives: &mut Option<Natives<'_>>,
) -> Result<Option<Seen>, StackError> {
    let memory = subject.memory;
    for _ in 0..STILL_TRIES {
        let Some(blocked) = Blocked::read(subject.pid, subject.calls) else {
            return Ok(None);
        };
        let innermost = subject.innermost_of(&blocked);
        let Some(stack) = read_unchanged(memory, subject.build, &options.want(), innermost)? else {
            continue;
        };
        let layout = &subject.build.layout;
        let mut copied = natives
            .is_some()
            .then(|| Copied::of_blocked(&blocked, memory, layout, &stack));
        // Only the name of an interrupted call hangs on the native stack. All else of it
        // is for after the check: files may have to be read, and the target may wake.
        let mut native = None;
        if blocked.is_restarted()
            && let Some(natives) = natives
        {
            native = copied.take().map(|copied| copied.unwind(memory, natives));
        }
        let mut wait = blocked.wait(memory, native.as_ref().and_then(NativeStack::innermost));
        if !blocked.is_unchanged() {
            continue;
        }
        wait.so_far = blocked.so_far();
        if let (Some(copied), Some(natives)) = (copied, natives) {
            native = Some(copied.unwind(memory, natives));
        }
        return Ok(Some(Seen {
            stack,
            wait: Some(wait),
            native,
        }));
    }
    Ok(None)
}

/// What came of holding a target.
enum Held {
    Seen(Box<Seen>),
    Refused(StopError),
}

/// Reads a target that is held meanwhile.
fn hold<M: TargetMemory + Sync>(
    subject: &Subject<'_, M>,
    options: &Options,
    natives: &mut Option<Natives<'_>>,
) -> Result<Held, StackError> {
    let reader = HeldReader::new(subject.memory, subject.build, options.want())?;
    let with_native = natives.is_some();
    let held = with_stopped(subject.pid, MAX_STOP_WAIT, |registers| {
        let of_vm = registers.filter(|_| subject.vm_registers);
        let read = reader.read(subject.pid, of_vm)?;
        let copied = with_native.then(|| {
            let layout = &subject.build.layout;
            let frames = &read.frames();
            Copied::of_held(subject.pid, registers, subject.memory, layout, frames)
        });
        Ok::<_, StackError>((read, copied))
    });
    let (read, stop) = match held {
        Ok(held) => held,
        Err(StopError::Gone { .. }) => return Err(ReadError::Gone.into()),
        // What keeps a process from being held is often that it sleeps now.
        Err(refused) => {
            let asleep = read_still(subject, options, natives)?;
            return Ok(asleep.map_or(Held::Refused(refused), |seen| Held::Seen(Box::new(seen))));
        }
    };
    let (read, copied) = read?;
    let mut stack = read.into_stack()?;
    if stack.how == How::Exact {
        stack.how = How::Stopped { stop };
    }
    let native = match (copied, natives) {
        (Some(copied), Some(natives)) => Some(copied.unwind(subject.memory, natives)),
        _ => None,
    };
    Ok(Held::Seen(Box::new(Seen {
        stack,
        wait: None,
        native,
    })))
}

// === impl Subject ===

impl<M> Subject<'_, M> {
    /// Before a call that may sleep PHP saves its position; before a page fault (state D), a
    /// stop or a crash it does not.
    fn innermost_of(&self, blocked: &Blocked<'_>) -> Innermost {
        match (self.saved_registers, blocked.state()) {
            (Some([vm_frame, vm_opline]), _) => Innermost::Registers(Registers {
                instruction: 0,
                stack: 0,
                frame: 0,
                link: 0,
                vm_frame,
                vm_opline,
                syscall: None,
            }),
            (None, RunState::Sleeping) => Innermost::Saved,
            (None, _) => Innermost::Stale,
        }
    }
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
