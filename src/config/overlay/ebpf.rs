//! `[ebpf]`: the programs in the kernel that tell where workers' time goes.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::text::parse_duration;

/// Calls of PHP that are kept of a stack unless configured; each costs a worker some
/// 0.4 us whenever it blocks.
const DEFAULT_FRAMES: u32 = 16;
/// Most that the programs can keep.
const MOST_FRAMES: u32 = 32;
/// Waits from which on one is told.
const THRESHOLDS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// `[ebpf]`, or `ebpf = "…"` for the mode alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ebpf {
    /// Whether the programs are loaded.
    pub mode: EbpfMode,
    /// Shorter waits are accounted for, but not told one by one; 1 ms to a minute.
    pub wait_threshold: Duration,
    /// A wait of this length becomes a span of its own; not below `wait_threshold`.
    pub span_threshold: Duration,
    /// Calls of PHP that are kept of the stack that waits, innermost first; 1 to 32.
    pub frames: u32,
    /// Whether system calls in requests are counted, too, at a cost for the whole host.
    pub system_calls: bool,
}

impl Default for Ebpf {
    fn default() -> Self {
        Self {
            mode: EbpfMode::Auto,
            wait_threshold: Duration::from_millis(1),
            span_threshold: Duration::from_millis(10),
            frames: DEFAULT_FRAMES,
            system_calls: false,
        }
    }
}

/// Whether the programs are loaded where spans are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EbpfMode {
    /// If that can be done; else the log says why not.
    #[default]
    Auto,
    /// They are not.
    Off,
    /// They are, or the start is refused.
    Required,
}

/// As written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    mode: EbpfMode,
    #[serde(deserialize_with = "threshold")]
    wait_threshold: Duration,
    #[serde(deserialize_with = "threshold")]
    span_threshold: Duration,
    #[serde(deserialize_with = "frames")]
    frames: u32,
    system_calls: bool,
}

impl Default for Table {
    fn default() -> Self {
        let Ebpf {
            mode,
            wait_threshold,
            span_threshold,
            frames,
            system_calls,
        } = Ebpf::default();
        Self {
            mode,
            wait_threshold,
            span_threshold,
            frames,
            system_calls,
        }
    }
}

impl<'de> Deserialize<'de> for Ebpf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ModeOrTable)
    }
}

struct ModeOrTable;

impl<'de> Visitor<'de> for ModeOrTable {
    type Value = Ebpf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, or one of `auto`, `off`, `required`")
    }

    fn visit_str<E: Error>(self, mode: &str) -> Result<Ebpf, E> {
        let mode = EbpfMode::deserialize(StrDeserializer::new(mode))?;
        Ok(Ebpf {
            mode,
            ..Ebpf::default()
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ebpf, A::Error> {
        let Table {
            mode,
            wait_threshold,
            span_threshold,
            frames,
            system_calls,
        } = Table::deserialize(MapAccessDeserializer::new(map))?;
        // Nobody tells of them.
        if span_threshold < wait_threshold {
            return Err(A::Error::custom(format_args!(
                "span_threshold ({span_threshold:?}) is below wait_threshold ({wait_threshold:?}), \
                 and shorter waits are not told"
            )));
        }
        if system_calls && mode == EbpfMode::Off {
            return Err(A::Error::custom(
                "system_calls = true needs the programs, and mode = \"off\" leaves them out",
            ));
        }
        Ok(Ebpf {
            mode,
            wait_threshold,
            span_threshold,
            frames,
            system_calls,
        })
    }
}

fn threshold<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let time = parse_duration(&text).filter(|time| THRESHOLDS.contains(time));
    let expected = "a whole number with ms or s, from 1ms to 60s, such as \"10ms\"";
    time.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

fn frames<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let count = i64::deserialize(from)?;
    let frames = u32::try_from(count).ok();
    let frames = frames.filter(|frames| (1..=MOST_FRAMES).contains(frames));
    frames.ok_or_else(|| D::Error::invalid_value(Unexpected::Signed(count), &"a number from 1 to 32"))
}
