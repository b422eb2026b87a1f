//! Waiting for descriptors: the only place that hands any to tokio's reactor directly.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::control::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A control socket, for both directions.
#[expect(
    deprecated,
    reason = "tokio deprecates this for types that could return another descriptor each time, and offers an unsafe \
              function instead; a channel owns one descriptor for life, and this crate forbids unsafe code"
)]
pub(super) fn of_channel(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    AsyncFd::new(channel)
}

/// A pidfd: readable once its process has ended (pidfd_open(2)).
#[expect(deprecated, reason = "as above: an owned descriptor is the same one for life")]
pub(super) fn of_pidfd(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}
