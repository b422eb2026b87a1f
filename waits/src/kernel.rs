//! The boundary to the kernel: the pages of an array map, and the bpf(2) calls that aya has no
//! way to make. All `unsafe` of this crate.
//!
//! aya 0.14 knows no task storage (<https://github.com/aya-rs/aya/issues/203>). Its
//! elements are reached with the three plain element commands of bpf(2), the key being a
//! pidfd: the kernel resolves it, so no process id is ever interpreted in the wrong
//! namespace (kernel/bpf/bpf_task_storage.c, `bpf_pid_task_storage_*_elem`). Links are made
//! here because aya's do not give away their descriptors.

#![expect(unsafe_code, reason = "mmap, bpf(2), perf_event_open(2) and ioctl(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use glasspool_abi::times::{self, RAW_WORDS};
use rustix::mm::{MapFlags, ProtFlags};

use crate::SlotIndex;
use crate::types;

const PAGE: usize = times::PAGE_BYTES;
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

    /// The raw times in a slot's page, all of one moment. `None` if there is no such slot,
    /// or if the page does not stand still: then the worker writes to it, which it must not.
    pub(crate) fn times(&self, slot: SlotIndex) -> Option<[u64; RAW_WORDS]> {
        for _ in 0..TRIES {
            let before = self.word(slot, times::SEQUENCE)?.load(Ordering::Acquire);
            let mut raw = [0; RAW_WORDS];
            for (at, place) in raw.iter_mut().enumerate() {
                *place = self.word(slot, times::TIMES + at)?.load(Ordering::Relaxed);
            }
            // None of the loads above may be later than the one below (Boehm, "Can
            // seqlocks get along with programming language memory models?").
            fence(Ordering::Acquire);
            let after = self.word(slot, times::SEQUENCE)?.load(Ordering::Relaxed);
            if before == after && before.is_multiple_of(2) {
                return Some(raw);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn word(&self, slot: SlotIndex, at: usize) -> Option<&AtomicU64> {
        if slot.0 >= self.slots || at >= PAGE / 8 {
            return None;
        }
        let index = slot.0 as usize * (PAGE / 8) + at;
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

// === Elements of maps ===

/// Commands of bpf(2), `enum bpf_cmd`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// Flags of an update: whether there is one or not; only if there is none yet.
const BPF_ANY: u64 = 0;
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
/// `struct gp_layout`, in its order.
pub(crate) type Layout = [u32; types::LAYOUT_BYTES as usize / 4];

/// Gives a task its storage. `AlreadyExists` if it has one.
pub(crate) fn insert_worker(map: impl AsFd, pidfd: BorrowedFd<'_>, value: &WorkerBytes) -> io::Result<()> {
    // The kernel only reads the value of an update.
    let value = value.as_ptr().cast_mut();
    element(BPF_MAP_UPDATE_ELEM, map, pidfd.as_raw_fd(), value, BPF_NOEXIST)
}

/// Copies a task's storage. `NotFound` if it has none.
pub(crate) fn read_worker(map: impl AsFd, pidfd: BorrowedFd<'_>, value: &mut WorkerBytes) -> io::Result<()> {
    element(BPF_MAP_LOOKUP_ELEM, map, pidfd.as_raw_fd(), value.as_mut_ptr(), 0)
}

/// Takes a task's storage away. `NotFound` if it has none.
pub(crate) fn remove_worker(map: impl AsFd, pidfd: BorrowedFd<'_>) -> io::Result<()> {
    element(
        BPF_MAP_DELETE_ELEM,
        map,
        pidfd.as_raw_fd(),
        std::ptr::null_mut(),
        0,
    )
}

/// Writes an element of the array of layouts.
pub(crate) fn write_layout(map: impl AsFd, place: u32, layout: &Layout) -> io::Result<()> {
    let value = layout.as_ptr().cast_mut().cast();
    element(BPF_MAP_UPDATE_ELEM, map, place.cast_signed(), value, BPF_ANY)
}

/// Reads an element of the array of counts.
pub(crate) fn read_count(map: impl AsFd, place: u32) -> io::Result<u64> {
    let mut count = 0_u64;
    let value = (&raw mut count).cast();
    element(BPF_MAP_LOOKUP_ELEM, map, place.cast_signed(), value, 0)?;
    Ok(count)
}

/// `value` is null, or points to as many bytes as the map's values have, which the kernel
/// reads (update) or writes (lookup): the functions above see to that. Keys of all maps
/// have four bytes.
fn element(
    command: libc::c_long,
    map: impl AsFd,
    key: libc::c_int,
    value: *mut u8,
    flags: u64,
) -> io::Result<()> {
    let mut attributes = Element {
        map_fd: map.as_fd().as_raw_fd().cast_unsigned(),
        unused: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: value.expose_provenance() as u64,
        flags,
    };
    // SAFETY: the attributes are as long as is said, and live, as do the key (an int, as
    // the maps' keys are) and the value, until the call returns. The value has the size of
    // the map's values, a multiple of eight.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Element>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

// === What has a program run ===

/// The part of `union bpf_attr` that BPF_RAW_TRACEPOINT_OPEN uses.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    program: u32,
    unused: u32,
}

/// Has a program run at the tracepoint that it was loaded for, as long as the descriptor
/// lives, in whatever process.
pub(crate) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = RawTracepoint {
        // None: the program's type information says it (kernel/bpf/syscall.c,
        // bpf_raw_tp_link_attach).
        name: 0,
        program: program.as_raw_fd().cast_unsigned(),
        unused: 0,
    };
    // SAFETY: the attributes are as long as is said, and live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_RAW_TRACEPOINT_OPEN,
            &raw mut attributes,
            size_of::<RawTracepoint>(),
        )
    };
    new_descriptor(result)
}

/// A descriptor that a system call has made, or why not. bpf(2) makes all of them
/// close-on-exec, and of perf_event_open(2) it is asked.
fn new_descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The first version of `struct perf_event_attr` (include/uapi/linux/perf_event.h), which
/// every kernel knows.
#[repr(C)]
struct ClockAttributes {
    kind: u32,
    size: u32,
    config: u64,
    frequency: u64,
    sample: u64,
    read: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
}
const _: () = assert!(size_of::<ClockAttributes>() == 64, "PERF_ATTR_SIZE_VER0");

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
/// Bits of its flags: begins disabled; not of the idle task; a frequency, no period.
const CLOCK_FLAGS: u64 = 1 | 1 << 7 | 1 << 10;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// PERF_EVENT_IOC_SET_BPF.
const SET_BPF: libc::Ioctl = 0x4004_2408;

/// A clock of one CPU that has a program run so often in a second, once it runs itself
/// ([`run_clock`]). It holds the program.
pub(crate) fn open_clock(program: BorrowedFd<'_>, cpu: u32, per_s: u64) -> io::Result<OwnedFd> {
    let attributes = ClockAttributes {
        kind: PERF_TYPE_SOFTWARE,
        size: 64,
        config: PERF_COUNT_SW_CPU_CLOCK,
        frequency: per_s,
        sample: 0,
        read: 0,
        flags: CLOCK_FLAGS,
        wakeup: 0,
        breakpoint: 0,
        config1: 0,
    };
    let (everybody, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    // SAFETY: the attributes are as long as they say, and live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            everybody,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let clock = new_descriptor(result)?;
    // SAFETY: the request takes a descriptor's number, no pointer.
    if unsafe { libc::ioctl(clock.as_raw_fd(), SET_BPF, program.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(clock)
}

/// PERF_EVENT_IOC_ENABLE and PERF_EVENT_IOC_DISABLE (include/uapi/linux/perf_event.h).
const ENABLE: libc::Ioctl = 0x2400;
const DISABLE: libc::Ioctl = 0x2401;

/// Has a clock run or stand still.
pub(crate) fn run_clock(clock: BorrowedFd<'_>, run: bool) -> io::Result<()> {
    let request = if run { ENABLE } else { DISABLE };
    // SAFETY: both requests take a number, no pointer.
    if unsafe { libc::ioctl(clock.as_raw_fd(), request, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
