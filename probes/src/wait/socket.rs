//! The two ends of a socket, asked of the kernel through a copy of its descriptor.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getpeername, getsockname, sockopt,
};

use super::descriptor::printable;

/// A socket of the target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Socket {
    /// What it speaks: `tcp`, `udp`, `unix`, or the number of another family as text.
    /// The first three are values of `network.transport`. `None` if not known.
    pub transport: Option<String>,
    /// Its own end. `None` if it has no address or it is not known.
    pub local: Option<Endpoint>,
    /// The other end, or the one that a connect or send is aimed at.
    pub peer: Option<Endpoint>,
    /// How far it has got.
    pub state: SocketState,
    /// `SO_RCVTIMEO`: how long a read waits. `None`: for ever, or not known.
    pub receive_limit: Option<Duration>,
    /// `SO_SNDTIMEO`: how long a write or a connect waits.
    pub send_limit: Option<Duration>,
}

/// How far a socket has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SocketState {
    /// Nobody may look.
    #[default]
    Unknown,
    /// It has a peer.
    Connected,
    /// It waits for others to connect.
    Listening,
    /// It has none (yet, or any more), or needs none.
    Unconnected,
}

/// One end of a socket. Texts are bounded and hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// IPv4 or IPv6. A mapped IPv4 address is given as IPv4.
    Ip(SocketAddr),
    /// A path in the file system of whoever bound it.
    Unix(String),
    /// A name that is no path (unix(7), "abstract"), without its leading zero.
    Abstract(String),
    /// A unix socket that nobody has named.
    Unnamed,
}

impl Socket {
    /// Asks the kernel about a descriptor that is a socket.
    pub(super) fn look(fd: impl AsFd) -> Socket {
        let fd = fd.as_fd();
        let family = sockopt::socket_domain(fd).ok();
        let stream = sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::STREAM);
        let transport = family.map(|family| match (family, stream) {
            (AddressFamily::UNIX, _) => "unix".to_owned(),
            (AddressFamily::INET | AddressFamily::INET6, true) => "tcp".to_owned(),
            (AddressFamily::INET | AddressFamily::INET6, false) => "udp".to_owned(),
            (other, _) => format!("family {}", other.as_raw()),
        });
        let peer = getpeername(fd);
        let state = if matches!(peer, Ok(Some(_))) {
            SocketState::Connected
        } else if sockopt::socket_acceptconn(fd) == Ok(true) {
            SocketState::Listening
        } else {
            SocketState::Unconnected
        };
        Socket {
            transport,
            local: getsockname(fd).ok().and_then(Endpoint::from_any),
            peer: peer.ok().flatten().and_then(Endpoint::from_any),
            state,
            receive_limit: sockopt::socket_timeout(fd, sockopt::Timeout::Recv).ok().flatten(),
            send_limit: sockopt::socket_timeout(fd, sockopt::Timeout::Send).ok().flatten(),
        }
    }
}

