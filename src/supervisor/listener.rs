//! The pools' listening sockets: php-fpm's rules for addresses, owners and modes.
//!
//! Sockets are blocking, because workers share them and sleep in accept(2), and
//! close-on-exec, so that programs started by scripts do not inherit them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::identity::{self, IdentityError};
use crate::config::{Backlog, ListenAddress, Pool};
use crate::logs::ErrorLog;

/// Why a pool cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, not ours, or not allowed.
    #[error("[pool {pool}] unable to bind listening socket for address '{address}': {source}")]
    Bind {
        /// Whose.
        pool: String,
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody accepts there.
    #[error(
        "[pool {pool}] Another FPM instance seems to already listen on {path} (stop it, or choose another path)"
    )]
    InUse {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
    },
    /// php-fpm would remove it.
    #[error(
        "[pool {pool}] cannot listen on '{path}': it exists and is no socket (remove it, or choose another path)"
    )]
    NotASocket {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
    },
    /// The owner does not exist or may not be set.
    #[error("[pool {pool}] failed to chown() the socket '{path}': {source}")]
    Owner {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Owner or group of the socket is unknown.
    #[error(transparent)]
    Account(#[from] IdentityError),
}

/// A listening socket. Dropping it removes its unix path, if that is still its own.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Arc<OwnedFd>,
    node: Option<Node>,
}

#[derive(Debug)]
struct Node {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Makes the pool's socket. Changes the umask for a moment, so call it while the
    /// process has one thread.
    pub(super) fn open(pool: &Pool, log: &ErrorLog) -> Result<Listener, ListenError> {
        let backlog = match pool.backlog {
            // The kernel compares as unsigned and cuts to net.core.somaxconn.
            Backlog::KernelMaximum => -1,
            Backlog::Connections(count) => i32::try_from(count).unwrap_or(i32::MAX),
        };
        let bind_error = |address: &dyn std::fmt::Display| {
            let (pool, address) = (pool.name.clone(), address.to_string());
            move |source: io::Error| ListenError::Bind {
                pool,
                address,
                source,
            }
        };
        let (socket, node) = match &pool.listen {
            ListenAddress::Unix(path) => {
                let (socket, node) = unix(pool, path)?;
                (socket, Some(node))
            }
            ListenAddress::Tcp(address) => (tcp(*address, false).map_err(bind_error(address))?, None),
            ListenAddress::TcpPort(port) => {
                let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
                let socket = tcp(any, true).or_else(|_| {
                    log.notice("Failed implicitly binding to ::, retrying with 0.0.0.0");
                    tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), false)
                });
                (socket.map_err(bind_error(port))?, None)
            }
        };
        // From here on a failure removes the path again.
        let listener = Listener {
            socket: Arc::new(socket),
            node,
        };
        rustix::net::listen(&listener.socket, backlog)
            .map_err(|e| bind_error(&name(&pool.listen))(e.into()))?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(node) = &self.node else { return };
        // A successor may have bound the path meanwhile; its node is another one.
        let is_ours = std::fs::symlink_metadata(&node.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (node.device, node.inode));
        if is_ours {
            // Nothing is left to be told, and nobody to tell.
            std::fs::remove_file(&node.path).unwrap_or_default();
        }
    }
}

/// The address as the operator knows it.
pub fn name(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::TcpPort(port) => port.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    }
}

fn tcp(address: SocketAddr, both_families: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if both_families {
        // Not left to net.ipv6.bindv6only.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn unix(pool: &Pool, path: &Path) -> Result<(OwnedFd, Node), ListenError> {
    let (name, shown) = (|| pool.name.clone(), || path.display().to_string());
    let bind_error = |source: io::Error| ListenError::Bind {
        pool: name(),
        address: shown(),
        source,
    };
    let address = SocketAddrUnix::new(path).map_err(|e| bind_error(e.into()))?;
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(bind_error(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket {
                pool: name(),
                path: shown(),
            });
        }
        Ok(_) if is_accepting(&address).map_err(bind_error)? => {
            return Err(ListenError::InUse {
                pool: name(),
                path: shown(),
            });
        }
        Ok(_) => std::fs::remove_file(path).map_err(bind_error)?,
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| bind_error(e.into()))?;
    // bind(2) makes the node with 0777 less the umask: this way it never has, not even
    // for a moment, more rights than asked for.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777 & !pool.socket_mode.0));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound.map_err(|e| bind_error(e.into()))?;
    let made = std::fs::symlink_metadata(path).map_err(bind_error)?;
    let node = Node {
        path: path.to_path_buf(),
        device: made.dev(),
        inode: made.ino(),
    };
    let owner = identity::socket_owner(pool)?;
    if owner != (None, None) {
        std::os::unix::fs::chown(path, owner.0, owner.1).map_err(|source| {
            std::fs::remove_file(path).unwrap_or_default();
            ListenError::Owner {
                pool: name(),
                path: shown(),
                source,
            }
        })?;
    }
    Ok((socket, node))
}

/// Whether somebody listens there. Never waits: a full queue also means somebody.
fn is_accepting(address: &SocketAddrUnix) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&probe, address);
    Ok(matches!(connected, Ok(()) | Err(rustix::io::Errno::AGAIN)))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{LogLevel, Mode};

    fn pool(listen: ListenAddress) -> Pool {
        Pool::new("www", listen, NonZeroU32::MIN)
    }

    fn log() -> ErrorLog {
        ErrorLog::stderr(LogLevel::Alert)
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        let mut pool = pool(ListenAddress::Unix(path.clone()));
        pool.socket_mode = Mode(0o602);
        let listener = Listener::open(&pool, &log()).expect("listens");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o602);
        assert!(matches!(
            Listener::open(&pool, &log()),
            Err(ListenError::InUse { .. })
        ));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_leftover_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let pool = pool(ListenAddress::Unix(path.clone()));
        drop(Listener::open(&pool, &log()).expect("replaces"));
        std::fs::write(&path, "precious").expect("writes");
        assert!(matches!(
            Listener::open(&pool, &log()),
            Err(ListenError::NotASocket { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
    }

    #[test]
    fn a_successors_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        let listener = Listener::open(&pool(ListenAddress::Unix(path.clone())), &log()).expect("listens");
        std::fs::remove_file(&path).expect("removes");
        let _successor = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_taken_port_is_told_with_its_pool() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = taken.local_addr().expect("has one");
        let error = Listener::open(&pool(ListenAddress::Tcp(address)), &log()).expect_err("taken");
        let text = error.to_string();
        assert!(
            text.starts_with("[pool www] unable to bind listening socket for address '127.0.0.1:"),
            "{text}"
        );
    }
}
