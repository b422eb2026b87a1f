//! Which worker has which entry of the cursor table that observers keep.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::slot::{CursorTable, ReadTo};
use glasspool_abi::{MapError, create_slot_memory};

/// Workers at a time, whatever reloads bring, and those that observers have not buried
/// yet. The table's memory is only taken where it is written: 24 bytes each.
const ENTRIES: usize = 262_144;
/// An observer that is behind may still write the cursor of a worker that is gone, so a
/// freed entry rests while so many others are used.
const RESTING: usize = 1024;

/// The table, and the entries that are free.
#[derive(Debug)]
pub(super) struct Cursors {
    memory: Arc<OwnedFd>,
    table: CursorTable,
    /// Entries from here on have never been used.
    unused: usize,
    /// Used ones that are free again, the one that rests longest first.
    free: VecDeque<usize>,
}

impl Cursors {
    pub(super) fn create() -> Result<Cursors, MapError> {
        let memory = create_slot_memory(CursorTable::bytes(ENTRIES))?;
        let table = CursorTable::map(&memory, ENTRIES)?;
        Ok(Cursors {
            memory: Arc::new(memory),
            table,
            unused: 0,
            free: VecDeque::new(),
        })
    }

    /// An entry at its start, for a new worker.
    pub(super) fn take(&mut self) -> Option<u64> {
        let rested = self.free.len() > RESTING || self.unused == ENTRIES;
        let entry = if rested {
            self.free.pop_front()?
        } else {
            self.unused += 1;
            self.unused - 1
        };
        self.table.store(entry, ReadTo::default());
        Some(entry as u64)
    }

    /// The worker is gone, and observers have been told.
    pub(super) fn give_back(&mut self, entry: u64) {
        if let Ok(entry) = usize::try_from(entry) {
            self.table.store(entry, ReadTo::default());
            self.free.push_back(entry);
        }
    }

    pub(super) fn memory(&self) -> &Arc<OwnedFd> {
        &self.memory
    }

    pub(super) fn entries() -> u64 {
        ENTRIES as u64
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::slot::Cursor;

    use super::*;

    #[test]
    fn an_entry_starts_anew_and_rests_before_it_is_used_again() {
        let mut cursors = Cursors::create().expect("makes");
        let first = cursors.take().expect("is free");
        let observer = CursorTable::map(cursors.memory(), ENTRIES).expect("maps");
        let late = ReadTo {
            cursor: Cursor {
                position: 8,
                sequence: 9,
            },
            dropped_lines: 7,
        };
        cursors.give_back(first);
        // The observer was behind and remembers how far it was with the gone worker.
        observer.store(usize::try_from(first).expect("fits"), late);
        let mut others = 0;
        while let Some(entry) = cursors.take().filter(|entry| *entry != first) {
            cursors.give_back(entry);
            others += 1;
        }
        assert_eq!(others, RESTING);
        assert_eq!(
            observer.load(usize::try_from(first).expect("fits")),
            ReadTo::default()
        );
    }

    #[test]
    fn no_entry_is_given_twice_and_there_is_an_end_to_them() {
        let mut cursors = Cursors::create().expect("makes");
        let taken: std::collections::BTreeSet<u64> = std::iter::from_fn(|| cursors.take()).collect();
        assert_eq!(taken.len(), ENTRIES);
        cursors.give_back(7);
        assert_eq!((cursors.take(), cursors.take()), (Some(7), None));
    }
}
