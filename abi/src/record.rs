//! The bytes of a request's *begin* and *end* record: how a worker tells the
//! observer what it served.
//!
//! A record is a fixed part of 64-bit words, then texts, each with a tag and a
//! length. Writer: the worker. Reader: the observer, for whom the bytes are hostile:
//! decoding never panics, never allocates more than [`MAX_RECORD_BYTES`], and turns
//! what it cannot understand into `None`.

mod encode;
mod peek;
mod text;

pub use self::encode::{BeginScalars, Encoder, EndScalars};
pub use self::peek::{Context, Peek};
use self::text::decode_texts;
pub use self::text::{Text, Texts};
use crate::times::{Known, Times};
use crate::trace::{SpanId, TraceId};

/// Longest encoded record in bytes, begin and end alike.
pub const MAX_RECORD_BYTES: usize = 4088;

/// Fixed words of a begin record.
const BEGIN_WORDS: usize = 8;
/// Fixed words that an end record puts in front of the begin record it repeats.
const END_WORDS: usize = 12 + Times::WORDS;
/// Where the times are, and how much is known of them in the word before.
const END_TIMES: usize = 12;
/// Only the run queue's part means something.
const RUNQUEUE_KNOWN: u64 = 1;
/// All parts do.
const TIMES_KNOWN: u64 = 2;

/// The context has a caller: `parent` is meaningful.
pub const HAS_PARENT: u64 = 1;
/// The request is sampled (exported whatever it turns out to be).
pub const SAMPLED: u64 = 2;
/// The trace id's last seven bytes are random.
pub const RANDOM: u64 = 4;

/// The client went away before the response was complete.
pub const ABORTED: u64 = 1;
/// `fastcgi_finish_request()` ended the response before the script ended.
pub const FINISHED_EARLY: u64 = 2;
/// PHP ended the request with a fatal error or an uncaught exception.
pub const FATAL: u64 = 4;
/// PHP's message texts are present.
pub const HAS_ERROR: u64 = 8;
/// Not a request: a connection that failed before it became one. Only the times and
/// [`Text::ErrorMessage`] mean something.
pub const INCIDENT: u64 = 16;
/// Not a request either: something that PHP has logged in the request whose begin record
/// this repeats, which goes on. `end_mono_ns` is when, `error_level` PHP's number of its
/// level, `bytes_in` how many lines before it were left out, `bytes_out` how long it was.
pub const LINE: u64 = 32;

/// What is known when a request begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Number of this request in its worker, from 1.
    pub number: u64,
    /// Wall clock at the start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Monotonic clock at the start, nanoseconds.
    pub start_mono_ns: u64,
    /// The trace.
    pub trace_id: TraceId,
    /// Our own span.
    pub span_id: SpanId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// Whether head sampling took it.
    pub sampled: bool,
    /// Whether the trace id's last seven bytes are random.
    pub random: bool,
    /// Texts in the order they were written.
    pub texts: Texts,
}

/// What is known when a request has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What began.
    pub begin: Begin,
    /// Monotonic clock when the response was complete, nanoseconds.
    pub responded_mono_ns: u64,
    /// Monotonic clock when the worker was done with it, nanoseconds.
    pub end_mono_ns: u64,
    /// Response status code; 0 when no response was made.
    pub status: u32,
    /// [`ABORTED`], [`FINISHED_EARLY`], [`FATAL`], [`HAS_ERROR`], [`INCIDENT`].
    pub flags: u64,
    /// Request body bytes read by PHP.
    pub bytes_in: u64,
    /// Response body bytes PHP produced.
    pub bytes_out: u64,
    /// User CPU time, nanoseconds.
    pub cpu_user_ns: u64,
    /// System CPU time, nanoseconds.
    pub cpu_system_ns: u64,
    /// PHP's peak memory of this request, bytes.
    pub memory_peak: u64,
    /// PHP's number of the last error's level (`E_ERROR` is 1), 0 if none.
    pub error_level: u32,
    /// Line PHP named with the last error.
    pub error_line: u32,
    /// Where its time went.
    pub times: Known,
}

impl Begin {
    /// Trace and span of an encoded begin record.
    pub fn ids(bytes: &[u8]) -> Option<(TraceId, SpanId)> {
        let trace_id = bytes.get(32..48)?.try_into().ok()?;
        Some((TraceId(trace_id), SpanId(bytes.get(48..56)?.try_into().ok()?)))
    }

    /// Decodes a begin record; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Begin> {
        let (fixed, texts) = bytes.split_at_checked(BEGIN_WORDS * 8)?;
        let flags = word(fixed, 3)?;
        let ids: &[u8; 32] = fixed.get(32..64)?.try_into().ok()?;
        let parent = SpanId(ids[24..32].try_into().ok()?);
        Some(Begin {
            number: word(fixed, 0)?,
            start_unix_ns: word(fixed, 1)?,
            start_mono_ns: word(fixed, 2)?,
            trace_id: TraceId(ids[..16].try_into().ok()?),
            span_id: SpanId(ids[16..24].try_into().ok()?),
            parent: (flags & HAS_PARENT != 0).then_some(parent),
            sampled: flags & SAMPLED != 0,
            random: flags & RANDOM != 0,
            texts: decode_texts(texts)?,
        })
    }
}

