//! Many small reads asked for at once, so that an implementation may join those
//! that lie close together into one system call.

use super::{ReadError, TargetAddr};

/// Requests for bytes, and after [`super::TargetMemory::read_batch`] the answers.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<Request>,
    /// The answers, one behind the other in the order of the requests.
    bytes: Vec<u8>,
    /// Bytes that are asked for, all together.
    wanted: usize,
    /// Room for what a joined read needs; kept from one batch to the next.
    pub(super) room: Room,
}

/// Names one request of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice(usize);

#[derive(Debug, Clone, Copy)]
struct Request {
    addr: TargetAddr,
    /// Where its answer begins in `Batch::bytes`.
    at: usize,
    len: usize,
    /// Bytes answered.
    got: usize,
}

/// Buffers of `super::joined`.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Begin, end and number of each request.
    pub(super) extents: Vec<(u64, u64, usize)>,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    /// Makes room for so many requests, of so many bytes together, and touches it: a batch
    /// within these bounds is then asked for and answered without a call of the allocator
    /// and without a page fault.
    pub(crate) fn reserve(&mut self, requests: usize, bytes: usize) {
        self.requests.reserve(requests);
        self.room.extents.reserve(requests);
        self.bytes.resize(bytes, 0);
        self.room.bytes.resize(bytes, 0);
    }

    /// Asks for up to `len` bytes from `addr` on.
    pub fn want(&mut self, addr: TargetAddr, len: usize) -> Slice {
        self.requests.push(Request {
            addr,
            at: self.wanted,
            len,
            got: 0,
        });
        self.wanted += len;
        Slice(self.requests.len() - 1)
    }

    /// The bytes that were readable; possibly fewer than asked for, or none.
    #[must_use]
    pub fn get(&self, slice: Slice) -> &[u8] {
        let answer = self
            .requests
            .get(slice.0)
            .and_then(|request| self.bytes.get(request.at..)?.get(..request.got));
        answer.unwrap_or_default()
    }

    /// Forgets all requests, and keeps the memory.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.wanted = 0;
    }

    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Answers the requests one by one.
    pub(super) fn answer_each(
        &mut self,
        mut read: impl FnMut(TargetAddr, &mut [u8]) -> Result<usize, ReadError>,
    ) -> Result<(), ReadError> {
        (0..self.requests.len()).try_for_each(|index| self.answer(index, &mut read))
    }

    /// Answers one request by a read of its own.
    pub(super) fn answer(
        &mut self,
        index: usize,
        read: &mut impl FnMut(TargetAddr, &mut [u8]) -> Result<usize, ReadError>,
    ) -> Result<(), ReadError> {
        self.make_room();
        let request = &mut self.requests[index];
        let buf = &mut self.bytes[request.at..request.at + request.len];
        request.got = match read(request.addr, buf) {
            Ok(got) => got.min(request.len),
            Err(ReadError::Fault { .. }) => 0,
            Err(whole @ (ReadError::Gone | ReadError::Denied)) => return Err(whole),
        };
        Ok(())
    }

    /// Answers one request from bytes that were read at `from`. Says whether they
    /// cover it whole.
    pub(super) fn answer_from(&mut self, index: usize, from: TargetAddr, read: &[u8]) -> bool {
        self.make_room();
        let request = &mut self.requests[index];
        let found = usize::try_from(request.addr.0.wrapping_sub(from.0))
            .ok()
            .and_then(|skip| read.get(skip..)?.get(..request.len));
        let Some(found) = found else { return false };
        self.bytes[request.at..request.at + request.len].copy_from_slice(found);
        request.got = request.len;
        true
    }

    fn make_room(&mut self) {
        if self.bytes.len() < self.wanted {
            self.bytes.resize(self.wanted, 0);
        }
    }

    /// Address and length of every request, by index.
    pub(super) fn extents(&self) -> impl Iterator<Item = (TargetAddr, usize)> + '_ {
        self.requests.iter().map(|request| (request.addr, request.len))
    }
}
