//! New listening sockets.
//!
//! A socket refuses connections until listen(2), so whoever may connect is settled
//! before that, and no umask has to be changed for it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::ListenError;
use super::key::{Key, cut};
use super::listener::{Listener, Node};
use super::{access, name};
use crate::config::{Backlog, ListenAddress, MAX_SOCKET_PATH_BYTES, Pool};
use crate::logs::ErrorLog;

/// Makes the pool's socket.
pub(super) fn listen(pool: &Pool, log: &ErrorLog) -> Result<Listener, ListenError> {
    let (socket, node) = match &pool.listen {
        ListenAddress::Unix(path) => {
            let (socket, node) = unix(pool, path, log)?;
            (socket, Some(node))
        }
        ListenAddress::Tcp(address) => (tcp(*address, false).map_err(|e| e.on(pool))?, None),
        ListenAddress::TcpPort(port) => (port_alone(*port, log).map_err(|e| e.on(pool))?, None),
    };
    // From here on a failure removes the file again.
    let listen_error = |why| ListenError::Listen {
        address: name(&pool.listen),
        why,
    };
    let key = Key::of_socket(&socket).map_err(listen_error)?;
    if let ListenAddress::Tcp(address) = &pool.listen {
        let ip = address.ip();
        log.debug(format_args!("Found address for {ip}, socket opened on {ip}"));
    }
    let listener = Listener::new(socket, key, node);
    let backlog = match pool.backlog {
        // The kernel compares as unsigned and cuts to net.core.somaxconn.
        Backlog::KernelMaximum => -1,
        Backlog::Connections(count) => i32::try_from(count).unwrap_or(i32::MAX),
    };
    rustix::net::listen(&listener.socket, backlog).map_err(|e| listen_error(e.into()))?;
    Ok(listener)
}

/// What of making a TCP socket has failed.
pub(super) enum Failed {
    Socket(io::Error),
    Bind(io::Error),
}

impl Failed {
    fn on(self, pool: &Pool) -> ListenError {
        match self {
            Failed::Socket(why) => ListenError::Socket { why },
            Failed::Bind(why) => ListenError::Bind {
                address: name(&pool.listen),
                why,
            },
        }
    }
}

/// Every address of the machine, of both families if it can be.
fn port_alone(port: u16, log: &ErrorLog) -> Result<OwnedFd, Failed> {
    tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), true).or_else(|_| {
        log.notice("Failed implicitly binding to ::, retrying with 0.0.0.0");
        tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false)
    })
}

pub(super) fn tcp(address: SocketAddr, both_families: bool) -> Result<OwnedFd, Failed> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = socket(family).map_err(Failed::Socket)?;
    let prepare = || -> io::Result<()> {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        if both_families {
            // Not left to net.ipv6.bindv6only.
            rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        }
        Ok(rustix::net::bind(&socket, &address)?)
    };
    prepare().map_err(Failed::Bind)?;
    Ok(socket)
}

fn unix(pool: &Pool, wanted: &Path, log: &ErrorLog) -> Result<(OwnedFd, Node), ListenError> {
    let path = cut(wanted);
    if path != wanted {
        log.warning(format_args!(
            "[pool {}] cannot bind to UNIX socket '{}' as path is too long (found length: {}, maximal length: {MAX_SOCKET_PATH_BYTES}), trying cut socket path instead '{}'",
            pool.name,
            wanted.display(),
            wanted.as_os_str().len(),
            path.display()
        ));
    }
    let shown = || path.display().to_string();
    let bind_error = |why: io::Error| ListenError::Bind {
        address: shown(),
        why,
    };
    let address = SocketAddrUnix::new(path).map_err(|e| bind_error(e.into()))?;
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(bind_error(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket {
                pool: pool.name.clone(),
                path: shown(),
            });
        }
        Ok(_) if is_accepting(&address).map_err(bind_error)? => {
            return Err(ListenError::InUse { path: shown() });
        }
        Ok(_) => std::fs::remove_file(path).map_err(bind_error)?,
    }
    let socket = socket(AddressFamily::UNIX).map_err(|why| ListenError::Socket { why })?;
    rustix::net::bind(&socket, &address).map_err(|e| bind_error(e.into()))?;
    let node = Node::at(path).map_err(bind_error)?;
    access::grant(pool, path, log)?;
    Ok((socket, node))
}

pub(super) fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    Ok(socket?)
}

/// Whether somebody listens there. Never waits: a full queue also means somebody.
pub(super) fn is_accepting(address: &SocketAddrUnix) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&probe, address);
    Ok(matches!(connected, Ok(()) | Err(rustix::io::Errno::AGAIN)))
}
