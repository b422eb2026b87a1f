//! From the bytes of a record to a [`Wait`].
//!
//! Trusts nothing but the length: whatever the bytes say, the work and the memory are
//! bounded by it, and strings come out without control characters.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Address, Cause, Descriptor, Frame, Kind, OnCpu, Record, Tcp, Wait};
use crate::types::{self, RawFrame, RawWait};
use crate::{SlotIndex, WorkerId};

impl Record {
    /// Decodes a record of the ring, which may be any bytes. `None` if it is not as long as
    /// it says.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Record> {
        let wait = Wait::parse(bytes)?;
        let kind = Head(bytes.first_chunk()?).u32(offset_of!(RawWait, kind));
        Some(if kind == types::KIND_ON_CPU {
            Record::OnCpu(OnCpu {
                worker: wait.worker,
                slot: wait.slot,
                request: wait.request,
                at_ns: wait.began_ns,
                frames: wait.frames,
                cut: wait.cut,
                fault: wait.fault,
            })
        } else {
            Record::Wait(wait)
        })
    }
}

impl Wait {
    /// Decodes a record of a wait, which may be any bytes. `None` if it is not as long as
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
            cause: Cause::from_number(head.u8(offset_of!(RawWait, cause)).into()),
            call: u32::try_from(head.i32(offset_of!(RawWait, call)))
                .ok()
                .filter(|_| flags & types::WAIT_NO_CALL == 0),
            futex: Some(object).filter(|&word| word != 0 && descriptor.is_none()),
            descriptor,
            own_connection: flags & types::WAIT_OWN != 0,
            io_wait: flags & types::WAIT_IOWAIT != 0,
            frames: parse_frames(frames, cut),
            cut,
            fault: flags & types::WAIT_FAULT != 0,
        })
    }
}

pub(super) const HEAD: usize = types::WAIT_HEAD_BYTES as usize;
pub(super) const FRAME: usize = types::FRAME_BYTES as usize;

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

pub(super) const AF_UNIX: u16 = 1;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;

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
    // The programs write the outermost first: it is the one that changes least.
    let innermost_first = chunks.iter().rev().enumerate();
    innermost_first
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
