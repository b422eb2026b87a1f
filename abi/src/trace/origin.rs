//! Who a request comes from when proxies stand in between: `X-Forwarded-*` or
//! `Forwarded` (RFC 7239), believed only as far as trusted proxies wrote them.
//!
//! Each proxy appends the address that it was reached from. So the list is walked from the
//! right, through addresses of trusted proxies; the first that is none of these is the
//! client. What stands to the left of it is the client's own word.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::trim_blanks;

/// Proxies in a row that are walked through at most.
const HOPS: usize = 32;
/// Longest host name that is believed.
const HOST_BYTES: usize = 255;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is an IP address with or without /BITS, such as 10.0.0.0/8, 192.0.2.7 or fd00::/8")]
pub struct NoNetwork;

impl std::str::FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| NoNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most)
            .then_some(Network { address, bits })
            .ok_or(NoNetwork)
    }
}

impl Network {
    /// Whether the address lies in it. An IPv4 address that is written as IPv6 is the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differ.leading_zeros() >= u32::from(self.bits)
    }
}

/// Which of the two kinds of headers the trusted proxies write. Never both: the other one
/// would be the client's own word, passed on by a proxy that does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// What a request says of where it comes from; empty where it says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    /// The other end of the web server's connection (`REMOTE_ADDR`).
    pub peer: &'a [u8],
    /// `X-Forwarded-For`.
    pub x_for: &'a [u8],
    /// `X-Forwarded-Proto`.
    pub x_proto: &'a [u8],
    /// `X-Forwarded-Host`.
    pub x_host: &'a [u8],
    /// `Forwarded`.
    pub forwarded: &'a [u8],
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    /// The client's address as text; empty if unknown.
    pub client: &'a [u8],
    /// The same, if it is one.
    pub address: Option<IpAddr>,
    /// `http` or `https` at the client's end, if a trusted proxy says so.
    pub scheme: Option<&'static [u8]>,
    /// The host that the client asked for, if a trusted proxy says so.
    pub host: Option<&'a [u8]>,
    /// Whether the peer is a trusted proxy.
    pub is_proxied: bool,
}

/// Finds out where a request comes from. Allocates nothing; looks at 32 hops at most.
pub fn origin<'a>(said: &Said<'a>, proxies: &[Network], headers: ProxyHeaders) -> Origin<'a> {
    let is_trusted = |address| proxies.iter().any(|network| network.contains(address));
    let address = parse_address(said.peer).map(|(_, address)| address);
    let mut origin = Origin {
        client: said.peer,
        address,
        ..Origin::default()
    };
    if !address.is_some_and(is_trusted) {
        return origin;
    }
    origin.is_proxied = true;
    let list = match headers {
        ProxyHeaders::XForwarded => {
            origin.scheme = known_scheme(last_of(said.x_proto));
            origin.host = plausible_host(last_of(said.x_host));
            said.x_for
        }
        ProxyHeaders::Forwarded => said.forwarded,
    };
    for hop in list.rsplit(|byte| *byte == b',').take(HOPS) {
        let from = match headers {
            ProxyHeaders::XForwarded => trim_blanks(hop),
            ProxyHeaders::Forwarded => {
                // What the proxy nearest to the client says is what the client did.
                let said = Element::parse(hop);
                origin.scheme = said.proto.and_then(known_scheme).or(origin.scheme);
                origin.host = said.host.and_then(plausible_host).or(origin.host);
                said.from.unwrap_or_default()
            }
        };
        // `unknown`, an obfuscated name, nonsense: nobody knows more than what came before.
        let Some((text, address)) = parse_address(from) else {
            break;
        };
        (origin.client, origin.address) = (text, Some(address));
        if !is_trusted(address) {
            break;
        }
    }
    origin
}

/// The parameters of one element of `Forwarded` that matter here.
#[derive(Debug, Default)]
struct Element<'a> {
    from: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

impl<'a> Element<'a> {
    fn parse(element: &'a [u8]) -> Element<'a> {
        let mut found = Element::default();
        for pair in element.split(|byte| *byte == b';') {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, value) = (trim_blanks(&pair[..equals]), trim_blanks(&pair[equals + 1..]));
            let place = if name.eq_ignore_ascii_case(b"for") {
                &mut found.from
            } else if name.eq_ignore_ascii_case(b"proto") {
                &mut found.proto
            } else if name.eq_ignore_ascii_case(b"host") {
                &mut found.host
            } else {
                continue;
            };
            *place = Some(match value {
                [b'"', inner @ .., b'"'] => inner,
                plain => plain,
            });
        }
        found
    }
}

