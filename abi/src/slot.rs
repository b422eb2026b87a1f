//! A worker's slot: a few pages in a memory file of its own. The worker maps it
//! writable and writes; the observer maps it read-only and treats it as hostile.
//!
//! | word | what |
//! |---|---|
//! | 0 | stage of the request, see [`Stage`] |
//! | 1 | sequence counter of the begin record, odd while it is being written |
//! | 2 | length of the begin record in bytes |
//! | 3 | number of the last request that has ended |
//! | 4, 5, 6 | the ring's head, tail and number of records written |
//! | 7 | when the first byte of the request under way came, 0 between requests |
//! | 8 | CONTENT_LENGTH of the current (or last) request |
//! | 9, 10, 11 | CPU time, wall time and memory peak of the last request that has ended |
//! | 12 | highest memory peak of all requests that have ended |
//! | 13 | number of the signal that the worker is dying of, 0 while it lives |
//! | 14, 15 | PHP's frame and position (r14, r15; x27, x28) when that signal came |
//! | 16 … | the begin record of the current (or last) request |
//! | 527 | whether the worker's times are known at that beginning: 1, or 0 |
//! | 528 … 542 | those times, see [`Times`] |
//! | 1023 | lines of the worker that are in no record |
//! | 1024 … | the ring of end records |
//!
//! All words are in host byte order and every access is atomic. Times are of
//! `CLOCK_MONOTONIC` unless a name says `unix`.

mod cursors;
mod reader;
mod writer;

pub use self::cursors::{CursorTable, InFlight, ReadTo};
pub use self::reader::SlotReader;
pub use self::writer::SlotWriter;
use crate::mapping::Words;
use crate::record::MAX_RECORD_BYTES;
use crate::ring::Ring;
pub use crate::ring::{Cursor, Drained};
use crate::times::Times;

const STAGE: usize = 0;
const BEGIN_SEQUENCE: usize = 1;
const BEGIN_LENGTH: usize = 2;
const ENDED: usize = 3;
const RING_HEAD: usize = 4;
const RING_TAIL: usize = 5;
const RING_WRITTEN: usize = 6;
const STARTED: usize = 7;
const CONTENT_LENGTH: usize = 8;
const LAST_CPU: usize = 9;
const LAST_DURATION: usize = 10;
const LAST_MEMORY: usize = 11;
const HIGHEST_MEMORY: usize = 12;
const CRASH_SIGNAL: usize = 13;
const CRASH_REGISTERS: usize = 14;
const BEGIN: usize = 16;
const BEGIN_TIMES_KNOWN: usize = BEGIN + MAX_RECORD_BYTES / 8;
const BEGIN_TIMES: usize = BEGIN_TIMES_KNOWN + 1;
const LINES_DROPPED: usize = RING - 1;
const RING: usize = 1024;
const _: () = assert!(BEGIN_TIMES_KNOWN == 527 && BEGIN_TIMES + Times::WORDS <= LINES_DROPPED);

/// Words of a begin record that [`SlotReader::in_progress`] looks at.
const BEGIN_NUMBER: usize = BEGIN;
const BEGIN_START_MONO: usize = BEGIN + 2;

/// Bytes of a slot in front of its ring.
pub const SLOT_HEAD_BYTES: usize = RING * 8;
/// Smallest and largest ring in bytes.
pub const RING_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=512 * 1024;

/// Length of a slot's ring for a pool of that many workers, in bytes: together they
/// buffer up to 4 MiB. One worker at 60,000 requests/s of 300 bytes fills 512 KiB in 29 ms.
pub fn ring_bytes(workers: u32) -> usize {
    let share = (4 << 20) / usize::try_from(workers.max(1)).unwrap_or(usize::MAX);
    share.clamp(*RING_BYTES.start(), *RING_BYTES.end()) & !4095
}

/// How far a worker is with its request; php-fpm's stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stage {
    /// Waits for a connection.
    Accepting = 1,
    /// Waits for, or reads, the head of a request.
    ReadingHeaders = 2,
    /// Has the head; works out the script.
    Info = 3,
    /// PHP runs.
    Executing = 4,
    /// PHP has run; the response is being completed.
    End = 5,
    /// The response is complete; the script may still work.
    Finished = 6,
}

impl Stage {
    /// The stage of that number.
    pub fn from_word(word: u64) -> Option<Stage> {
        use Stage::*;
        [Accepting, ReadingHeaders, Info, Executing, End, Finished]
            .into_iter()
            .find(|s| *s as u64 == word)
    }
}

/// What a worker's crash handler says of its death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// The signal's number, 1 to 64.
    pub signal: i32,
    /// The registers in which PHP's VM keeps its frame and its position, as they were
    /// when the signal came; anything at all where the VM was not running.
    pub registers: [u64; 2],
}

/// A request that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InProgress {
    /// Its number in the worker.
    pub number: u64,
    /// When it began.
    pub start_mono_ns: u64,
    /// How far it is.
    pub stage: Stage,
}

/// What the status page says of a request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Last {
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Wall time, nanoseconds.
    pub duration_ns: u64,
    /// PHP's memory peak, bytes.
    pub memory_peak: u64,
}

