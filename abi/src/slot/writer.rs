//! The worker's side of its slot.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{
    BEGIN, BEGIN_LENGTH, BEGIN_SEQUENCE, BEGIN_TIMES, BEGIN_TIMES_KNOWN, CONTENT_LENGTH, CRASH_REGISTERS,
    CRASH_SIGNAL, ENDED, HIGHEST_MEMORY, LAST_CPU, LAST_DURATION, LAST_MEMORY, LINES_DROPPED, Last, RING,
    STAGE, STARTED, Stage, ring_of,
};
use crate::mapping::{MapError, Words};
use crate::record::MAX_RECORD_BYTES;
use crate::ring::Ring;
use crate::times::Times;

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

    /// Counts a line of the worker that it does not tell. It is here and not only in the next
    /// record because the worker may die before that.
    pub fn count_dropped_line(&self) {
        let word = self.word(LINES_DROPPED);
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
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