impl End {
    /// Decodes an end record; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<End> {
        let (fixed, begin) = bytes.split_at_checked(END_WORDS * 8)?;
        Some(End {
            begin: Begin::decode(begin)?,
            responded_mono_ns: word(fixed, 0)?,
            end_mono_ns: word(fixed, 1)?,
            status: u32::try_from(word(fixed, 2)?).ok()?,
            flags: word(fixed, 3)?,
            bytes_in: word(fixed, 4)?,
            bytes_out: word(fixed, 5)?,
            cpu_user_ns: word(fixed, 6)?,
            cpu_system_ns: word(fixed, 7)?,
            memory_peak: word(fixed, 8)?,
            error_level: u32::try_from(word(fixed, 9)?).ok()?,
            error_line: u32::try_from(word(fixed, 10)?).ok()?,
            times: decode_times(fixed)?,
        })
    }
}

fn decode_times(fixed: &[u8]) -> Option<Known> {
    let mut words = [0; Times::WORDS];
    for (index, place) in (END_TIMES..).zip(&mut words) {
        *place = word(fixed, index)?;
    }
    let times = Times::from_words(&words);
    Some(match word(fixed, END_TIMES - 1)? {
        RUNQUEUE_KNOWN => Known::RunQueue(times.runqueue_ns),
        TIMES_KNOWN => Known::All(times),
        _ => Known::Nothing,
    })
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let bytes = bytes.get(index * 8..index * 8 + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalars() -> BeginScalars {
        BeginScalars {
            number: 7,
            start_unix_ns: 1_700_000_000_000_000_001,
            start_mono_ns: 42,
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            parent: Some(SpanId([3; 8])),
            sampled: true,
            random: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut begin = Encoder::default();
        begin.begin(&scalars());
        begin.text(Text::Method, b"GET");
        begin.text(Text::Query, b"");
        begin.text(Text::Path, &[b'/'; 5000]);
        let times = Times {
            on_cpu_ns: 1,
            blocked_ns: [2, 3, 4, 5, 6, 7],
            waits: 8,
            ..Times::default()
        };
        let mut end = Encoder::default();
        end.end(
            &EndScalars {
                status: 503,
                end_mono_ns: 1_042,
                flags: FATAL,
                cpu_user_ns: 5,
                cpu_system_ns: 6,
                times: Known::All(times),
                ..Default::default()
            },
            begin.bytes(),
        );
        end.text(Text::ErrorMessage, b"no");
        let decoded = End::decode(end.bytes()).expect("decodes");
        assert_eq!((decoded.status, decoded.times), (503, Known::All(times)));
        assert_eq!(decoded.begin.parent, Some(SpanId([3; 8])));
        assert_eq!(decoded.begin.texts.get(Text::Method), Some(&b"GET"[..]));
        assert_eq!(
            decoded.begin.texts.get(Text::Path).map(<[u8]>::len),
            Some(Text::Path.max_bytes())
        );
        assert_eq!(decoded.begin.texts.get(Text::Query), None);
        assert_eq!(decoded.begin.texts.get(Text::ErrorMessage), Some(&b"no"[..]));
        let peek = End::peek(end.bytes()).expect("peeks");
        assert_eq!(
            (peek.number, peek.sampled, peek.flags, peek.busy_ns),
            (7, true, FATAL, 1_000)
        );
        assert_eq!(peek.responded_ns, 1_000, "it never answered");
        let context = End::context(end.bytes()).expect("is one");
        assert_eq!(
            (context.number, context.start_mono_ns, context.end_mono_ns),
            (7, 42, 1_042)
        );
        assert_eq!(
            (context.trace_id, context.span_id),
            (TraceId([1; 16]), SpanId([2; 8]))
        );
        assert!(context.sampled && context.random);
        assert_eq!(End::peek_times(end.bytes()), Some((Known::All(times), 11)));
        assert_eq!(
            End::find(end.bytes(), [Text::ErrorMessage, Text::Method]),
            [Some(&b"no"[..]), Some(b"GET")]
        );
        assert_eq!(
            End::find(end.bytes(), [Text::Host, Text::Method]),
            [None, Some(&b"GET"[..])]
        );
        assert_eq!(
            Begin::decode(begin.bytes())
                .expect("decodes")
                .texts
                .get(Text::Method),
            Some(&b"GET"[..])
        );
    }

    #[test]
    fn a_record_never_outgrows_its_limit() {
        let mut encoder = Encoder::default();
        encoder.begin(&scalars());
        for _ in 0..10 {
            encoder.text(Text::Path, &[b'x'; 1024]);
        }
        assert!(encoder.bytes().len() <= MAX_RECORD_BYTES);
        assert!(Begin::decode(encoder.bytes()).is_some());
    }

    proptest! {
        #[test]
        fn hostile_bytes_decode_or_not_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(end) = End::decode(&bytes) {
                prop_assert!(end.begin.texts.are_bounded());
            }
            End::peek(&bytes);
            End::context(&bytes);
            End::peek_times(&bytes);
            End::find(&bytes, [Text::Method, Text::ErrorFile]);
            Begin::decode(&bytes);
        }
    }
}
