//! A read that is rehearsed while the target runs, and then takes one system call while
//! it is held, instead of one per piece.
//!
//! A process that is held for a moment after another look at it has most of its stack
//! where it was, and all names. So what the rehearsal read is read again at once by
//! `process_vm_readv` (process_vm_readv(2)), which takes many addresses, and the read proper
//! finds it there. What it needs besides is read as always: a wrong guess costs time only.

use std::cell::{Cell, RefCell};
use std::io::IoSliceMut;

use glasspool_abi::Pid;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use super::joined::read_joined;
use super::{Batch, ReadError, TargetAddr, TargetMemory};

/// Pieces that are kept; a stack has about ten. The kernel takes 1,024 in one call
/// (`IOV_MAX`).
const MAX_PIECES: usize = 256;
/// Bytes that are kept. A piece has 64 KiB at most, mostly far fewer.
const MAX_BYTES: usize = 256 * 1024;

/// Memory of `inner`, some of it known in advance.
#[derive(Debug)]
pub(crate) struct Rehearsed<'a, M> {
    inner: &'a M,
    /// What has been read, in the order of the reads.
    pieces: RefCell<Vec<Piece>>,
    /// The bytes of all pieces, and how many of them are those of the present.
    bytes: Vec<u8>,
    known: usize,
    /// Whether the rehearsal is over.
    sealed: Cell<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    addr: u64,
    len: usize,
    /// Where it begins in `Rehearsed::bytes`.
    at: usize,
}

impl<'a, M: TargetMemory> Rehearsed<'a, M> {
    /// Notes what is read from now on.
    pub(crate) fn new(inner: &'a M) -> Rehearsed<'a, M> {
        Rehearsed {
            inner,
            pieces: RefCell::new(Vec::with_capacity(MAX_PIECES)),
            bytes: Vec::new(),
            known: 0,
            sealed: Cell::new(false),
        }
    }

    /// Ends the rehearsal and makes room for its repetition.
    pub(crate) fn seal(&mut self) {
        self.sealed.set(true);
        let last = self.pieces.get_mut().last();
        let len = last.map_or(0, |last| last.at + last.len);
        self.bytes.resize(len, 0);
    }

    /// Reads everything that the rehearsal read. The process must be held by this thread:
    /// then its number is its own, and the right to trace it is the right to read it
    /// (`ptrace_may_access` guards both). If it fails there is less known in advance.
    pub(crate) fn repeat(&mut self, pid: Pid) {
        let pieces = self.pieces.get_mut();
        let remote: Vec<RemoteIoVec> = pieces
            .iter()
            .filter_map(|piece| {
                Some(RemoteIoVec {
                    base: usize::try_from(piece.addr).ok()?,
                    len: piece.len,
                })
            })
            .collect();
        let pid = nix::unistd::Pid::from_raw(pid.0);
        let local = &mut [IoSliceMut::new(&mut self.bytes)];
        // It ends before the first piece that is not there any more.
        self.known = process_vm_readv(pid, local, &remote).unwrap_or(0);
    }

    /// Whether the target is still the process, and the program, that it was.
    pub(crate) fn proof(&self) -> Result<(), ReadError> {
        let first = self.pieces.borrow().first().copied();
        match first {
            Some(piece) => self.inner.read(TargetAddr(piece.addr), &mut [0]),
            None => Ok(()),
        }
    }

    fn note(&self, addr: TargetAddr, len: usize) {
        let mut pieces = self.pieces.borrow_mut();
        let at = pieces.last().map_or(0, |last| last.at + last.len);
        if pieces.len() < MAX_PIECES && len <= MAX_BYTES - at.min(MAX_BYTES) {
            pieces.push(Piece {
                addr: addr.0,
                len,
                at,
            });
        }
    }

    fn known(&self, addr: TargetAddr, len: usize) -> Option<&[u8]> {
        let known = self.bytes.get(..self.known)?;
        self.pieces.borrow().iter().find_map(|piece| {
            let skip = usize::try_from(addr.0.checked_sub(piece.addr)?).ok()?;
            known.get(piece.at..piece.at + piece.len)?.get(skip..)?.get(..len)
        })
    }
}

impl<M: TargetMemory> TargetMemory for Rehearsed<'_, M> {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        if let Some(known) = self.known(addr, buf.len()) {
            buf.copy_from_slice(known);
            return Ok(buf.len());
        }
        let got = self.inner.read_prefix(addr, buf)?;
        if !self.sealed.get() {
            self.note(addr, got);
        }
        Ok(got)
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        read_joined(self, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Image;
    use super::*;

    fn own() -> Pid {
        Pid(i32::try_from(std::process::id()).unwrap())
    }

    #[test]
    fn what_was_rehearsed_is_read_anew_and_everything_else_from_within() {
        // The image stands for what the way to the memory says, this process for the held one.
        let held = b"bytes of today".to_vec();
        let addr = held.as_ptr().addr() as u64;
        let mut image = Image::new();
        image.map(TargetAddr(addr), *b"bytes of yesterday");
        image.map(TargetAddr(0x1000), *b"elsewhere");
        let mut memory = Rehearsed::new(&image);
        let mut buf = [0; 14];
        memory.read(TargetAddr(addr), &mut buf).unwrap();
        assert_eq!(&buf, b"bytes of yeste");
        memory.read(TargetAddr(0x1000), &mut buf[..9]).unwrap();
        memory.seal();
        memory.repeat(own());
        memory.read(TargetAddr(addr), &mut buf).unwrap();
        assert_eq!(&buf, b"bytes of today");
        memory.read(TargetAddr(addr + 9), &mut buf[..5]).unwrap();
        assert_eq!(&buf[..5], b"today");
        let mut longer = [0; 18];
        memory.read(TargetAddr(addr), &mut longer).unwrap();
        assert_eq!(&longer, b"bytes of yesterday", "more than was rehearsed");
        memory.read(TargetAddr(0x1000), &mut buf[..9]).unwrap();
        assert_eq!(&buf[..9], b"elsewhere", "this process has nothing there");
        assert_eq!(memory.proof(), Ok(()));
    }

    #[test]
    fn an_endless_rehearsal_is_bounded() {
        let mut image = Image::new();
        image.map(TargetAddr(0x1000), vec![0; 2 * MAX_BYTES]);
        let mut memory = Rehearsed::new(&image);
        for _ in 0..2 * MAX_PIECES {
            memory.read(TargetAddr(0x1000), &mut [0; 8]).unwrap();
        }
        memory
            .read(TargetAddr(0x1000), &mut vec![0; 2 * MAX_BYTES])
            .unwrap();
        memory.seal();
        assert_eq!(memory.bytes.len(), MAX_PIECES * 8);
    }

    #[test]
    fn a_process_that_may_not_be_read_is_read_as_always() {
        let mut image = Image::new();
        image.map(TargetAddr(0x1000), *b"elsewhere");
        let mut memory = Rehearsed::new(&image);
        let mut buf = [0; 9];
        memory.read(TargetAddr(0x1000), &mut buf).unwrap();
        memory.seal();
        memory.repeat(Pid(i32::MAX));
        buf = [0; 9];
        memory.read(TargetAddr(0x1000), &mut buf).unwrap();
        assert_eq!(&buf, b"elsewhere");
    }
}
