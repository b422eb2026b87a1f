//! The boundary to `mmap`: shared pages as atomic words. All `unsafe` of this crate.
//!
//! Two processes use the pages at the same time, so nothing here ever forms a
//! reference to plain memory: every access is an atomic load or store of a word.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Why a slot's pages could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A system call failed.
    #[error("cannot {call} the {bytes} bytes of a slot: {source}")]
    Os {
        /// The call.
        call: &'static str,
        /// How many bytes were wanted.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// The file could be cut under the reader, which would kill it by SIGBUS.
    #[error(
        "the memory file of a slot is {found} bytes and sealed {seals:#x}; expected {expected} bytes that cannot shrink"
    )]
    NotSealed {
        /// Its length.
        found: u64,
        /// Its seals.
        seals: u32,
        /// What was expected.
        expected: usize,
    },
}

/// Makes the memory file of one slot: `bytes` long for ever, so that no holder of
/// the descriptor can make a reader of it fault.
pub fn create_slot_memory(bytes: usize) -> Result<OwnedFd, MapError> {
    let os = |call| {
        move |e: rustix::io::Errno| MapError::Os {
            call,
            bytes,
            source: e.into(),
        }
    };
    let fd = rustix::fs::memfd_create("glasspool-slot", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(os("memfd_create"))?;
    rustix::fs::ftruncate(&fd, bytes as u64).map_err(os("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(os("fcntl(F_ADD_SEALS)"))?;
    Ok(fd)
}

/// A mapping of shared pages, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Words {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to this value until it is dropped, and all access to
// it is atomic, so it may be moved to and used from any thread.
unsafe impl Send for Words {}
// SAFETY: as above; `get` hands out only shared references to atomics.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `bytes` of the file. A read-only mapping must only be loaded
    /// from: the types in `slot` see to that.
    pub(crate) fn map(fd: impl AsFd, bytes: usize, writable: bool) -> Result<Words, MapError> {
        let os = |call| {
            move |e: rustix::io::Errno| MapError::Os {
                call,
                bytes,
                source: e.into(),
            }
        };
        let found = rustix::fs::fstat(&fd).map_err(os("fstat"))?.st_size;
        let found = u64::try_from(found).unwrap_or(0);
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(os("fcntl(F_GET_SEALS)"))?;
        if found < bytes as u64 || !seals.contains(SealFlags::SHRINK) {
            return Err(MapError::NotSealed {
                found,
                seals: seals.bits(),
                expected: bytes,
            });
        }
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        Words::map_part(fd, 0, bytes, protection)
    }

    /// Maps a part of an array that the kernel keeps for its programs, writable. It does not
    /// shrink, and the kernel refuses to map what it does not have (kernel/bpf/arraymap.c,
    /// `array_map_mmap`).
    pub(crate) fn map_value(map: impl AsFd, offset: u64, bytes: usize) -> Result<Words, MapError> {
        Words::map_part(map, offset, bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// What is mapped must stay as long as it is.
    fn map_part(fd: impl AsFd, offset: u64, bytes: usize, protection: ProtFlags) -> Result<Words, MapError> {
        let os = |source: rustix::io::Errno| MapError::Os {
            call: "mmap",
            bytes,
            source: source.into(),
        };
        // SAFETY: a new mapping at an address that the kernel chooses touches no
        // memory of ours; both callers map what cannot shrink, so every page of it
        // stays accessible.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                &fd,
                offset,
            )
        }
        .map_err(os)?;
        let start = NonNull::new(start.cast::<AtomicU64>()).expect("mmap does not return null");
        Ok(Words {
            start,
            words: bytes / 8,
        })
    }

    /// The word at `index`, if it lies inside the mapping.
    pub(crate) fn get(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        // SAFETY: `index` is inside the mapping, which is page-aligned and lives as
        // long as `self`; other processes change it only as this word's atomic.
        Some(unsafe { self.start.add(index).as_ref() })
    }

    /// The words from `index`, as many as `count`, if they lie inside the mapping.
    pub(crate) fn slice(&self, index: usize, count: usize) -> Option<&[AtomicU64]> {
        let end = index.checked_add(count)?;
        if end > self.words {
            return None;
        }
        // SAFETY: the range is inside the mapping, which is page-aligned and lives as
        // long as `self`; every element is only ever accessed as an atomic.
        Some(unsafe { std::slice::from_raw_parts(self.start.add(index).as_ptr(), count) })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of our own mmap, and no reference
        // into it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.words * 8) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping cannot fail");
    }
}
