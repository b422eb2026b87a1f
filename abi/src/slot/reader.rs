//! The observer's side of a slot.

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};

use super::{
    BEGIN, BEGIN_LENGTH, BEGIN_NUMBER, BEGIN_SEQUENCE, BEGIN_START_MONO, BEGIN_TIMES, BEGIN_TIMES_KNOWN,
    CONTENT_LENGTH, CRASH_REGISTERS, CRASH_SIGNAL, Crash, ENDED, HIGHEST_MEMORY, InProgress, LAST_CPU,
    LAST_DURATION, LAST_MEMORY, LINES_DROPPED, Last, RING, STAGE, STARTED, Stage, ring_of,
};
use crate::mapping::{MapError, Words};
use crate::record::{Begin, MAX_RECORD_BYTES};
use crate::ring::{Cursor, Drained};
use crate::times::Times;

/// The observer's side: read-only, and suspicious.
#[derive(Debug)]
pub struct SlotReader {
    words: Words,
    ring_words: usize,
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

    /// The stage; `None` for a number that is no stage, also before the first. What the worker
    /// wrote anywhere before it came to that stage has been written. Cost: one load.
    pub fn stage(&self) -> Option<Stage> {
        let stage = self.words.get(STAGE);
        Stage::from_word(stage.map_or(0, |word| word.load(Ordering::Acquire)))
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

    /// Number of the last request that has ended, 0 before the first. What the worker wrote
    /// anywhere before it said so has been written. Cost: one load.
    pub fn ended(&self) -> u64 {
        self.words
            .get(ENDED)
            .map_or(0, |word| word.load(Ordering::Acquire))
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

    /// Lines that the worker has not told in its life. Cost: one load.
    pub fn dropped_lines(&self) -> u64 {
        self.load(LINES_DROPPED)
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
