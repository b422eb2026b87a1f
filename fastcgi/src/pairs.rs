//! Name-value pairs (section 3.4): two lengths of one or four bytes, then name and value.
//!
//! [`PairDecoder`] decodes the PARAMS stream piece by piece, straight from the input while pairs are whole,
//! through a carry buffer when one is cut. [`pairs`] walks over a complete content.

use crate::{Limits, Params, ProtocolError, RecordType};

/// The lengths in front of a pair.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    /// Bytes that the two lengths take, 2, 5 or 8.
    prefix: usize,
    /// Bytes of the name, 31 bits.
    name: u32,
    /// Bytes of the value, 31 bits.
    value: u32,
}

/// Decodes a stream of pairs that is cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct PairDecoder {
    /// The beginning of a pair that is not complete; never more than the limit on parameters plus 8 bytes.
    carry: Vec<u8>,
}

// === impl PairDecoder ===

impl PairDecoder {
    /// Adds every pair that `bytes` completes to `params`; keeps the rest.
    pub(crate) fn decode(
        &mut self,
        bytes: &[u8],
        params: &mut Params,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        let mut rest = if self.carry.is_empty() {
            bytes
        } else {
            self.finish_carried(bytes, params, limits)?
        };
        while let Some(lengths) = Lengths::decode(rest) {
            lengths.check(params, limits)?;
            let Some((name, value, after)) = lengths.split(rest) else {
                break;
            };
            params.append(name, value);
            rest = after;
        }
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    /// The stream has ended: nothing may be left of a pair.
    pub(crate) fn finish(&self) -> Result<(), ProtocolError> {
        if self.carry.is_empty() {
            Ok(())
        } else {
            Err(truncated(RecordType::Params, &self.carry))
        }
    }

    pub(crate) fn clear(&mut self) {
        self.carry.clear();
    }

    /// Bytes of heap in use.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.carry.capacity()
    }

    /// Completes the pair in `carry`, and returns what follows it. When `bytes` is too short for that, all of
    /// it has gone to `carry` and nothing follows.
    fn finish_carried<'a>(
        &mut self,
        bytes: &'a [u8],
        params: &mut Params,
        limits: &Limits,
    ) -> Result<&'a [u8], ProtocolError> {
        let mut rest = bytes;
        let lengths = loop {
            // At most eight rounds, the longest prefix.
            if let Some(lengths) = Lengths::decode(&self.carry) {
                break lengths;
            }
            let Some((&byte, after)) = rest.split_first() else {
                return Ok(rest);
            };
            self.carry.push(byte);
            rest = after;
        };
        lengths.check(params, limits)?;
        let total = usize::try_from(lengths.total()).expect("check() has compared it with a usize");
        let (missing, after) = rest.split_at(rest.len().min(total - self.carry.len()));
        self.carry.extend_from_slice(missing);
        if let Some((name, value, _nothing)) = lengths.split(&self.carry) {
            params.append(name, value);
            self.carry.clear();
        }
        Ok(after)
    }
}

// === impl Lengths ===

impl Lengths {
    /// Reads both lengths, if all their bytes are there.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (name, rest) = decode_length(bytes)?;
        let (value, rest) = decode_length(rest)?;
        Some(Self {
            prefix: bytes.len() - rest.len(),
            name,
            value,
        })
    }

    /// Bytes of the whole pair. As `u64`, because two hostile lengths overflow a 32-bit `usize`.
    fn total(self) -> u64 {
        self.prefix as u64 + u64::from(self.name) + u64::from(self.value)
    }

    /// Refuses a pair before memory is taken for it.
    fn check(self, params: &Params, limits: &Limits) -> Result<(), ProtocolError> {
        if params.len() >= limits.params_count {
            return Err(ProtocolError::TooManyPairs {
                record: RecordType::Params,
                limit: limits.params_count,
            });
        }
        let needed = params.bytes() as u64 + u64::from(self.name) + u64::from(self.value) + 2;
        if needed > limits.params_bytes as u64 {
            return Err(ProtocolError::ParamsTooLarge {
                needed,
                limit: limits.params_bytes,
            });
        }
        Ok(())
    }

    /// Name, value and what follows, if the pair is whole.
    fn split(self, bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
        let (name, rest) = bytes[self.prefix..].split_at_checked(usize::try_from(self.name).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(self.value).ok()?)?;
        Some((name, value, rest))
    }
}

/// One length: a byte below 128, or four bytes, big endian, with the top bit set.
fn decode_length(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((u32::from(first), rest));
    }
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*four) & 0x7fff_ffff, rest))
}

