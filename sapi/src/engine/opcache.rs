//! Asks opcache about itself, in a process that lives for that: its memory is shared, so
//! any fork of the engine can ask, and neither a worker nor the engine has to wait for it.
//!
//! Workers can write what it reads. So it gives up its user and every way to others first,
//! and only numbers come from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use glasspool_abi::Pid;
use glasspool_abi::control::{Channel, FromEngine};
use nix::unistd::{Gid, Uid, alarm};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::Stop;
use crate::ffi::{self, Forked, TitleArea};

/// Debian's and everybody's `nobody` and `nogroup`; no name has to be looked up.
const NOBODY: u32 = 65534;
/// When it ends itself if the supervisor, which is quicker, is gone, seconds.
const LIFE_S: u32 = 10;

/// Forks it and says which process it is; it does not return there.
pub(super) fn ask<'a>(
    control: &'a Channel,
    title: &TitleArea,
    inherited: impl Iterator<Item = BorrowedFd<'a>>,
    to: OwnedFd,
) -> Result<(), Stop> {
    let pid = match ffi::fork_worker() {
        Ok(Forked::Worker) => {
            title.set("glasspool: asks opcache");
            let foreign: Vec<_> = inherited.chain([control.as_fd()]).collect();
            ffi::exit_at_once(i32::from(answer(&foreign, to).is_err()))
        }
        Ok(Forked::Engine(pid)) => Ok(Pid(pid)),
        Err(error) => Err(format!("fork() failed: {error}")),
    };
    Ok(control.send(&FromEngine::OpcacheAsked { pid }, &[])?)
}

fn answer(foreign: &[BorrowedFd<'_>], to: OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    ffi::reset_signal(libc::SIGALRM, false);
    alarm::set(LIFE_S);
    ffi::replace_by_null(foreign);
    if rustix::process::geteuid().is_root() {
        // Where root may not do that, or nobody is not known (user_namespaces(7)), what makes
        // root more than others still goes.
        become_nobody().unwrap_or_default();
        let none = CapabilitySet::empty();
        let sets = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, sets)?;
    }
    let answer = ffi::ask_opcache();
    Ok(Channel::from(to).send(&answer, &[])?)
}

fn become_nobody() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)
}
