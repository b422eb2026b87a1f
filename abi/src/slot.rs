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
//! | 528 … 538 | those times, see [`Times`] |
//! | 1024 … | the ring of end records |
//!
//! All words are in host byte order and every access is atomic. Times are of
//! `CLOCK_MONOTONIC` unless a name says `unix`.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::mapping::{MapError, Words};
use crate::record::{Begin, MAX_RECORD_BYTES};
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
const RING: usize = 1024;
const _: () = assert!(BEGIN_TIMES_KNOWN == 527 && BEGIN_TIMES + Times::WORDS <= RING);

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

/// The worker's side of its own slot.
#[derive(Debug)]
pub struct SlotWriter {
    words: Words,
    ring_words: usize,
    /// Words written since the observer was last asked to look.
    since_bell: usize,
}

impl SlotWriter {
    /// Maps the whole slot file, `bytes` long, writable.
    pub fn map(fd: impl AsFd, bytes: usize) -> Result<SlotWriter, MapError> {
        let words = Words::map(fd, bytes, true)?;
        Ok(SlotWriter {
            words,
            ring_words: bytes / 8 - RING,
            since_bell: 0,
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        self.words.get(index).expect("a slot is longer than its head")
    }

    /// Publishes the stage: one store.
    pub fn set_stage(&self, stage: Stage) {
        self.word(STAGE).store(stage as u64, Ordering::Release);
    }

    /// Publishes when the first byte of a request came (monotonic, nanoseconds); 0 says
    /// that none has.
    pub fn set_started(&self, mono_ns: u64) {
        self.word(STARTED).store(mono_ns, Ordering::Relaxed);
    }

    /// Publishes what the status page says of the request that begins.
    pub fn set_content_length(&self, bytes: u64) {
        self.word(CONTENT_LENGTH).store(bytes, Ordering::Relaxed);
    }

    /// Publishes what the status page says of the request that has ended.
    pub fn set_last(&self, last: Last) {
        self.word(LAST_CPU).store(last.cpu_ns, Ordering::Relaxed);
        self.word(LAST_DURATION)
            .store(last.duration_ns, Ordering::Relaxed);
        self.word(LAST_MEMORY).store(last.memory_peak, Ordering::Relaxed);
        // Nobody else writes this word.
        let highest = self.word(HIGHEST_MEMORY).load(Ordering::Relaxed);
        self.word(HIGHEST_MEMORY)
            .store(highest.max(last.memory_peak), Ordering::Relaxed);
    }

    /// Publishes what has begun; the bytes are those of a begin record. `times` are the
    /// worker's totals at that moment, where they are known.
    pub fn publish_begin(&self, record: &[u8], times: Option<&Times>) {
        let record = &record[..record.len().min(MAX_RECORD_BYTES)];
        let sequence = self.word(BEGIN_SEQUENCE);
        let next = sequence.load(Ordering::Relaxed).wrapping_add(1) | 1;
        sequence.store(next, Ordering::Relaxed);
        fence(Ordering::Release);
        self.word(BEGIN_LENGTH)
            .store(record.len() as u64, Ordering::Relaxed);
        for (index, chunk) in (BEGIN..).zip(record.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(index)
                .store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.word(BEGIN_TIMES_KNOWN)
            .store(u64::from(times.is_some()), Ordering::Relaxed);
        let times = times.map(Times::to_words);
        for (index, word) in (BEGIN_TIMES..).zip(times.iter().flatten()) {
            self.word(index).store(*word, Ordering::Relaxed);
        }
        sequence.store(next.wrapping_add(1), Ordering::Release);
    }

    /// Publishes the end of request `number`. True once in a while, when so much has
    /// been written that the observer should be woken before its next turn.
    #[must_use = "the doorbell wants to be rung"]
    pub fn publish_end(&mut self, number: u64, record: &[u8]) -> bool {
        self.ring().push(record);
        self.word(ENDED).store(number, Ordering::Release);
        self.since_bell += record.len() / 8;
        let ring = self.since_bell > self.ring_words / 4;
        if ring {
            self.since_bell = 0;
        }
        ring
    }

    /// Where the crash handler writes, which can call nothing: signal, frame, position,
    /// one word each; the signal last. Valid as long as the slot is mapped.
    pub fn crash_words(&self) -> [&AtomicU64; 3] {
        [CRASH_SIGNAL, CRASH_REGISTERS, CRASH_REGISTERS + 1].map(|index| self.word(index))
    }

    fn ring(&self) -> Ring<'_> {
        ring_of(&self.words, self.ring_words)
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

/// The observer's side: read-only, and suspicious.
#[derive(Debug)]
pub struct SlotReader {
    words: Words,
    ring_words: usize,
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

impl SlotReader {
    /// Maps the slot file read-only. `bytes` is what the supervisor says, never what
    /// the slot says.
    pub fn map(fd: impl AsFd, bytes: usize) -> Result<SlotReader, MapError> {
        let words = Words::map(fd, bytes, false)?;
        Ok(SlotReader {
            words,
            ring_words: (bytes / 8).saturating_sub(RING),
        })
    }

    fn load(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// The stage; `None` for a number that is no stage, also before the first.
    pub fn stage(&self) -> Option<Stage> {
        Stage::from_word(self.load(STAGE))
    }

    /// When the first byte of the request under way came (monotonic, nanoseconds), if
    /// there is one. Unlike [`SlotReader::in_progress`] also before its head is complete.
    pub fn started(&self) -> Option<u64> {
        Some(self.load(STARTED)).filter(|mono_ns| *mono_ns != 0)
    }

    /// CONTENT_LENGTH of the current or last request.
    pub fn content_length(&self) -> u64 {
        self.load(CONTENT_LENGTH)
    }

    /// Requests begun so far; what a worker writes here is hostile, so it is a figure
    /// to show and not to trust.
    pub fn requests(&self) -> u64 {
        self.load(BEGIN_NUMBER)
    }

    /// When the current or last request began (monotonic, nanoseconds); 0 before the
    /// first. One load: while a begin record is being written it may be that of the
    /// request before.
    pub fn begin_mono_ns(&self) -> u64 {
        self.load(BEGIN_START_MONO)
    }

    /// Highest memory peak of all requests that have ended, bytes.
    pub fn highest_memory(&self) -> u64 {
        self.load(HIGHEST_MEMORY)
    }

    /// Figures of the last request that has ended; zeros before the first.
    pub fn last(&self) -> Last {
        Last {
            cpu_ns: self.load(LAST_CPU),
            duration_ns: self.load(LAST_DURATION),
            memory_peak: self.load(LAST_MEMORY),
        }
    }

    /// The signal that the worker is dying of, if it says so. Cost: one load.
    pub fn crash(&self) -> Option<Crash> {
        let signal = self.words.get(CRASH_SIGNAL)?.load(Ordering::Acquire);
        let signal = i32::try_from(signal).ok().filter(|s| (1..=64).contains(s))?;
        Some(Crash {
            signal,
            registers: [CRASH_REGISTERS, CRASH_REGISTERS + 1].map(|index| self.load(index)),
        })
    }

    /// The request that is under way, if any. Cost: five loads.
    pub fn in_progress(&self) -> Option<InProgress> {
        let stage = self.stage()?;
        let before = self.words.get(BEGIN_SEQUENCE)?.load(Ordering::Acquire);
        let (number, start_mono_ns) = (self.load(BEGIN_NUMBER), self.load(BEGIN_START_MONO));
        let ended = self.words.get(ENDED)?.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        let after = self.load(BEGIN_SEQUENCE);
        let whole = before == after && before & 1 == 0 && before != 0;
        (whole && number > ended).then_some(InProgress {
            number,
            start_mono_ns,
            stage,
        })
    }

    /// The begin record of the current or last request; `None` while it is being
    /// written, or if it makes no sense.
    pub fn read_begin(&self) -> Option<Begin> {
        for _ in 0..4 {
            let before = self.words.get(BEGIN_SEQUENCE)?.load(Ordering::Acquire);
            let length = usize::try_from(self.load(BEGIN_LENGTH))
                .ok()
                .filter(|l| *l <= MAX_RECORD_BYTES)?;
            let words = self.words.slice(BEGIN, length.div_ceil(8))?;
            let mut bytes: Vec<u8> = words
                .iter()
                .flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes())
                .collect();
            bytes.truncate(length);
            fence(Ordering::Acquire);
            if before & 1 == 0 && before != 0 && before == self.load(BEGIN_SEQUENCE) {
                return Begin::decode(&bytes);
            }
        }
        None
    }

    /// The worker's totals when that request began, of the same moment as
    /// [`SlotReader::read_begin`] if nothing has begun in between; `None` if they are not
    /// known.
    pub fn read_begin_times(&self) -> Option<Times> {
        for _ in 0..4 {
            let before = self.words.get(BEGIN_SEQUENCE)?.load(Ordering::Acquire);
            let known = self.load(BEGIN_TIMES_KNOWN) == 1;
            let words = std::array::from_fn(|index| self.load(BEGIN_TIMES + index));
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == self.load(BEGIN_SEQUENCE) {
                return known.then(|| Times::from_words(&words));
            }
        }
        None
    }

    /// Hands on every end record from `cursor` on; see [`Drained`]. Bounded work.
    pub fn drain(&self, cursor: &mut Cursor, buffer: &mut Vec<u8>, each: impl FnMut(&[u8])) -> Drained {
        if self.ring_words == 0 {
            return Drained {
                garbled: true,
                ..Drained::default()
            };
        }
        ring_of(&self.words, self.ring_words).drain(cursor, buffer, each)
    }
}

/// Where each slot's reader has come to, in pages that only observers write and that
/// outlive them: a restarted observer goes on where the last one stopped, so that no
/// request becomes two spans.
#[derive(Debug)]
pub struct CursorTable {
    words: Words,
    entries: usize,
}

/// Spans on their way in one observer: what its successor reports as lost if it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InFlight {
    /// Spans made of records that have been read.
    pub taken: u64,
    /// Of these, spans that were delivered, or are counted as lost already.
    pub settled: u64,
}

impl CursorTable {
    /// Maps a table of `entries` cursors, [`CursorTable::bytes`] long.
    pub fn map(fd: impl AsFd, entries: usize) -> Result<CursorTable, MapError> {
        Ok(CursorTable {
            words: Words::map(fd, CursorTable::bytes(entries), true)?,
            entries,
        })
    }

    /// Length of a table's memory file: the entries, and one more for [`InFlight`].
    pub fn bytes(entries: usize) -> usize {
        ((entries + 1) * 16).next_multiple_of(4096)
    }

    /// What an observer said last of its spans on their way.
    pub fn in_flight(&self) -> InFlight {
        let [taken, settled] = [0, 1].map(|n| {
            let word = self.words.get(self.entries * 2 + n);
            word.map_or(0, |w| w.load(Ordering::Relaxed))
        });
        InFlight { taken, settled }
    }

    /// Says how many spans are on their way.
    pub fn store_in_flight(&self, in_flight: InFlight) {
        for (n, value) in [in_flight.taken, in_flight.settled].into_iter().enumerate() {
            if let Some(word) = self.words.get(self.entries * 2 + n) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// The cursor of that entry; the start for one that does not exist.
    pub fn load(&self, entry: usize) -> Cursor {
        let word = |n| {
            self.words
                .get(entry * 2 + n)
                .map_or(0, |w| w.load(Ordering::Relaxed))
        };
        if entry < self.entries {
            Cursor {
                position: word(0),
                sequence: word(1),
            }
        } else {
            Cursor::default()
        }
    }

    /// Remembers a cursor; an entry that does not exist is ignored.
    pub fn store(&self, entry: usize, cursor: Cursor) {
        if entry >= self.entries {
            return;
        }
        for (n, value) in [cursor.position, cursor.sequence].into_iter().enumerate() {
            if let Some(word) = self.words.get(entry * 2 + n) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
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
    use crate::create_slot_memory;
    use crate::record::{BeginScalars, Encoder, End, EndScalars, Text};
    use crate::trace::{SpanId, TraceId};

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
        CursorTable::map(&file, 3).expect("maps").store(
            2,
            Cursor {
                position: 5,
                sequence: 6,
            },
        );
        let table = CursorTable::map(&file, 3).expect("maps");
        assert_eq!(
            table.load(2),
            Cursor {
                position: 5,
                sequence: 6
            }
        );
        let in_flight = InFlight { taken: 9, settled: 4 };
        table.store_in_flight(in_flight);
        assert_eq!(CursorTable::map(&file, 3).expect("maps").in_flight(), in_flight);
        table.store(
            3,
            Cursor {
                position: 1,
                sequence: 1,
            },
        );
        assert_eq!(table.load(3), Cursor::default());
    }
}
