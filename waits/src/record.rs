//! One wait: what a worker was blocked in, for how long, and the PHP stack that waited.
//!
//! Decoding trusts nothing but the length: whatever the bytes say, the work and the memory
//! are bounded by it, and strings come out without control characters.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::types::{self, RawFrame, RawWait};
use crate::{SlotIndex, WorkerId};

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
    /// All, in the order of [`crate::Times::blocked`].
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

    fn from_number(number: u8) -> Cause {
        Cause::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Cause::Other)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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

    /// Decodes a record of the ring, which may be any bytes. `None` if it is not as long as
    /// it says.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Wait> {
        let head = Head(bytes.first_chunk()?);
        let frames = head.u32(offset_of!(RawWait, frame_count)).min(types::FRAMES);
        let frame_bytes = usize::try_from(frames * types::FRAME_BYTES).ok()?;
        let frames = bytes.get(HEAD..)?.get(..frame_bytes)?;
        let flags = u32::from(head.u8(offset_of!(RawWait, flags)));
        let cut = flags & types::WAIT_CUT != 0;
        let blocked = head.u64(offset_of!(RawWait, blocked_ns));
        let object = head.u64(offset_of!(RawWait, object));
        let descriptor = head.descriptor();
        Some(Wait {
            worker: WorkerId(head.u64(offset_of!(RawWait, worker))),
            slot: SlotIndex(head.u32(offset_of!(RawWait, slot))),
            request: head.u64(offset_of!(RawWait, request)),
            began_ns: head.u64(offset_of!(RawWait, began_ns)),
            blocked: (blocked != 0).then(|| Duration::from_nanos(blocked)),
            runqueue: Duration::from_nanos(head.u64(offset_of!(RawWait, runqueue_ns))),
            cause: Cause::from_number(head.u8(offset_of!(RawWait, cause))),
            call: u32::try_from(head.i32(offset_of!(RawWait, call)))
                .ok()
                .filter(|_| flags & types::WAIT_NO_CALL == 0),
            futex: Some(object).filter(|&word| word != 0 && descriptor.is_none()),
            descriptor,
            io_wait: flags & types::WAIT_IOWAIT != 0,
            frames: parse_frames(frames, cut),
            cut,
            fault: flags & types::WAIT_FAULT != 0,
        })
    }
}

const HEAD: usize = types::WAIT_HEAD_BYTES as usize;
const FRAME: usize = types::FRAME_BYTES as usize;

/// The bytes of `struct gp_wait` in front of its frames.
struct Head<'a>(&'a [u8; HEAD]);

impl Head<'_> {
    /// The bytes of a field. The offsets are those of [`RawWait`], which is as long.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk().copied())
            .unwrap_or([0; N])
    }

    fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_ne_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    fn descriptor(&self) -> Option<Descriptor> {
        let number = self.i32(offset_of!(RawWait, fd));
        let kind = match u32::from(self.u8(offset_of!(RawWait, fd_kind))) {
            types::FD_SOCKET => self.socket(),
            types::FD_PIPE => Kind::Pipe,
            types::FD_FILE => Kind::File {
                inode: self.u64(offset_of!(RawWait, object)),
                name: clean(self.path()),
            },
            types::FD_OTHER => Kind::Other,
            _ => return None,
        };
        Some(Descriptor { number, kind })
    }

    fn socket(&self) -> Kind {
        let address: [u8; 16] = self.bytes(offset_of!(RawWait, address));
        let port = self.u16(offset_of!(RawWait, port));
        let ip = |ip: IpAddr| (port != 0).then(|| Address::Ip(SocketAddr::new(ip.to_canonical(), port)));
        let [a, b, c, d, ..] = address;
        let peer = match self.u16(offset_of!(RawWait, family)) {
            AF_UNIX => unix_address(self.path()),
            AF_INET => ip(Ipv4Addr::new(a, b, c, d).into()),
            AF_INET6 => ip(Ipv6Addr::from(address).into()),
            _ => None,
        };
        let state = self.u8(offset_of!(RawWait, tcp_state));
        Kind::Socket {
            peer,
            protocol: self.u16(offset_of!(RawWait, protocol)),
            tcp: (state != 0).then(|| Tcp {
                state,
                receive_queue: self.u32(offset_of!(RawWait, receive_queue)),
                send_queue: self.u32(offset_of!(RawWait, send_queue)),
            }),
        }
    }

    /// As much of the path as it says it has.
    fn path(&self) -> &[u8] {
        let start = offset_of!(RawWait, path);
        let length = usize::from(self.u16(offset_of!(RawWait, path_length)));
        let whole = self
            .0
            .get(start..start + types::PATH_BYTES as usize)
            .unwrap_or_default();
        whole.get(..length).unwrap_or(whole)
    }
}

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// An abstract name begins with a zero byte and may hold others (unix(7)).
fn unix_address(path: &[u8]) -> Option<Address> {
    match path {
        [] => None,
        [0, name @ ..] => Some(Address::Unix(format!(
            "@{}",
            clean_text(&String::from_utf8_lossy(name))
        ))),
        path => Some(Address::Unix(clean(path))),
    }
}

