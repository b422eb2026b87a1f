//! The supervisor and the process that loads the kernel programs; what became of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kernel programs that account for workers' time (`glasspool-waits`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WaitPrograms {
    /// Nobody has asked for what they tell.
    #[default]
    NotWanted,
    /// They cannot run here.
    Refused {
        /// Why, in one word for metrics.
        name: String,
        /// Why, and what would help: a line for the log.
        reason: String,
    },
    /// They run until the supervisor ends.
    Running {
        /// Pages, of which each watched worker has one.
        pages: u32,
    },
}

/// The only message to the process that loads the kernel programs and then exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPrograms {
    /// Workers that can be watched at a time.
    pub pages: u32,
    /// Shorter waits are accounted for but not told.
    pub wait_threshold: Duration,
    /// PHP calls that are told of a wait, innermost first.
    pub frames: u32,
    /// Length of the ring of records.
    pub ring_bytes: u32,
    /// Whether system calls are counted, too.
    pub system_calls: bool,
}

/// What that process answers: all parts, then that it has loaded them; or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLoader {
    /// A part of what runs in the kernel, which lives as long as its descriptor.
    Part(ProgramPart),
    /// These were all.
    Loaded,
    /// They cannot run here.
    Refused {
        /// See [`WaitPrograms::Refused`].
        name: String,
        /// See [`WaitPrograms::Refused`].
        reason: String,
    },
}

/// What a descriptor of the kernel programs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProgramPart {
    /// Keeps a program attached.
    Link,
    /// The workers, by pidfd.
    Workers,
    /// Where builds of PHP keep what is read.
    Layouts,
    /// What went wrong, counted.
    Counts,
    /// The ring of records.
    Ring,
    /// A page of times for each worker.
    Pages,
    /// Of one CPU, the clock that looks who runs there. It stands still until its holder
    /// has it run (`glasspool_waits::run_clocks`); a machine may have none.
    Clock,
}
