//! A worker that dies of SIGSEGV, SIGBUS, SIGABRT, SIGILL or SIGFPE says so in its slot
//! and waits to be looked at; `shim/crash.c` has the handler, and how it goes on.
//!
//! Whoever asks for such a signal gets it. What an extension installed when it was
//! loaded stays, because it may rely on it (a sanitizer, a runtime that turns a fault
//! into an exception); what it or the application installs later takes our place. PHP
//! itself takes over other signals only (`zend_sigs` in its Zend/zend_signal.c).
//!
//! A request pays nothing for this: what there is to do is done once, here.

use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;

use glasspool_abi::control::{CRASH_PATIENCE, Severity};
use glasspool_abi::slot::{SLOT_HEAD_BYTES, SlotWriter};
use nix::sys::signal::Signal;

use super::log::{self, here};
use crate::ffi;

/// Installs the handlers. A worker without them serves as well, so a failure is told
/// and no more.
pub(super) fn watch(pool: &str, slot: &OwnedFd, doorbell: &OwnedFd) {
    match catch(slot, doorbell) {
        Ok(handled) => {
            for signal in handled {
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                let line = format!(
                    "[pool {pool}] {name} is handled by an extension: a crash by it will not be looked into"
                );
                log::say(Severity::Debug, here!("watch"), line.as_bytes());
            }
        }
        Err(error) => {
            let line = format!("[pool {pool}] crashes of this worker will not be looked into: {error}");
            log::say(Severity::Warning, here!("watch"), line.as_bytes());
        }
    }
}

fn catch(slot: &OwnedFd, doorbell: &OwnedFd) -> io::Result<Vec<c_int>> {
    // A mapping and a descriptor of their own, which stay to the end: exit(3) drops the
    // others before it runs the destructors of libraries, which may crash too.
    let doorbell = doorbell.try_clone()?;
    let slot = SlotWriter::map(slot, SLOT_HEAD_BYTES).map_err(io::Error::other)?;
    let words = Box::leak(Box::new(slot)).crash_words();
    ffi::catch_crashes(words, doorbell, CRASH_PATIENCE)
}
