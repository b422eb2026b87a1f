//! Who waits to be accepted, asked of the kernel by sock_diag(7).
//!
//! php-fpm knows this for TCP only, from TCP_INFO; here it is one question for both
//! kinds of sockets. No crate of good standing has these messages; they are three
//! fixed structures of `linux/netlink.h`, `linux/inet_diag.h` and `linux/unix_diag.h`,
//! all numbers in the machine's order except ports and addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, netlink};

/// A listening socket's queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Connections that nobody has accepted yet.
    pub waiting: u32,
    /// How many may wait.
    pub limit: u32,
}

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEAD_BYTES: usize = 16;
/// Far above what one socket's answer needs.
const ANSWER_BYTES: usize = 1024;
/// `TCP_LISTEN`, also the state of unix sockets that listen.
const LISTENING: u32 = 10;
/// For the cookie that tells sockets apart: none in particular.
const ANY_COOKIE: [u32; 2] = [u32::MAX; 2];

/// Asks for the queue of a socket that listens.
pub(super) fn of(socket: &OwnedFd) -> io::Result<Queue> {
    let inode = rustix::fs::fstat(socket)?.st_ino;
    let inode = u32::try_from(inode).map_err(|_too_large| io::Error::other("not a socket's inode"))?;
    let address = rustix::net::getsockname(socket)?;
    if address.address_family() == AddressFamily::UNIX {
        let answer = ask(&unix_request(inode))?;
        unix_answer(&answer, inode)
    } else {
        let answer = ask(&tcp_request(SocketAddr::try_from(address)?))?;
        tcp_answer(&answer, inode)
    }
    .ok_or_else(|| io::Error::other("the kernel's answer is not about this socket"))
}

/// Sends a request and reads the payload of its answer, which is there at once: the
/// kernel answers within the system call.
fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let length = HEAD_BYTES + request.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("some eighty bytes").to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port are for those who keep the socket.
    message.extend([0; 8]);
    message.extend(request);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kernel = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&kernel, &message, SendFlags::empty())?;
    receive(kernel.as_fd())
}

fn receive(kernel: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; ANSWER_BYTES];
    let (length, _) = rustix::net::recv(kernel, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    let kind = number::<2>(&answer, 4).map(u16::from_ne_bytes);
    if kind != Some(BY_FAMILY) {
        // Else it is an error: the socket is of another network namespace, or the
        // kernel was built without this.
        return Err(io::Error::other("the kernel knows no such socket"));
    }
    Ok(answer.split_off(HEAD_BYTES))
}

/// `struct unix_diag_req`, asking for the queue (`UDIAG_SHOW_RQLEN`).
fn unix_request(inode: u32) -> Vec<u8> {
    const SHOW_QUEUE: u32 = 0x10;
    let mut request = Vec::with_capacity(24);
    // Family and protocol are one byte each; two bytes are unused.
    request.push(u8::try_from(AddressFamily::UNIX.as_raw()).expect("a byte"));
    request.extend([0; 3]);
    for word in [1 << LISTENING, inode, SHOW_QUEUE, ANY_COOKIE[0], ANY_COOKIE[1]] {
        request.extend(u32::to_ne_bytes(word));
    }
    request
}

/// `struct unix_diag_msg`, then attributes, of which `UNIX_DIAG_RQLEN` is wanted.
fn unix_answer(answer: &[u8], inode: u32) -> Option<Queue> {
    const QUEUE: u16 = 4;
    if u32::from_ne_bytes(number(answer, 4)?) != inode {
        return None;
    }
    let mut rest = answer.get(16..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(number(rest, 0)?));
        let kind = u16::from_ne_bytes(number(rest, 2)?);
        if kind == QUEUE {
            return Some(Queue {
                waiting: u32::from_ne_bytes(number(rest, 4)?),
                limit: u32::from_ne_bytes(number(rest, 8)?),
            });
        }
        // Attributes are aligned to four bytes, and each has at least its own head.
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// `struct inet_diag_req_v2` for the socket that listens at that address.
fn tcp_request(address: SocketAddr) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (AddressFamily::INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AddressFamily::INET6, ip.octets().to_vec()),
    };
    let protocol = u8::try_from(ipproto::TCP.as_raw().get()).expect("a byte");
    let mut request = Vec::with_capacity(56);
    request.push(u8::try_from(family.as_raw()).expect("a byte"));
    request.extend([protocol, 0, 0]);
    request.extend((1u32 << LISTENING).to_ne_bytes());
    request.extend(address.port().to_be_bytes());
    request.extend([0; 2]);
    request.extend(&ip);
    // The rest of a 16 byte address, the peer's address and the interface: none.
    request.resize(request.len() + (16 - ip.len()) + 16 + 4, 0);
    ANY_COOKIE
        .iter()
        .for_each(|half| request.extend(half.to_ne_bytes()));
    request
}

/// `struct inet_diag_msg`. For a socket that listens, its two queues are who waits and
/// how many may.
fn tcp_answer(answer: &[u8], inode: u32) -> Option<Queue> {
    if u32::from_ne_bytes(number(answer, 68)?) != inode {
        return None;
    }
    Some(Queue {
        waiting: u32::from_ne_bytes(number(answer, 56)?),
        limit: u32::from_ne_bytes(number(answer, 60)?),
    })
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::*;

    /// Connects twice and accepts one of them.
    fn watch(socket: &OwnedFd, connect: impl Fn() -> OwnedFd, accept: impl Fn()) {
        let limit = of(socket).expect("is told").limit;
        assert!(limit > 0);
        let _waiting = [connect(), connect()];
        assert_eq!(of(socket).expect("is told"), Queue { waiting: 2, limit });
        accept();
        assert_eq!(of(socket).expect("is told"), Queue { waiting: 1, limit });
    }

    #[test]
    fn who_waits_on_a_unix_socket_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        let listener = UnixListener::bind(&path).expect("binds");
        let socket = OwnedFd::from(listener.try_clone().expect("clones"));
        watch(
            &socket,
            || UnixStream::connect(&path).expect("connects").into(),
            || drop(listener.accept().expect("accepts")),
        );
        rustix::net::listen(&socket, 7).expect("listens");
        assert_eq!(of(&socket).expect("is told").limit, 7);
    }

    #[test]
    fn who_waits_on_a_tcp_socket_is_known() {
        for (bound, reached) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("[::]:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let Ok(listener) = TcpListener::bind(bound) else {
                assert!(bound.contains('['), "only IPv6 may be missing");
                continue;
            };
            let port = listener.local_addr().expect("has one").port();
            let socket = OwnedFd::from(listener.try_clone().expect("clones"));
            watch(
                &socket,
                || TcpStream::connect((reached, port)).expect("connects").into(),
                || drop(listener.accept().expect("accepts")),
            );
        }
    }

    #[test]
    fn other_sockets_are_not_told_about() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let told = of(&one.into());
        assert!(told.is_err() || told.is_ok_and(|queue| queue.limit == 0));
        assert!(of(&tempfile::tempfile().expect("a file").into()).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(answer in proptest::collection::vec(any::<u8>(), 0..200), inode: u32) {
            let _queues = (unix_answer(&answer, inode), tcp_answer(&answer, inode));
            let known = number(&answer, 4).map_or(0, u32::from_ne_bytes);
            let _queue = unix_answer(&answer, known);
        }
    }
}
