//! Copies of what lies together in the target: the VM stack, and what is around frames
//! that are elsewhere.

use crate::memory::{ReadError, TargetAddr, TargetMemory};

/// Most of the VM stack's current page that is read at once. A page has 256 KiB.
pub(super) const REGION: u64 = 64 * 1024;

/// The copies, whose buffers are used again for the next read of the same target.
#[derive(Debug, Default)]
pub(super) struct Regions {
    list: Vec<Region>,
    /// How many of the list are copies; the others are buffers.
    used: usize,
}

#[derive(Debug, Default)]
struct Region {
    start: u64,
    len: usize,
    /// At least `len` bytes.
    bytes: Vec<u8>,
}

impl Regions {
    /// With room for the VM stack, touched, so that reading it costs no page fault.
    pub(super) fn with_room() -> Regions {
        let bytes = vec![0; usize::try_from(REGION).unwrap_or(0)];
        let region = Region {
            bytes,
            ..Region::default()
        };
        Regions {
            list: vec![region],
            used: 0,
        }
    }

    /// How many copies there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Drops the copies and keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Drops the copy that was made last.
    pub(super) fn forget_last(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// Copies what is readable from `start` on, `end` excluded; perhaps nothing.
    pub(super) fn read<M: TargetMemory>(&mut self, mem: &M, start: u64, end: u64) -> Result<(), ReadError> {
        if self.used == self.list.len() {
            self.list.push(Region::default());
        }
        let region = &mut self.list[self.used];
        self.used += 1;
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        if region.bytes.len() < len {
            region.bytes.resize(len, 0);
        }
        region.start = start;
        region.len = match mem.read_prefix(TargetAddr(start), &mut region.bytes[..len]) {
            Ok(got) => got.min(len),
            Err(ReadError::Fault { .. }) => 0,
            Err(whole) => return Err(whole),
        };
        Ok(())
    }

    /// Bytes that have been copied.
    pub(super) fn get(&self, addr: u64, len: usize) -> Option<&[u8]> {
        self.list[..self.used].iter().find_map(|region| {
            let skip = usize::try_from(addr.checked_sub(region.start)?).ok()?;
            region.bytes.get(..region.len)?.get(skip..)?.get(..len)
        })
    }
}
