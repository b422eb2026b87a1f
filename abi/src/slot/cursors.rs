//! Where the readers of all slots have come to.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::mapping::{MapError, Words};
use crate::ring::Cursor;

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
