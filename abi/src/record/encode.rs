//! How a worker writes a record.

use super::{HAS_PARENT, MAX_RECORD_BYTES, RANDOM, RUNQUEUE_KNOWN, SAMPLED, TIMES_KNOWN, Text};
use crate::times::{Known, Times};
use crate::trace::{SpanId, TraceId};

/// Builds a record in a buffer that is used again for each request: words in
/// host byte order (both processes run on the same machine).
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

/// The scalars of a begin record, before its texts.
#[derive(Debug, Clone, Copy)]
pub struct BeginScalars {
    /// See [`Begin::number`](super::Begin::number).
    pub number: u64,
    /// See [`Begin::start_unix_ns`](super::Begin::start_unix_ns).
    pub start_unix_ns: u64,
    /// See [`Begin::start_mono_ns`](super::Begin::start_mono_ns).
    pub start_mono_ns: u64,
    /// See [`Begin::trace_id`](super::Begin::trace_id).
    pub trace_id: TraceId,
    /// See [`Begin::span_id`](super::Begin::span_id).
    pub span_id: SpanId,
    /// See [`Begin::parent`](super::Begin::parent).
    pub parent: Option<SpanId>,
    /// See [`Begin::sampled`](super::Begin::sampled).
    pub sampled: bool,
    /// See [`Begin::random`](super::Begin::random).
    pub random: bool,
}

/// The scalars of an end record, before the begin record it repeats.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndScalars {
    /// See [`End::responded_mono_ns`](super::End::responded_mono_ns).
    pub responded_mono_ns: u64,
    /// See [`End::end_mono_ns`](super::End::end_mono_ns).
    pub end_mono_ns: u64,
    /// See [`End::status`](super::End::status).
    pub status: u32,
    /// See [`End::flags`](super::End::flags).
    pub flags: u64,
    /// See [`End::bytes_in`](super::End::bytes_in).
    pub bytes_in: u64,
    /// See [`End::bytes_out`](super::End::bytes_out).
    pub bytes_out: u64,
    /// See [`End::cpu_user_ns`](super::End::cpu_user_ns).
    pub cpu_user_ns: u64,
    /// See [`End::cpu_system_ns`](super::End::cpu_system_ns).
    pub cpu_system_ns: u64,
    /// See [`End::memory_peak`](super::End::memory_peak).
    pub memory_peak: u64,
    /// See [`End::error_level`](super::End::error_level).
    pub error_level: u32,
    /// See [`End::error_line`](super::End::error_line).
    pub error_line: u32,
    /// See [`End::times`](super::End::times).
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
