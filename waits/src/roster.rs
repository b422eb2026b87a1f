//! Who is watched.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::times::{BEGAN, BEGUN_SEQUENCE, SINCE};
use glasspool_abi::zend::PhpBuild;

use crate::kernel::{self, Layout, WorkerBytes};
use crate::layout::layout;
use crate::types;
use crate::{RegisterError, SlotIndex, WorkerId};

/// The workers that the programs watch, as their owner says. There must be one roster only
/// for the programs of one [`load`](crate::load).
#[derive(Debug)]
pub struct Roster {
    workers: OwnedFd,
    layouts: OwnedFd,
    pages: u32,
    /// What has been written to `layouts`, and where.
    known: HashMap<Layout, u32>,
}

impl Roster {
    /// Of the programs' maps of workers and layouts, which have so many pages.
    #[must_use]
    pub fn new(workers: OwnedFd, layouts: OwnedFd, pages: u32) -> Roster {
        Roster {
            workers,
            layouts,
            pages,
            known: HashMap::new(),
        }
    }

    /// Watches the process of a pidfd from its next switch on; with its PHP, also which
    /// lines wait. Its first thread only, which is the one that runs PHP. It ends with the
    /// process, or by [`Roster::unregister`]. Takes some microseconds.
    ///
    /// The slot must not belong to another worker that is registered.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn register(
        &mut self,
        pidfd: impl AsFd,
        worker: WorkerId,
        slot: SlotIndex,
        php: Option<&PhpBuild>,
    ) -> Result<(), RegisterError> {
        self.register_since(pidfd, worker, slot, php, None)
    }

    /// The same from `began_ns` of `CLOCK_MONOTONIC` on, which is now, instead of its next
    /// switch. Its page was begun with the same time ([`TimesPage::begin`]). For a process that
    /// has only just come to be: what it does now is not known, and seems to be a wait for a
    /// CPU if it is blocked.
    ///
    /// # Errors
    /// See [`RegisterError`].
    ///
    /// [`TimesPage::begin`]: glasspool_abi::times::TimesPage::begin
    pub fn register_since(
        &mut self,
        pidfd: impl AsFd,
        worker: WorkerId,
        slot: SlotIndex,
        php: Option<&PhpBuild>,
        began_ns: Option<u64>,
    ) -> Result<(), RegisterError> {
        if slot.0 >= self.pages {
            return Err(RegisterError::NoSlot {
                worker,
                slot,
                slots: self.pages,
            });
        }
        let (current, layout) = match php {
            Some(build) => {
                let offset = u64::from(build.layout.eg_current_execute_data);
                let current = build.executor_globals.wrapping_add(offset);
                (current, self.layout(worker, build)?)
            }
            None => (0, 0),
        };
        let mut value: WorkerBytes = [0; types::WORKER_BYTES as usize];
        let head = [
            worker.0.to_ne_bytes(),
            current.to_ne_bytes(),
            join(slot.0, layout),
        ];
        for (place, word) in value.chunks_exact_mut(8).zip(head) {
            place.copy_from_slice(&word);
        }
        if let Some(began_ns) = began_ns {
            let times = types::WORKER_TIMES_AT as usize;
            for (at, word) in [
                (types::WORKER_SEQUENCE_AT as usize, BEGUN_SEQUENCE),
                (times + BEGAN * 8, began_ns),
                (times + SINCE * 8, began_ns),
            ] {
                if let Some(place) = value.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                    *place = word.to_ne_bytes();
                }
            }
        }
        kernel::insert_worker(&self.workers, pidfd.as_fd(), &value)
            .map_err(|source| refused(worker, "watch the waits", source))
    }

    /// Watches a process no longer. No error if it was not watched, or has ended.
    ///
    /// # Errors
    /// Only those of the kernel.
    pub fn unregister(&mut self, pidfd: impl AsFd, worker: WorkerId) -> Result<(), RegisterError> {
        match kernel::remove_worker(&self.workers, pidfd.as_fd())
            .map_err(|source| refused(worker, "end watching the waits", source))
        {
            Err(RegisterError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    /// The place of a build's layout, which is written where it is new.
    fn layout(&mut self, worker: WorkerId, build: &PhpBuild) -> Result<u32, RegisterError> {
        let layout = layout(worker, build)?;
        if let Some(&place) = self.known.get(&layout) {
            return Ok(place);
        }
        let place = u32::try_from(self.known.len())
            .ok()
            .filter(|&place| place < types::LAYOUTS)
            .ok_or(RegisterError::TooManyLayouts {
                worker,
                most: types::LAYOUTS,
            })?;
        kernel::write_layout(&self.layouts, place, &layout).map_err(|source| RegisterError::Kernel {
            worker,
            what: "tell the offsets of PHP",
            source,
        })?;
        self.known.insert(layout, place);
        Ok(place)
    }
}

fn refused(worker: WorkerId, what: &'static str, source: io::Error) -> RegisterError {
    match source.raw_os_error() {
        // ENOENT: its pidfd stands for no task any more. ESRCH: it is being released.
        Some(libc::ENOENT | libc::ESRCH) => RegisterError::Gone(worker),
        _ => RegisterError::Kernel { worker, what, source },
    }
}

/// Two halves of a word as the kernel sees them in memory.
fn join(first: u32, second: u32) -> [u8; 8] {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    std::array::from_fn(|index| match index {
        0..4 => first[index],
        _ => second[index - 4],
    })
}
