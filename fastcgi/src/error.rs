//! What a peer can do wrong.

use crate::record::RecordType;

/// The peer broke the protocol or a limit. The stream has lost its meaning: close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A record does not begin with version 1.
    #[error("cannot read record: protocol version is {found}, expected 1 (does the peer speak FastCGI?)")]
    Version {
        /// First byte of the record.
        found: u8,
    },
    /// A record whose content has a fixed size has another one.
    #[error("cannot read {record} record: content is {found} bytes, expected {expected}")]
    Length {
        /// Type of the record.
        record: RecordType,
        /// Content length in the header, in bytes.
        found: u16,
        /// The only content length that the specification allows, in bytes.
        expected: u16,
    },
    /// A name-value pair is longer than the stream or record that holds it.
    #[error(
        "cannot read name-value pairs of {record}: the last has {found} bytes, its lengths ask for {needed}"
    )]
    PairTruncated {
        /// Type of the record.
        record: RecordType,
        /// Bytes of the pair that are there, its length bytes included.
        found: usize,
        /// Bytes that the pair needs, as far as its length bytes are there to tell.
        needed: u64,
    },
    /// The parameters take more bytes than [`Limits::params_bytes`](crate::Limits::params_bytes).
    #[error(
        "request parameters need {needed} bytes, limit is {limit} (does the client send too long headers?)"
    )]
    ParamsTooLarge {
        /// Bytes needed for what was announced so far.
        needed: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// More pairs than [`Limits::params_count`](crate::Limits::params_count).
    #[error("more than {limit} name-value pairs in {record} (does the client send too many headers?)")]
    TooManyPairs {
        /// Type of the record.
        record: RecordType,
        /// The limit.
        limit: usize,
    },
    /// A record that may not come here: wrong direction, wrong moment, or an application record with the
    /// request id 0.
    #[error(
        "{record} record (request id {request_id}, content length {content_length}) is out of place {place}"
    )]
    OutOfPlace {
        /// Type of the record.
        record: RecordType,
        /// Request id in the header; 0 is for management records only.
        request_id: u16,
        /// Content length in the header, in bytes.
        content_length: u16,
        /// Where the reader was, to follow the words "out of place".
        place: &'static str,
    },
    /// END_REQUEST with a protocol status that the specification does not name (client side only).
    #[error("cannot read END_REQUEST record: protocol status is {found}, expected 0 to 3")]
    UnknownStatus {
        /// The status byte.
        found: u8,
    },
}
