//! Cuts a byte stream into records, wherever the reads happened to cut it.
//!
//! It knows lengths, not meanings: the two readers decide after [`Framer::header`] whether to stream the
//! content ([`Framer::content`]) or to wait for all of it ([`Framer::whole`]). Bytes are kept inside only
//! when a header, or a content that is needed whole, is cut in two: at most 65535 bytes.

use std::ops::Range;

use crate::{Header, ProtocolError, record::HEADER_BYTES};

#[derive(Debug, Default)]
pub(crate) struct Framer {
    /// The beginning of a header or of a content that is wanted whole.
    partial: Vec<u8>,
    /// `partial` has been given out and is to be forgotten.
    spent: bool,
    content_left: usize,
    padding_left: usize,
}

/// Where the content of a record is.
#[derive(Debug)]
pub(crate) enum Whole {
    /// In the input, at this range.
    Input(Range<usize>),
    /// It was cut and has been put together; [`Whole::bytes`] finds it until the framer moves on.
    Joined,
}

impl Framer {
    /// Reads the next header, after the padding of the record before. `None`: more input is needed.
    /// The content of the record before must have been taken.
    pub(crate) fn header(&mut self, input: &[u8], pos: &mut usize) -> Result<Option<Header>, ProtocolError> {
        debug_assert_eq!(self.content_left, 0, "content was taken");
        self.forget_spent();
        let padding = self.padding_left.min(input.len() - *pos);
        self.padding_left -= padding;
        *pos += padding;
        if self.padding_left > 0 {
            return Ok(None);
        }
        let bytes = match input[*pos..].first_chunk::<HEADER_BYTES>() {
            Some(bytes) if self.partial.is_empty() => {
                *pos += HEADER_BYTES;
                *bytes
            }
            _ => {
                self.take_partial(HEADER_BYTES, input, pos);
                let Some(bytes) = self.partial.first_chunk::<HEADER_BYTES>().copied() else {
                    return Ok(None);
                };
                self.partial.clear();
                bytes
            }
        };
        let header = Header::decode(bytes)?;
        self.content_left = usize::from(header.content_length);
        self.padding_left = usize::from(header.padding_length);
        Ok(Some(header))
    }

    /// Takes as much content as the input has; the range is empty if that is nothing.
    pub(crate) fn content(&mut self, input: &[u8], pos: &mut usize) -> Range<usize> {
        let start = *pos;
        let taken = self.content_left.min(input.len() - start);
        self.content_left -= taken;
        *pos += taken;
        start..*pos
    }

    /// Takes the content once all of it has arrived. `None`: more input is needed.
    pub(crate) fn whole(&mut self, input: &[u8], pos: &mut usize) -> Option<Whole> {
        if self.partial.is_empty() && input.len() - *pos >= self.content_left {
            return Some(Whole::Input(self.content(input, pos)));
        }
        let range = self.content(input, pos);
        self.partial.extend_from_slice(&input[range]);
        if self.content_left > 0 {
            return None;
        }
        self.spent = true;
        Some(Whole::Joined)
    }

    /// Bytes of content that have not been taken.
    pub(crate) fn content_left(&self) -> usize {
        self.content_left
    }

    /// No part of a record is pending: the next byte is the first of a header.
    pub(crate) fn at_boundary(&self) -> bool {
        self.content_left == 0 && self.padding_left == 0 && (self.partial.is_empty() || self.spent)
    }

    /// Bytes of heap in use.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.partial.capacity()
    }

    fn take_partial(&mut self, wanted: usize, input: &[u8], pos: &mut usize) {
        let taken = (wanted - self.partial.len()).min(input.len() - *pos);
        self.partial.extend_from_slice(&input[*pos..*pos + taken]);
        *pos += taken;
    }

    fn forget_spent(&mut self) {
        if self.spent {
            self.partial.clear();
            self.spent = false;
        }
    }
}

impl Whole {
    pub(crate) fn bytes<'a>(&self, framer: &'a Framer, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Input(range) => &input[range.clone()],
            Self::Joined => &framer.partial,
        }
    }
}
