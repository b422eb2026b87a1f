//! The vocabulary of FastCGI: the record header, and the numbers that have names.
//!
//! Encoding of whole records is here too, because both directions share it.

use std::fmt;

use crate::ProtocolError;

/// Bytes of a record header, and of the fixed content of BEGIN_REQUEST, END_REQUEST and UNKNOWN_TYPE.
pub(crate) const HEADER_BYTES: usize = 8;

/// Most content bytes that we put into one record. The field would hold 65535, but php-fpm closes the
/// connection when content and padding together pass 65535 (`fcgi_read_request` in `main/fastcgi.c`), and
/// itself cuts at 65528: the largest length that needs no padding.
pub(crate) const MAX_CONTENT: usize = 65528;

/// FCGI_KEEP_CONN, bit 0 of the flags in BEGIN_REQUEST (section 5.1).
pub(crate) const KEEP_CONN: u8 = 1;

/// Record types (section 8, `FCGI_*` without the prefix).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// The web server starts a request.
    BeginRequest = 1,
    /// The web server no longer wants the answer.
    AbortRequest = 2,
    /// The application has ended a request.
    EndRequest = 3,
    /// Stream of name-value pairs to the application.
    Params = 4,
    /// Stream of the request body to the application.
    Stdin = 5,
    /// Stream of the response to the web server.
    Stdout = 6,
    /// Stream of error messages to the web server.
    Stderr = 7,
    /// Second body stream, of the Filter role only.
    Data = 8,
    /// Management: the web server asks for variables.
    GetValues = 9,
    /// Management: the answer to [`RecordType::GetValues`].
    GetValuesResult = 10,
    /// Management: the answer to a management record of unknown type.
    UnknownType = 11,
}

/// What the web server wants the application to be (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Role {
    /// Answers HTTP requests, like CGI/1.1.
    Responder = 1,
    /// Allows or denies a request.
    Authorizer = 2,
    /// Transforms a file that the web server sends.
    Filter = 3,
}

/// How a request ended, seen from the protocol (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ProtocolStatus {
    /// Ordinary end.
    RequestComplete = 0,
    /// Refused: one request at a time on this connection.
    CantMpxConn = 1,
    /// Refused: the application is out of some resource.
    Overloaded = 2,
    /// Refused: the application does not know the role.
    UnknownRole = 3,
}

/// The eight bytes in front of every record (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type as sent; [`Header::record_type`] gives it a name.
    pub type_byte: u8,
    /// 0 for management records, else the request.
    pub request_id: u16,
    /// Bytes of content that follow.
    pub content_length: u16,
    /// Bytes to skip after the content.
    pub padding_length: u8,
}

/// Content of END_REQUEST, with the request that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRequest {
    /// The request that ended.
    pub request_id: u16,
    /// Exit status of the application; php-fpm always sends 0.
    pub app_status: u32,
    /// How the request ended.
    pub protocol_status: ProtocolStatus,
}

// === impl RecordType ===

impl RecordType {
    /// The type with this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            _ => return None,
        })
    }

    /// The specification's name, without `FCGI_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeginRequest => "BEGIN_REQUEST",
            Self::AbortRequest => "ABORT_REQUEST",
            Self::EndRequest => "END_REQUEST",
            Self::Params => "PARAMS",
            Self::Stdin => "STDIN",
            Self::Stdout => "STDOUT",
            Self::Stderr => "STDERR",
            Self::Data => "DATA",
            Self::GetValues => "GET_VALUES",
            Self::GetValuesResult => "GET_VALUES_RESULT",
            Self::UnknownType => "UNKNOWN_TYPE",
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Role ===

impl Role {
    /// The role with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Responder),
            2 => Some(Self::Authorizer),
            3 => Some(Self::Filter),
            _ => None,
        }
    }

    /// The specification's name, as php-fpm puts it into the parameter `FCGI_ROLE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Responder => "RESPONDER",
            Self::Authorizer => "AUTHORIZER",
            Self::Filter => "FILTER",
        }
    }
}

// === impl ProtocolStatus ===

impl ProtocolStatus {
    /// The status with this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::RequestComplete),
            1 => Some(Self::CantMpxConn),
            2 => Some(Self::Overloaded),
            3 => Some(Self::UnknownRole),
            _ => None,
        }
    }
}

// === impl Header ===

impl Header {
    /// Header of a record with `content_length` bytes of content, padded to a multiple of eight.
    pub(crate) fn padded(record: RecordType, request_id: u16, content_length: u16) -> Self {
        Self {
            type_byte: record as u8,
            request_id,
            content_length,
            padding_length: padding_of(usize::from(content_length)),
        }
    }

    /// Reads a header; only the version can be wrong.
    ///
    /// # Errors
    /// [`ProtocolError::Version`].
    pub fn decode(bytes: [u8; 8]) -> Result<Self, ProtocolError> {
        let [
            version,
            type_byte,
            id1,
            id0,
            length1,
            length0,
            padding_length,
            _reserved,
        ] = bytes;
        if version != 1 {
            return Err(ProtocolError::Version { found: version });
        }
        Ok(Self {
            type_byte,
            request_id: u16::from_be_bytes([id1, id0]),
            content_length: u16::from_be_bytes([length1, length0]),
            padding_length,
        })
    }

