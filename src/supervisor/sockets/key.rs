//! php-fpm's names for sockets, as `FPM_SOCKETS` and its log lines have them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix};

use crate::config::{ListenAddress, MAX_SOCKET_PATH_BYTES};

/// The path of a unix socket as it was bound, or `ip:port` with the address in numbers
/// and without brackets, such as `:::9000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(OsString);

impl Key {
    /// Takes a name as another program wrote it.
    pub(super) fn from_text(text: &[u8]) -> Key {
        Key(OsStr::from_bytes(text).to_owned())
    }

    pub(super) fn unix(path: &Path) -> Key {
        Key(cut(path).as_os_str().to_owned())
    }

    pub(super) fn tcp(address: SocketAddr) -> Key {
        Key(format!("{}:{}", address.ip(), address.port()).into())
    }

    /// The name of what a socket is bound to, which getsockname(2) tells.
    ///
    /// # Errors
    /// When it is no socket, or of a kind that pools cannot have.
    pub(super) fn of_socket(socket: impl AsFd) -> io::Result<Key> {
        let address = rustix::net::getsockname(socket)?;
        match address.address_family() {
            AddressFamily::INET | AddressFamily::INET6 => Ok(Key::tcp(SocketAddr::try_from(address)?)),
            AddressFamily::UNIX => {
                let address = SocketAddrUnix::try_from(address)?;
                // The longest paths come with the NUL that ends them, unix(7).
                let path = address.path_bytes().unwrap_or_default();
                match path.split(|byte| *byte == 0).next() {
                    None | Some([]) => Err(io::Error::other("it is a unix socket without a path")),
                    Some(path) => Ok(Key::from_text(path)),
                }
            }
            _ => Err(io::Error::other("it is neither a TCP nor a unix socket")),
        }
    }

    /// The names a pool's socket may have, the one to be preferred first.
    pub(super) fn of_pool(listen: &ListenAddress) -> Vec<Key> {
        match listen {
            ListenAddress::Tcp(address) => vec![Key::tcp(*address)],
            ListenAddress::TcpPort(port) => {
                [IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()]
                    .map(|any| Key::tcp((any, *port).into()))
                    .into()
            }
            ListenAddress::Unix(path) => vec![Key::unix(path)],
        }
    }

    /// As the environment holds it.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The file of a unix socket. php-fpm tells them apart by the colon.
    pub fn path(&self) -> Option<&Path> {
        let is_tcp = self.0.to_str().is_some_and(|text| {
            let address = text.rsplit_once(':');
            address.is_some_and(|(ip, port)| ip.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok())
        });
        (!is_tcp).then(|| Path::new(&self.0))
    }
}

/// The path that a unix socket really gets: longer ones are cut, as php-fpm does it.
pub(super) fn cut(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(
        &bytes[..bytes.len().min(MAX_SOCKET_PATH_BYTES)],
    ))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_php_fpms() {
        let name = |text: &str| Key::tcp(text.parse().expect("an address")).to_string();
        assert_eq!(name("127.0.0.1:9000"), "127.0.0.1:9000");
        assert_eq!(name("[::]:9000"), ":::9000");
        assert_eq!(name("[::1]:9000"), "::1:9000");
        let both = Key::of_pool(&ListenAddress::TcpPort(9000));
        assert_eq!(
            both.iter().map(Key::to_string).collect::<Vec<_>>(),
            [":::9000", "0.0.0.0:9000"]
        );
        let path = Key::unix(Path::new("/run/php.sock"));
        assert_eq!(path.path(), Some(Path::new("/run/php.sock")));
        assert!(
            Key::tcp("[::]:9000".parse().expect("an address"))
                .path()
                .is_none()
        );
    }

    #[test]
    fn a_long_path_is_cut_to_what_a_socket_can_have() {
        let long = format!("/{}", "x".repeat(200));
        let key = Key::unix(Path::new(&long));
        assert_eq!(key.as_os_str().len(), 107);
        assert!(SocketAddrUnix::new(key.as_os_str()).is_ok());
    }

    #[test]
    fn a_socket_knows_its_own_name() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = tcp.local_addr().expect("has one");
        assert_eq!(Key::of_socket(&tcp).expect("bound"), Key::tcp(address));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        let unix = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        assert_eq!(Key::of_socket(&unix).expect("bound"), Key::unix(&path));
        let (unnamed, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(Key::of_socket(&unnamed).is_err());
        assert!(Key::of_socket(folder_fd(&folder)).is_err());
    }

    fn folder_fd(folder: &tempfile::TempDir) -> std::fs::File {
        std::fs::File::open(folder.path()).expect("opens")
    }
}
