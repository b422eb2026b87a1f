//! The forms of `listen`, as php-fpm tells them apart: a `:` makes it an address, digits alone a port, anything
//! else is the path of a unix socket.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::effective::ListenAddress;
use super::error::{PoolFault, Shown};

/// `sizeof(sockaddr_un.sun_path)` less the final NUL, see unix(7). php-fpm cuts longer paths, which then are
/// different sockets from the ones the web server is told of.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Reads one `listen` value; a relative socket path starts at `prefix`. May resolve a host name, first answer only.
pub(super) fn parse(text: &str, prefix: &Path) -> Result<ListenAddress, PoolFault> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return port(text).map(ListenAddress::TcpPort);
    }
    let Some((host, number)) = text.rsplit_once(':') else {
        return unix(text, prefix);
    };
    if text.starts_with('/') {
        return Err(unresolved(text, "the path contains ':'"));
    }
    let port = port(number)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ListenAddress::Tcp(SocketAddr::new(ip, port)));
    }
    // `*` is what other servers write for every address; php-fpm does not know it.
    if host.is_empty() || host == "*" {
        return Err(unresolved(
            text,
            "no such host; for every address give the port alone",
        ));
    }
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|e| unresolved(text, &e.to_string()))?;
    found
        .into_iter()
        .next()
        .map(ListenAddress::Tcp)
        .ok_or_else(|| unresolved(text, "no address"))
}

fn port(text: &str) -> Result<u16, PoolFault> {
    // `parse` would also take `+80`.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| PoolFault::Port {
        found: Shown::from(text),
    })
}

fn unix(text: &str, prefix: &Path) -> Result<ListenAddress, PoolFault> {
    let path = prefix.join(text);
    let found = path.as_os_str().len();
    if found > MAX_SOCKET_PATH_BYTES {
        let (path, limit) = (Shown::from(path.as_path()), MAX_SOCKET_PATH_BYTES);
        return Err(PoolFault::LongSocketPath { path, found, limit });
    }
    Ok(ListenAddress::Unix(path))
}

fn unresolved(address: &str, reason: &str) -> PoolFault {
    PoolFault::Resolve {
        address: Shown::from(address),
        reason: Shown::from(reason),
    }
}
