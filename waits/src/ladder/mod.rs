//! What this machine allows, found out by trying; and in one line what is missing, why,
//! and what would allow it.
//!
//! | rung | tells |
//! |---|---|
//! | full | each wait with cause, peer and PHP line; where the time went, by cause |
//! | reader | the PHP stack of slow requests, by reading memory; totals from schedstat |
//! | self-report | totals from schedstat: on a CPU, waiting for one, neither |
//! | nothing | wall-clock time |
//!
//! Nothing is concluded from version numbers: the programs are loaded, and what the kernel
//! says is looked at in the light of this process's rights.

use std::fmt;
use std::fs::{self, File};
use std::io;

use glasspool_abi::Pid;

/// How much can be told of a worker's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Its wall-clock time.
    Nothing,
    /// Time on a CPU and waiting for one.
    SelfReport,
    /// The same, and its memory can be read.
    Reader,
    /// All of it.
    Full,
}

impl Rung {
    /// In one word, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rung::Full => "full",
            Rung::Reader => "reader",
            Rung::SelfReport => "self-report",
            Rung::Nothing => "nothing",
        }
    }

    /// What is left for a process where the programs do not run: opens its memory, and
    /// reads its counters.
    #[must_use]
    pub fn without_programs(pid: Pid) -> Rung {
        let counted = fs::read_to_string(format!("/proc/{pid}/schedstat")).is_ok_and(|text| counts(&text));
        match (counted, File::open(format!("/proc/{pid}/mem")).is_ok()) {
            (_, true) => Rung::Reader,
            (true, false) => Rung::SelfReport,
            (false, false) => Rung::Nothing,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A process that exists has run; three zeros mean that nobody counts.
fn counts(schedstat: &str) -> bool {
    let mut fields = schedstat.split_ascii_whitespace();
    fields.nth(2).is_some_and(|timeslices| timeslices != "0")
}

/// Why the programs do not run, and what to do about it. Serving goes on without.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Built without them.
    #[error(
        "this program was built without the kernel programs (build it with the feature ebpf, which needs clang)"
    )]
    NotBuilt,
    /// Pages of another size than the programs' slots.
    #[error("memory pages have {0} bytes here, and the kernel programs know those of 4096 only")]
    PageSize(usize),
    /// The kernel does not tell its types.
    #[error(
        "the kernel does not tell its types: {path}: {why} (it needs CONFIG_DEBUG_INFO_BTF; in a container, /sys must be mounted)"
    )]
    NoTypes {
        /// Where they should be.
        path: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Capabilities are missing.
    #[error(
        "cannot {what}: {missing} missing (run as root, or grant CAP_BPF and CAP_PERFMON: \
         AmbientCapabilities= in a systemd unit, --cap-add of a container)"
    )]
    Capabilities {
        /// What was tried.
        what: &'static str,
        /// Their names.
        missing: String,
    },
    /// Capabilities of a user namespace, which count for nothing here.
    #[error(
        "cannot {what}: {source}: in a user namespace no capability allows it (run outside of one; of containers, one \
         that is not rootless and has no --userns, with CAP_BPF and CAP_PERFMON, and whose seccomp filter allows bpf(2))"
    )]
    UserNamespace {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The capabilities are there, and a filter of system calls as well.
    #[error(
        "cannot {what}: {source}, although the capabilities are there: a seccomp filter is active, which must allow \
         bpf(2) (--security-opt seccomp= of a container, SystemCallFilter= of a systemd unit)"
    )]
    Seccomp {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel keeps its memory from everybody.
    #[error(
        "cannot {what}: {source}: the kernel is locked down for confidentiality (see /sys/kernel/security/lockdown)"
    )]
    Lockdown {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No bpf(2).
    #[error("this kernel has no bpf(2) (it needs CONFIG_BPF_SYSCALL)")]
    NoBpf,
    /// Loaded, checked, and refused.
    #[error("the kernel refuses a program, it is probably older than 5.15: {said}")]
    Verifier {
        /// The end of what it said.
        said: String,
    },
    /// No memory for the maps.
    #[error("cannot {what}: the kernel has no memory for it (ask for fewer slots or a smaller ring)")]
    Memory {
        /// What was tried.
        what: &'static str,
    },
    /// Anything else.
    #[error("cannot {what}: {why}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// The whole chain of reasons.
        why: String,
    },
}

impl Unavailable {
    /// In one word, for a metric.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Unavailable::NotBuilt => "not-built",
            Unavailable::PageSize(_) => "page-size",
            Unavailable::NoTypes { .. } => "no-btf",
            Unavailable::Capabilities { .. } => "capabilities",
            Unavailable::UserNamespace { .. } => "user-namespace",
            Unavailable::Seccomp { .. } => "seccomp",
            Unavailable::Lockdown { .. } => "lockdown",
            Unavailable::NoBpf => "no-bpf",
            Unavailable::Verifier { .. } => "verifier",
            Unavailable::Memory { .. } => "memory",
            Unavailable::Other { .. } => "other",
        }
    }
}

#[cfg(feature = "ebpf")]
pub(crate) use trying::{bad_object, check_page_size, explain, no_btf};

#[cfg(feature = "ebpf")]
mod trying;

#[cfg(all(test, feature = "ebpf"))]
mod tests;
