//! Where the readers of all slots have come to.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::mapping::{MapError, Words};
use crate::ring::Cursor;

/// Where each slot's reader has come to, in pages that only observers write and that
/// outlive them: a restarted observer goes on where the last one stopped, so that no
/// request becomes two spans, and what was lost meanwhile is counted.
#[derive(Debug)]
pub struct CursorTable {
    words: Words,
    entries: usize,
}

/// What has been read of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadTo {
    /// In its ring.
    pub cursor: Cursor,
    /// Of the lines that its worker has left out, how many are counted.
    pub dropped_lines: u64,
}

/// Words of an entry.
const ENTRY: usize = 3;

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
        ((entries + 1) * ENTRY * 8).next_multiple_of(4096)
    }

    /// What an observer said last of its spans on their way.
    pub fn in_flight(&self) -> InFlight {
        let [taken, settled, _] = self.words(self.entries);
        InFlight { taken, settled }
    }

    /// Says how many spans are on their way.
    pub fn store_in_flight(&self, in_flight: InFlight) {
        self.store_words(self.entries, [in_flight.taken, in_flight.settled, 0]);
    }

    /// What that entry says; the start for one that does not exist.
    pub fn load(&self, entry: usize) -> ReadTo {
        if entry >= self.entries {
            return ReadTo::default();
        }
        let [position, sequence, dropped_lines] = self.words(entry);
        ReadTo {
            cursor: Cursor { position, sequence },
            dropped_lines,
        }
    }

    /// Remembers it; an entry that does not exist is ignored.
    pub fn store(&self, entry: usize, read: ReadTo) {
        if entry < self.entries {
            let Cursor { position, sequence } = read.cursor;
            self.store_words(entry, [position, sequence, read.dropped_lines]);
        }
    }

    fn words(&self, entry: usize) -> [u64; ENTRY] {
        std::array::from_fn(|n| {
            let word = self.words.get(entry * ENTRY + n);
            word.map_or(0, |word| word.load(Ordering::Relaxed))
        })
    }

    fn store_words(&self, entry: usize, values: [u64; ENTRY]) {
        for (n, value) in values.into_iter().enumerate() {
            if let Some(word) = self.words.get(entry * ENTRY + n) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
}
