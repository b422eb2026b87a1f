//! The native half of a stack: the C functions under the innermost PHP frame, down to
//! the system call, and how they belong to the PHP frames.
//!
//! One copy of the top of the native stack is taken, and with it either the registers
//! of a held process or, for a blocked one that is not held, the stack pointer and
//! position that the kernel tells ([`crate::wait::Blocked`]). All else needs no further
//! look at the stack: the copy is unwound with the call frame information that every
//! object file carries (`.eh_frame`), also a stripped one.
//!
//! - [`Unwinder`]: one target; [`Modules`]: the object files of all targets;
//! - [`Seams`]: where PHP's own frames touch native ones; [`weave`] joins both;
//! - [`Natives`]: what a look takes along to have native frames, see
//!   [`crate::sample_with_native()`];
//! - `maps`, `module`, `symbols`, `demangle`: what is mapped where, and what is known of
//!   one object file;
//! - `debug_file`, `lines`: debug information, and the source lines in it.
//!
//! **Names.** A symbol names an address only if the address is inside of the symbol.
//! The nearest symbol before it, which others print, is usually a wrong one: builtins
//! of PHP are static and have none. But call frame information has the exact start of
//! every function; where it is the handler of a builtin that the PHP stack has, the
//! function is that builtin. What is left is named by module and function start.
//!
//! Code made by the JIT has no call frame information and ends the native stack; the
//! PHP stack is whole even then. On aarch64 a process that is not held does not show
//! the register with the innermost return address; there one frame is known.

pub(crate) mod debug_file;
mod demangle;
#[cfg(any(test, feature = "fuzzing"))]
mod hostile;
mod lines;
mod maps;
mod module;
mod moment;
mod seams;
mod symbols;
mod unwind;
mod weave;

use std::fmt;
use std::sync::Arc;

use crate::memory::{ReadError, TargetAddr, TargetMemory};
use crate::rights::Obstacle;
use crate::stop::Registers;
use crate::wait::Position;

#[cfg(feature = "fuzzing")]
pub(crate) use hostile::{debug_information, unwind_in};
pub use lines::Source;
pub use module::{BuildId, Modules};
pub(crate) use moment::Copied;
pub use moment::Natives;
pub use seams::{Seam, Seams};
pub use unwind::Unwinder;
pub use weave::{Woven, WovenFrame, weave};

/// No stack has more frames than this.
pub const MAX_FRAMES: usize = 256;

/// How much of the native stack is copied; 20 native frames take 2 to 16 KiB, an HTTP
/// request of `file_get_contents` in PHP built for debugging 25.
const COPY: usize = 32 * 1024;

/// A native stack at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeStack {
    /// Innermost first; at most [`MAX_FRAMES`].
    pub frames: Vec<NativeFrame>,
    /// Why there is no further frame.
    pub end: End,
    /// The PHP frames that it was read with.
    seams: Seams,
}

/// One native call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeFrame {
    /// Next instruction in the innermost frame, the return address in others.
    pub pc: TargetAddr,
    /// Base name of the object file that holds the code.
    pub module: Arc<str>,
    /// Where the module was loaded: what to take from an address to look it up in the
    /// file.
    pub bias: TargetAddr,
    /// First instruction of the function, from call frame information.
    pub start: Option<TargetAddr>,
    /// The symbol that `pc` is inside of; of C++ and Rust the name in the source.
    pub symbol: Option<String>,
    /// Where the code was written, from debug information, if [`Modules::with_lines`] asks
    /// for it; of callers, where they called.
    pub source: Option<Source>,
    /// The PHP frame that this is the handler of, by its index in the PHP stack, and
    /// its name.
    pub builtin: Option<(usize, String)>,
}

/// Why a native stack has no further frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// It is whole.
    #[error("the stack is whole")]
    Root,
    /// Further frames were left out for the limit.
    #[error("the limit of {MAX_FRAMES} frames was reached")]
    Limit,
    /// Further frames are beyond the part of the stack that was copied.
    #[error("the next frame is beyond the {bytes} bytes of stack that were copied")]
    Copied {
        /// How many that were.
        bytes: usize,
    },
    /// The code belongs to no file; it was made by the JIT, or the stack is garbled.
    #[error("{pc} is in no object file (code made by the JIT?)")]
    NoModule {
        /// The address.
        pc: TargetAddr,
    },
    /// The object file cannot be read.
    #[error("cannot read {path}: {why}")]
    NoFile {
        /// Its path, as the target has it mapped.
        path: String,
        /// Why.
        why: FileError,
    },
    /// The object file says nothing about this address.
    #[error("{module} has no call frame information for {pc}")]
    NoUnwindInfo {
        /// The address.
        pc: TargetAddr,
        /// The file's base name.
        module: Arc<str>,
    },
    /// The caller's frame is found by a register, which the kernel shows of a held process
    /// only.
    #[error("the caller of {pc} in {module} is found by the frame pointer, which only a held process shows")]
    NoFramePointer {
        /// The address in the last frame.
        pc: TargetAddr,
        /// The file's base name.
        module: Arc<str>,
    },
    /// The caller's frame makes no sense.
    #[error("the caller of {pc} cannot be found: {why}")]
    Broken {
        /// The address in the last frame.
        pc: TargetAddr,
        /// Why.
        why: String,
    },
    /// Nothing could be read.
    #[error(transparent)]
    Memory(#[from] ReadError),
    /// The kernel does not tell where the stack is.
    #[error("the position of process {pid} in its code is not known: {why}")]
    NoPosition {
        /// The process.
        pid: glasspool_abi::Pid,
        /// Why.
        why: Obstacle,
    },
    /// The kernel does not tell which files are mapped.
    #[error("the files that process {pid} has mapped are not known: {why}")]
    NoMaps {
        /// The process.
        pid: glasspool_abi::Pid,
        /// Why.
        why: Obstacle,
    },
}

