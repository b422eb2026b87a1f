//! One wait: what a worker was blocked in, for how long, and the PHP stack that waited. And
//! one look at a worker on a CPU.
//!
//! `decode` makes it of a record's bytes.

mod decode;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::types;
use crate::{SlotIndex, WorkerId};

/// States of TCP (include/net/tcp_states.h).
const TCP_SYN_SENT: u8 = 2;
const TCP_LISTEN: u8 = 10;

/// What a worker waits for. Told by the system call, the kind of its descriptor, and
/// whether the kernel counts the wait as one for a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A socket of any family, or several descriptors at once (epoll).
    Network,
    /// A block device, a file server, a page of a mapped file.
    Disk,
    /// A file lock, a futex, a semaphore.
    Lock,
    /// Time.
    Sleep,
    /// The other end of a pipe; usually another program.
    Pipe,
    /// Anything else: a child's end, a terminal, a stop by a debugger.
    Other,
}

impl Cause {
    /// All, in the order of `glasspool_abi::times::Times::blocked_ns`.
    pub const ALL: [Cause; types::CAUSES as usize] = [
        Cause::Network,
        Cause::Disk,
        Cause::Lock,
        Cause::Sleep,
        Cause::Pipe,
        Cause::Other,
    ];

    /// In one word, for people and for attribute names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::Network => "network",
            Cause::Disk => "disk",
            Cause::Lock => "lock",
            Cause::Sleep => "sleep",
            Cause::Pipe => "pipe",
            Cause::Other => "other",
        }
    }

    /// Its place in [`Cause::ALL`].
    pub(crate) fn index(self) -> usize {
        Cause::ALL.iter().position(|&cause| cause == self).unwrap_or(0)
    }

    pub(crate) fn from_number(number: u32) -> Cause {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        Cause::ALL.get(at).copied().unwrap_or(Cause::Other)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the programs tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A wait that has ended.
    Wait(Wait),
    /// A worker that had a CPU when its clock struck ([`crate::run_clocks`]).
    OnCpu(OnCpu),
}

/// A worker on a CPU, in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnCpu {
    /// Which.
    pub worker: WorkerId,
    /// Its slot then.
    pub slot: SlotIndex,
    /// What its page said was its request; the worker's word.
    pub request: u64,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// See [`Wait::frames`]. The innermost line of PHP is not exact while it computes.
    pub frames: Vec<Frame>,
    /// See [`Wait::cut`].
    pub cut: bool,
    /// See [`Wait::fault`].
    pub fault: bool,
}

/// One wait of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Whose.
    pub worker: WorkerId,
    /// Its slot then.
    pub slot: SlotIndex,
    /// What its page said was its request when the wait began; the worker's word. 0:
    /// none, or a process that is not ours.
    pub request: u64,
    /// When it left the CPU, nanoseconds of `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// Until it was woken; `None` while it goes on.
    pub blocked: Option<Duration>,
    /// From then until it ran.
    pub runqueue: Duration,
    /// What for.
    pub cause: Cause,
    /// Number of the system call, for this machine's architecture; `None` of a page fault.
    pub call: Option<u32>,
    /// The descriptor that it waits for, or the first of several. Not known of epoll.
    pub descriptor: Option<Descriptor>,
    /// The word in memory that it waits for, of a futex.
    pub futex: Option<u64>,
    /// Whether its descriptor is the connection that its request came by, says the worker's page.
    pub own_connection: bool,
    /// Whether the kernel counts it as a wait for a block device.
    pub io_wait: bool,
    /// PHP's calls, innermost first; at most 32. Empty where no PHP code runs.
    pub frames: Vec<Frame>,
    /// Whether there are more, further out.
    pub cut: bool,
    /// Whether something of the stack could not be read. What is there is right.
    pub fault: bool,
}

/// A descriptor and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in the worker.
    pub number: i32,
    /// What it is.
    pub kind: Kind,
}

/// What is behind a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket {
        /// The other end; of a listening socket its own. `None` if it has none, or is of
        /// a family other than IPv4, IPv6 and unix.
        peer: Option<Address>,
        /// Number of the protocol (`IPPROTO_…`): 6 is TCP, 17 is UDP, 0 none.
        protocol: u16,
        /// More of a TCP connection.
        tcp: Option<Tcp>,
    },
    /// A pipe.
    Pipe,
    /// A file.
    File {
        /// Its inode number.
        inode: u64,
        /// The last part of its name.
        name: String,
    },
    /// A terminal, an event counter, an epoll set …
    Other,
}

/// State of a TCP connection when the wait began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// As in `/proc/net/tcp`: 1 established, 2 connecting …
    pub state: u8,
    /// Bytes received that the worker has not read.
    pub receive_queue: u32,
    /// Bytes written that the peer has not acknowledged.
    pub send_queue: u32,
}

impl Tcp {
    /// The peer has not answered yet.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.state == TCP_SYN_SENT
    }

    /// No connection, but a socket that waits for some.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state == TCP_LISTEN
    }
}

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 and IPv6. A mapped IPv4 address is shown as the IPv4 address.
    Ip(SocketAddr),
    /// A path, or an abstract name with `@` in front; as `ss` shows them.
    Unix(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One call of PHP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Class that declares the method.
    pub class: Option<String>,
    /// Bare name; `{main}`, `{include}`, `{eval}` of code without one.
    pub function: String,
    /// The file that holds the code; of a long name the end, after `…`. `None` of builtins.
    pub file: Option<String>,
    /// The line that is being executed, or that made the call. `None` of builtins.
    pub line: Option<u32>,
    /// Whether `line` is known to be that line: PHP saves its position before each call,
    /// but only now and then while it computes.
    pub line_exact: bool,
    /// Whether it is PHP's own C code.
    pub internal: bool,
}

impl Frame {
    /// `Class::function`, or `function`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.class {
            Some(class) => format!("{class}::{}", self.function),
            None => self.function.clone(),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            write!(f, " {file}:{line}")?;
        }
        Ok(())
    }
}

impl Wait {
    /// The peer of the socket that it waits for.
    #[must_use]
    pub fn peer(&self) -> Option<&Address> {
        match &self.descriptor.as_ref()?.kind {
            Kind::Socket { peer, .. } => peer.as_ref(),
            _ => None,
        }
    }

    /// The builtin that waits, if one does, and the line of PHP that called it.
    #[must_use]
    pub fn place(&self) -> (Option<&Frame>, Option<&Frame>) {
        let builtin = self.frames.first().filter(|frame| frame.internal);
        (builtin, self.frames.iter().find(|frame| frame.line.is_some()))
    }
}

#[cfg(test)]
mod tests;