/// Encodes a length into the shortest form; returns the bytes and how many of them count.
///
/// # Panics
/// Past 2^31 - 1, which FastCGI cannot express.
pub(crate) fn encode_length(length: usize) -> ([u8; 4], usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => ([short, 0, 0, 0], 1),
        _ => {
            let long = u32::try_from(length).ok().filter(|long| long >> 31 == 0);
            let long = long.expect("a FastCGI name or value has at most 2^31 - 1 bytes");
            ((long | 0x8000_0000).to_be_bytes(), 4)
        }
    }
}

/// Appends a pair in the shortest form. Panics as [`encode_length`].
pub(crate) fn push_pair(buf: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for length in [name.len(), value.len()] {
        let (bytes, count) = encode_length(length);
        buf.extend_from_slice(&bytes[..count]);
    }
    buf.extend_from_slice(name);
    buf.extend_from_slice(value);
}

/// The pairs of a complete content. Ends after the first error.
pub(crate) fn pairs(
    record: RecordType,
    content: &[u8],
) -> impl Iterator<Item = Result<(&[u8], &[u8]), ProtocolError>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((name, value, after)) = Lengths::decode(rest).and_then(|lengths| lengths.split(rest)) else {
            let error = truncated(record, rest);
            rest = &[];
            return Some(Err(error));
        };
        rest = after;
        Some(Ok((name, value)))
    })
}

fn truncated(record: RecordType, pair: &[u8]) -> ProtocolError {
    // Without all length bytes it is known only that one more byte is needed.
    let needed = Lengths::decode(pair).map_or(pair.len() as u64 + 1, Lengths::total);
    ProtocolError::PairTruncated {
        record,
        found: pair.len(),
        needed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn decoded(pieces: &[&[u8]]) -> Result<Pairs, ProtocolError> {
        let mut decoder = PairDecoder::default();
        let mut params = Params::new();
        for piece in pieces {
            decoder.decode(piece, &mut params, &Limits::default())?;
        }
        decoder.finish()?;
        Ok(params
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect())
    }

    #[test]
    fn lengths_of_one_and_four_bytes_survive_every_cut() {
        let long = vec![b'v'; 300];
        let mut bytes = Vec::new();
        push_pair(&mut bytes, b"SHORT", b"");
        push_pair(&mut bytes, &[b'n'; 128], &long);
        push_pair(&mut bytes, b"", b"x");
        let expected = vec![
            (b"SHORT".to_vec(), vec![]),
            (vec![b'n'; 128], long.clone()),
            (vec![], b"x".to_vec()),
        ];
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(decoded(&[left, right]).as_ref(), Ok(&expected), "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decoded(&single), Ok(expected));
    }

    #[test]
    fn a_four_byte_length_may_be_small() {
        assert_eq!(
            decoded(&[b"\x80\x00\x00\x01\x80\x00\x00\x02abc"]),
            Ok(vec![(b"a".to_vec(), b"bc".to_vec())])
        );
    }

    #[test]
    fn a_pair_that_the_stream_does_not_finish_is_refused() {
        let short = |found, needed| {
            Err(ProtocolError::PairTruncated {
                record: RecordType::Params,
                found,
                needed,
            })
        };
        assert_eq!(decoded(&[b"\x03"]), short(1, 2));
        assert_eq!(decoded(&[b"\x03\x03abcde"]), short(7, 8));
    }

    #[test]
    fn limits_are_checked_before_bytes_are_kept() {
        let limits = Limits {
            params_bytes: 16,
            params_count: 2,
            ..Limits::default()
        };
        let run = |bytes: &[u8]| {
            let mut decoder = PairDecoder::default();
            let result = decoder.decode(bytes, &mut Params::new(), &limits);
            (result, decoder.carry.len())
        };
        let huge = run(b"\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(
            huge,
            (
                Err(ProtocolError::ParamsTooLarge {
                    needed: 0xffff_fffe + 2,
                    limit: 16
                }),
                0
            )
        );
        assert_eq!(run(b"\x07\x07aaaaaaabbbbbbb"), (Ok(()), 0), "exactly the limit");
        assert!(matches!(
            run(b"\x07\x08").0,
            Err(ProtocolError::ParamsTooLarge { needed: 17, .. })
        ));
        assert_eq!(run(b"\0\0\0\0"), (Ok(()), 0));
        assert!(matches!(
            run(b"\0\0\0\0\0\0").0,
            Err(ProtocolError::TooManyPairs { limit: 2, .. })
        ));
    }
}