fn ring_of(words: &Words, ring_words: usize) -> Ring<'_> {
    let counter = |index| words.get(index).expect("a slot is longer than its head");
    Ring {
        head: counter(RING_HEAD),
        tail: counter(RING_TAIL),
        written: counter(RING_WRITTEN),
        data: words
            .slice(RING, ring_words)
            .expect("the ring ends where the slot ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BeginScalars, Encoder, End, EndScalars, Text};
    use crate::trace::{SpanId, TraceId};
    use crate::{MapError, create_slot_memory};

    fn scalars(number: u64) -> BeginScalars {
        BeginScalars {
            number,
            start_unix_ns: 1,
            start_mono_ns: number * 10,
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            parent: None,
            sampled: true,
            random: true,
        }
    }

    #[test]
    fn a_request_is_seen_from_begin_to_end() {
        let bytes = SLOT_HEAD_BYTES + ring_bytes(4);
        let file = create_slot_memory(bytes).expect("a memory file");
        let mut writer = SlotWriter::map(&file, bytes).expect("maps");
        let reader = SlotReader::map(&file, bytes).expect("maps");
        assert_eq!(reader.in_progress(), None);
        assert_eq!(reader.read_begin(), None);

        let (mut begin, mut end) = (Encoder::default(), Encoder::default());
        begin.begin(&scalars(1));
        begin.text(Text::Path, b"/slow");
        writer.publish_begin(begin.bytes(), None);
        writer.set_stage(Stage::Executing);
        let progress = reader.in_progress().expect("under way");
        assert_eq!(
            (progress.number, progress.start_mono_ns, progress.stage),
            (1, 10, Stage::Executing)
        );
        assert_eq!(
            reader.read_begin().expect("whole").texts.get(Text::Path),
            Some(&b"/slow"[..])
        );

        end.end(
            &EndScalars {
                status: 200,
                ..Default::default()
            },
            begin.bytes(),
        );
        assert!(!writer.publish_end(1, end.bytes()));
        assert_eq!(reader.in_progress(), None);
        let mut cursor = Cursor::default();
        let mut seen = Vec::new();
        let found = reader.drain(&mut cursor, &mut Vec::new(), |r| {
            seen.push(End::decode(r).expect("decodes"))
        });
        assert_eq!((found.records, found.lost, found.garbled), (1, 0, false));
        assert_eq!(seen[0].status, 200);
    }

    #[test]
    fn the_doorbell_rings_before_the_ring_is_half_full() {
        let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
        let file = create_slot_memory(bytes).expect("a memory file");
        let mut writer = SlotWriter::map(&file, bytes).expect("maps");
        let rung = (1..=100u64)
            .find(|n| writer.publish_end(*n, &[0; 400]))
            .expect("rings");
        assert!(rung * 416 < ring_bytes(1000) as u64 / 2, "{rung}");
    }

    #[test]
    fn a_file_that_could_shrink_is_refused() {
        let file = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::ALLOW_SEALING).expect("memfd");
        rustix::fs::ftruncate(&file, 1 << 20).expect("truncate");
        assert!(matches!(
            SlotReader::map(&file, 1 << 20),
            Err(MapError::NotSealed { .. })
        ));
        let short = create_slot_memory(4096).expect("a memory file");
        assert!(matches!(
            SlotReader::map(&short, 1 << 20),
            Err(MapError::NotSealed { .. })
        ));
    }

    #[test]
    fn random_bytes_in_a_slot_are_survived() {
        let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
        let file = create_slot_memory(bytes).expect("a memory file");
        let reader = SlotReader::map(&file, bytes).expect("maps");
        let mut state = 0x1234_5678_9abc_def0u64;
        let mut cursor = Cursor::default();
        for _ in 0..200 {
            let junk: Vec<u8> = (0..bytes)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_ne_bytes()[0] & if state & 0x100 == 0 { 0xff } else { 0x03 }
                })
                .collect();
            rustix::io::pwrite(&file, &junk, 0).expect("writes");
            reader.in_progress();
            reader.read_begin();
            let found = reader.drain(&mut cursor, &mut Vec::new(), |r| {
                End::decode(r);
            });
            assert!(found.records <= ring_bytes(1000) as u64 / 16);
        }
    }

    #[test]
    fn cursors_survive_their_reader() {
        let file = create_slot_memory(CursorTable::bytes(3)).expect("a memory file");
        let read = |n| ReadTo {
            cursor: Cursor {
                position: n,
                sequence: n + 1,
            },
            dropped_lines: n + 2,
        };
        let first = CursorTable::map(&file, 3).expect("maps");
        (0..3).for_each(|entry| first.store(entry, read(10 * entry as u64)));
        let in_flight = InFlight { taken: 9, settled: 4 };
        first.store_in_flight(in_flight);
        first.store(3, read(1));
        let table = CursorTable::map(&file, 3).expect("maps");
        let entries = [0, 1, 2].map(|entry| table.load(entry));
        assert_eq!(entries, [read(0), read(10), read(20)]);
        assert_eq!(table.in_flight(), in_flight);
        assert_eq!(table.load(3), ReadTo::default());
    }
}
