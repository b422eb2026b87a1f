//! From a fork of the engine to a worker of its pool: order matters, because each
//! step takes away what a later one must not have.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Channel, FromEngine, Identity, PoolSpec};
use glasspool_abi::slot::SlotWriter;
use nix::unistd::{Gid, Uid};
use rustix::process::Signal;

use super::exchange::{self, Exchange};
use super::signals;
use crate::ffi;

/// What a worker is made from.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) pool: &'a PoolSpec,
    pub(crate) listener: &'a OwnedFd,
    pub(crate) doorbell: &'a OwnedFd,
    pub(crate) slot: OwnedFd,
    pub(crate) slot_bytes: u64,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) supervisor: i32,
}

/// Becomes the worker and reports so; an error says which step failed and why.
pub(crate) fn become_worker(parts: Parts<'_>, control: &Channel) -> Result<(), String> {
    // Opened now, this descriptor stays readable for the observer whatever rights we
    // give up below: the kernel checks at open(2), not at read(2).
    let memory = File::open("/proc/self/mem").ok();
    rustix::stdio::dup2_stdout(&parts.stdout).map_err(|e| format!("dup2 of standard output: {e}"))?;
    rustix::stdio::dup2_stderr(&parts.stderr).map_err(|e| format!("dup2 of standard error: {e}"))?;
    drop((parts.stdout, parts.stderr));

    let pool = parts.pool;
    if let Some(root) = &pool.chroot {
        nix::unistd::chroot(root.as_str()).map_err(|e| format!("failed to chroot({root}): {e}"))?;
    }
    if let Some(folder) = pool.chdir.as_deref().or(pool.chroot.as_ref().map(|_| "/")) {
        nix::unistd::chdir(folder).map_err(|e| format!("failed to chdir({folder}): {e}"))?;
    }
    if let Some(identity) = &pool.identity {
        take_identity(identity)?;
    }
    signals::install(parts.listener)?;
    ffi::set_environment(pool.clear_env, &pool.env);
    ffi::php_after_fork();
    for setting in &pool.php_values {
        if !ffi::set_ini(&setting.name, &setting.value, setting.admin) {
            let kind = if setting.admin {
                "php_admin_value"
            } else {
                "php_value"
            };
            exchange::worker_log(
                "ERROR",
                format!("Unable to set {kind} '{}'", setting.name).as_bytes(),
            );
        }
    }
    let bytes = usize::try_from(parts.slot_bytes).map_err(|e| e.to_string())?;
    let slot = SlotWriter::map(&parts.slot, bytes).map_err(|e| e.to_string())?;
    let doorbell = parts
        .doorbell
        .try_clone()
        .map_err(|e| format!("dup of the doorbell: {e}"))?;
    exchange::install(Exchange::new(slot, doorbell));
    drop(parts.slot);
    follow_supervisor(parts.supervisor)?;

    let ready = FromEngine::WorkerReady { worker: parts.worker };
    let memory = memory.as_ref().map(|m| m.as_fd());
    control.send(&ready, memory.as_slice()).map_err(|e| e.to_string())
}

fn take_identity(identity: &Identity) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups)
        .map_err(|e| format!("failed to setgroups({:?}): {e}", identity.groups))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(|e| format!("failed to setgid({gid}): {e}"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|e| format!("failed to setuid({uid}): {e}"))
}

/// Ends this worker, after its current request, when the supervisor dies. A change of
/// identity forgets this wish (prctl(2)), so it comes after it; and the intermediate
/// process of the fork must be gone, or its end would count as the parent's.
fn follow_supervisor(supervisor: i32) -> Result<(), String> {
    for _ in 0..100_000 {
        let parent = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
        if parent == Some(supervisor) {
            return rustix::process::set_parent_process_death_signal(Some(Signal::QUIT))
                .map_err(|e| format!("prctl(PR_SET_PDEATHSIG): {e}"));
        }
        rustix::thread::sched_yield();
    }
    Err(format!("still not a child of the supervisor (pid {supervisor})"))
}