    /// The bytes of this header, version 1, reserved byte zero.
    pub fn encode(&self) -> [u8; 8] {
        let [id1, id0] = self.request_id.to_be_bytes();
        let [length1, length0] = self.content_length.to_be_bytes();
        [
            1,
            self.type_byte,
            id1,
            id0,
            length1,
            length0,
            self.padding_length,
            0,
        ]
    }

    /// The type, if the specification knows it.
    pub fn record_type(&self) -> Option<RecordType> {
        RecordType::from_byte(self.type_byte)
    }
}

// === impl EndRequest ===

impl EndRequest {
    /// Appends the whole record, 16 bytes. The three reserved bytes are zero (php-fpm sends old memory).
    pub fn encode(&self, buf: &mut Vec<u8>) {
        let [a, b, c, d] = self.app_status.to_be_bytes();
        let content = [a, b, c, d, self.protocol_status as u8, 0, 0, 0];
        push_record(buf, RecordType::EndRequest, self.request_id, &content);
    }

    pub(crate) fn decode(request_id: u16, content: [u8; 8]) -> Result<Self, ProtocolError> {
        let [a, b, c, d, status, ..] = content;
        let protocol_status =
            ProtocolStatus::from_byte(status).ok_or(ProtocolError::UnknownStatus { found: status })?;
        Ok(Self {
            request_id,
            app_status: u32::from_be_bytes([a, b, c, d]),
            protocol_status,
        })
    }
}

// === encoding ===

/// Bytes to add to `length` for a multiple of eight, the alignment that section 3.3 recommends.
pub(crate) fn padding_of(length: usize) -> u8 {
    const PADDING: [u8; 8] = [0, 7, 6, 5, 4, 3, 2, 1];
    PADDING[length % 8]
}

/// Appends `count` zero bytes of padding, at most 7.
pub(crate) fn push_padding(buf: &mut Vec<u8>, count: u8) {
    buf.extend_from_slice(&[0; 7][..usize::from(count)]);
}

/// Appends one record with its padding. `content` has at most [`MAX_CONTENT`] bytes.
pub(crate) fn push_record(buf: &mut Vec<u8>, record: RecordType, request_id: u16, content: &[u8]) {
    debug_assert!(content.len() <= MAX_CONTENT, "callers cut their content");
    let length = u16::try_from(content.len()).expect("callers cut their content at MAX_CONTENT");
    let header = Header::padded(record, request_id, length);
    buf.extend_from_slice(&header.encode());
    buf.extend_from_slice(content);
    push_padding(buf, header.padding_length);
}

/// Appends `content` as one or more records of a stream. Empty content appends nothing, because an empty
/// record would end the stream.
pub(crate) fn push_stream(buf: &mut Vec<u8>, record: RecordType, request_id: u16, content: &[u8]) {
    for part in content.chunks(MAX_CONTENT) {
        push_record(buf, record, request_id, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_with_the_specification() {
        for byte in 0..=u8::MAX {
            if let Some(record) = RecordType::from_byte(byte) {
                assert_eq!(record as u8, byte);
            } else {
                assert!(byte == 0 || byte > 11, "type {byte} has no name");
            }
        }
        assert_eq!(Role::from_number(1).map(Role::name), Some("RESPONDER"));
        assert_eq!(Role::from_number(2).map(Role::name), Some("AUTHORIZER"));
        assert_eq!(Role::from_number(3).map(Role::name), Some("FILTER"));
        assert_eq!(Role::from_number(0), None);
        assert_eq!(Role::from_number(4), None);
        assert_eq!(ProtocolStatus::from_byte(1), Some(ProtocolStatus::CantMpxConn));
        assert_eq!(ProtocolStatus::from_byte(4), None);
    }

    #[test]
    fn header_is_big_endian() {
        let header = Header {
            type_byte: 5,
            request_id: 0x0102,
            content_length: 0x0304,
            padding_length: 6,
        };
        assert_eq!(header.encode(), [1, 5, 1, 2, 3, 4, 6, 0]);
        assert_eq!(Header::decode(header.encode()), Ok(header));
    }

    #[test]
    fn a_line_of_http_is_not_a_header() {
        assert_eq!(
            Header::decode(*b"GET / HT"),
            Err(ProtocolError::Version { found: b'G' })
        );
    }

    #[test]
    fn end_request_has_zero_reserved_bytes() {
        let mut buf = Vec::new();
        let end = EndRequest {
            request_id: 7,
            app_status: 0x0102_0304,
            protocol_status: ProtocolStatus::Overloaded,
        };
        end.encode(&mut buf);
        assert_eq!(buf, [1, 3, 0, 7, 0, 8, 0, 0, 1, 2, 3, 4, 2, 0, 0, 0]);
    }

    #[test]
    fn streams_are_cut_and_padded() {
        let mut buf = Vec::new();
        push_stream(&mut buf, RecordType::Stdin, 1, &[b'x'; MAX_CONTENT + 3]);
        assert_eq!(buf[..8], [1, 5, 0, 1, 0xff, 0xf8, 0, 0]);
        assert_eq!(
            buf[8 + MAX_CONTENT..],
            [1, 5, 0, 1, 0, 3, 5, 0, b'x', b'x', b'x', 0, 0, 0, 0, 0]
        );
        buf.clear();
        push_stream(&mut buf, RecordType::Stdin, 1, b"");
        assert!(buf.is_empty());
    }
}
