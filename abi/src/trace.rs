//! W3C Trace Context, level 2: what of `traceparent` and `tracestate` a worker and
//! the observer need. Source: <https://www.w3.org/TR/trace-context-2/>.
//!
//! Parsing is strict in the way the recommendation asks for: one wrong byte and
//! the header counts as absent, `tracestate` with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 16 random bytes that name a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceId(pub [u8; 16]);

/// 8 random bytes that name a span; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpanId(pub [u8; 8]);

/// `trace-flags`: bit 0 sampled, bit 1 random.
pub const FLAG_SAMPLED: u8 = 0x01;
/// The right-most seven bytes of the trace id are random (level 2).
pub const FLAG_RANDOM: u8 = 0x02;

/// Members of a `tracestate` list that are kept at most (section 3.3.1.1).
const TRACESTATE_MEMBERS: usize = 32;
/// Bytes of `tracestate` that are carried at most; the recommendation asks for 512 or more.
pub const TRACESTATE_BYTES: usize = 512;

/// A parsed `traceparent`: the caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace the caller is part of.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// The caller's flags, only the two known bits.
    pub flags: u8,
}

impl TraceParent {
    /// Parses a header value; `None` for anything that is not exactly right.
    ///
    /// Versions above 00 are read by their first 55 bytes, provided the version is
    /// not `ff` and what follows starts with a dash (section 3.2.2).
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let head: &[u8; 55] = value.get(..55)?.try_into().ok()?;
        if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let version = hex_bytes::<1>(&head[0..2])?[0];
        match version {
            0x00 if value.len() == 55 => {}
            0x00 | 0xff => return None,
            _ if value.len() == 55 || value[55] == b'-' => {}
            _ => return None,
        }
        let trace_id = TraceId(hex_bytes(&head[3..35])?);
        let span_id = SpanId(hex_bytes(&head[36..52])?);
        let flags = hex_bytes::<1>(&head[53..55])?[0] & (FLAG_SAMPLED | FLAG_RANDOM);
        let valid = trace_id.0 != [0; 16] && span_id.0 != [0; 8];
        valid.then_some(TraceParent {
            trace_id,
            span_id,
            flags,
        })
    }

    /// The header value of version 00: 55 bytes of lower-case hexadecimal and dashes.
    pub fn to_header(&self) -> [u8; 55] {
        let mut out = [b'-'; 55];
        out[0] = b'0';
        out[1] = b'0';
        write_hex(&self.trace_id.0, &mut out[3..35]);
        write_hex(&self.span_id.0, &mut out[36..52]);
        write_hex(&[self.flags], &mut out[53..55]);
        out
    }
}

/// Whether a `tracestate` value can be passed on: at most 32 members, at most
/// [`TRACESTATE_BYTES`] bytes, each `key=value` of printable ASCII. A list that
/// fails is dropped whole; the `traceparent` beside it stays.
pub fn tracestate_is_valid(value: &[u8]) -> bool {
    if value.len() > TRACESTATE_BYTES {
        return false;
    }
    let mut members = 0;
    for member in value.split(|b| *b == b',') {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        members += 1;
        let Some(equals) = member.iter().position(|b| *b == b'=') else {
            return false;
        };
        let (key, val) = (&member[..equals], &member[equals + 1..]);
        let key_ok = !key.is_empty()
            && key.len() <= 256
            && key
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
        let value_ok =
            !val.is_empty() && val.len() <= 256 && val.iter().all(|b| matches!(b, 0x20..=0x7e) && *b != b'=');
        if !key_ok || !value_ok || members > TRACESTATE_MEMBERS {
            return false;
        }
    }
    true
}

fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

/// Lower case only: the recommendation calls upper-case digits invalid.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn fmt_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

/// How a worker decides whether a request is sampled; the standard samplers of the
/// OpenTelemetry specification (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// Follow the caller's sampled flag when there is a caller.
    pub parent_based: bool,
    /// Share of the traces, 0.0 to 1.0, sampled where the caller does not decide.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Sampler {
            parent_based: true,
            ratio: 1.0,
        }
    }
}

impl Sampler {
    /// Decides for one request. Like `TraceIdRatioBased`, the ratio is taken from the
    /// trace id's last eight bytes, so every service decides alike.
    pub fn sample(&self, parent: Option<&TraceParent>, trace_id: &TraceId) -> bool {
        if let (true, Some(parent)) = (self.parent_based, parent) {
            return parent.flags & FLAG_SAMPLED != 0;
        }
        if self.ratio >= 1.0 {
            return true;
        }
        let [.., a, b, c, d, e, f, g, h] = trace_id.0;
        let low = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the ratio is clamped to 0..1, so the product fits"
        )]
        let bound = (self.ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
        low < bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_header_round_trips() {
        let parent = TraceParent::parse(GOOD).expect("valid");
        assert_eq!(parent.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(parent.flags, FLAG_SAMPLED);
        assert_eq!(&parent.to_header()[..], GOOD);
    }

    #[test]
    fn one_wrong_byte_makes_the_header_absent() {
        for bad in [
            &b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"[..],
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            b"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            b"0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_known_part() {
        let later = b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-whatever";
        let parent = TraceParent::parse(later).expect("readable");
        assert_eq!(parent.flags, FLAG_SAMPLED | FLAG_RANDOM);
        assert_eq!(
            TraceParent::parse(b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"),
            None
        );
    }

    #[test]
    fn tracestate_limits() {
        assert!(tracestate_is_valid(b"congo=t61rcWkgMzE, rojo=00f067aa0ba902b7,"));
        assert!(!tracestate_is_valid(b"no-equals"));
        assert!(!tracestate_is_valid(b"a=b\x01"));
        assert!(!tracestate_is_valid(b"A=b"));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert!(!tracestate_is_valid(many.as_bytes()));
    }

    #[test]
    fn the_ratio_is_kept() {
        let sampler = Sampler {
            parent_based: true,
            ratio: 0.25,
        };
        let sampled = (0..40_000u64)
            .filter(|n| {
                let mut id = [0; 16];
                id[8..].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
                sampler.sample(None, &TraceId(id))
            })
            .count();
        assert!((9_000..11_000).contains(&sampled), "{sampled}");
        let mut parent = TraceParent::parse(GOOD).expect("valid");
        assert!(
            Sampler {
                parent_based: true,
                ratio: 0.0
            }
            .sample(Some(&parent), &parent.trace_id)
        );
        parent.flags = 0;
        assert!(
            !Sampler {
                parent_based: true,
                ratio: 1.0
            }
            .sample(Some(&parent), &parent.trace_id)
        );
        assert!(
            Sampler {
                parent_based: false,
                ratio: 1.0
            }
            .sample(Some(&parent), &parent.trace_id)
        );
    }
}
