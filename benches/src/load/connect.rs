//! Sockets that do not block.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};

use super::Address;

/// Source addresses that connections rotate over. A closed connection keeps its pair of addresses for a
/// minute (TIME_WAIT); one source has some 28,000 ports (`ip_local_port_range`), less than a second's worth.
const SOURCES: u8 = 32;

/// A started connection.
pub(super) struct Started {
    pub(super) socket: OwnedFd,
    /// Whether it is established already, as a unix socket is.
    pub(super) connected: bool,
}

/// Starts connection number `turn` to `address`.
pub(super) fn start(address: &Address, turn: u64) -> Result<Started, Errno> {
    let family = match address {
        Address::Unix(_) => AddressFamily::UNIX,
        Address::Tcp(_) => AddressFamily::INET,
    };
    let socket = socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    let connected = match address {
        Address::Unix(path) => connect(&socket, &SocketAddrUnix::new(path)?),
        Address::Tcp(address) => {
            let host = 2 + u8::try_from(turn % u64::from(SOURCES)).expect("below 32");
            // ip(7): the port is then chosen by connect(2), for the pair, not by bind(2) for the source.
            setsockopt(&socket, IpBindAddressNoPort, &true)
                .map_err(|e| Errno::from_raw_os_error(e as i32))?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0))?;
            connect(&socket, address)
        }
    };
    match connected {
        Ok(()) => Ok(Started {
            socket,
            connected: true,
        }),
        Err(Errno::INPROGRESS) => Ok(Started {
            socket,
            connected: false,
        }),
        Err(e) => Err(e),
    }
}
