//! What a stack is, and how one is read from a target that stands still.

use std::time::Duration;

use glasspool_abi::zend::PhpBuild;

use super::args::{Arguments, CallArguments};
use super::gather::Innermost;
use super::reader::Reader;
use crate::memory::{ReadError, TargetAddr, TargetMemory};
use crate::stop::Registers;

/// No stack has more frames than this, whatever the caller asks for.
pub const MAX_FRAMES: usize = 1024;

/// How much of a stack is wanted. A bare number stands for that many frames, without
/// arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Frames to keep, innermost first; never more than [`MAX_FRAMES`].
    pub max_frames: usize,
    /// What is told of the arguments of each call.
    pub arguments: Arguments,
}

/// A PHP stack at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Innermost first. Empty when the target runs no PHP code.
    pub frames: Vec<Frame>,
    /// Whether frames further out were left out because of the limit.
    pub cut: bool,
    /// How it was obtained, and so how far to trust it.
    pub how: How,
}

/// One call. Strings are bounded and hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Of the `zend_execute_data` in the target; php-fpm's slowlog prints it.
    pub addr: TargetAddr,
    /// What kind of code runs here.
    pub kind: Kind,
    /// Bare name: `fetch`, `{closure}`; `{main}`, `{include}`, `{eval}`, `{fiber}` for
    /// code without one; `???` if it could not be read.
    pub function: String,
    /// The class that declares the method; `class@anonymous` without its tail.
    pub class: Option<String>,
    /// Whether it was called on an object (`->`) rather than on a class (`::`).
    pub on_object: bool,
    /// The file that holds the code, as PHP opened it. `None` for builtins.
    pub file: Option<String>,
    /// Line that is being executed, or, in an outer frame, that made the call.
    /// `None` for builtins.
    pub line: Option<u32>,
    /// Whether `line` is known to be that line. PHP saves its position only now and
    /// then, so the innermost line of a running target is a good guess at best; where
    /// even that was outside of the function, `line` is the function's first.
    pub line_exact: bool,
    /// Whether this is PHP's own C code (a builtin, or the entry of a fiber).
    pub internal: bool,
    /// Where the builtin's C function begins: the native frame that runs it.
    pub handler: Option<TargetAddr>,
    /// What it was called with. `None` if that was not asked for, or cannot be told.
    pub arguments: Option<CallArguments>,
}

/// What kind of code a frame runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A function, method or closure written in PHP.
    Function,
    /// A file that was included or required.
    Include,
    /// The script itself.
    Main,
    /// A string given to `eval`.
    Eval,
    /// The entry of a fiber; frames further out belong to whoever resumed it.
    Fiber,
    /// A function or method of PHP or an extension.
    Internal,
}

/// How a stack was obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The target stood still all the while: it was asleep (or the caller vouched for it).
    Exact,
    /// The target ran; the stack was the same before and after and passed every test.
    Checked {
        /// Reads it took, this one included.
        tries: u32,
    },
    /// The target was held for the read.
    Stopped {
        /// From asking for the stop to its release.
        stop: Duration,
    },
    /// Frames are missing, at the end that the reason says. Those that are there are right.
    Partial(Partial),
}

/// Why a stack is not known to be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Partial {
    /// Frames further out could not be read.
    #[error("the chain breaks after {frames} frames: {defect}")]
    Broken {
        /// Frames that were read.
        frames: usize,
        /// What is wrong with the next one.
        defect: Defect,
    },
    /// The target kept running, no read passed the check, and it might not be held.
    /// These are the outermost frames, which stayed the same; those they call are missing.
    #[error(
        "the process ran on during all of {tries} reads (in the last one {defect}); only the outer frames are known"
    )]
    Moving {
        /// Reads that were made.
        tries: u32,
        /// What was wrong with the last one.
        defect: Defect,
    },
    /// The same, and it could not be held.
    #[error(
        "the process ran on during all of {tries} reads and could not be held ({stop}); only the outer frames are known"
    )]
    NotStopped {
        /// Reads that were made.
        tries: u32,
        /// Why it could not be held.
        stop: String,
    },
}

