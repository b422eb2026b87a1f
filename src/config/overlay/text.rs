//! Values of `glasspool.toml` that need more than serde's own types: each function refuses with what is allowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::config::effective::{ListenAddress, MAX_SOCKET_PATH_BYTES};
use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// Longest duration that is not taken for a mistake.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A text that is not shown in logs.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for where it is used.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A number with `ms`, `s` or `m`; fractions are written in the smaller unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let count: u64 = digits.parse().ok()?;
    let duration = match unit.trim_start() {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count.checked_mul(60)?),
        _ => return None,
    };
    (duration <= MAX_DURATION).then_some(duration)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let expected = "a whole number with ms, s or m, up to 24 hours, such as \"250ms\"";
    let duration = parse_duration(&text);
    duration
        .map(Some)
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

pub(super) fn positive_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let parsed = duration(from)?;
    if parsed == Some(Duration::ZERO) {
        return Err(D::Error::invalid_value(
            Unexpected::Str("0"),
            &"a duration above zero",
        ));
    }
    Ok(parsed)
}

pub(super) fn stop_time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let second = Duration::from_secs(1);
    let time = parse_duration(&text).filter(|time| *time <= second);
    let expected = "a whole number with ms or s, up to a second, such as \"10ms\"";
    time.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

pub(super) fn endpoint<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if plain && host.is_some_and(|host| !host.is_empty() && !host.starts_with('/')) {
        return Ok(Some(text));
    }
    let expected = "a URL such as \"http://127.0.0.1:4317\"";
    Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

/// An address to fetch metrics at. Names are not looked up, but for the one that always is
/// this machine: a start must not wait for a name server.
fn parse_scrape_address(text: &str) -> Option<ListenAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        let fits = path.len() <= MAX_SOCKET_PATH_BYTES && !path.contains('\0');
        return (path.starts_with('/') && fits).then(|| ListenAddress::Unix(Path::new(path).into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(ListenAddress::Tcp(SocketAddr::new(scrape_host(host)?, port)))
}

/// An address, in brackets or without, or `localhost`.
pub fn scrape_host(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

pub(super) fn scrape_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ListenAddress>, D::Error> {
    let text = String::deserialize(from)?;
    let address = parse_scrape_address(&text);
    let expected =
        "an IP address or localhost with a port, such as \"127.0.0.1:9464\", or \"unix:/absolute/path\"";
    address
        .map(Some)
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

pub(super) fn output_file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
        return Ok(Some(text));
    }
    let expected = "a file's whole path, such as \"/var/log/php-traces.jsonl\"";
    Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

pub(super) fn queue_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = i64::deserialize(from)?;
    let allowed = 64 * 1024..=4 * 1024 * 1024 * 1024;
    let expected = "a number of bytes from 65536 (64 KiB) to 4294967296 (4 GiB)";
    let sized = u64::try_from(bytes).ok().filter(|bytes| allowed.contains(bytes));
    sized.ok_or_else(|| D::Error::invalid_value(Unexpected::Signed(bytes), &expected))
}

pub(super) fn history_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = i64::deserialize(from)?;
    let allowed = 64 * 1024..=64 * 1024 * 1024;
    let expected = "0, or a number of bytes from 65536 (64 KiB) to 67108864 (64 MiB)";
    let sized = u64::try_from(bytes).ok();
    let sized = sized.filter(|bytes| *bytes == 0 || allowed.contains(bytes));
    sized.ok_or_else(|| D::Error::invalid_value(Unexpected::Signed(bytes), &expected))
}

pub(in crate::config) fn defines<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let defines = Vec::<String>::deserialize(from)?;
    let unfit = |define: &&String| {
        let name = define.split_once('=').map_or(define.as_str(), |(name, _)| name);
        name.trim().is_empty() || define.contains(['\0', '\n', '\r'])
    };
    match defines.iter().find(unfit) {
        Some(define) => Err(D::Error::invalid_value(
            Unexpected::Str(define),
            &"one line \"name=value\" for each INI entry",
        )),
        None => Ok(defines),
    }
}
