//! The socket that metrics are fetched at. It is the observer's to accept on; opened here,
//! while everything is still allowed, and kept while observers come and go.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix};

use super::bind::{self, Failed};
use super::key::Key;
use super::listener::{Listener, Node};
use super::name;
use crate::config::ListenAddress;
use crate::supervisor::error::StartError;

/// Connections that wait while there is no observer.
const BACKLOG: i32 = 64;
/// A unix socket is as open as a port of this machine; who may come near it is for its
/// folder to say.
const MODE: u32 = 0o666;

/// Listens there.
///
/// # Errors
/// When the address is taken, not ours or not allowed; nothing is left then.
pub(in crate::supervisor) fn listen(address: &ListenAddress) -> Result<Listener, StartError> {
    let open = || -> io::Result<Listener> {
        let (socket, node) = match address {
            ListenAddress::Tcp(address) => (tcp(*address)?, None),
            ListenAddress::TcpPort(port) => (tcp(([0, 0, 0, 0], *port).into())?, None),
            ListenAddress::Unix(path) => {
                let (socket, node) = unix(path)?;
                (socket, Some(node))
            }
        };
        let key = Key::of_socket(&socket)?;
        let listener = Listener::new(socket, key, node);
        rustix::net::listen(&listener.socket, BACKLOG)?;
        Ok(listener)
    };
    open().map_err(|e| StartError::Metrics {
        address: name(address),
        why: e.to_string(),
    })
}

fn tcp(address: std::net::SocketAddr) -> io::Result<OwnedFd> {
    bind::tcp(address, false).map_err(|failed| match failed {
        Failed::Socket(e) | Failed::Bind(e) => e,
    })
}

fn unix(path: &Path) -> io::Result<(OwnedFd, Node)> {
    let address = SocketAddrUnix::new(path)?;
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("it exists and is no socket"));
        }
        Ok(_) if bind::is_accepting(&address)? => return Err(rustix::io::Errno::ADDRINUSE.into()),
        // Left over from a program that could not remove it.
        Ok(_) => std::fs::remove_file(path)?,
    }
    let socket = bind::socket(AddressFamily::UNIX)?;
    rustix::net::bind(&socket, &address)?;
    let node = Node::at(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok((socket, node))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_with_its_address() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = taken.local_addr().expect("is bound");
        let refused = listen(&ListenAddress::Tcp(address)).expect_err("it is taken");
        let expected = format!("cannot serve metrics at {address}: Address already in use");
        assert!(refused.to_string().starts_with(&expected), "{refused}");
        drop(taken);
        listen(&ListenAddress::Tcp(address)).expect("it is free");
    }

    #[test]
    fn a_unix_socket_is_for_everybody_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.sock");
        let address = ListenAddress::Unix(path.clone());
        let listener = listen(&address).expect("listens");
        UnixStream::connect(&path).expect("connects");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(listen(&address).is_err(), "somebody listens");
        drop(listener);
        assert!(!path.exists());
        // One that nobody listens on any more is replaced, anything else is not.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        drop(listen(&address).expect("listens"));
        std::fs::write(&path, "text").expect("writes");
        let refused = listen(&address).expect_err("it is a file");
        assert!(
            refused.to_string().contains("it exists and is no socket"),
            "{refused}"
        );
    }
}
