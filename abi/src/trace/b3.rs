//! B3, the headers of Zipkin: `b3` with everything in one value, or `X-B3-*` with one
//! header for each part. Source: <https://github.com/openzipkin/b3-propagation>.
//!
//! A decision without ids (`b3: 0`) names no caller and counts as absent, as in
//! OpenTelemetry's own propagators.

use super::{Caller, SpanId, TraceId, hex_bytes, trim_blanks, write_hex};

/// Length of the `b3` value that we write: ids of 32 and 16 digits, and the decision.
pub const SINGLE_BYTES: usize = 32 + 1 + 16 + 2;

/// The value of `b3`: `{trace}-{span}[-{decision}[-{parent span}]]`.
pub fn parse_single(value: &[u8]) -> Option<Caller> {
    let mut parts = trim_blanks(value).split(|byte| *byte == b'-');
    let (trace_id, span_id) = (trace_id(parts.next()?)?, span_id(parts.next()?)?);
    let sampled = match parts.next() {
        None => None,
        Some(b"1" | b"d") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => return None,
    };
    // The caller's own parent says nothing to us, but it has to be one.
    if let Some(parent) = parts.next() {
        hex_bytes::<8>(parent)?;
    }
    parts.next().is_none().then_some(Caller {
        trace_id,
        span_id,
        sampled,
        random: false,
    })
}

/// The values of `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled` and `X-B3-Flags`.
pub fn parse_multi(
    trace: &[u8],
    span: &[u8],
    sampled: Option<&[u8]>,
    flags: Option<&[u8]>,
) -> Option<Caller> {
    let is_debug = flags.map(trim_blanks) == Some(b"1");
    let sampled = match sampled.map(trim_blanks) {
        // Older libraries say it in words.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    Some(Caller {
        trace_id: trace_id(trim_blanks(trace))?,
        span_id: span_id(trim_blanks(span))?,
        sampled: if is_debug { Some(true) } else { sampled },
        random: false,
    })
}

/// The `b3` value of a span.
pub fn single(trace_id: &TraceId, span_id: &SpanId, sampled: bool) -> [u8; SINGLE_BYTES] {
    let mut out = [b'-'; SINGLE_BYTES];
    out[..32].copy_from_slice(&multi_trace_id(trace_id));
    out[33..49].copy_from_slice(&multi_span_id(span_id));
    out[50] = b'0' + u8::from(sampled);
    out
}

/// The `X-B3-TraceId` value.
pub fn multi_trace_id(id: &TraceId) -> [u8; 32] {
    let mut out = [0; 32];
    write_hex(&id.0, &mut out);
    out
}

/// The `X-B3-SpanId` value.
pub fn multi_span_id(id: &SpanId) -> [u8; 16] {
    let mut out = [0; 16];
    write_hex(&id.0, &mut out);
    out
}

/// 16 bytes, or 8 with zeros in front.
fn trace_id(text: &[u8]) -> Option<TraceId> {
    let id = if text.len() == 16 {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&hex_bytes::<8>(text)?);
        id
    } else {
        hex_bytes(text)?
    };
    (id != [0; 16]).then_some(TraceId(id))
}

fn span_id(text: &[u8]) -> Option<SpanId> {
    let id = hex_bytes(text)?;
    (id != [0; 8]).then_some(SpanId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    #[test]
    fn one_header() {
        let sampled = |text: &str| parse_single(text.as_bytes()).map(|caller| caller.sampled);
        let ids = format!("{TRACE}-{SPAN}");
        for (text, expected) in [
            (ids.clone(), Some(None)),
            (format!("{ids}-1"), Some(Some(true))),
            (format!("{ids}-d"), Some(Some(true))),
            (format!("{ids}-0"), Some(Some(false))),
            (format!(" {ids}-1-05e3ac9a4f6e3b90 "), Some(Some(true))),
            (format!("{}-{SPAN}-1", &TRACE[16..]), Some(Some(true))),
            ("0".to_owned(), None),
            (String::new(), None),
            (TRACE.to_owned(), None),
            (format!("{ids}-"), None),
            (format!("{ids}-2"), None),
            (format!("{ids}-1-"), None),
            (format!("{ids}-1-05e3ac9a4f6e3b90-"), None),
            (format!("{}-{SPAN}-1", &TRACE[1..]), None),
            (format!("{}-{SPAN}-1", "0".repeat(32)), None),
            (format!("{TRACE}-{}-1", "0".repeat(16)), None),
            (format!("{}-{SPAN}-1", TRACE.to_ascii_uppercase()), None),
        ] {
            assert_eq!(sampled(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn several_headers() {
        let sampled = |sampled: Option<&str>, flags: Option<&str>| {
            parse_multi(
                TRACE.as_bytes(),
                SPAN.as_bytes(),
                sampled.map(str::as_bytes),
                flags.map(str::as_bytes),
            )
            .map(|caller| caller.sampled)
        };
        for (says, flags, expected) in [
            (None, None, None),
            (Some("1"), None, Some(true)),
            (Some("true"), None, Some(true)),
            (Some("0"), None, Some(false)),
            (Some("false"), None, Some(false)),
            (Some("maybe"), None, None),
            (Some("0"), Some("1"), Some(true)),
            (None, Some("0"), None),
        ] {
            assert_eq!(sampled(says, flags), Some(expected), "{says:?} {flags:?}");
        }
        assert_eq!(parse_multi(b"", SPAN.as_bytes(), None, None), None);
        assert_eq!(parse_multi(TRACE.as_bytes(), b"e457", None, None), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let caller = parse_single(format!("{TRACE}-{SPAN}-1").as_bytes()).expect("valid");
        let text = single(&caller.trace_id, &caller.span_id, true);
        assert_eq!(parse_single(&text), Some(caller));
        let multi = parse_multi(
            &multi_trace_id(&caller.trace_id),
            &multi_span_id(&caller.span_id),
            Some(b"1"),
            None,
        );
        assert_eq!(multi, Some(caller));
    }
}
