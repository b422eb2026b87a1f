//! The socket that messages travel over: `SOCK_SEQPACKET`, one packet a message in
//! postcard's encoding, with file descriptors. Packets are bounded by
//! [`MAX_MESSAGE_BYTES`] and carry at most [`MAX_FDS`] descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 8;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side closed the control socket")]
    Closed,
    /// Nothing to receive, or no room to send, right now.
    #[error("the control socket is not ready")]
    WouldBlock,
    /// A system call failed.
    #[error("cannot {call} on the control socket: {source}")]
    Os {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The packet is not a message of this type.
    #[error("a packet of {bytes} bytes on the control socket is not a message: {reason}")]
    NotAMessage {
        /// Its length.
        bytes: usize,
        /// Why.
        reason: String,
    },
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends, both close-on-exec; blocking until set otherwise.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(a), Channel(b)))
    }

    /// Makes [`Channel::send`] and [`Channel::receive`] return
    /// [`ChannelError::WouldBlock`] rather than wait.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, true)?)
    }

    /// Sends one message with its descriptors.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, fds, SendFlags::empty())
    }

    /// The same without ever waiting, whatever others who hold this socket have set.
    pub fn send_now<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, fds, SendFlags::DONTWAIT)
    }

    fn send_with<M: Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), ChannelError> {
        let not_a_message = |bytes, reason| ChannelError::NotAMessage { bytes, reason };
        let bytes = postcard::to_stdvec(message).map_err(|e| not_a_message(0, e.to_string()))?;
        if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_FDS {
            return Err(not_a_message(
                bytes.len(),
                format!("longer than {MAX_MESSAGE_BYTES} bytes"),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.0,
                &[io::IoSlice::new(&bytes)],
                &mut ancillary,
                flags | SendFlags::NOSIGNAL,
            )
        });
        match sent {
            Ok(_) => Ok(()),
            Err(e) => Err(os_error("sendmsg", e)),
        }
    }

    /// Receives one message with its descriptors, all close-on-exec.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let (message, fds) = self.receive_suspicious(MAX_MESSAGE_BYTES)?;
        Ok((message?, fds))
    }

    /// The same for a side that is not trusted: a message of at most so many bytes, and
    /// also the descriptors of one that is not understood, because closing a file may
    /// block and whoever receives it decides where.
    pub fn receive_suspicious<M: DeserializeOwned>(
        &self,
        most_bytes: usize,
    ) -> Result<(Result<M, ChannelError>, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; most_bytes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [io::IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(|e| os_error("recvmsg", e))?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 && fds.is_empty() {
            return Err(ChannelError::Closed);
        }
        let not_a_message = |reason| ChannelError::NotAMessage {
            bytes: received.bytes,
            reason,
        };
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Ok((Err(not_a_message("cut by the receiver's limits".to_owned())), fds));
        }
        let message = postcard::from_bytes(&bytes[..received.bytes]);
        Ok((message.map_err(|e| not_a_message(e.to_string())), fds))
    }
}

fn os_error(call: &'static str, errno: rustix::io::Errno) -> ChannelError {
    use rustix::io::Errno;
    match errno {
        Errno::AGAIN => ChannelError::WouldBlock,
        Errno::PIPE | Errno::CONNRESET => ChannelError::Closed,
        _ => ChannelError::Os {
            call,
            source: errno.into(),
        },
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Channel(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FromEngine, ToEngine};
    use crate::{PoolId, WorkerId};

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = Channel::pair().expect("a socket pair");
        let file = crate::create_slot_memory(4096).expect("a memory file");
        let sent = ToEngine::Spawn {
            worker: WorkerId(3),
            pool: PoolId(1),
            slot_bytes: 4096,
            times_page: None,
        };
        a.send(&sent, &[file.as_fd(), file.as_fd()]).expect("sends");
        let (received, fds): (ToEngine, _) = b.receive().expect("receives");
        assert_eq!(received, sent);
        assert_eq!(fds.len(), 2);
        drop(a);
        assert!(matches!(b.receive::<ToEngine>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_is_no_message_is_an_error_not_a_panic() {
        let (a, b) = Channel::pair().expect("a socket pair");
        rustix::net::send(&a, &[0xff; 64], SendFlags::empty()).expect("sends");
        assert!(matches!(
            b.receive::<ToEngine>(),
            Err(ChannelError::NotAMessage { bytes: 64, .. })
        ));
        b.set_nonblocking().expect("fionbio");
        assert!(matches!(b.receive::<ToEngine>(), Err(ChannelError::WouldBlock)));
        let long = FromEngine::Failed {
            reason: "x".repeat(MAX_MESSAGE_BYTES),
        };
        assert!(matches!(
            a.send(&long, &[]),
            Err(ChannelError::NotAMessage { .. })
        ));
    }
}