/// An address, its text without what is around it: `192.0.2.1`, `192.0.2.1:80`,
/// `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_address(text: &[u8]) -> Option<(&[u8], IpAddr)> {
    let bare = match text {
        [b'[', rest @ ..] => &rest[..rest.iter().position(|byte| *byte == b']')?],
        _ => match text.iter().position(|byte| *byte == b':') {
            Some(colon) if !text[colon + 1..].contains(&b':') => &text[..colon],
            Some(_) | None => text,
        },
    };
    let address = std::str::from_utf8(bare).ok()?.parse::<IpAddr>().ok()?;
    Some((bare, address.to_canonical()))
}

/// The right-most value: what the nearest proxy says.
fn last_of(list: &[u8]) -> &[u8] {
    trim_blanks(list.rsplit(|byte| *byte == b',').next().unwrap_or_default())
}

fn known_scheme(text: &[u8]) -> Option<&'static [u8]> {
    let known: [&[u8]; 2] = [b"https", b"http"];
    known.into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text))
}

fn plausible_host(text: &[u8]) -> Option<&[u8]> {
    let is_plain = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte));
    (is_plain && (1..=HOST_BYTES).contains(&text.len())).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn addresses_in_networks() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ] {
            let address = address.parse().expect("an address");
            let [network] = networks(&[network])[..] else {
                unreachable!()
            };
            assert_eq!(network.contains(address), expected, "{network:?} {address}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "host",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad:?}");
        }
    }

    #[test]
    fn the_list_is_walked_from_the_right_through_trusted_proxies_only() {
        let proxies = networks(&["10.0.0.0/8", "fd00::/8"]);
        for (peer, list, expected) in [
            ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
            ("10.0.0.1", "198.51.100.9, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
            ("10.0.0.1", "10.9.9.9,10.0.0.2", "10.9.9.9"),
            ("10.0.0.1", "203.0.113.1:4711", "203.0.113.1"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("fd00::1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "unknown", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "203.0.113.1,", "10.0.0.1"),
            ("", "203.0.113.1", ""),
        ] {
            let said = Said {
                peer: peer.as_bytes(),
                x_for: list.as_bytes(),
                ..Said::default()
            };
            let found = origin(&said, &proxies, ProxyHeaders::XForwarded);
            assert_eq!(std::str::from_utf8(found.client), Ok(expected), "{peer} {list:?}");
        }
        let endless = "10.0.0.1,".repeat(100_000) + "10.0.0.1";
        let said = Said {
            peer: b"10.0.0.1",
            x_for: endless.as_bytes(),
            ..Said::default()
        };
        assert_eq!(
            origin(&said, &proxies, ProxyHeaders::XForwarded).client,
            b"10.0.0.1"
        );
    }

    #[test]
    fn scheme_and_host_are_a_trusted_proxys_word() {
        let proxies = networks(&["10.0.0.0/8"]);
        let said = |peer: &'static str| Said {
            peer: peer.as_bytes(),
            x_for: b"203.0.113.1",
            x_proto: b"http, HTTPS",
            x_host: b"evil, shop.example:8443",
            forwarded:
                br#"for=198.51.100.1;proto=gopher, For="[2001:db8::7]:4711";Proto=https;host="api.example""#,
        };
        let found = origin(&said("10.0.0.1"), &proxies, ProxyHeaders::XForwarded);
        assert_eq!(
            (found.scheme, found.host, found.is_proxied),
            (Some(&b"https"[..]), Some(&b"shop.example:8443"[..]), true)
        );
        let found = origin(&said("192.0.2.1"), &proxies, ProxyHeaders::XForwarded);
        assert_eq!((found.scheme, found.host, found.is_proxied), (None, None, false));
        let found = origin(&said("10.0.0.1"), &proxies, ProxyHeaders::Forwarded);
        assert_eq!(
            (found.client, found.scheme, found.host),
            (
                &b"2001:db8::7"[..],
                Some(&b"https"[..]),
                Some(&b"api.example"[..])
            )
        );
        for bad in ["a b", "<script>", "", "x\ny"] {
            assert_eq!(plausible_host(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics_or_makes_up_an_address(
            list in proptest::collection::vec(any::<u8>(), 0..200),
            kind in any::<bool>(),
        ) {
            let proxies = networks(&["0.0.0.0/0", "::/0"]);
            let headers = if kind { ProxyHeaders::XForwarded } else { ProxyHeaders::Forwarded };
            let said = Said { peer: b"10.0.0.1", x_for: &list, x_proto: &list, x_host: &list, forwarded: &list };
            let found = origin(&said, &proxies, headers);
            prop_assert!(found.client.len() <= 45);
            prop_assert!(found.address.is_some());
        }
    }
}
