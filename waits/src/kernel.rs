//! The boundary to the kernel: the pages of an array map, and the bpf(2) calls that aya has no
//! way to make. All `unsafe` of this crate.
//!
//! aya 0.14 knows no task storage (<https://github.com/aya-rs/aya/issues/203>). Its
//! elements are reached with the three plain element commands of bpf(2), the key being a
//! pidfd: the kernel resolves it, so no process id is ever interpreted in the wrong
//! namespace (kernel/bpf/bpf_task_storage.c, `bpf_pid_task_storage_*_elem`).

#![expect(unsafe_code, reason = "mmap and bpf(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags};

use crate::SlotIndex;
use crate::types;

const PAGE: usize = types::PAGE_BYTES as usize;
const TIMES: usize = types::TIMES_BYTES as usize;
/// A snapshot that is disturbed so often is not of programs that write for microseconds.
const TRIES: u32 = 1000;

/// The pages of all slots, read-only. The programs write to them, and each worker may
/// write to its own; so all access is atomic, word by word.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<AtomicU64>,
    slots: u32,
}

// SAFETY: the mapping belongs to this value until it is dropped, and all access to it is
// atomic, so it may be moved to and used from any thread.
unsafe impl Send for Pages {}
// SAFETY: as above; nothing but atomic loads happens through a shared reference.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps the array, of which the kernel knows the length: it refuses more.
    pub(crate) fn map(array: impl AsFd, slots: u32) -> io::Result<Pages> {
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of
        // ours; array_map_mmap (kernel/bpf/arraymap.c) refuses a length beyond the map's,
        // and a map never shrinks, so every page of it stays accessible.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                slots as usize * PAGE,
                ProtFlags::READ,
                MapFlags::SHARED,
                &array,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).expect("mmap does not return null");
        Ok(Pages { start, slots })
    }

    /// The times in a slot's page, all of one moment. `None` if there is no such slot, or
    /// if the page does not stand still: then the worker writes to it, which it must not.
    pub(crate) fn times(&self, slot: SlotIndex) -> Option<[u8; TIMES]> {
        for _ in 0..TRIES {
            let before = self.word(slot, types::PAGE_SEQUENCE_AT)?.load(Ordering::Acquire);
            let mut bytes = [0; TIMES];
            for (at, place) in (types::PAGE_TIMES_AT..).step_by(8).zip(bytes.as_chunks_mut().0) {
                let place: &mut [u8; 8] = place;
                *place = self.word(slot, at)?.load(Ordering::Relaxed).to_ne_bytes();
            }
            // None of the loads above may be later than the one below (Boehm, "Can
            // seqlocks get along with programming language memory models?").
            fence(Ordering::Acquire);
            let after = self.word(slot, types::PAGE_SEQUENCE_AT)?.load(Ordering::Relaxed);
            if before == after && before % 2 == 0 {
                return Some(bytes);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn word(&self, slot: SlotIndex, at: u32) -> Option<&AtomicU64> {
        if slot.0 >= self.slots || at >= types::PAGE_BYTES || !at.is_multiple_of(8) {
            return None;
        }
        let index = (slot.0 as usize * PAGE + at as usize) / 8;
        // SAFETY: the word is inside of the mapping, which is page-aligned and lives as
        // long as `self`; nobody accesses it here but as an atomic.
        Some(unsafe { self.start.add(index).as_ref() })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of our own mmap, and no reference into
        // it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.slots as usize * PAGE) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping cannot fail");
    }
}

/// Commands of bpf(2), `enum bpf_cmd`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
/// Flag of an update: only if there is none yet.
const BPF_NOEXIST: u64 = 1;

/// The part of `union bpf_attr` that element commands use (include/uapi/linux/bpf.h).
#[repr(C)]
struct Element {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A value of the map of workers, as long as the kernel takes and gives it.
pub(crate) type WorkerBytes = [u8; types::WORKER_BYTES as usize];

/// Gives a task its storage. `AlreadyExists` if it has one.
pub(crate) fn insert_worker(map: impl AsFd, pidfd: BorrowedFd<'_>, value: &WorkerBytes) -> io::Result<()> {
    // The kernel only reads the value of an update.
    let value = value.as_ptr().cast_mut();
    element(BPF_MAP_UPDATE_ELEM, map, pidfd, value, BPF_NOEXIST)
}

/// Copies a task's storage. `NotFound` if it has none.
pub(crate) fn read_worker(map: impl AsFd, pidfd: BorrowedFd<'_>, value: &mut WorkerBytes) -> io::Result<()> {
    element(BPF_MAP_LOOKUP_ELEM, map, pidfd, value.as_mut_ptr(), 0)
}

/// Takes a task's storage away. `NotFound` if it has none.
pub(crate) fn remove_worker(map: impl AsFd, pidfd: BorrowedFd<'_>) -> io::Result<()> {
    element(BPF_MAP_DELETE_ELEM, map, pidfd, std::ptr::null_mut(), 0)
}

/// `value` is null, or points to as many bytes as the map's values have, which the kernel
/// reads (update) or writes (lookup): the three functions above see to that.
fn element(
    command: libc::c_long,
    map: impl AsFd,
    pidfd: BorrowedFd<'_>,
    value: *mut u8,
    flags: u64,
) -> io::Result<()> {
    let key = pidfd.as_raw_fd();
    let mut attributes = Element {
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        unused: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: value.expose_provenance() as u64,
        flags,
    };
    // SAFETY: the attributes are as long as is said, and live, as do the key (an int, as
    // the map's keys are) and the value, until the call returns. The value has
    // WORKER_BYTES, the size of the map's values, a multiple of eight.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Element>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
