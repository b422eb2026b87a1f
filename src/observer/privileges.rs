//! Giving up what the observer does not need: all of root but the right to see what a
//! blocked worker waits in, and to hold a running one for a read (`CAP_SYS_PTRACE`).

use std::io;

use glasspool_abi::control::Identity;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

/// The one capability that is kept where it was there.
const KEPT: CapabilitySet = CapabilitySet::SYS_PTRACE;
/// What a supervisor that is not root may have been granted to load the kernel's programs,
/// and hands on as ambient capabilities. Others stay: who looks at a process must have all
/// that it has (`cap_ptrace_access_check` in the kernel's security/commoncap.c).
const FOR_LOADING: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

/// What this process may do from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    uid: u32,
    /// May hold any worker, whoever it runs as.
    pub(super) may_stop: bool,
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rights { uid, may_stop } = self;
        write!(f, "the observer runs as user {uid} ")?;
        if *may_stop {
            f.write_str("with CAP_SYS_PTRACE: sleeping and running workers can be read")
        } else {
            f.write_str(
                "without CAP_SYS_PTRACE: sleeping workers are read exactly; running ones without stopping them \
                 unless the kernel permits it",
            )
        }
    }
}

/// A step that failed: going on with root's rights would be worse than not starting.
#[derive(Debug, thiserror::Error)]
#[error("cannot become user {uid}, group {gid}: {step}: {source}")]
pub(super) struct PrivilegeError {
    uid: u32,
    gid: u32,
    step: &'static str,
    source: io::Error,
}

/// Becomes `identity` if this process is root, and never gains a right again.
///
/// Capabilities belong to threads (capabilities(7)): called before there are others, so
/// that all inherit what is left.
pub(super) fn give_up(identity: Option<&Identity>) -> Result<Rights, PrivilegeError> {
    let own = |step| {
        move |source: rustix::io::Errno| PrivilegeError {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            step,
            source: source.into(),
        }
    };
    if let Some(identity) = identity.filter(|_| nix::unistd::geteuid().is_root()) {
        let failed = |step| {
            let Identity { uid, gid, .. } = *identity;
            move |source: io::Error| PrivilegeError {
                uid,
                gid,
                step,
                source,
            }
        };
        drop_to(identity, &failed)?;
    } else if !nix::unistd::geteuid().is_root() {
        let had = capabilities(None).map_err(own("capget"))?;
        let sets = CapabilitySets {
            effective: had.effective - FOR_LOADING,
            permitted: had.permitted - FOR_LOADING,
            inheritable: had.inheritable - FOR_LOADING,
        };
        set_capabilities(None, sets).map_err(own("capset"))?;
    }
    // Nothing is executed from here on, so this can only take away.
    set_no_new_privs(true).map_err(own("prctl(PR_SET_NO_NEW_PRIVS)"))?;
    let may_stop = capabilities(None).is_ok_and(|sets| sets.effective.contains(KEPT));
    Ok(Rights {
        uid: nix::unistd::geteuid().as_raw(),
        may_stop,
    })
}

fn drop_to<F>(identity: &Identity, failed: &impl Fn(&'static str) -> F) -> Result<(), PrivilegeError>
where
    F: Fn(io::Error) -> PrivilegeError,
{
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    // Without this the change of user clears the permitted set (capabilities(7),
    // "Effect of user ID changes on capabilities").
    set_keep_capabilities(true).map_err(|e| failed("prctl(PR_SET_KEEPCAPS)")(e.into()))?;
    setgroups(&groups).map_err(|e| failed("setgroups")(e.into()))?;
    setresgid(gid, gid, gid).map_err(|e| failed("setresgid")(e.into()))?;
    setresuid(uid, uid, uid).map_err(|e| failed("setresuid")(e.into()))?;
    let had = capabilities(None).map_err(|e| failed("capget")(e.into()))?;
    let kept = had.permitted & KEPT;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(|e| failed("capset")(e.into()))?;
    set_keep_capabilities(false).map_err(|e| failed("prctl(PR_SET_KEEPCAPS)")(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identity and capabilities belong to a whole process, so a child proves it.
    #[test]
    fn root_becomes_somebody_who_may_only_trace() {
        const CHILD: &str = "GLASSPOOL_TEST_GIVE_UP";
        if !nix::unistd::geteuid().is_root() {
            // `make test` counts the lines of this file as skipped.
            if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
                let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
                let line = b"giving up privileges: needs root\n";
                std::io::Write::write_all(&mut file.unwrap(), line).unwrap();
            }
            return;
        }
        if std::env::var_os(CHILD).is_none() {
            let own = std::env::current_exe().unwrap();
            let name = "observer::privileges::tests::root_becomes_somebody_who_may_only_trace";
            let child = std::process::Command::new(own)
                .args(["--exact", name])
                .env(CHILD, "1")
                .output();
            let child = child.unwrap();
            assert!(
                child.status.success(),
                "{}",
                String::from_utf8_lossy(&child.stdout)
            );
            return;
        }
        let before = capabilities(None).unwrap();
        let identity = Identity {
            uid: 65_534,
            gid: 65_533,
            groups: vec![65_533],
        };
        let rights = give_up(Some(&identity)).unwrap();
        assert_eq!(
            rights,
            Rights {
                uid: 65_534,
                may_stop: before.permitted.contains(KEPT)
            }
        );
        assert_eq!(nix::unistd::getegid().as_raw(), 65_533);
        let after = capabilities(None).unwrap();
        assert_eq!(after.permitted, before.permitted & KEPT);
        assert!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err());
    }
}
