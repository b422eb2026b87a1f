//! A ring of records with one writer that never waits and one reader.
//!
//! The writer overwrites the oldest records when the reader is behind; the reader
//! learns from the records' sequence numbers exactly how many it lost. Positions
//! count words since the start of the worker's life and only grow.
//!
//! | word | written by the worker |
//! |---|---|
//! | head | position behind the newest record |
//! | tail | position of the oldest record that is still whole |
//! | written | number of records written |
//!
//! *Why a reader never returns a torn record.* The writer moves `tail` past a record,
//! then a release fence, then overwrites it. The reader copies a record, then an
//! acquire fence, then loads `tail` again: had it seen one overwritten word, it now
//! sees the tail beyond its record, and starts again from there.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::record::MAX_RECORD_BYTES;

/// Words in front of each record's bytes: sequence number, length in bytes.
const HEAD_WORDS: u64 = 2;
/// How often a reader starts again when the writer overtakes it in the middle.
const RETRIES: usize = 8;

/// The three counters and the data of a ring inside shared words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) head: &'a AtomicU64,
    pub(crate) tail: &'a AtomicU64,
    pub(crate) written: &'a AtomicU64,
    pub(crate) data: &'a [AtomicU64],
}

/// How far a reader has come; what a restarted reader goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Position of the next record, in words.
    pub position: u64,
    /// Sequence number of the next record.
    pub sequence: u64,
}

/// What one look at a ring found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Records handed on.
    pub records: u64,
    /// Records that were overwritten before they could be read.
    pub lost: u64,
    /// The counters or lengths made no sense: the worker's memory is damaged or it
    /// lies. Reading goes on behind the damage.
    pub garbled: bool,
}

impl<'a> Ring<'a> {
    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }

    fn word(&self, position: u64) -> &'a AtomicU64 {
        let index = usize::try_from(position % self.capacity()).expect("smaller than the ring");
        &self.data[index]
    }

    /// The words from a position on, around the end of the ring as needed.
    fn words_from(&self, position: u64) -> impl Iterator<Item = &'a AtomicU64> + use<'a> {
        let index = usize::try_from(position % self.capacity()).expect("smaller than the ring");
        self.data[index..].iter().chain(self.data)
    }

    /// Appends a record, overwriting the oldest if there is no room. Cost: a few
    /// stores for each eight bytes; no system call, no wait.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let words = HEAD_WORDS + bytes.len().div_ceil(8) as u64;
        if bytes.len() > MAX_RECORD_BYTES || words > self.capacity() {
            debug_assert!(false, "the encoder bounds records to less than a ring");
            return;
        }
        let head = self.head.load(Ordering::Relaxed);
        let mut tail = self.tail.load(Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        while head.wrapping_sub(tail).saturating_add(words) > self.capacity() {
            let length = self.word(tail.wrapping_add(1)).load(Ordering::Relaxed);
            let step = HEAD_WORDS.saturating_add(length.div_ceil(8));
            // The application may have scribbled over the page: give up its records.
            tail = if step > head.wrapping_sub(tail) {
                head
            } else {
                tail.wrapping_add(step)
            };
        }
        self.tail.store(tail, Ordering::Relaxed);
        fence(Ordering::Release);
        let mut words_at = self.words_from(head);
        let mut put = |word: u64| {
            if let Some(at) = words_at.next() {
                at.store(word, Ordering::Relaxed);
            }
        };
        put(written);
        put(bytes.len() as u64);
        let (whole, rest) = bytes.as_chunks::<8>();
        whole.iter().for_each(|chunk| put(u64::from_ne_bytes(*chunk)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            put(u64::from_ne_bytes(last));
        }
        self.head.store(head.wrapping_add(words), Ordering::Release);
        self.written.store(written.wrapping_add(1), Ordering::Release);
    }

    /// Hands every record from `cursor` on to `each`, at most as many as the ring can
    /// hold at once. Every counter is hostile: the work is bounded by the ring's size.
    pub(crate) fn drain(
        &self,
        cursor: &mut Cursor,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> Drained {
        let mut found = Drained::default();
        let most = self.capacity() / HEAD_WORDS;
        while found.records < most {
            match self.pop(cursor, buffer) {
                Popped::Record { lost } => {
                    found.lost = found.lost.saturating_add(lost);
                    found.records += 1;
                    each(buffer);
                }
                Popped::Empty { lost } => {
                    found.lost = found.lost.saturating_add(lost);
                    return found;
                }
                Popped::Garbled => {
                    found.garbled = true;
                    return found;
                }
            }
        }
        found
    }

    fn pop(&self, cursor: &mut Cursor, buffer: &mut Vec<u8>) -> Popped {
        for _ in 0..RETRIES {
            let written = self.written.load(Ordering::Acquire);
            let tail = self.tail.load(Ordering::Acquire);
            let head = self.head.load(Ordering::Acquire);
            fence(Ordering::Acquire);
            if self.tail.load(Ordering::Relaxed) != tail {
                continue; // The two do not belong together.
            }
            if cursor.position > head || head.wrapping_sub(tail) > self.capacity() {
                return self.skip_to(cursor, head, written);
            }
            let position = cursor.position.max(tail);
            if position >= head {
                cursor.position = head;
                let lost = written.saturating_sub(cursor.sequence);
                cursor.sequence = cursor.sequence.max(written);
                return Popped::Empty { lost };
            }
            let sequence = self.word(position).load(Ordering::Relaxed);
            let length = self.word(position.wrapping_add(1)).load(Ordering::Relaxed);
            // The counters may be anything, also close to where they wrap.
            let end = position.checked_add(HEAD_WORDS + length.min(MAX_RECORD_BYTES as u64).div_ceil(8));
            let fits = length <= MAX_RECORD_BYTES as u64 && end.is_some_and(|end| end <= head);
            if fits {
                self.copy(position + HEAD_WORDS, length, buffer);
            }
            fence(Ordering::Acquire);
            if self.tail.load(Ordering::Relaxed) > position {
                continue; // Overwritten meanwhile: what was copied may be torn.
            }
            if !fits || sequence < cursor.sequence {
                return self.skip_to(cursor, head, written);
            }
            let lost = sequence - cursor.sequence;
            *cursor = Cursor {
                position: position + HEAD_WORDS + length.div_ceil(8),
                sequence: sequence.saturating_add(1),
            };
            return Popped::Record { lost };
        }
        Popped::Empty { lost: 0 }
    }

    fn copy(&self, position: u64, length: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        let words = usize::try_from(length.div_ceil(8)).unwrap_or(0);
        buffer.reserve(words * 8);
        let words = self.words_from(position).take(words);
        // Not a loop: this asks once where the ring begins anew, and not at each word.
        words.for_each(|word| buffer.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()));
        buffer.truncate(usize::try_from(length).unwrap_or(MAX_RECORD_BYTES));
    }

    fn skip_to(&self, cursor: &mut Cursor, head: u64, written: u64) -> Popped {
        *cursor = Cursor {
            position: head,
            sequence: written,
        };
        Popped::Garbled
    }
}

