//! Why the kernel refuses, and the one thing that would change it. Looked at after a
//! refusal only: the rules (ptrace(2), "Ptrace access mode checking") have too many parts
//! to be foretold.

use std::fs;
use std::os::unix::fs::MetadataExt;

use glasspool_abi::Pid;

/// Bit of CAP_SYS_PTRACE (capabilities(7)).
const CAP_SYS_PTRACE: u32 = 19;

/// The process exists, but `/proc` does not show it.
pub(super) const HIDDEN: &str =
    "/proc hides it (mounted with hidepid): run as root, or in the group that its gid option names";

/// What decides, as far as an unprivileged reader can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    own_uid: u32,
    own_ptrace: bool,
    target_uid: Option<u32>,
    /// The kernel shows a process that may not be dumped as root's in `/proc`.
    target_dumpable: bool,
    yama: Option<u32>,
}

/// One sentence without a full stop: the reason, and what to grant.
pub(super) fn explain(pid: Pid) -> String {
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let target = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let target_uid = effective_uid(&target);
    let owner = fs::metadata(format!("/proc/{pid}"))
        .ok()
        .map(|metadata| metadata.uid());
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    reason(Facts {
        own_uid: effective_uid(&own).unwrap_or(u32::MAX),
        own_ptrace: has_ptrace(&own),
        target_uid,
        target_dumpable: owner == target_uid,
        yama: yama.and_then(|scope| scope.trim().parse().ok()),
    })
}

fn reason(facts: Facts) -> String {
    if facts.yama == Some(3) {
        return "Yama (kernel.yama.ptrace_scope = 3) forbids it to everybody until the next boot".to_owned();
    }
    if facts.own_ptrace {
        return "this program has CAP_SYS_PTRACE, but not over that process: it is in another user \
                namespace, or a security module forbids it (run in its user namespace or on the host, \
                or allow ptrace in the AppArmor, SELinux or seccomp profile)"
            .to_owned();
    }
    if facts.own_uid == 0 {
        return "this program is root without CAP_SYS_PTRACE, as in a container: add that capability \
                (--cap-add SYS_PTRACE)"
            .to_owned();
    }
    let Some(target) = facts.target_uid else {
        return "it belongs to somebody else: run as root, or add CAP_SYS_PTRACE".to_owned();
    };
    if target != facts.own_uid {
        return format!(
            "it runs as user {target} and this program as user {}: run as root, or add CAP_SYS_PTRACE",
            facts.own_uid
        );
    }
    if !facts.target_dumpable {
        return format!(
            "it runs as user {target}, too, but is not dumpable, because it changed its user: run as \
             root, add CAP_SYS_PTRACE, or set process.dumpable = yes in its pool"
        );
    }
    match facts.yama {
        Some(1) => "Yama (kernel.yama.ptrace_scope = 1) allows only descendants, and it is not one of \
                    this program: add CAP_SYS_PTRACE, or set it to 0"
            .to_owned(),
        Some(2) => "Yama (kernel.yama.ptrace_scope = 2) wants a capability: add CAP_SYS_PTRACE".to_owned(),
        _ => "a security module forbids it (allow ptrace in the AppArmor, SELinux or seccomp profile)"
            .to_owned(),
    }
}

/// `Uid: real effective saved filesystem`
fn effective_uid(status: &str) -> Option<u32> {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn has_ptrace(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_SYS_PTRACE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_its_own_cure() {
        let same = Facts {
            own_uid: 33,
            own_ptrace: false,
            target_uid: Some(33),
            target_dumpable: true,
            yama: None,
        };
        for (facts, cure) in [
            (
                Facts {
                    target_uid: Some(0),
                    ..same
                },
                "runs as user 0 and this program as user 33",
            ),
            (
                Facts {
                    target_dumpable: false,
                    ..same
                },
                "process.dumpable = yes",
            ),
            (
                Facts {
                    yama: Some(1),
                    ..same
                },
                "allows only descendants",
            ),
            (
                Facts {
                    yama: Some(2),
                    ..same
                },
                "ptrace_scope = 2",
            ),
            (
                Facts {
                    yama: Some(3),
                    own_ptrace: true,
                    ..same
                },
                "until the next boot",
            ),
            (Facts { own_uid: 0, ..same }, "--cap-add SYS_PTRACE"),
            (
                Facts {
                    own_ptrace: true,
                    ..same
                },
                "another user",
            ),
            (
                Facts {
                    target_uid: None,
                    ..same
                },
                "somebody else",
            ),
            (same, "security module"),
        ] {
            let reason = reason(facts);
            assert!(reason.contains(cure), "{facts:?}: {reason}");
        }
    }

    #[test]
    fn status_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tphp\nUid:\t0\t33\t33\t33\nCapEff:\t0000000000080000\n";
        assert_eq!(effective_uid(status), Some(33));
        assert!(has_ptrace(status));
        assert!(!has_ptrace("CapEff:\t0000000000040000\n"));
        assert_eq!(effective_uid(""), None);
    }
}
