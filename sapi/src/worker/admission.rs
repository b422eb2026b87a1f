//! `listen.allowed_clients`: who may connect to a pool that listens on TCP.
//!
//! The list is judged when the worker starts; a wrong entry is told of and left out.
//! If nothing is left nobody gets in, as with php-fpm. Whole addresses are compared:
//! php-fpm looks at 96 of the 128 bits of an IPv6 address only, which lets in
//! 2^32 neighbours of each.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::control::Severity;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::log::{self, here};

/// Who gets in.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Clients have addresses.
    tcp: bool,
    /// These only; `None` for everybody.
    allowed: Option<Vec<IpAddr>>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) socket: OwnedFd,
    /// The peer's address; `None` on unix sockets.
    pub(crate) peer: Option<IpAddr>,
}

impl Admission {
    /// Judges the list and says on the log what is wrong with it.
    pub(crate) fn new(listener: impl AsFd, list: Option<&str>) -> Admission {
        let tcp = rustix::net::getsockname(&listener).is_ok_and(|a| SocketAddr::try_from(a).is_ok());
        let allowed = list.filter(|_| tcp).map(|list| {
            let (allowed, wrong) = parse(list);
            for item in wrong {
                let text = format!("Wrong IP address '{item}' in listen.allowed_clients");
                log::say(Severity::Error, here!("allowed_clients"), text.as_bytes());
            }
            if allowed.is_empty() {
                let text = b"There are no allowed addresses";
                log::say(Severity::Error, here!("allowed_clients"), text);
            }
            allowed
        });
        Admission { tcp, allowed }
    }

    /// Waits for a connection; `None` if it was turned away at once.
    pub(crate) fn accept(&self, listener: impl AsFd) -> Result<Option<Visitor>, Errno> {
        if !self.tcp {
            let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?;
            return Ok(Some(Visitor { socket, peer: None }));
        }
        let (socket, address) = rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC)?;
        let peer = address
            .and_then(|a| SocketAddr::try_from(a).ok())
            .map(|a| a.ip().to_canonical());
        if self.admits(peer) {
            return Ok(Some(Visitor { socket, peer }));
        }
        let who = peer.map_or_else(|| "unknown".to_owned(), |p| p.to_string());
        let text = format!("Connection disallowed: IP address '{who}' has been dropped.");
        log::say(Severity::Error, here!("accept"), text.as_bytes());
        Ok(None)
    }

    fn admits(&self, peer: Option<IpAddr>) -> bool {
        match &self.allowed {
            None => true,
            Some(allowed) => peer.is_some_and(|p| allowed.contains(&p)),
        }
    }
}

/// The addresses of a list, and the items that are none. An IPv4 address stands for its
/// form mapped to IPv6 too.
fn parse(list: &str) -> (Vec<IpAddr>, Vec<&str>) {
    let mut allowed = Vec::new();
    let mut wrong = Vec::new();
    for item in list.split(',').filter(|i| !i.is_empty()) {
        match item.parse::<IpAddr>() {
            Ok(address) => allowed.push(address.to_canonical()),
            Err(_) => wrong.push(item),
        }
    }
    (allowed, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(list: &str, peer: &str) -> bool {
        let admission = Admission {
            tcp: true,
            allowed: Some(parse(list).0),
        };
        admission.admits(peer.parse().ok().map(|p: IpAddr| p.to_canonical()))
    }

    #[test]
    fn whole_addresses_are_compared() {
        let list = "127.0.0.1,2001:db8::1";
        assert!(admits(list, "127.0.0.1"));
        assert!(admits(list, "::ffff:127.0.0.1"));
        assert!(admits(list, "2001:db8::1"));
        assert!(!admits(list, "2001:db8::2"));
        assert!(!admits(list, "127.0.0.2"));
        assert!(!admits(list, ""));
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        let (allowed, wrong) = parse("xxx,10.0.0.0/8,,::1, 10.0.0.1");
        assert_eq!(allowed, ["::1".parse::<IpAddr>().expect("an address")]);
        assert_eq!(wrong, ["xxx", "10.0.0.0/8", " 10.0.0.1"]);
        assert!(!admits("xxx", "127.0.0.1"));
    }
}