impl Endpoint {
    /// The value of `network.peer.address`: an IP address, or the name of a unix
    /// socket, an abstract one with `@` before it. `None` if it has none.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match self {
            Endpoint::Ip(address) => Some(address.ip().to_string()),
            Endpoint::Unix(path) => Some(path.clone()),
            Endpoint::Abstract(name) => Some(format!("@{name}")),
            Endpoint::Unnamed => None,
        }
    }

    /// The value of `network.peer.port`.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Endpoint::Ip(address) => Some(address.port()),
            _ => None,
        }
    }

    fn from_any(any: SocketAddrAny) -> Option<Endpoint> {
        match any.address_family() {
            AddressFamily::UNIX => SocketAddrUnix::try_from(any).ok().map(Endpoint::from_unix),
            _ => SocketAddr::try_from(any).ok().map(Endpoint::from_ip),
        }
    }

    fn from_unix(unix: SocketAddrUnix) -> Endpoint {
        match (unix.path_bytes(), unix.abstract_name()) {
            (Some(path), _) => Endpoint::Unix(printable(path)),
            (None, Some(name)) if !name.is_empty() => Endpoint::Abstract(printable(name)),
            (None, _) => Endpoint::Unnamed,
        }
    }

    fn from_ip(address: SocketAddr) -> Endpoint {
        Endpoint::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// From the bytes of a `struct sockaddr` in the target: the family in its order,
    /// port and address in the network's (ip(7), ipv6(7), unix(7)).
    pub(super) fn from_sockaddr(bytes: &[u8]) -> Option<Endpoint> {
        let family = u16::from_ne_bytes(*bytes.first_chunk()?);
        let rest = &bytes[2..];
        let ip = |ip: IpAddr| {
            let port = u16::from_be_bytes(*rest.first_chunk()?);
            Some(Endpoint::from_ip(SocketAddr::new(ip, port)))
        };
        match AddressFamily::from_raw(family) {
            AddressFamily::INET => {
                let octets: [u8; 4] = *rest.get(2..)?.first_chunk()?;
                ip(Ipv4Addr::from(octets).into())
            }
            AddressFamily::INET6 => {
                let octets: [u8; 16] = *rest.get(6..)?.first_chunk()?;
                ip(Ipv6Addr::from(octets).into())
            }
            AddressFamily::UNIX => Some(match rest {
                [] => Endpoint::Unnamed,
                [0, name @ ..] => Endpoint::Abstract(printable(name)),
                path => Endpoint::Unix(printable(
                    path.split(|&byte| byte == 0).next().unwrap_or_default(),
                )),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn both_ends_of_ipv4_and_ipv6_connections_are_named() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                assert_eq!(host, "::1", "IPv4 is always there");
                continue;
            };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let seen = Socket::look(&stream);
            assert_eq!(seen.transport.as_deref(), Some("tcp"));
            assert_eq!(seen.peer, Some(Endpoint::Ip(listener.local_addr().unwrap())));
            assert_eq!(seen.local, Some(Endpoint::Ip(stream.local_addr().unwrap())));
            assert_eq!(seen.state, SocketState::Connected);
            let peer = seen.peer.unwrap();
            assert_eq!(peer.address().as_deref(), Some(host));
            assert_eq!(peer.port(), Some(listener.local_addr().unwrap().port()));
            assert_eq!(Socket::look(&listener).state, SocketState::Listening);
        }
    }

    #[test]
    fn unix_sockets_are_named_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let seen = Socket::look(UnixStream::connect(&path).unwrap());
        assert_eq!(seen.transport.as_deref(), Some("unix"));
        assert_eq!(seen.peer, Some(Endpoint::Unix(path.to_str().unwrap().to_owned())));
        assert_eq!(seen.local, Some(Endpoint::Unnamed));

        let name = format!("glasspool-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let peer = Socket::look(UnixStream::connect_addr(&address).unwrap())
            .peer
            .unwrap();
        assert_eq!(peer, Endpoint::Abstract(name.clone()));
        assert_eq!(peer.address(), Some(format!("@{name}")));
        assert_eq!(peer.port(), None);
    }

    #[test]
    fn a_socket_without_peer_says_so_and_tells_its_limits() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(1500)))
            .unwrap();
        let seen = Socket::look(&socket);
        assert_eq!(seen.transport.as_deref(), Some("udp"));
        assert_eq!((seen.peer, seen.state), (None, SocketState::Unconnected));
        assert_eq!(seen.receive_limit, Some(Duration::from_millis(1500)));
        assert_eq!(seen.send_limit, None);
    }

    #[test]
    fn addresses_in_memory_are_read_and_cut_ones_refused() {
        let ipv4 = [2, 0, 0x33, 0xf2, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let endpoint = Endpoint::from_sockaddr(&ipv4);
        assert_eq!(endpoint, Some(Endpoint::Ip(([127, 0, 0, 1], 13298).into())));
        assert_eq!(Endpoint::from_sockaddr(&ipv4[..7]), None);
        let mut ipv6 = vec![10, 0, 0, 53, 0, 0, 0, 0];
        ipv6.extend(Ipv6Addr::LOCALHOST.octets());
        let endpoint = Endpoint::from_sockaddr(&ipv6);
        assert_eq!(endpoint, Some(Endpoint::Ip((Ipv6Addr::LOCALHOST, 53).into())));
        assert_eq!(Endpoint::from_sockaddr(&ipv6[..20]), None);
        let path = Endpoint::from_sockaddr(b"\x01\0/run/a\x1b.sock\0\0\0");
        assert_eq!(path, Some(Endpoint::Unix("/run/a\u{fffd}.sock".to_owned())));
        let name = Endpoint::from_sockaddr(b"\x01\0\0name");
        assert_eq!(name, Some(Endpoint::Abstract("name".to_owned())));
        assert_eq!(Endpoint::from_sockaddr(b"\x63\0aaaaaaaaaaaaaaaaaa"), None);
        assert_eq!(Endpoint::from_sockaddr(b"\x01"), None);
    }
}
