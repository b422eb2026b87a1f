//! What workers do at this moment, and have done so far.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use glasspool_abi::times::{self, RAW_WORDS};

use crate::SlotIndex;
use crate::kernel::{self, Pages, WorkerBytes};
use crate::record::Wait;
use crate::times::State;
use crate::types;

/// A wait that is written while it is copied is tried again so often: each try is a
/// system call of a microsecond, and the programs write for a few.
const TRIES: u32 = 20;

/// Looks at workers without touching them: none is stopped, and none can tell. Any number
/// of threads may look through the same one.
#[derive(Debug)]
pub struct Eye {
    workers: OwnedFd,
    counts: OwnedFd,
    pages: Pages,
}

impl Eye {
    /// Of the programs' maps of workers, pages and counts, and how many pages there are.
    ///
    /// # Errors
    /// The pages cannot be mapped.
    pub fn new(workers: OwnedFd, pages: OwnedFd, counts: OwnedFd, number: u32) -> io::Result<Eye> {
        let pages = Pages::map(pages, number)?;
        Ok(Eye {
            workers,
            counts,
            pages,
        })
    }

    /// Whether the worker in a slot is on a CPU or waits for one, or nothing is known of it
    /// yet; the worker's word, which can write to its page. Reads memory only.
    #[must_use]
    pub fn runs(&self, slot: SlotIndex) -> bool {
        let state = self.raw(slot).map(|raw| State::of_raw(&raw));
        matches!(state, Some(State::Unknown | State::OnCpu | State::RunQueue))
    }

    /// The wait that a worker is in now, with its stack; however short it is so far.
    /// `None` if it is not blocked or not registered. Two system calls, some microseconds.
    #[must_use]
    pub fn going_on(&self, pidfd: impl AsFd) -> Option<Wait> {
        let value = self.worker(pidfd.as_fd())?;
        match State::of_raw(&raw_times(&value)) {
            State::Blocked(_) => Wait::parse(value.get(types::WORKER_WAIT_AT as usize..)?),
            State::Unknown | State::OnCpu | State::RunQueue => None,
        }
    }

    /// Where the time of the worker in a slot went until `at_ns` of `CLOCK_MONOTONIC`: its
    /// last worker's, once it has ended. Reads memory only. `None` if there is no such
    /// slot, before the first switch of a worker whose page was not begun, or if it never
    /// stands still.
    #[must_use]
    pub fn times(&self, slot: SlotIndex, at_ns: u64) -> Option<times::Times> {
        let raw = self.raw(slot)?;
        times::Times::of_raw(&raw, at_ns, || None).map(|(totals, _)| totals)
    }

    /// Records lost so far because the ring was full. A system call, as the two below.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.count(types::COUNT_RING_FULL)
    }

    /// Times, so far, that a worker was woken or got a CPU and the kernel did not tell. It
    /// seems to be blocked or to wait for a CPU until it leaves that one; then the
    /// scheduler's own counters say what it did, and the times are right again.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.count(types::COUNT_MISSED)
    }

    /// Times, so far, that a worker left a CPU and the kernel did not tell, for which
    /// nothing makes up: it seems to have run instead. 0 is expected.
    #[must_use]
    pub fn odd(&self) -> u64 {
        self.count(types::COUNT_ODD)
    }

    pub(crate) fn raw(&self, slot: SlotIndex) -> Option<[u64; RAW_WORDS]> {
        self.pages.times(slot)
    }

    /// The same from where the worker cannot write.
    pub(crate) fn raw_of(&self, pidfd: BorrowedFd<'_>) -> Option<[u64; RAW_WORDS]> {
        self.worker(pidfd).map(|value| raw_times(&value))
    }

    fn count(&self, place: u32) -> u64 {
        kernel::read_count(&self.counts, place).unwrap_or(0)
    }

    /// A worker's storage, all of one moment: the number of changes is the first that is
    /// copied, and is the same in a second copy.
    fn worker(&self, pidfd: BorrowedFd<'_>) -> Option<Box<WorkerBytes>> {
        let sequence = |value: &WorkerBytes| word(value, types::WORKER_SEQUENCE_AT as usize);
        let mut first: Box<WorkerBytes> = Box::new([0; types::WORKER_BYTES as usize]);
        let mut second = first.clone();
        for _ in 0..TRIES {
            kernel::read_worker(&self.workers, pidfd, &mut first).ok()?;
            kernel::read_worker(&self.workers, pidfd, &mut second).ok()?;
            if sequence(&first) == sequence(&second) && sequence(&first).is_multiple_of(2) {
                return Some(first);
            }
        }
        None
    }
}

fn raw_times(value: &WorkerBytes) -> [u64; RAW_WORDS] {
    std::array::from_fn(|at| word(value, types::WORKER_TIMES_AT as usize + at * 8))
}

fn word(value: &WorkerBytes, at: usize) -> u64 {
    let word = value.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_ne_bytes(*word))
}
