//! A worker's slot filled with arbitrary bytes, again and again under the same reader:
//! the work stays within the ring's size, nothing panics, nothing is read twice.
//!
//! Input: rounds, each an offset in words (2 bytes), a length in bytes (2 bytes) and
//! that many bytes, written over the slot; after each the slot is read as the observer
//! reads it. A whole slot would be too long an input to mutate.

#![no_main]

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use glasspool_abi::create_slot_memory;
use glasspool_abi::record::{Begin, End, MAX_RECORD_BYTES};
use glasspool_abi::slot::{Cursor, SLOT_HEAD_BYTES, SlotReader, ring_bytes};
use libfuzzer_sys::fuzz_target;

/// More rounds say nothing new.
const ROUNDS: usize = 16;

/// One slot for all inputs, cleared before each: making one costs five system calls.
static SLOT: LazyLock<(OwnedFd, usize)> = LazyLock::new(|| {
    let bytes = SLOT_HEAD_BYTES + ring_bytes(u32::MAX);
    (create_slot_memory(bytes).expect("a memory file"), bytes)
});

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*first)
}

fuzz_target!(|data: &[u8]| {
    let (slot, bytes) = &*SLOT;
    rustix::io::pwrite(slot, &vec![0; *bytes], 0).expect("a slot is writable");
    let reader = SlotReader::map(slot, *bytes).expect("maps");
    let (mut cursor, mut buffer, mut data) = (Cursor::default(), Vec::new(), data);
    // The records themselves, too: few inputs get a ring right.
    End::peek(data);
    End::decode(data);
    Begin::decode(data);
    for _ in 0..ROUNDS {
        let (Some(at), Some(length)) = (take(&mut data), take(&mut data)) else { return };
        let at = usize::from(u16::from_le_bytes(at)) * 8 % bytes;
        let length = usize::from(u16::from_le_bytes(length)).min(data.len()).min(bytes - at);
        let (written, rest) = data.split_at(length);
        data = rest;
        rustix::io::pwrite(slot, written, at as u64).expect("inside the slot");

        let progress = reader.in_progress();
        let begin = reader.read_begin();
        if let (Some(progress), Some(begin)) = (progress, begin) {
            assert_eq!(progress.number, begin.number);
        }
        let before = cursor;
        let mut records = 0;
        let found = reader.drain(&mut cursor, &mut buffer, |record| {
            assert!(record.len() <= MAX_RECORD_BYTES);
            if let (Some(peek), Some(end)) = (End::peek(record), End::decode(record)) {
                assert_eq!((peek.number, peek.status), (end.begin.number, end.status));
            }
            records += 1;
        });
        assert_eq!(found.records, records);
        assert!(records <= (ring_bytes(u32::MAX) / 16) as u64);
        // What was read is behind us, unless the counters were found to lie.
        assert!(found.garbled || cursor.position >= before.position, "{before:?} {cursor:?}");
        let again = reader.drain(&mut cursor, &mut buffer, |_| {});
        assert!(found.garbled || again.records == 0 || records == (ring_bytes(u32::MAX) / 16) as u64);
    }
});
