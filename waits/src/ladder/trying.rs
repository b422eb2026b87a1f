//! From what went wrong to the reason.

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
    let users = fs::read_to_string("/proc/thread-self/uid_map").unwrap_or_default();
    judge(what, error, &status, &lockdown, &users)
}

/// Pure, so that machines which are not at hand can be tried.
pub(super) fn judge(
    what: &'static str,
    error: &(dyn Error + 'static),
    status: &str,
    lockdown: &str,
    users: &str,
) -> Unavailable {
    let Some(code) = os_error(error) else {
        return Unavailable::Other {
            what,
            why: chain(error),
        };
    };
    let source = || io::Error::from_raw_os_error(code);
    match code {
        libc::EPERM if is_of_namespace(users) => Unavailable::UserNamespace {
            what,
            source: source(),
        },
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
        libc::ENOSYS if field(status, "Seccomp:").is_some_and(|mode| mode != "0") => Unavailable::Seccomp {
            what,
            source: source(),
        },
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

/// Whether users are not those of the whole machine (user_namespaces(7)). One that maps them
/// all looks as if there were none.
fn is_of_namespace(users: &str) -> bool {
    !users.is_empty() && !users.split_whitespace().eq(["0", "0", "4294967295"])
}

fn missing(status: &str) -> Vec<&'static str> {
    let Some(effective) = field(status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
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
