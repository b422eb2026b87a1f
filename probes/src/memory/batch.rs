//! Many small reads asked for at once, so that an implementation may join those
//! that lie close together into one system call.

use std::collections::HashMap;

use super::{ReadError, TargetAddr};

/// Requests for bytes, and after [`super::TargetMemory::read_batch`] the answers.
/// Asking twice for the same bytes is one request.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<Request>,
    known: HashMap<(TargetAddr, usize), usize>,
    bytes: Vec<u8>,
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

impl Batch {
    /// Asks for up to `len` bytes from `addr` on.
    pub fn want(&mut self, addr: TargetAddr, len: usize) -> Slice {
        let next = self.requests.len();
        let index = *self.known.entry((addr, len)).or_insert(next);
        if index == next {
            let at = self.bytes.len();
            self.bytes.resize(at + len, 0);
            self.requests.push(Request {
                addr,
                at,
                len,
                got: 0,
            });
        }
        Slice(index)
    }

    /// The bytes that were readable; possibly fewer than asked for, or none.
    #[must_use]
    pub fn get(&self, slice: Slice) -> &[u8] {
        self.requests
            .get(slice.0)
            .map_or(&[], |request| &self.bytes[request.at..request.at + request.got])
    }

    /// Number of distinct requests.
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
        let request = &mut self.requests[index];
        let found = usize::try_from(request.addr.0.wrapping_sub(from.0))
            .ok()
            .and_then(|skip| read.get(skip..)?.get(..request.len));
        let Some(found) = found else { return false };
        self.bytes[request.at..request.at + request.len].copy_from_slice(found);
        request.got = request.len;
        true
    }

    /// Address and length of every request, by index.
    pub(super) fn extents(&self) -> impl Iterator<Item = (TargetAddr, usize)> + '_ {
        self.requests.iter().map(|request| (request.addr, request.len))
    }
}
