//! The bytes of a request's *begin* and *end* record: how a worker tells the
//! observer what it served.
//!
//! A record is a fixed part of 64-bit words, then texts, each with a tag and a
//! length. Writer: the worker. Reader: the observer, for whom the bytes are hostile:
//! decoding never panics, never allocates more than [`MAX_RECORD_BYTES`], and turns
//! what it cannot understand into `None`.

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
/// A record has about so many texts.
const USUAL_TEXTS: usize = 16;
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

macro_rules! texts {
    ($($(#[$doc:meta])* $variant:ident = $tag:literal, max $max:literal;)*) => {
        /// What a text of a record is. The number is the tag on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Text { $($(#[$doc])* $variant = $tag,)* }

        impl Text {
            const ALL: &'static [Text] = &[$(Text::$variant,)*];

            /// Longest text in bytes; what is longer is cut.
            pub const fn max_bytes(self) -> usize {
                match self { $(Text::$variant => $max,)* }
            }

            fn from_tag(tag: u16) -> Option<Text> {
                Text::ALL.iter().copied().find(|t| *t as u16 == tag)
            }
        }
    };
}

texts! {
    /// REQUEST_METHOD.
    Method = 1, max 32;
    /// Path of REQUEST_URI, without the query.
    Path = 2, max 1024;
    /// QUERY_STRING.
    Query = 3, max 768;
    /// SCRIPT_FILENAME after the path fix-ups.
    Script = 4, max 512;
    /// `http` or `https`.
    Scheme = 5, max 8;
    /// HTTP_HOST, else SERVER_NAME, with its port if it has one.
    Host = 6, max 255;
    /// SERVER_PORT.
    Port = 7, max 8;
    /// The client's address: REMOTE_ADDR, or what trusted proxies say it is.
    Client = 8, max 64;
    /// HTTP_USER_AGENT.
    UserAgent = 9, max 256;
    /// SERVER_PROTOCOL, for example `HTTP/1.1`.
    Protocol = 10, max 16;
    /// `tracestate` as received, already checked.
    TraceState = 11, max 512;
    /// Type of the exception, or PHP's name of the error level.
    ErrorType = 12, max 128;
    /// PHP's last error message.
    ErrorMessage = 13, max 512;
    /// The file PHP named with that message.
    ErrorFile = 14, max 384;
    /// The URI as php-fpm's path fix-ups leave it (what its status page shows and its
    /// status path is compared with), where that is not [`Text::Path`].
    ScriptUri = 15, max 512;
    /// User of HTTP authentication.
    User = 16, max 64;
    /// REMOTE_ADDR, where that is not [`Text::Client`].
    Peer = 17, max 64;
    /// REMOTE_PORT.
    PeerPort = 18, max 5;
    /// The context of a caller that is not trusted, as a `traceparent`: to be linked.
    Link = 19, max 55;
    /// How long the request had waited for this worker, decimal nanoseconds.
    Queued = 20, max 20;
    /// `X-Glasspool-Route` of the response.
    Route = 21, max 128;
    /// A line of PHP's log, see [`LINE`].
    Line = 22, max 2048;
}

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

/// The texts of one record, owned and bounded: one behind the other, as a request has a
/// dozen of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    /// What each is, and where it ends in `bytes`.
    ends: Vec<(Text, usize)>,
}

impl Texts {
    /// The text of that kind; the last one if a worker wrote several.
    pub fn get(&self, text: Text) -> Option<&[u8]> {
        let index = self.ends.iter().rposition(|(kind, _)| *kind == text)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some(&self.bytes[start..self.ends[index].1])
    }

    /// The same as UTF-8, wrong bytes replaced.
    pub fn text(&self, text: Text) -> Option<std::borrow::Cow<'_, str>> {
        self.get(text).map(String::from_utf8_lossy)
    }

    fn push(&mut self, text: Text, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push((text, self.bytes.len()));
    }
}

impl FromIterator<(Text, Vec<u8>)> for Texts {
    fn from_iter<I: IntoIterator<Item = (Text, Vec<u8>)>>(iter: I) -> Self {
        let mut texts = Texts::default();
        for (text, bytes) in iter {
            texts.push(text, &bytes);
        }
        texts
    }
}

/// Builds a record in a buffer that is used again for each request: words in
/// host byte order (both processes run on the same machine).
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

/// The scalars of a begin record, before its texts.
#[derive(Debug, Clone, Copy)]
pub struct BeginScalars {
    /// See [`Begin::number`].
    pub number: u64,
    /// See [`Begin::start_unix_ns`].
    pub start_unix_ns: u64,
    /// See [`Begin::start_mono_ns`].
    pub start_mono_ns: u64,
    /// See [`Begin::trace_id`].
    pub trace_id: TraceId,
    /// See [`Begin::span_id`].
    pub span_id: SpanId,
    /// See [`Begin::parent`].
    pub parent: Option<SpanId>,
    /// See [`Begin::sampled`].
    pub sampled: bool,
    /// See [`Begin::random`].
    pub random: bool,
}

/// The scalars of an end record, before the begin record it repeats.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndScalars {
    /// See [`End::responded_mono_ns`].
    pub responded_mono_ns: u64,
    /// See [`End::end_mono_ns`].
    pub end_mono_ns: u64,
    /// See [`End::status`].
    pub status: u32,
    /// See [`End::flags`].
    pub flags: u64,
    /// See [`End::bytes_in`].
    pub bytes_in: u64,
    /// See [`End::bytes_out`].
    pub bytes_out: u64,
    /// See [`End::cpu_user_ns`].
    pub cpu_user_ns: u64,
    /// See [`End::cpu_system_ns`].
    pub cpu_system_ns: u64,
    /// See [`End::memory_peak`].
    pub memory_peak: u64,
    /// See [`End::error_level`].
    pub error_level: u32,
    /// See [`End::error_line`].
    pub error_line: u32,
    /// See [`End::times`].
    pub times: Known,
}