enum Popped {
    Record { lost: u64 },
    Empty { lost: u64 },
    Garbled,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Owned {
        counters: [AtomicU64; 3],
        data: Vec<AtomicU64>,
    }

    impl Owned {
        fn new(words: usize) -> Owned {
            Owned {
                counters: Default::default(),
                data: (0..words).map(|_| AtomicU64::new(0)).collect(),
            }
        }

        fn ring(&self) -> Ring<'_> {
            let [head, tail, written] = &self.counters;
            Ring {
                head,
                tail,
                written,
                data: &self.data,
            }
        }
    }

    fn drain_all(ring: Ring<'_>, cursor: &mut Cursor) -> (Vec<Vec<u8>>, Drained) {
        let mut out = Vec::new();
        let found = ring.drain(cursor, &mut Vec::new(), |r| out.push(r.to_vec()));
        (out, found)
    }

    #[test]
    fn records_come_out_in_order_across_the_wrap() {
        let owned = Owned::new(64);
        let mut cursor = Cursor::default();
        for n in 0..100u8 {
            let record = vec![n; usize::from(n) % 40];
            owned.ring().push(&record);
            let (out, found) = drain_all(owned.ring(), &mut cursor);
            assert_eq!(out, [record]);
            assert_eq!(
                found,
                Drained {
                    records: 1,
                    ..Default::default()
                }
            );
        }
    }

    #[test]
    fn what_is_overwritten_is_counted_exactly() {
        let owned = Owned::new(64);
        let mut cursor = Cursor::default();
        for n in 0..1000u64 {
            owned.ring().push(&n.to_ne_bytes());
        }
        let (out, found) = drain_all(owned.ring(), &mut cursor);
        assert_eq!(found.lost + found.records, 1000);
        assert_eq!(out.last().map(Vec::as_slice), Some(&999u64.to_ne_bytes()[..]));
        assert_eq!(drain_all(owned.ring(), &mut cursor).1, Drained::default());
    }

    #[test]
    fn a_reader_beside_a_busy_writer_sees_only_whole_records() {
        let owned = Owned::new(256);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..300_000u64 {
                    let byte = n.to_ne_bytes()[0];
                    owned.ring().push(&vec![byte; usize::from(byte) + 1]);
                }
            });
            let mut cursor = Cursor::default();
            let (mut read, mut lost) = (0, 0);
            loop {
                let done = writer.is_finished();
                let found = owned.ring().drain(&mut cursor, &mut Vec::new(), |record| {
                    assert_eq!(record.len(), usize::from(record[0]) + 1);
                    assert!(record.iter().all(|b| *b == record[0]));
                });
                assert!(!found.garbled);
                read += found.records;
                lost += found.lost;
                if done && found == Drained::default() {
                    break;
                }
            }
            assert_eq!(read + lost, 300_000);
            assert!(read > 0);
        });
    }

    proptest! {
        #[test]
        fn a_lying_worker_costs_bounded_work(
            counters in proptest::array::uniform3(any::<u64>()),
            data in proptest::collection::vec(any::<u64>(), 64),
            start in any::<u64>(),
        ) {
            let owned = Owned::new(64);
            for (at, value) in owned.counters.iter().zip(counters) {
                at.store(value, Ordering::Relaxed);
            }
            for (at, value) in owned.data.iter().zip(data) {
                at.store(value, Ordering::Relaxed);
            }
            let mut cursor = Cursor { position: start, sequence: start };
            let mut buffer = Vec::new();
            let found = owned.ring().drain(&mut cursor, &mut buffer, |r| assert!(r.len() <= MAX_RECORD_BYTES));
            prop_assert!(found.records <= 32);
            prop_assert!(buffer.capacity() <= 2 * MAX_RECORD_BYTES);
        }
    }
}
