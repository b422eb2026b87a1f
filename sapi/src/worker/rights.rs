//! What a worker gives up: the file system outside its root, its priority, its user, what
//! was granted for looking at it, its AppArmor profile. In php-fpm's order, with php-fpm's
//! messages.

use std::fs::File;
use std::io::{Read, Write};

use glasspool_abi::control::{Identity, PoolSpec};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::become_worker::failure;

/// Where a process reads and changes its own AppArmor confinement; the second is what
/// kernels before 5.1 have, where other security modules may claim it.
const CONFINEMENT: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
/// Longest confinement that is read.
const CONFINEMENT_BYTES: u64 = 4096;

/// What a supervisor that is not root is granted for loading programs into the kernel and
/// for its observer: ambient capabilities, which all that it starts has, and PHP must not.
const NOT_FOR_PHP: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_PTRACE);

/// Takes all steps that the pool asks for; an error says which one failed.
pub(super) fn give_up(pool: &PoolSpec) -> Result<(), String> {
    if let Some(root) = &pool.chroot {
        nix::unistd::chroot(root.as_str()).map_err(|e| failure(format!("failed to chroot({root})"), e))?;
    }
    if let Some(folder) = pool.chdir.as_deref().or(pool.chroot.as_ref().map(|_| "/")) {
        nix::unistd::chdir(folder).map_err(|e| failure(format!("failed to chdir({folder})"), e))?;
    }
    if let Some(nice) = pool.limits.priority {
        rustix::process::setpriority_process(None, nice)
            .map_err(|e| failure("Unable to set priority for this new process", errno(e)))?;
    }
    if let Some(identity) = &pool.identity {
        take_identity(identity)?;
    }
    if !rustix::process::geteuid().is_root() {
        give_up_capabilities().map_err(|e| failure("failed to give up capabilities", errno(e)))?;
    }
    if pool.limits.dumpable {
        // A change of identity has taken this away.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .map_err(|e| failure("failed to prctl(PR_SET_DUMPABLE)", errno(e)))?;
    }
    if let Some(hat) = &pool.limits.apparmor_hat {
        put_on(hat)?;
    }
    Ok(())
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn take_identity(identity: &Identity) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setresgid(gid, gid, gid).map_err(|e| failure(format!("failed to setgid({gid})"), e))?;
    nix::unistd::setgroups(&groups)
        .map_err(|e| failure(format!("failed to setgroups({:?})", identity.groups), e))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|e| failure(format!("failed to setuid({uid})"), e))
}

/// With the permitted ones the ambient ones go (capabilities(7)). Others stay, as in
/// php-fpm.
fn give_up_capabilities() -> rustix::io::Result<()> {
    let had = capabilities(None)?;
    if !(had.permitted | had.inheritable).intersects(NOT_FOR_PHP) {
        return Ok(());
    }
    let sets = CapabilitySets {
        effective: had.effective - NOT_FOR_PHP,
        permitted: had.permitted - NOT_FOR_PHP,
        inheritable: had.inheritable - NOT_FOR_PHP,
    };
    set_capabilities(None, sets)
}

/// Changes to the profile `<current>//<hat>`, for good.
fn put_on(hat: &str) -> Result<(), String> {
    let hint = r#"Please check if "/proc/*/attr/current" is read and writeable."#;
    let unknown = |e: std::io::Error| {
        let what = format!("failed to query apparmor confinement. {hint}");
        failure(what, Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    };
    let current = confinement().map_err(unknown)?;
    let profile = profile_of(&current);
    let wanted = format!("{profile}//{hat}");
    let order = format!("changeprofile {wanted}");
    // The file is opened by the identity that changes: the kernel wants both the same.
    let changed = open_confinement(|path| File::options().write(true).open(path))
        .and_then(|mut file| file.write_all(order.as_bytes()));
    changed.map_err(|e| {
        let what = format!(
            r#"failed to change to new confinement ({wanted}). Please check if "/proc/*/attr/current" is read and writeable and "change_profile -> {profile}//*" is allowed."#
        );
        failure(what, Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    })
}

fn confinement() -> std::io::Result<String> {
    let mut text = String::new();
    open_confinement(|path| {
        text.clear();
        File::open(path)?
            .take(CONFINEMENT_BYTES)
            .read_to_string(&mut text)
    })?;
    Ok(text)
}

fn open_confinement<T>(mut open: impl FnMut(&str) -> std::io::Result<T>) -> std::io::Result<T> {
    open(CONFINEMENT[0]).or_else(|_| open(CONFINEMENT[1]))
}

/// The profile in the kernel's `PROFILE (MODE)`, which unconfined processes have
/// without a mode.
fn profile_of(confinement: &str) -> &str {
    let text = confinement.trim_end_matches(['\n', '\0']);
    match text.rsplit_once(" (") {
        Some((profile, mode)) if mode.ends_with(')') => profile,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::profile_of;

    #[test]
    fn a_profile_may_have_a_mode() {
        assert_eq!(profile_of("unconfined\n"), "unconfined");
        assert_eq!(profile_of("/usr/sbin/php-fpm (enforce)\n"), "/usr/sbin/php-fpm");
        assert_eq!(
            profile_of("a profile (x)//www (complain)\0"),
            "a profile (x)//www"
        );
    }
}