fn parse_frames(bytes: &[u8], cut: bool) -> Vec<Frame> {
    let (chunks, _) = bytes.as_chunks::<FRAME>();
    let last = chunks.len().saturating_sub(1);
    chunks
        .iter()
        .enumerate()
        .filter_map(|(index, chunk)| parse_frame(chunk, index == 0, index == last && !cut))
        .collect()
}

fn parse_frame(bytes: &[u8; FRAME], innermost: bool, outermost: bool) -> Option<Frame> {
    let kind = bytes[offset_of!(RawFrame, kind)];
    if kind == 0 {
        return None;
    }
    // zend_compile.h: ZEND_INTERNAL_FUNCTION 1, ZEND_USER_FUNCTION 2, ZEND_EVAL_CODE 4.
    let internal = kind & 1 != 0;
    let (name, name_cut) = text(bytes, offset_of!(RawFrame, name_length), types::NAME_BYTES);
    let class = text(bytes, offset_of!(RawFrame, class_length), types::CLASS_BYTES);
    let file = text(bytes, offset_of!(RawFrame, file_length), types::FILE_BYTES);
    let line = bytes
        .get(offset_of!(RawFrame, line)..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| u32::from_ne_bytes(*bytes));
    let function = match (name.is_empty(), kind) {
        (false, _) if name_cut => format!("{name}…"),
        (false, _) => name,
        (true, 4) => "{eval}".to_owned(),
        (true, 1) => "???".to_owned(),
        (true, _) if outermost => "{main}".to_owned(),
        (true, _) => "{include}".to_owned(),
    };
    let end = |(text, cut): (String, bool)| {
        let text = if cut { format!("…{text}") } else { text };
        (!text.is_empty()).then_some(text)
    };
    Some(Frame {
        class: end(class),
        function,
        file: end(file).filter(|_| !internal),
        line: line.filter(|_| !internal),
        line_exact: !internal && !innermost,
        internal,
    })
}

/// A length and the text behind it; and whether there was more. An anonymous class has a
/// zero byte and its place behind its name.
fn text(bytes: &[u8; FRAME], at: usize, room: u32) -> (String, bool) {
    let rest = bytes.get(at..).unwrap_or_default();
    let length = rest.first_chunk().map_or(0, |length| u64::from_ne_bytes(*length));
    let kept = usize::try_from(length.min(u64::from(room))).unwrap_or(0);
    let text = rest.get(8..8 + kept).unwrap_or_default();
    (clean(text), length > u64::from(room))
}

/// What is in front of the first zero byte.
fn clean(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    clean_text(&String::from_utf8_lossy(text))
}

fn clean_text(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
