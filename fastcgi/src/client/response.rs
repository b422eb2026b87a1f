//! Responses in.

use std::ops::Range;

use crate::framer::Framer;
use crate::pairs::pairs;
use crate::{EndRequest, Header, ProtocolError, RecordType};

/// Most pairs taken from one GET_VALUES_RESULT; the specification defines three variables.
const MAX_VALUES: usize = 256;

/// Decodes what an application sends on one connection.
///
/// Events tell what a record held, [`ResponseReader::request_id`] for which request; a client with one
/// request at a time need not ask. Empty STDOUT and STDERR records, the ends of their streams, are skipped:
/// END_REQUEST ends both, and php-fpm sends nothing else.
#[derive(Debug, Default)]
pub struct ResponseReader {
    framer: Framer,
    record: Record,
    request_id: u16,
    failed: Option<ProtocolError>,
}

/// What [`ResponseReader::feed`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that are done with. All of them, if there is no event. After an event the caller
    /// keeps the rest, and feeds it again before, or in front of, what it reads next.
    pub consumed: usize,
    /// What happened; `None`: more input is needed.
    pub event: Option<Event>,
}

/// What an application says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part of the response: this range of the input of the same call. Never empty.
    Stdout(Range<usize>),
    /// A part of the error stream: this range of the input of the same call. Never empty.
    Stderr(Range<usize>),
    /// A request has ended.
    End(EndRequest),
    /// The answer to GET_VALUES: names and values in the order sent.
    Values(Vec<(Vec<u8>, Vec<u8>)>),
    /// The application does not know this type of management record.
    UnknownType(u8),
}

/// The record in progress, and what is left to do with it.
#[derive(Debug, Default, Clone, Copy)]
enum Record {
    /// None: a header comes next.
    #[default]
    Between,
    Skip,
    Stdout,
    Stderr,
    /// These are wanted whole.
    End,
    Values,
    UnknownType,
}

impl ResponseReader {
    /// A reader at the start of a connection. Takes no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Consumes a prefix of `input` up to the next event, or all of it. The caller loops until there is no
    /// event, then reads more. Cut records are kept inside; streams are not copied.
    ///
    /// # Errors
    /// The peer broke the protocol; the connection is to be closed. Every later call gives the same error.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut consumed = 0;
        match self.advance(input, &mut consumed) {
            Ok(event) => Ok(Fed { consumed, event }),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Request id of the record that the last event came from; 0 for management records.
    pub fn request_id(&self) -> u16 {
        self.request_id
    }

    /// Bytes of heap held: at most 128 KiB, whatever arrives.
    pub fn capacity_bytes(&self) -> usize {
        self.framer.capacity_bytes()
    }

    fn advance(&mut self, input: &[u8], pos: &mut usize) -> Result<Option<Event>, ProtocolError> {
        loop {
            match self.record {
                Record::Between => {
                    let Some(header) = self.framer.header(input, pos)? else {
                        return Ok(None);
                    };
                    self.request_id = header.request_id;
                    self.record = start_record(&header)?;
                }
                Record::Skip => {
                    self.framer.content(input, pos);
                    if self.framer.content_left() > 0 {
                        return Ok(None);
                    }
                    self.record = Record::Between;
                }
                Record::Stdout => return Ok(self.stream(input, pos).map(Event::Stdout)),
                Record::Stderr => return Ok(self.stream(input, pos).map(Event::Stderr)),
                Record::End | Record::Values | Record::UnknownType => {
                    let Some(whole) = self.framer.whole(input, pos) else {
                        return Ok(None);
                    };
                    let event = self.decode(whole.bytes(&self.framer, input))?;
                    self.record = Record::Between;
                    return Ok(Some(event));
                }
            }
        }
    }

    fn stream(&mut self, input: &[u8], pos: &mut usize) -> Option<Range<usize>> {
        let range = self.framer.content(input, pos);
        if self.framer.content_left() == 0 {
            self.record = Record::Between;
        }
        (!range.is_empty()).then_some(range)
    }

    fn decode(&self, content: &[u8]) -> Result<Event, ProtocolError> {
        if let Record::Values = self.record {
            return decode_values(content);
        }
        let content: [u8; 8] = *content
            .first_chunk()
            .expect("start_record() has checked the length");
        Ok(match self.record {
            Record::End => Event::End(EndRequest::decode(self.request_id, content)?),
            _ => Event::UnknownType(content[0]),
        })
    }
}

/// What to do with the content behind this header.
fn start_record(header: &Header) -> Result<Record, ProtocolError> {
    let Some(record) = header.record_type() else {
        return Ok(Record::Skip);
    };
    let out_of_place = |place| ProtocolError::OutOfPlace {
        record,
        request_id: header.request_id,
        content_length: header.content_length,
        place,
    };
    let management = match record {
        RecordType::GetValuesResult | RecordType::UnknownType => true,
        RecordType::EndRequest | RecordType::Stdout | RecordType::Stderr => false,
        RecordType::BeginRequest
        | RecordType::AbortRequest
        | RecordType::Params
        | RecordType::Stdin
        | RecordType::Data
        | RecordType::GetValues => return Err(out_of_place("(an application does not send it)")),
    };
    if management != (header.request_id == 0) {
        return Err(out_of_place(
            "(management records have request id 0, others have not)",
        ));
    }
    match record {
        RecordType::EndRequest | RecordType::UnknownType if header.content_length != 8 => {
            Err(ProtocolError::Length {
                record,
                found: header.content_length,
                expected: 8,
            })
        }
        RecordType::EndRequest => Ok(Record::End),
        RecordType::UnknownType => Ok(Record::UnknownType),
        RecordType::GetValuesResult => Ok(Record::Values),
        _ if header.content_length == 0 => Ok(Record::Skip),
        RecordType::Stderr => Ok(Record::Stderr),
        _ => Ok(Record::Stdout),
    }
}

fn decode_values(content: &[u8]) -> Result<Event, ProtocolError> {
    let record = RecordType::GetValuesResult;
    let mut values = Vec::new();
    for pair in pairs(record, content) {
        let (name, value) = pair?;
        if values.len() == MAX_VALUES {
            return Err(ProtocolError::TooManyPairs {
                record,
                limit: MAX_VALUES,
            });
        }
        values.push((name.to_vec(), value.to_vec()));
    }
    Ok(Event::Values(values))
}
