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

/// From what went wrong to the reason.
#[cfg(feature = "ebpf")]
mod trying {
    use std::error::Error;

    use super::*;

    /// Capabilities that loading takes, and their bits (include/uapi/linux/capability.h).
    const NEEDED: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
    /// Has both of them in it.
    const CAP_SYS_ADMIN: u32 = 21;
    /// The verifier's last words say what is wrong; the rest says how it came there.
    const LAST_WORDS: usize = 400;

    pub(crate) fn check_page_size() -> Result<(), Unavailable> {
        match rustix::param::page_size() {
            size if size == crate::types::PAGE_BYTES as usize => Ok(()),
            size => Err(Unavailable::PageSize(size)),
        }
    }

    pub(crate) fn no_btf(path: &'static str, error: &(dyn Error + 'static)) -> Unavailable {
        Unavailable::NoTypes {
            path,
            why: chain(error),
        }
    }

    /// The object is part of this program; a test loads it.
    pub(crate) fn bad_object(name: &'static str) -> Unavailable {
        Unavailable::Other {
            what: "use the kernel programs",
            why: format!("{name} is not what it should be in there"),
        }
    }

    pub(crate) fn explain(what: &'static str, error: &(dyn Error + 'static)) -> Unavailable {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        judge(what, error, &status, &lockdown)
    }

    /// Pure, so that machines which are not at hand can be tried.
    pub(super) fn judge(
        what: &'static str,
        error: &(dyn Error + 'static),
        status: &str,
        lockdown: &str,
    ) -> Unavailable {
        let Some(code) = os_error(error) else {
            return Unavailable::Other {
                what,
                why: chain(error),
            };
        };
        let source = || io::Error::from_raw_os_error(code);
        match code {
            libc::EPERM | libc::EACCES => {
                let missing = missing(status);
                if !missing.is_empty() {
                    return Unavailable::Capabilities {
                        what,
                        missing: missing.join(" and ") + if missing.len() > 1 { " are" } else { " is" },
                    };
                }
                // EACCES is the verifier's; it has told why.
                if code == libc::EACCES {
                    return Unavailable::Verifier {
                        said: last_words(&chain(error)),
                    };
                }
                if lockdown.contains("[confidentiality]") {
                    return Unavailable::Lockdown {
                        what,
                        source: source(),
                    };
                }
                if field(status, "Seccomp:").is_some_and(|mode| mode != "0") {
                    return Unavailable::Seccomp {
                        what,
                        source: source(),
                    };
                }
                Unavailable::Other {
                    what,
                    why: chain(error),
                }
            }
            libc::ENOSYS if field(status, "Seccomp:").is_some_and(|mode| mode != "0") => {
                Unavailable::Seccomp {
                    what,
                    source: source(),
                }
            }
            libc::ENOSYS => Unavailable::NoBpf,
            libc::ENOMEM | libc::E2BIG if what != "load a program" => Unavailable::Memory { what },
            libc::EINVAL | libc::E2BIG | libc::EFAULT if what == "load a program" => Unavailable::Verifier {
                said: last_words(&chain(error)),
            },
            _ => Unavailable::Other {
                what,
                why: chain(error),
            },
        }
    }

    /// The system call's error, wherever in the chain it is.
    fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
        let mut link = Some(error);
        while let Some(error) = link {
            let code = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            if code.is_some() {
                return code;
            }
            // aya passes some on without naming them as the source.
            let within = error.downcast_ref::<aya::programs::ProgramError>();
            if let Some(aya::programs::ProgramError::SyscallError(call)) = within {
                return call.io_error.raw_os_error();
            }
            link = error.source();
        }
        None
    }

    fn missing(status: &str) -> Vec<&'static str> {
        let Some(effective) = field(status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok())
        else {
            return Vec::new();
        };
        if effective >> CAP_SYS_ADMIN & 1 != 0 {
            return Vec::new();
        }
        NEEDED
            .iter()
            .filter(|(_, bit)| effective >> bit & 1 == 0)
            .map(|(name, _)| *name)
            .collect()
    }

    fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    }

    fn chain(error: &(dyn Error + 'static)) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }

    fn last_words(said: &str) -> String {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        match said.char_indices().rev().nth(LAST_WORDS) {
            Some((at, _)) => format!("… {}", &said[at..]),
            None => said,
        }
    }
}

#[cfg(all(test, feature = "ebpf"))]
mod tests {
    use super::trying::judge;
    use super::*;

    const ROOT: &str = "CapEff:\t000001fffeffffff\nSeccomp:\t0\n";
    const ROOT_IN_A_FILTER: &str = "CapEff:\t000001fffeffffff\nSeccomp:\t2\n";
    const NOBODY: &str = "CapEff:\t0000000000000000\nSeccomp:\t0\n";
    const ONLY_BPF: &str = "CapEff:\t0000008000000000\nSeccomp:\t0\n";
    const BOTH: &str = "CapEff:\t000000c000000000\nSeccomp:\t0\n";

    fn judged(what: &'static str, code: i32, status: &str, lockdown: &str) -> Unavailable {
        judge(what, &io::Error::from_raw_os_error(code), status, lockdown)
    }

    #[test]
    fn each_obstacle_has_its_reason_and_its_remedy() {
        let map = "load the programs' maps";
        let program = "load a program";
        let cases = [
            (
                judged(map, libc::EPERM, NOBODY, ""),
                "capabilities",
                "CAP_BPF and CAP_PERFMON are missing",
            ),
            (
                judged(program, libc::EPERM, ONLY_BPF, ""),
                "capabilities",
                "CAP_PERFMON is missing",
            ),
            (
                judged(map, libc::EPERM, ROOT_IN_A_FILTER, ""),
                "seccomp",
                "must allow bpf(2)",
            ),
            (
                judged(map, libc::ENOSYS, ROOT_IN_A_FILTER, ""),
                "seccomp",
                "must allow bpf(2)",
            ),
            (
                judged(map, libc::ENOSYS, ROOT, ""),
                "no-bpf",
                "CONFIG_BPF_SYSCALL",
            ),
            (
                judged(program, libc::EPERM, BOTH, "none integrity [confidentiality]\n"),
                "lockdown",
                "locked down",
            ),
            (
                judged(program, libc::EINVAL, ROOT, ""),
                "verifier",
                "older than 5.15",
            ),
            (judged(program, libc::EACCES, ROOT, ""), "verifier", "refuses"),
            (judged(map, libc::ENOMEM, ROOT, ""), "memory", "fewer slots"),
            (
                judged(map, libc::EPERM, BOTH, "[none]"),
                "other",
                "cannot load the programs' maps",
            ),
            (Unavailable::NotBuilt, "not-built", "clang"),
            (Unavailable::PageSize(65536), "page-size", "65536"),
        ];
        for (reason, name, says) in cases {
            assert_eq!(reason.name(), name, "{reason}");
            assert!(reason.to_string().contains(says), "{reason}");
        }
    }

    #[test]
    fn rungs_are_in_order_and_counters_of_zeros_are_none() {
        assert!(Rung::Full > Rung::Reader && Rung::Reader > Rung::SelfReport);
        assert!(counts("5 0 3\n") && !counts("0 0 0\n") && !counts(""));
        let own = Pid(i32::try_from(std::process::id()).unwrap());
        assert_eq!(Rung::without_programs(own), Rung::Reader);
        assert_eq!(Rung::without_programs(Pid(i32::MAX)), Rung::Nothing);
    }
}
