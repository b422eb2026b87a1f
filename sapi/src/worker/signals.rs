//! Signals of a worker: QUIT ends it after the current request, without disturbing
//! that request; the others have their default action.
//!
//! The handler restarts interrupted system calls, so that a script's timed call does
//! not fail with EINTR (which php-fpm avoids too). To end a wait of ours all the same,
//! it takes away what is waited for: the listening socket becomes one that cannot
//! accept, and a silent kept connection reads as ended.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::signal::{SigSet, Signal};

use super::become_worker::failure;
use crate::ffi;

static QUIT: AtomicBool = AtomicBool::new(false);
static LISTENER: AtomicI32 = AtomicI32::new(-1);
static DUMMY: AtomicI32 = AtomicI32::new(-1);
/// The connection that is waited on between requests, or -1.
static WAITING: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_quit(_signal: i32) {
    QUIT.store(true, Ordering::Relaxed);
    ffi::raw_dup2(DUMMY.load(Ordering::Relaxed), LISTENER.load(Ordering::Relaxed));
    let waiting = WAITING.load(Ordering::Relaxed);
    if waiting >= 0 {
        ffi::raw_shutdown_read(waiting);
    }
}

/// Installs the worker's handlers; PHP takes them over at its first request. A QUIT that
/// has come since the fork is handled before this returns.
pub(crate) fn install(listener: &impl AsFd) -> Result<(), String> {
    let dummy: OwnedFd = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| format!("cannot make a socket: {e}"))?;
    LISTENER.store(listener.as_fd().as_raw_fd(), Ordering::Relaxed);
    DUMMY.store(dummy.as_raw_fd(), Ordering::Relaxed);
    // Kept open for the life of the process.
    std::mem::forget(dummy);
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGHUP,
        libc::SIGCHLD,
    ] {
        ffi::reset_signal(signal, false);
    }
    ffi::reset_signal(libc::SIGPIPE, true);
    ffi::on_signal(libc::SIGQUIT, on_quit);
    // The fork has blocked it. Children that scripts start must not inherit that.
    SigSet::from(Signal::SIGQUIT)
        .thread_unblock()
        .map_err(|e| failure("cannot unblock SIGQUIT", e))
}

/// Whether QUIT has come.
pub(crate) fn quitting() -> bool {
    QUIT.load(Ordering::Relaxed)
}

/// Says which connection is waited on between requests.
pub(crate) fn waiting_on(socket: Option<i32>) {
    WAITING.store(socket.unwrap_or(-1), Ordering::Relaxed);
}
