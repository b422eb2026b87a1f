//! Waiting for descriptors: the only place that hands any to tokio's reactor directly.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use glasspool_abi::control::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns one descriptor for life.
pub(crate) trait OneDescriptor: AsRawFd {}

impl OneDescriptor for Channel {}
impl OneDescriptor for OwnedFd {}
impl OneDescriptor for Arc<OwnedFd> {}

/// Waits for the descriptor to become ready in these ways.
#[expect(
    deprecated,
    reason = "tokio deprecates this for types that could return another descriptor each time, and offers an unsafe \
              function instead; these types cannot, and this crate forbids unsafe code"
)]
pub(crate) fn ready<T: OneDescriptor>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
