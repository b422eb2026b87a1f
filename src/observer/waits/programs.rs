//! The programs in the kernel, as an observer reaches them.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use glasspool_abi::times::Times;
use glasspool_waits::{Eye, Record, Records, SlotIndex, Wait};

use super::Losses;
use crate::observer::protocol::Parts;

/// The ring of records.
pub(in crate::observer) trait Told: Debug + Send {
    /// Tells at most that many.
    fn drain(&mut self, most: usize, tell: &mut dyn FnMut(Record));
    /// Records that made no sense, so far.
    fn malformed(&self) -> u64 {
        0
    }
    /// A copy of its descriptor.
    fn ring(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// A view of workers, for any thread.
pub(in crate::observer) trait Sight: Debug + Send + Sync {
    /// The wait that the process is in now.
    fn going_on(&self, process: BorrowedFd<'_>) -> Option<Wait>;
    /// The totals of that page's worker at that moment, also of one that is dead.
    fn times(&self, page: u32, at_mono_ns: u64) -> Option<Times>;
    /// Whether that page's worker runs, or would if it had a CPU; for all it says.
    fn runs(&self, page: u32) -> bool;
    /// What the programs have counted as lost in their life.
    fn losses(&self) -> Losses {
        Losses::default()
    }
}

/// Both, and what was lost before this observer.
#[derive(Debug)]
pub(in crate::observer) struct Programs {
    pub(super) told: Box<dyn Told>,
    pub(super) sight: Arc<dyn Sight>,
    before: Losses,
}

impl Programs {
    /// From the descriptors of the supervisor.
    pub(super) fn new(parts: Parts, pages: u32) -> io::Result<Programs> {
        let eye = Eye::new(parts.workers, parts.pages, parts.counts, pages)?;
        let records = Records::new(parts.ring)?;
        Ok(Programs::of(Box::new(records), Arc::new(eye)))
    }

    pub(in crate::observer) fn of(told: Box<dyn Told>, sight: Arc<dyn Sight>) -> Programs {
        let before = sight.losses();
        Programs { told, sight, before }
    }

    pub(super) fn ring(&self) -> io::Result<Option<OwnedFd>> {
        self.told.ring()
    }

    /// Since this observer began.
    pub(super) fn losses(&self) -> Losses {
        let now = self.sight.losses();
        Losses {
            ring_full: now.ring_full.saturating_sub(self.before.ring_full),
            made_up: now.made_up.saturating_sub(self.before.made_up),
            odd: now.odd.saturating_sub(self.before.odd),
            malformed: self.told.malformed(),
            ..Losses::default()
        }
    }
}

impl Told for Records {
    fn drain(&mut self, most: usize, tell: &mut dyn FnMut(Record)) {
        // Whether there is more does not matter: the next turn comes.
        let _drained = Records::drain(self, most, tell);
    }

    fn malformed(&self) -> u64 {
        Records::malformed(self)
    }

    fn ring(&self) -> io::Result<Option<OwnedFd>> {
        self.as_fd().try_clone_to_owned().map(Some)
    }
}

impl Sight for Eye {
    fn going_on(&self, process: BorrowedFd<'_>) -> Option<Wait> {
        Eye::going_on(self, process)
    }

    fn times(&self, page: u32, at_mono_ns: u64) -> Option<Times> {
        Eye::times(self, SlotIndex(page), at_mono_ns)
    }

    fn runs(&self, page: u32) -> bool {
        Eye::runs(self, SlotIndex(page))
    }

    fn losses(&self) -> Losses {
        Losses {
            ring_full: self.lost(),
            made_up: self.missed(),
            odd: self.odd(),
            ..Losses::default()
        }
    }
}
