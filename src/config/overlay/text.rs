//! Values of `glasspool.toml` that need more than serde's own types: each function refuses with what is allowed.

use std::fmt;
use std::time::Duration;

use super::{Sampler, Trace};
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

pub(super) fn queue_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let bytes = i64::deserialize(from)?;
    let allowed = 64 * 1024..=4 * 1024 * 1024 * 1024;
    let expected = "a number of bytes from 65536 (64 KiB) to 4294967296 (4 GiB)";
    let sized = u64::try_from(bytes).ok().filter(|bytes| allowed.contains(bytes));
    sized.ok_or_else(|| D::Error::invalid_value(Unexpected::Signed(bytes), &expected))
}

/// `[trace]` as written: a ratio that no sampler reads is a mistake which only both keys together show.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TraceTable {
    sampler: Option<Sampler>,
    #[serde(deserialize_with = "ratio")]
    ratio: Option<f64>,
}

impl TryFrom<TraceTable> for Trace {
    type Error = &'static str;

    fn try_from(TraceTable { sampler, ratio }: TraceTable) -> Result<Self, Self::Error> {
        // Without a sampler here, OTEL_TRACES_SAMPLER may still name one that reads the ratio.
        if ratio.is_some() && sampler.is_some_and(|sampler| !sampler.takes_ratio()) {
            return Err(
                "ratio has no effect with this sampler, allowed are traceidratio and parentbased_traceidratio",
            );
        }
        Ok(Self { sampler, ratio })
    }
}

fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let ratio = f64::deserialize(from)?;
    // NaN is in no range.
    if (0.0..=1.0).contains(&ratio) {
        return Ok(Some(ratio));
    }
    Err(D::Error::invalid_value(
        Unexpected::Float(ratio),
        &"a number from 0 to 1",
    ))
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
