//! All parts in one hand, for a process that watches by itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use glasspool_abi::control::ProgramPart;
use glasspool_abi::zend::PhpBuild;
use rustix::time::{ClockId, clock_gettime};

use crate::ladder::{self, Unavailable};
use crate::record::{Record, Wait};
use crate::times::Times;
use crate::{Drained, Eye, Records, RegisterError, Roster, Settings, SlotIndex, WorkerId, load};

/// The programs, loaded and running. Dropping it ends them.
#[derive(Debug)]
pub struct Waits {
    _links: Vec<OwnedFd>,
    roster: Roster,
    records: Records,
    eye: Eye,
    slots: u32,
}

impl Waits {
    /// Loads and starts the programs; see [`load`].
    ///
    /// # Errors
    /// With the reason, and what to do about it. Nothing is left behind then.
    pub fn load(settings: &Settings) -> Result<Waits, Unavailable> {
        let slots = settings.slots.max(1);
        let mut parts = load(settings)?;
        let mut take = |wanted: ProgramPart| {
            let at = parts.iter().position(|(part, _)| *part == wanted);
            at.map(|at| parts.swap_remove(at).1)
                .ok_or_else(|| ladder::bad_object("the list of parts"))
        };
        let no_memory = |e: io::Error| ladder::explain("map the programs' memory", &e);
        let (workers, layouts) = (take(ProgramPart::Workers)?, take(ProgramPart::Layouts)?);
        let (pages, counts) = (take(ProgramPart::Pages)?, take(ProgramPart::Counts)?);
        let ring = take(ProgramPart::Ring)?;
        let eye = Eye::new(workers.try_clone().map_err(no_memory)?, pages, counts, slots);
        Ok(Waits {
            _links: parts.into_iter().map(|(_, link)| link).collect(),
            roster: Roster::new(workers, layouts, slots),
            records: Records::new(ring).map_err(no_memory)?,
            eye: eye.map_err(no_memory)?,
            slots,
        })
    }

    /// How many workers can be registered at a time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// See [`Roster::register`].
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
        self.roster.register(pidfd, worker, slot, php)
    }

    /// See [`Roster::unregister`].
    ///
    /// # Errors
    /// Only those of the kernel.
    pub fn unregister(&mut self, pidfd: impl AsFd, worker: WorkerId) -> Result<(), RegisterError> {
        self.roster.unregister(pidfd, worker)
    }

    /// Where the time of the worker in a slot went until now: its last worker's, once it
    /// has ended. Reads memory only. `None` if there is no such slot, or if its page never
    /// stands still.
    #[must_use]
    pub fn times(&self, slot: SlotIndex) -> Option<Times> {
        Some(Times::of_raw(&self.eye.raw(slot)?, now_ns()))
    }

    /// The same from where the worker cannot write: two system calls, some microseconds.
    /// `None` if it is not registered any more.
    #[must_use]
    pub fn times_of(&self, pidfd: impl AsFd) -> Option<Times> {
        Some(Times::of_raw(&self.eye.raw_of(pidfd.as_fd())?, now_ns()))
    }

    /// See [`Eye::going_on`].
    #[must_use]
    pub fn going_on(&self, pidfd: impl AsFd) -> Option<Wait> {
        self.eye.going_on(pidfd)
    }

    /// Tells the waits that have ended since the last turn; see [`Records::drain`].
    pub fn drain(&mut self, most: usize, mut tell: impl FnMut(Wait)) -> Drained {
        self.records.drain(most, |record| match record {
            Record::Wait(wait) => tell(wait),
            // Nobody here has the clocks run.
            Record::OnCpu(_) => {}
        })
    }

    /// Readable once a quarter of the ring is full. Below that its reader comes by itself.
    #[must_use]
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }

    /// See [`Eye::lost`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.eye.lost()
    }

    /// See [`Eye::missed`].
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.eye.missed()
    }

    /// See [`Eye::odd`].
    #[must_use]
    pub fn odd(&self) -> u64 {
        self.eye.odd()
    }

    /// See [`Records::malformed`].
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.records.malformed()
    }
}

/// Of the clock that the programs read (bpf_ktime_get_ns).
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    );
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
