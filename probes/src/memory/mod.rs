//! The memory of a target, as a trait: the decoders do not know whether they read a
//! live process ([`MemFd`], [`VmRead`]), a saved one ([`CoreFile`]) or an array in a test
//! ([`Image`]).

mod batch;
mod core_file;
mod image;
mod joined;
mod live;
mod mem_fd;
mod recording;
mod rehearsed;
mod vm_read;

use std::fmt;

pub use batch::{Batch, Slice};
pub use core_file::{CoreFile, CoreFileError};
pub use image::Image;
pub use live::LiveMemory;
pub use mem_fd::MemFd;
pub use recording::Recording;
pub(crate) use rehearsed::Rehearsed;
pub use vm_read::VmRead;

/// An address in the target, never one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetAddr(pub u64);

impl TargetAddr {
    /// The address `bytes` further on, or `None` past the end of the address space.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Option<TargetAddr> {
        self.0.checked_add(bytes).map(TargetAddr)
    }
}

impl fmt::Display for TargetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why bytes of a target could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The target has exited, or replaced its address space by exec. Ordinary.
    #[error("the process is gone or has replaced its program")]
    Gone,
    /// Nothing readable is mapped at this address: the target moved on, or the
    /// layout is not the target's.
    #[error("nothing readable at {addr}")]
    Fault {
        /// The first byte that could not be read.
        addr: TargetAddr,
    },
    /// The kernel refuses this reader.
    #[error(
        "reading memory is not permitted (let the process hand over its own /proc/self/mem, run as root, or give CAP_SYS_PTRACE)"
    )]
    Denied,
}

/// Something whose bytes can be read by address.
///
/// Implementations copy; nothing of the target is ever mapped or referenced.
pub trait TargetMemory {
    /// Reads as many of the wanted bytes as are readable from `addr` on without a
    /// gap, and says how many: at least one, unless `buf` is empty.
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError>;

    /// Fills `buf`, or fails; then `buf` holds nothing of use.
    fn read(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let got = self.read_prefix(addr, buf)?;
        if got == buf.len() {
            return Ok(());
        }
        let addr = addr.plus(got as u64).unwrap_or(addr);
        Err(ReadError::Fault { addr })
    }

    /// Answers every request of `batch`. A request that faults is left empty; only
    /// errors that concern the whole target are returned.
    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        batch.answer_each(|addr, buf| self.read_prefix(addr, buf))
    }
}

impl<M: TargetMemory> TargetMemory for &M {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        (**self).read_prefix(addr, buf)
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        (**self).read_batch(batch)
    }
}
