//! Where the time of PHP workers goes, told by the scheduler: how long each was on a
//! CPU, waited for one, or was blocked; in what, for whom, and by which line of PHP.
//!
//! Two small programs run inside the kernel whenever a task is switched or woken
//! (`bpf/waits.bpf.c`; nothing is attached to system calls). They account every
//! nanosecond of a registered worker to one state, and send each wait that was long
//! enough as a record. A third runs while somebody wants to know what workers on a CPU do.
//! No process is stopped, none is asked, and no request waits for anything here: what does
//! not fit is counted.
//!
//! - [`load`]: starts the programs. What keeps them running are descriptors, which other
//!   processes may hold as well; loading takes privileges, and nothing below does. Start here;
//! - [`Roster`]: who is watched;
//! - [`Records`]: what is told, and [`record`], one wait and the PHP stack that waited;
//! - [`Eye`]: what a worker waits for now, and where its time went so far;
//! - [`run_clocks`]: has the third program run, or not;
//! - [`Waits`]: all of these in one hand, and [`times`], its snapshots;
//! - [`ladder`]: what this machine allows, found out by trying, and what would allow more;
//! - `kernel`: the boundary: workers' pages, and bpf(2). All `unsafe` of this crate;
//! - `layout`, `types`: what is shared with the programs.
//!
//! Without the feature `ebpf` everything compiles and [`load`] says why not.
//!
//! **Trust.** The programs are ours. What a worker can write decides what they report of
//! *that worker*: its page, and PHP's structures in its memory. Every length and offset
//! is bounded, and every string is cut, cleaned and only ever shown.
//!
//! This room knows no telemetry and no pool, and does not choose whom to register.

#![deny(unsafe_code)]

#[cfg(feature = "ebpf")]
mod clocks;
#[cfg(feature = "ebpf")]
mod eye;
#[cfg(feature = "ebpf")]
mod kernel;
pub mod ladder;
#[cfg(feature = "ebpf")]
mod layout;
#[cfg(feature = "ebpf")]
mod loader;
pub mod record;
#[cfg(feature = "ebpf")]
mod records;
#[cfg(feature = "ebpf")]
mod roster;
pub mod times;
mod types;
#[cfg(feature = "ebpf")]
mod waits;
#[cfg(not(feature = "ebpf"))]
mod without;

use std::fmt;
use std::time::Duration;

#[cfg(feature = "ebpf")]
pub use clocks::run_clocks;
#[cfg(feature = "ebpf")]
pub use eye::Eye;
pub use ladder::{Rung, Unavailable};
#[cfg(feature = "ebpf")]
pub use loader::load;
pub use record::{Address, Cause, Descriptor, Frame, OnCpu, Record, Wait};
#[cfg(feature = "ebpf")]
pub use records::Records;
#[cfg(feature = "ebpf")]
pub use roster::Roster;
pub use times::Times;
#[cfg(feature = "ebpf")]
pub use waits::Waits;
#[cfg(not(feature = "ebpf"))]
pub use without::{Eye, Records, Roster, Waits, load, run_clocks};

/// What is asked of the programs when they are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Workers that can be registered at a time; 4 KiB of kernel memory each.
    pub slots: u32,
    /// Shorter waits are accounted for but make no record.
    pub wait_threshold: Duration,
    /// Calls of PHP that are kept of a stack, innermost first; at most 32. Each that was not
    /// there at the wait before costs the worker some 0.4 us, however shortly it blocks; in a
    /// request and with opcache, some 20 ns if it was (docs/adr/005).
    pub frames: u32,
    /// Length of the ring of records; made a power of two of whole pages.
    pub ring_bytes: u32,
    /// Whether system calls of workers in requests are counted, too: two more programs, which
    /// cost each system call of each process of the host (docs/specification.md).
    pub system_calls: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            slots: 256,
            wait_threshold: Duration::from_millis(1),
            frames: 16,
            ring_bytes: 1 << 20,
            system_calls: false,
        }
    }
}

/// A worker's place in the map of pages: at most one registered worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u32);

/// What its owner calls a worker, and finds again on each of its records. Numbers are
/// not used again, so a late record is never taken for one of the worker's successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a turn at the ring gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Records that were told.
    pub records: u64,
    /// Whether the bound was reached, and there may be more.
    pub more: bool,
}

/// Why a worker could not be registered, or not be read. Serving goes on without.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It has ended. Ordinary.
    #[error("cannot watch the waits of worker {0}: it has ended")]
    Gone(WorkerId),
    /// More workers than slots.
    #[error(
        "cannot watch the waits of worker {worker}: slot {} does not exist, there are {slots} (load with more slots)",
        slot.0
    )]
    NoSlot {
        /// The worker.
        worker: WorkerId,
        /// What was asked for.
        slot: SlotIndex,
        /// How many there are.
        slots: u32,
    },
    /// More different builds of PHP than the programs can know.
    #[error(
        "cannot follow the PHP stack of worker {worker}: {most} different builds of PHP are known already"
    )]
    TooManyLayouts {
        /// The worker.
        worker: WorkerId,
        /// How many there can be.
        most: u32,
    },
    /// A PHP whose structures the programs cannot read.
    #[error(
        "cannot follow the PHP stack of worker {worker}: PHP {php} has {field} at {offset}, the programs reach {reach} bytes"
    )]
    Layout {
        /// The worker.
        worker: WorkerId,
        /// Its version of PHP.
        php: String,
        /// The field.
        field: &'static str,
        /// Where it is.
        offset: u32,
        /// How far the programs reach.
        reach: u32,
    },
    /// The kernel refused.
    #[error("cannot {what} for worker {worker}: {source}")]
    Kernel {
        /// The worker.
        worker: WorkerId,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}