/// Why an object file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("{0}")]
    Open(Obstacle),
    /// The file of that name is not the one that is mapped; it was replaced since.
    #[error("it was replaced since the process started")]
    Replaced,
    /// It is no ELF file of this machine's kind.
    #[error("it is no usable ELF file ({0})")]
    Garbled(String),
}

/// Where to begin: registers, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    instruction: u64,
    stack: u64,
    frame: u64,
    link: u64,
}

/// A copy of the top of a native stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackCopy {
    start: Start,
    bytes: Vec<u8>,
}

impl From<&Registers> for Start {
    fn from(registers: &Registers) -> Start {
        Start {
            instruction: registers.instruction,
            stack: registers.stack,
            frame: registers.frame,
            link: registers.link,
        }
    }
}

/// In the place of a frame pointer that is not known; far from every address that there is.
const UNKNOWN_FRAME: u64 = 0x5eed_0000_0000_0000;

/// The frame pointer of a blocked process is not known, and seldom needed: the
/// functions of the C library that enter the kernel do not use it, and those that do
/// use it have saved their caller's on the stack. Code that was compiled to keep it ends
/// the stack ([`End::NoFramePointer`]).
impl From<Position> for Start {
    fn from(position: Position) -> Start {
        Start {
            instruction: position.instruction.0,
            stack: position.stack.0,
            frame: UNKNOWN_FRAME,
            link: 0,
        }
    }
}

impl StackCopy {
    /// Copies the top of the stack, at most 32 KiB; 3 us. The only part that must happen
    /// while the target is held, or known to be blocked.
    pub fn read<M: TargetMemory>(mem: &M, start: impl Into<Start>) -> Result<StackCopy, ReadError> {
        let start = start.into();
        let mut bytes = vec![0; COPY];
        let got = mem.read_prefix(TargetAddr(start.stack), &mut bytes)?;
        bytes.truncate(got);
        Ok(StackCopy { start, bytes })
    }

    /// The word at `addr`, if it was copied.
    fn word(&self, addr: u64) -> Option<u64> {
        let skip = usize::try_from(addr.checked_sub(self.start.stack)?).ok()?;
        Some(u64::from_le_bytes(*self.bytes.get(skip..)?.first_chunk()?))
    }
}

// === impl NativeStack ===

impl NativeStack {
    /// A stack of which nothing is known.
    #[must_use]
    pub fn unknown(end: End) -> NativeStack {
        NativeStack {
            frames: Vec::new(),
            end,
            seams: Seams::default(),
        }
    }

    /// The innermost function; names a system call that was interrupted, see
    /// [`crate::wait::Blocked::wait`].
    #[must_use]
    pub fn innermost(&self) -> Option<&str> {
        self.frames.first()?.symbol.as_deref()
    }
}

// === impl NativeFrame ===

impl NativeFrame {
    /// The function: `zif:sleep` for a builtin, a symbol, or `php8.2+0x2bbf10` with the
    /// address of its start in the file.
    #[must_use]
    pub fn function(&self) -> String {
        match (&self.builtin, &self.symbol, self.start) {
            (Some((_, name)), _, _) => format!("zif:{name}"),
            (None, Some(symbol), _) => symbol.clone(),
            (None, None, start) => {
                let at = start.unwrap_or(self.pc).0.wrapping_sub(self.bias.0);
                format!("{}+{at:#x}", self.module)
            }
        }
    }
}

/// `poll+0x10 [libc.so.6]`, `php8.2+0x2bbf10 (unnamed)`, and with debug information
/// `poll+0x10 [libc.so.6] ./io/poll.c:29`.
impl fmt::Display for NativeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function())?;
        if self.builtin.is_none() && self.symbol.is_none() {
            f.write_str(" (unnamed)")?;
        } else {
            if let Some(start) = self.start {
                write!(f, "+{:#x}", self.pc.0.wrapping_sub(start.0))?;
            }
            write!(f, " [{}]", self.module)?;
        }
        match &self.source {
            Some(source) => write!(f, " {source}"),
            None => Ok(()),
        }
    }
}
