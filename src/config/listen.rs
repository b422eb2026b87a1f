//! The forms of `listen`, as php-fpm tells them apart: a `:` makes it an address, digits alone a port, anything
//! else is the path of a unix socket.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::effective::ListenAddress;
use super::error::Shown;

/// Why an address is refused.
#[derive(Debug)]
pub(super) enum BadAddress {
    Port { found: Shown },
    Resolve { reason: Shown },
}

/// Reads one address; a relative socket path starts at `prefix`. May resolve a host name: the first answer counts,
/// of the others `warn` is told in php-fpm's words.
pub(super) fn parse(
    text: &str,
    prefix: &Path,
    warn: impl FnMut(String),
) -> Result<ListenAddress, BadAddress> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return port(text).map(ListenAddress::TcpPort);
    }
    let Some((host, number)) = text.rsplit_once(':') else {
        return Ok(ListenAddress::Unix(prefix.join(text)));
    };
    if text.starts_with('/') {
        return Err(unresolved("the path contains ':'"));
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
        return Err(unresolved("no such host; for every address give the port alone"));
    }
    resolve(host, port, warn)
}

fn resolve(host: &str, port: u16, mut warn: impl FnMut(String)) -> Result<ListenAddress, BadAddress> {
    let found = (host, port).to_socket_addrs().map_err(|e| {
        let reason = e.to_string();
        // The standard library puts this before what gai_strerror(3) says.
        let reason = reason
            .strip_prefix("failed to lookup address information: ")
            .unwrap_or(&reason);
        unresolved(reason)
    })?;
    let mut found: Vec<SocketAddr> = found.collect();
    // A host file may name one address twice.
    found.dedup();
    let mut found = found.into_iter();
    let first = found.next().ok_or_else(|| unresolved("no address"))?;
    for other in found {
        warn(format!(
            "Found multiple addresses for {}, {} ignored",
            Shown::from(host),
            other.ip()
        ));
    }
    Ok(ListenAddress::Tcp(first))
}

fn port(text: &str) -> Result<u16, BadAddress> {
    // `parse` would also take `+80`.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| BadAddress::Port {
        found: Shown::from(text),
    })
}

fn unresolved(reason: &str) -> BadAddress {
    BadAddress::Resolve {
        reason: Shown::from(reason),
    }
}