/// What is wrong with a chain of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Defect {
    /// A pointer is not a multiple of 8.
    #[error("a pointer is misaligned")]
    Misaligned,
    /// A pointer is above the addresses of programs.
    #[error("a pointer is out of range")]
    OutOfRange,
    /// A frame is its own caller.
    #[error("the frames form a loop")]
    Loop,
    /// A frame, a function or a name is not mapped.
    #[error("a pointer leads nowhere")]
    Unreadable,
    /// `zend_function.type` is none that executes.
    #[error("a function is of no known type")]
    FunctionType,
    /// A caller's position is outside of its function.
    #[error("a caller's position is outside of its function")]
    Position,
    /// The outermost frame is nothing that PHP starts with.
    #[error("the chain does not end in a script")]
    End,
    /// The innermost frame is not on the VM stack and is no generator.
    #[error("the innermost frame is not on the VM stack")]
    OffStack,
    /// A second look saw another stack.
    #[error("the stack changed")]
    Changed,
}

/// Why there is no stack at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// The target has exited, or replaced its program. Ordinary.
    #[error(transparent)]
    Memory(#[from] ReadError),
    /// The executor globals are not where the engine said.
    #[error(
        "nothing readable at the executor globals ({addr}): not a fork of the engine that gave the address"
    )]
    Globals {
        /// Where they should be.
        addr: TargetAddr,
    },
    /// The first stack of a process makes no sense, so the offsets are not its PHP's.
    #[error("the offsets of PHP {php} do not fit it: {why}")]
    Nonsense {
        /// The version that the process says to be.
        php: String,
        /// What makes no sense.
        why: String,
    },
    /// The layout cannot be PHP's.
    #[error("the offsets for {name} cannot be right (build the engine object again from the same source)")]
    Layout {
        /// The struct or field.
        name: &'static str,
    },
}

/// Reads the stack of a target that stands still: asleep, stopped, or dead and saved.
/// That it does is the caller's word; [`super::check::read_checked`] needs none.
///
/// A chain that
/// breaks half-way gives the frames before the break and [`How::Partial`].
/// Costs about five reads, more only for frames that are not on the current page of
/// the VM stack.
pub fn read_stack<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: impl Into<Want>,
) -> Result<Stack, StackError> {
    read_with(mem, build, want.into(), Innermost::Stale)
}

/// [`read_stack`] for a target that [`crate::stop::with_stopped`] holds: its registers
/// know the innermost line, which memory often does not. [`super::held`] does the same
/// and holds it shorter.
pub fn read_held<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: impl Into<Want>,
    registers: Option<&Registers>,
) -> Result<Stack, StackError> {
    let innermost = registers.map_or(Innermost::Stale, |registers| Innermost::Registers(*registers));
    read_with(mem, build, want.into(), innermost)
}

/// [`read_stack`], with what is known about the innermost line.
pub(super) fn read_with<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: Want,
    innermost: Innermost,
) -> Result<Stack, StackError> {
    let mut reader = Reader::new(build, want)?;
    let walk = reader.walk(mem)?;
    let raw = reader.gather(mem, &walk, innermost)?;
    Ok(reader.decode(raw).into_stack(walk.cut))
}

// === impl Want ===

impl From<usize> for Want {
    fn from(max_frames: usize) -> Want {
        Want {
            max_frames,
            arguments: Arguments::Off,
        }
    }
}

impl From<&Want> for Want {
    fn from(want: &Want) -> Want {
        want.clone()
    }
}

// === impl Frame ===

impl Frame {
    /// `Class::method` or `function`, as the semantic convention `code.function.name`
    /// wants it for PHP.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        match &self.class {
            Some(class) => format!("{class}::{}", self.function),
            None => self.function.clone(),
        }
    }

    /// As PHP's own backtraces have it: `Class->method`, `Class::method` or `function`.
    #[must_use]
    pub fn php_name(&self) -> String {
        match &self.class {
            Some(class) if self.on_object => format!("{class}->{}", self.function),
            _ => self.qualified_name(),
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