impl Encoder {
    /// Starts a begin record.
    pub fn begin(&mut self, scalars: &BeginScalars) {
        self.bytes.clear();
        let flags = if scalars.parent.is_some() { HAS_PARENT } else { 0 }
            | if scalars.sampled { SAMPLED } else { 0 }
            | if scalars.random { RANDOM } else { 0 };
        for word in [
            scalars.number,
            scalars.start_unix_ns,
            scalars.start_mono_ns,
            flags,
        ] {
            self.bytes.extend_from_slice(&word.to_ne_bytes());
        }
        self.bytes.extend_from_slice(&scalars.trace_id.0);
        self.bytes.extend_from_slice(&scalars.span_id.0);
        self.bytes
            .extend_from_slice(&scalars.parent.unwrap_or(SpanId([0; 8])).0);
    }

    /// Starts an end record around a finished begin record.
    pub fn end(&mut self, scalars: &EndScalars, begin: &[u8]) {
        self.bytes.clear();
        let (known, times) = match &scalars.times {
            Known::Nothing => (0, Times::default()),
            Known::RunQueue(runqueue_ns) => {
                let runqueue_ns = *runqueue_ns;
                let times = Times {
                    runqueue_ns,
                    ..Times::default()
                };
                (RUNQUEUE_KNOWN, times)
            }
            Known::All(times) => (TIMES_KNOWN, *times),
        };
        for word in [
            scalars.responded_mono_ns,
            scalars.end_mono_ns,
            u64::from(scalars.status),
            scalars.flags,
            scalars.bytes_in,
            scalars.bytes_out,
            scalars.cpu_user_ns,
            scalars.cpu_system_ns,
            scalars.memory_peak,
            u64::from(scalars.error_level),
            u64::from(scalars.error_line),
            known,
        ]
        .into_iter()
        .chain(times.to_words())
        {
            self.bytes.extend_from_slice(&word.to_ne_bytes());
        }
        self.bytes.extend_from_slice(begin);
    }

    /// Adds a text, cut at its longest length; an empty one is left out, and so is
    /// one that would make the record longer than [`MAX_RECORD_BYTES`].
    pub fn text(&mut self, text: Text, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(text.max_bytes())];
        let room = MAX_RECORD_BYTES.saturating_sub(self.bytes.len() + 4);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return;
        }
        let length = u16::try_from(bytes.len()).expect("a text is at most 2048 bytes");
        self.bytes.extend_from_slice(&(text as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// The record so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
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

    /// Trace, span and [`Begin::start_unix_ns`] of an end record, likewise; `None` also for
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
        let mut found = [None; 2];
        let mut rest = bytes.get((END_WORDS + BEGIN_WORDS) * 8..).unwrap_or_default();
        for _ in 0..2 * Text::ALL.len() {
            let Some((tag, value, next)) = split_text(rest) else {
                break;
            };
            for (text, place) in wanted.iter().zip(&mut found) {
                if *text as u16 == tag {
                    *place = Some(&value[..value.len().min(text.max_bytes())]);
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
            rest = next;
        }
        found
    }
}

/// Where an end record belongs, see [`End::context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// See [`Begin::number`].
    pub number: u64,
    /// See [`Begin::start_mono_ns`].
    pub start_mono_ns: u64,
    /// See [`End::end_mono_ns`].
    pub end_mono_ns: u64,
    /// See [`Begin::trace_id`].
    pub trace_id: TraceId,
    /// See [`Begin::span_id`].
    pub span_id: SpanId,
    /// See [`Begin::sampled`].
    pub sampled: bool,
    /// See [`Begin::random`].
    pub random: bool,
}

/// The cheap view of an end record, see [`End::peek`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// See [`Begin::number`].
    pub number: u64,
    /// See [`Begin::sampled`].
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

/// Tag and bytes of the first text, and what comes after it.
fn split_text(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(4)?;
    let length = usize::from(u16::from_ne_bytes([head[2], head[3]]));
    let (value, rest) = rest.split_at_checked(length)?;
    let tag = u16::from_ne_bytes([head[0], head[1]]);
    // The ring pads records with zero bytes.
    (tag != 0).then_some((tag, value, rest))
}

fn decode_texts(mut bytes: &[u8]) -> Option<Texts> {
    let mut texts = Texts {
        bytes: Vec::with_capacity(bytes.len()),
        ends: Vec::with_capacity(USUAL_TEXTS),
    };
    while let Some((head, rest)) = bytes.split_at_checked(4) {
        let tag = u16::from_ne_bytes([head[0], head[1]]);
        if tag == 0 {
            break; // The ring pads records with zero bytes.
        }
        let length = usize::from(u16::from_ne_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        let text = Text::from_tag(tag)?;
        if length > text.max_bytes() || texts.ends.len() >= 2 * Text::ALL.len() {
            return None;
        }
        texts.push(text, value);
        bytes = rest;
    }
    Some(texts)
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
                prop_assert!(end.begin.texts.ends.len() <= 2 * Text::ALL.len());
            }
            End::peek(&bytes);
            End::context(&bytes);
            End::peek_times(&bytes);
            End::find(&bytes, [Text::Method, Text::ErrorFile]);
            Begin::decode(&bytes);
        }
    }
}
