//! W3C Trace Context, level 2: what of `traceparent` and `tracestate` a worker and
//! the observer need. Source: <https://www.w3.org/TR/trace-context-2/>.
//!
//! Parsing is strict in the way the recommendation asks for: one wrong byte and
//! the header counts as absent, `tracestate` with it.
//!
//! Here are the ids and `traceparent`; beside it what else has a say in a request's place
//! in a trace: [`lists`], [`b3`], [`sampling`], [`raised`], [`origin`], [`queued`], [`policy`].

pub mod b3;
pub mod lists;
pub mod origin;
pub mod policy;
pub mod queued;
pub mod raised;
pub mod sampling;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::sampling::Sampler;

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

/// The caller's span, by whatever header it was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The trace the caller is part of.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// Whether it is sampled; `None` if the caller leaves that to us.
    pub sampled: Option<bool>,
    /// Whether the trace id's last seven bytes are known to be random.
    pub random: bool,
}

impl From<TraceParent> for Caller {
    fn from(parent: TraceParent) -> Caller {
        Caller {
            trace_id: parent.trace_id,
            span_id: parent.span_id,
            sampled: Some(parent.flags & FLAG_SAMPLED != 0),
            random: parent.flags & FLAG_RANDOM != 0,
        }
    }
}

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
    /// Parses a header value; `None` for anything that is not exactly right. Blanks
    /// around it are no part of it (RFC 9110 section 5.5).
    ///
    /// Versions above 00 are read by their first 55 bytes, provided the version is
    /// not `ff` and what follows starts with a dash (section 3.2.2).
    pub fn parse(value: &[u8]) -> Option<TraceParent> {
        let value = trim_blanks(value);
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

/// Without the optional blanks around a header's value or a member of a list.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
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

    /// What the recommendation's own test suite sends, and some more.
    #[test]
    fn malformed_headers_count_as_absent() {
        const ID: &str = "0af7651916cd43dd8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        let with =
            |version: &str, id: &str, span: &str, flags: &str| format!("{version}-{id}-{span}-{flags}");
        let good = with("00", ID, SPAN, "01");
        let table = [
            ("empty", String::new()),
            ("a version only", "00".to_owned()),
            ("version ff", with("ff", ID, SPAN, "01")),
            ("version of a letter that is no digit", with("0g", ID, SPAN, "01")),
            ("version of one digit", with("0", ID, SPAN, "01")),
            ("version of three digits", with("000", ID, SPAN, "01")),
            ("version in upper case", with("FF", ID, SPAN, "01")),
            ("trace id of zeros", with("00", &"0".repeat(32), SPAN, "01")),
            (
                "trace id in upper case",
                with("00", &ID.to_ascii_uppercase(), SPAN, "01"),
            ),
            (
                "trace id with a dot",
                with("00", &ID.replacen('a', ".", 1), SPAN, "01"),
            ),
            ("trace id too short", with("00", &ID[1..], SPAN, "01")),
            ("trace id too long", with("00", &format!("{ID}0"), SPAN, "01")),
            ("trace id missing", with("00", "", SPAN, "01")),
            ("span id of zeros", with("00", ID, &"0".repeat(16), "01")),
            (
                "span id in upper case",
                with("00", ID, &SPAN.to_ascii_uppercase(), "01"),
            ),
            (
                "span id with a dot",
                with("00", ID, &SPAN.replacen('b', ".", 1), "01"),
            ),
            ("span id too short", with("00", ID, &SPAN[1..], "01")),
            ("span id too long", with("00", ID, &format!("{SPAN}0"), "01")),
            ("flags of one digit", with("00", ID, SPAN, "1")),
            ("flags of three digits", with("00", ID, SPAN, "001")),
            ("flags with a dot", with("00", ID, SPAN, ".0")),
            ("flags in upper case", with("00", ID, SPAN, "0A")),
            ("flags missing", format!("00-{ID}-{SPAN}")),
            ("something after the flags", format!("{good}-what")),
            ("a dash after the flags", format!("{good}-")),
            (
                "later version, something without a dash",
                with("cc", ID, SPAN, "01.what"),
            ),
            (
                "later version, two headers joined",
                format!("{0},{0}", with("cc", ID, SPAN, "01")),
            ),
            ("two headers joined", format!("{good},{good}")),
            ("underscores", good.replace('-', "_")),
            ("a blank inside", good.replacen('-', " -", 1)),
            ("a NUL byte behind", format!("{good}\0")),
            ("a line end behind", format!("{good}\r\n")),
            ("very long", "0".repeat(1 << 20)),
        ];
        for (what, value) in table {
            assert_eq!(TraceParent::parse(value.as_bytes()), None, "{what}");
        }
        let wide = format!("00-{ID}-{SPAN}-\u{661}");
        assert_eq!(
            TraceParent::parse(wide.as_bytes()),
            None,
            "digits of another script"
        );
    }

    #[test]
    fn blanks_around_it_and_later_versions_are_read() {
        let flags = |text: &str| TraceParent::parse(text.as_bytes()).map(|parent| parent.flags);
        let head = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (text, expected) in [
            (format!(" \t00-{head}-01\t "), FLAG_SAMPLED),
            (format!("cc-{head}-01"), FLAG_SAMPLED),
            (format!("cc-{head}-01-what-the-future-holds"), FLAG_SAMPLED),
            (format!("01-{head}-ff-"), FLAG_SAMPLED | FLAG_RANDOM),
            // The random flag is kept, flags that nobody knows yet are not.
            (format!("00-{head}-00"), 0),
            (format!("00-{head}-02"), FLAG_RANDOM),
            (format!("00-{head}-03"), FLAG_SAMPLED | FLAG_RANDOM),
            (format!("00-{head}-fc"), 0),
            (format!("00-{head}-ff"), FLAG_SAMPLED | FLAG_RANDOM),
        ] {
            assert_eq!(flags(&text), Some(expected), "{text}");
        }
    }
}
