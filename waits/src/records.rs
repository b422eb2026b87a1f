//! The ring of records, read.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, RingBuf};

use crate::Drained;
use crate::record::Record;

/// The reader of the programs' ring. There must be one only at a time; it goes on where the
/// one before it stopped.
pub struct Records {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl Records {
    /// Of the programs' ring.
    ///
    /// # Errors
    /// It is none, or there is no memory to map it.
    pub fn new(ring: OwnedFd) -> io::Result<Records> {
        let ring = MapData::from_fd(ring).map_err(io::Error::other)?;
        let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(io::Error::other)?;
        Ok(Records { ring, malformed: 0 })
    }

    /// Tells the records since the last turn, oldest first, at most `most`: a turn's work
    /// is bounded. Never blocks.
    pub fn drain(&mut self, most: usize, mut tell: impl FnMut(Record)) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..most {
            let Some(item) = self.ring.next() else {
                return drained;
            };
            match Record::parse(&item) {
                Some(record) => {
                    drained.records += 1;
                    tell(record);
                }
                None => self.malformed += 1,
            }
        }
        drained.more = true;
        drained
    }

    /// Records that were none, so far. 0 is expected.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Readable once a quarter of the ring is full. Below that its reader comes by itself.
impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("malformed", &self.malformed)
            .finish_non_exhaustive()
    }
}
