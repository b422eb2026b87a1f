//! Which worker has which entry of the cursor table that observers keep.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::slot::{Cursor, CursorTable};
use glasspool_abi::{MapError, create_slot_memory};

/// Entries beyond twice the workers. An observer that is behind may still write the
/// cursor of a worker that is gone, so a freed entry rests while these are used.
const RESTING: usize = 1024;

/// The table, and the entries that are free.
#[derive(Debug)]
pub(super) struct Cursors {
    memory: Arc<OwnedFd>,
    table: CursorTable,
    entries: usize,
    /// The one that rests longest first.
    free: VecDeque<usize>,
}

impl Cursors {
    /// A table for that many workers at a time.
    pub(super) fn create(most_workers: usize) -> Result<Cursors, MapError> {
        let entries = most_workers * 2 + RESTING;
        let memory = create_slot_memory(CursorTable::bytes(entries))?;
        let table = CursorTable::map(&memory, entries)?;
        Ok(Cursors {
            memory: Arc::new(memory),
            table,
            entries,
            free: (0..entries).collect(),
        })
    }

    /// An entry at its start, for a new worker.
    pub(super) fn take(&mut self) -> Option<u64> {
        let entry = self.free.pop_front()?;
        self.table.store(entry, Cursor::default());
        Some(entry as u64)
    }

    /// The worker is gone, and observers have been told.
    pub(super) fn give_back(&mut self, entry: u64) {
        if let Ok(entry) = usize::try_from(entry) {
            self.table.store(entry, Cursor::default());
            self.free.push_back(entry);
        }
    }

    pub(super) fn memory(&self) -> &Arc<OwnedFd> {
        &self.memory
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_starts_anew_and_rests_before_it_is_used_again() {
        let mut cursors = Cursors::create(1).expect("makes");
        let first = cursors.take().expect("is free");
        let observer = CursorTable::map(cursors.memory(), cursors.entries).expect("maps");
        let late = Cursor {
            position: 8,
            sequence: 9,
        };
        cursors.give_back(first);
        // The observer was behind and remembers how far it was with the gone worker.
        observer.store(usize::try_from(first).expect("fits"), late);
        let mut taken = Vec::new();
        while taken.last() != Some(&first) {
            taken.push(cursors.take().expect("is free"));
        }
        assert_eq!(taken.len(), cursors.entries);
        assert_eq!(
            observer.load(usize::try_from(first).expect("fits")),
            Cursor::default()
        );
        assert_eq!(cursors.take(), None);
    }
}
