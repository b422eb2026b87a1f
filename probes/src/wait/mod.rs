//! What a thread is blocked in, found out without stopping or waking it.
//!
//! The kernel shows the system call of a sleeping thread, its six arguments, its stack
//! pointer and its position in `/proc/PID/syscall`. From there on it is reading: the
//! arguments that are pointers lead to the target's memory, descriptors are named
//! through `/proc/PID/fd`, and the two ends of a socket through `pidfd_getfd`, which is
//! exact in any network namespace and takes 5 us, where a search through
//! `/proc/PID/net/tcp` takes 20 ms on a busy machine.
//!
//! - [`Blocked`]: the snapshot, and the test that the thread has not been awake since;
//! - [`Wait`]: what it means, as data and as words; [`Blocked::wait`] goes from one to the
//!   other, and [`crate::sample`] does both together with the PHP stack;
//! - [`descriptor`], [`socket`]: what a descriptor is, who is at the other end;
//! - `decode`: the arguments of the calls that PHP programs wait in.
//!
//! **Telemetry.** [`Call::peer`] gives `network.peer.address`, `network.peer.port` and
//! `network.transport`, [`Descriptor::path`] gives `file.path`; [`Wait::class`] is the
//! short word for counting where time goes.
//!
//! **Rights.** Each fact that is missing says why in [`Wait::missing`]; what is left
//! without any right is the thread's state.
//!
//! Only the main thread is looked at, the only one of a PHP worker that runs PHP. The
//! bytes on the socket and the contents of files are never read.

mod blocked;
pub(crate) mod decode;
pub mod descriptor;
pub mod socket;
mod text;

use std::time::Duration;

use glasspool_abi::Pid;

pub use blocked::{Blocked, Position};
pub use descriptor::{Descriptor, Kind};
pub use socket::{Endpoint, Socket, SocketState};

use crate::process::RunState;
use crate::rights::Obstacle;

/// What a sleeping thread waits in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The system call. `None` with nothing about it in `missing`: it is in none, and
    /// waits for a page of its own memory.
    pub call: Option<Call>,
    /// Whether a signal could wake it.
    pub state: RunState,
    /// The kernel function it sleeps in. `None` where the kernel does not tell.
    pub wchan: Option<String>,
    /// How long it has slept so far, when it was looked at. `None` if that cannot be told;
    /// see [`crate::process::asleep_for`].
    pub so_far: Option<Duration>,
    /// What could not be found out, and what would help.
    pub missing: Vec<Missing>,
}

/// A system call and what its arguments say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number on this machine's architecture.
    pub number: u64,
    /// Its name, for `restart_syscall` that of the call that goes on, where known.
    /// `None` for one that PHP hardly ever waits in.
    pub name: Option<&'static str>,
    /// The raw arguments; only as many as the call takes mean anything.
    pub args: [u64; 6],
    /// What it is for.
    pub purpose: Purpose,
    /// The descriptors it waits for, at most [`MAX_DESCRIPTORS`].
    pub descriptors: Vec<Descriptor>,
    /// Descriptors that were left out for that limit.
    pub more_descriptors: usize,
    /// After how long it gives up (or, asleep, ends). `None`: never, or not known.
    pub limit: Option<Duration>,
}

/// Descriptors of one call that are looked at. A look at a socket takes about 15 us.
pub const MAX_DESCRIPTORS: usize = 8;

/// What a system call waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// One of the descriptors to become ready.
    Ready,
    /// Bytes to arrive, or space for bytes to leave.
    Transfer,
    /// A connection to be made; the descriptor's peer is the one wanted.
    Connect,
    /// A connection to come in.
    Accept,
    /// Time to pass.
    Sleep,
    /// A lock on a file. `exclusive` as asked for.
    Lock {
        /// Whether nobody else may hold it, not even to read.
        exclusive: bool,
    },
    /// A disk to have written a file.
    Sync,
    /// A child process to end; `None` means any.
    Child(Option<Pid>),
    /// A word of memory to change: a lock or condition shared with other threads, or
    /// with other processes (opcache, apcu).
    Futex,
    /// A file system to find, make or remove a file of this name.
    Path(String),
    /// It was interrupted and goes on, and the kernel no longer says which it was.
    Restarted,
    /// Anything else.
    Other,
}

/// A short word for what a wait is about, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A socket to another machine or process.
    Network,
    /// A pipe, mostly to a child.
    Pipe,
    /// A disk or another file system.
    File,
    /// A lock on a file, or a futex.
    Lock,
    /// Time to pass.
    Sleep,
    /// A child process.
    Child,
    /// A page of memory.
    Memory,
    /// None of these, or not known.
    Other,
}

/// A fact that is missing, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell {what} of process {pid}: {why}")]
pub struct Missing {
    /// What is not known.
    pub what: Fact,
    /// Of which process.
    pub pid: Pid,
    /// Why, and what to do about it.
    pub why: Obstacle,
}

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// The system call and all that follows from it.
    Call,
    /// What its pointers lead to.
    Arguments,
    /// What kind of thing a descriptor is.
    Descriptor,
    /// The two ends of a socket.
    Peer,
}

// === impl Wait ===

impl Wait {
    /// What it is about, in one word.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.call {
            Some(call) => call.class(),
            None if self.missing.iter().any(|missing| missing.what == Fact::Call) => Class::Other,
            None => Class::Memory,
        }
    }
}

// === impl Call ===

impl Call {
    /// The socket it waits for. The first if there are several.
    #[must_use]
    pub fn socket(&self) -> Option<&Socket> {
        self.descriptors
            .iter()
            .find_map(|descriptor| match &descriptor.kind {
                Kind::Socket(socket) => Some(socket),
                _ => None,
            })
    }

    /// The other end of that socket.
    #[must_use]
    pub fn peer(&self) -> Option<&Endpoint> {
        self.socket()?.peer.as_ref()
    }

    fn class(&self) -> Class {
        match self.purpose {
            Purpose::Sleep => Class::Sleep,
            Purpose::Lock { .. } | Purpose::Futex => Class::Lock,
            Purpose::Child(_) => Class::Child,
            Purpose::Sync | Purpose::Path(_) => Class::File,
            Purpose::Ready if self.descriptors.is_empty() && self.limit.is_some() => Class::Sleep,
            _ => self
                .descriptors
                .first()
                .map_or(Class::Other, |descriptor| match descriptor.kind {
                    Kind::Socket(_) => Class::Network,
                    Kind::Pipe => Class::Pipe,
                    Kind::File { .. } => Class::File,
                    _ => Class::Other,
                }),
        }
    }
}
