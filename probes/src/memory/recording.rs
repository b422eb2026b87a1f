//! A memory that remembers what was read through it, to be kept as an image: the pages
//! that one read of a stack touched are all that is needed to decode it again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Image, ReadError, TargetAddr, TargetMemory};

/// Bytes per piece that is kept. Small, so that an image has little in it besides what
/// was asked for.
const PIECE: u64 = 64;

/// Passes reads on, and keeps the bytes that were answered. Later answers replace
/// earlier ones, so record a target that stands still.
#[derive(Debug)]
pub struct Recording<M> {
    inner: M,
    pieces: Mutex<BTreeMap<u64, Piece>>,
}

#[derive(Debug, Clone)]
struct Piece {
    bytes: [u8; 64],
    /// Which of the bytes have been read, one bit each.
    known: u64,
}

impl<M> Recording<M> {
    /// Records what is read from `inner`.
    pub fn new(inner: M) -> Recording<M> {
        Recording {
            inner,
            pieces: Mutex::new(BTreeMap::new()),
        }
    }

    /// Everything that has been read so far, in order of addresses, as runs of bytes
    /// without a gap.
    #[must_use]
    pub fn runs(&self) -> Vec<(TargetAddr, Vec<u8>)> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs: Vec<(TargetAddr, Vec<u8>)> = Vec::new();
        for (start, piece) in pieces.iter() {
            for (bit, byte) in piece.bytes.iter().enumerate() {
                if piece.known >> bit & 1 == 0 {
                    continue;
                }
                let addr = TargetAddr(start + bit as u64);
                match runs.last_mut() {
                    Some((first, bytes)) if first.plus(bytes.len() as u64) == Some(addr) => {
                        bytes.push(*byte);
                    }
                    _ => runs.push((addr, vec![*byte])),
                }
            }
        }
        runs
    }

    /// The same as a memory of its own.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = Image::new();
        for (addr, bytes) in self.runs() {
            image.map(addr, bytes);
        }
        image
    }
}

impl<M: TargetMemory> TargetMemory for Recording<M> {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        let got = self.inner.read_prefix(addr, buf)?;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        for (skip, byte) in buf[..got].iter().enumerate() {
            let Some(at) = addr.plus(skip as u64) else { break };
            let offset = usize::try_from(at.0 % PIECE).unwrap_or(0);
            let piece = pieces.entry(at.0 - at.0 % PIECE).or_insert(Piece {
                bytes: [0; 64],
                known: 0,
            });
            piece.bytes[offset] = *byte;
            piece.known |= 1 << offset;
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_and_nothing_else_is_kept() {
        let mut image = Image::new();
        image.map(TargetAddr(0x1000), (0..=255).collect::<Vec<u8>>());
        let recording = Recording::new(image);
        let mut buf = [0; 100];
        recording.read(TargetAddr(0x1010), &mut buf[..4]).unwrap();
        recording.read(TargetAddr(0x1012), &mut buf[..70]).unwrap();
        recording.read(TargetAddr(0x10f0), &mut buf).unwrap_err();
        let runs = recording.runs();
        assert_eq!(runs.len(), 2);
        assert_eq!((runs[0].0, runs[0].1.len()), (TargetAddr(0x1010), 72));
        assert_eq!(runs[0].1[..5], [16, 17, 18, 19, 20]);
        assert_eq!(
            (runs[1].0, runs[1].1.len()),
            (TargetAddr(0x10f0), 16),
            "what a short read gave counts"
        );
        let again = recording.image();
        again.read(TargetAddr(0x1010), &mut buf[..72]).unwrap();
        again.read(TargetAddr(0x1000), &mut buf[..4]).unwrap_err();
    }
}
