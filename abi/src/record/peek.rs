//! What can be told of an end record without decoding all of it, so that a request that is
//! not exported costs the observer little.

use super::text::find_texts;
use super::{BEGIN_WORDS, END_WORDS, End, RANDOM, SAMPLED, Text, decode_times, word};
use crate::times::Known;
use crate::trace::{SpanId, TraceId};

/// Where an end record belongs, see [`End::context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// See [`Begin::number`](super::Begin::number).
    pub number: u64,
    /// See [`Begin::start_mono_ns`](super::Begin::start_mono_ns).
    pub start_mono_ns: u64,
    /// See [`End::end_mono_ns`].
    pub end_mono_ns: u64,
    /// See [`Begin::trace_id`](super::Begin::trace_id).
    pub trace_id: TraceId,
    /// See [`Begin::span_id`](super::Begin::span_id).
    pub span_id: SpanId,
    /// See [`Begin::sampled`](super::Begin::sampled).
    pub sampled: bool,
    /// See [`Begin::random`](super::Begin::random).
    pub random: bool,
}

/// The cheap view of an end record, see [`End::peek`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// See [`Begin::number`](super::Begin::number).
    pub number: u64,
    /// See [`Begin::sampled`](super::Begin::sampled).
    pub sampled: bool,
    /// See [`End::flags`].
    pub flags: u64,
    /// See [`End::status`].
    pub status: u32,
    /// From the start until the worker was done, nanoseconds.
    pub busy_ns: u64,
    /// From the start until the response was complete, nanoseconds; [`Peek::busy_ns`]
    /// for a request that never answered.
    pub responded_ns: u64,
}

impl End {
    /// Only what decides whether the record is worth decoding: sampled, flags and
    /// duration. Cheap, so that an unsampled request costs the observer little.
    pub fn peek(bytes: &[u8]) -> Option<Peek> {
        let fixed = bytes.get(..(END_WORDS + BEGIN_WORDS) * 8)?;
        let (responded, start) = (word(fixed, 0)?, word(fixed, END_WORDS + 2)?);
        let busy_ns = word(fixed, 1)?.saturating_sub(start);
        Some(Peek {
            number: word(fixed, END_WORDS)?,
            sampled: word(fixed, END_WORDS + 3)? & SAMPLED != 0,
            flags: word(fixed, 3)?,
            status: u32::try_from(word(fixed, 2)?).ok()?,
            busy_ns,
            responded_ns: responded.checked_sub(start).unwrap_or(busy_ns),
        })
    }

    /// CPU time of an end record's request, user and system, nanoseconds. As cheap as
    /// [`End::peek`].
    pub fn cpu_ns(bytes: &[u8]) -> Option<[u64; 2]> {
        let fixed = bytes.get(..END_WORDS * 8)?;
        Some([word(fixed, 6)?, word(fixed, 7)?])
    }

    /// Trace, span and [`Begin::start_unix_ns`](super::Begin::start_unix_ns) of an end record, likewise; `None` also for
    /// ids of zeros, which are invalid.
    pub fn identity(bytes: &[u8]) -> Option<(TraceId, SpanId, u64)> {
        let begin = bytes.get(END_WORDS * 8..(END_WORDS + BEGIN_WORDS) * 8)?;
        let trace_id = TraceId(begin.get(32..48)?.try_into().ok()?);
        let span_id = SpanId(begin.get(48..56)?.try_into().ok()?);
        let is_valid = trace_id.0 != [0; 16] && span_id.0 != [0; 8];
        is_valid.then_some((trace_id, span_id, word(begin, 1)?))
    }

    /// When the request ran and which trace it belongs to; `None` if the record makes no
    /// sense. Cheap: no text is touched.
    pub fn context(bytes: &[u8]) -> Option<Context> {
        let fixed = bytes.get(..(END_WORDS + BEGIN_WORDS) * 8)?;
        let ids = fixed.get((END_WORDS + 4) * 8..)?;
        let flags = word(fixed, END_WORDS + 3)?;
        Some(Context {
            number: word(fixed, END_WORDS)?,
            start_mono_ns: word(fixed, END_WORDS + 2)?,
            end_mono_ns: word(fixed, 1)?,
            trace_id: TraceId(ids.get(..16)?.try_into().ok()?),
            span_id: SpanId(ids.get(16..24)?.try_into().ok()?),
            sampled: flags & SAMPLED != 0,
            random: flags & RANDOM != 0,
        })
    }

    /// Where a request's time went, and the CPU time that it used, nanoseconds. As cheap as
    /// [`End::peek`].
    pub fn peek_times(bytes: &[u8]) -> Option<(Known, u64)> {
        let fixed = bytes.get(..END_WORDS * 8)?;
        let cpu_ns = word(fixed, 6)?.saturating_add(word(fixed, 7)?);
        Some((decode_times(fixed)?, cpu_ns))
    }

    /// Two texts of an end record where they are; `None` for one that is not there, or
    /// if the record makes no sense before it. Cheap, and bounded as decoding is.
    pub fn find(bytes: &[u8], wanted: [Text; 2]) -> [Option<&[u8]>; 2] {
        let texts = bytes.get((END_WORDS + BEGIN_WORDS) * 8..).unwrap_or_default();
        find_texts(texts, wanted)
    }
}
