//! The application's side of a connection: records in, one request at a time out.
//!
//! `decide` is the state machine: what a record means, given the phase of the request. The reader here
//! carries out the verdict on the record's content; `replies` has what is answered on the way.

mod decide;
mod replies;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::framer::Framer;
use crate::pairs::PairDecoder;
use crate::record::KEEP_CONN;
use crate::{Header, Limits, Params, ProtocolError, ProtocolStatus, RecordType, Role};
use decide::{Phase, Verdict, decide};

/// Decodes the requests of one connection, one after the other.
///
/// ```
/// use glasspool_fastcgi::{Event, Limits, RequestReader, Role, client::RequestEncoder};
///
/// let mut input = Vec::new();
/// RequestEncoder::begin(&mut input, 1, Role::Responder, false);
/// RequestEncoder::params(&mut input, 1, [("REQUEST_METHOD", "GET")]);
/// RequestEncoder::stdin_end(&mut input, 1);
///
/// let mut reader = RequestReader::new(Limits::default());
/// let mut replies = Vec::new();
/// let fed = reader.feed(&input, &mut replies)?;
/// assert_eq!(fed.event, Some(Event::Request));
/// assert_eq!(reader.params().get(b"REQUEST_METHOD"), Some(&b"GET"[..]));
/// let fed = reader.feed(&input[fed.consumed..], &mut replies)?;
/// assert_eq!(fed.event, Some(Event::StdinEnd));
/// # Ok::<(), glasspool_fastcgi::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct RequestReader {
    limits: Limits,
    framer: Framer,
    /// What the record in progress is.
    record: Record,
    phase: Phase,
    request: Begin,
    params: Params,
    decoder: PairDecoder,
    close_after_replies: bool,
    /// The error that ended the stream; told again to whoever asks again.
    failed: Option<ProtocolError>,
}

/// What [`RequestReader::feed`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that are done with. All of them, if there is no event. After an event the caller
    /// keeps the rest, and feeds it again before, or in front of, what it reads next.
    pub consumed: usize,
    /// What happened; `None`: more input is needed.
    pub event: Option<Event>,
}

/// What a web server wants of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request has begun and its parameters are complete.
    Request,
    /// Content of the body: this range of the input of the same call. Never empty.
    Stdin(Range<usize>),
    /// The body is complete. Comes once, after [`Event::Request`].
    StdinEnd,
    /// The web server no longer wants the answer (FCGI_ABORT_REQUEST). The request is to be ended all the
    /// same (section 5.4). Before [`Event::Request`] the parameters are incomplete.
    Aborted,
}

/// The record in progress, and what is left to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// None: a header comes next.
    Between,
    /// Content without a meaning for us.
    Skip,
    /// BEGIN_REQUEST with this id; its content is wanted whole.
    Begin { request_id: u16 },
    /// GET_VALUES; its content is wanted whole.
    GetValues,
    /// Content of PARAMS.
    Params,
    /// Content of STDIN.
    Stdin,
    /// An empty STDIN that ended the parameters too: its own event is still owed.
    StdinEnd,
}

/// What BEGIN_REQUEST said.
#[derive(Debug, Clone, Copy)]
struct Begin {
    request_id: u16,
    role: Role,
    keep_alive: bool,
}

const NO_REQUEST: Begin = Begin {
    request_id: 0,
    role: Role::Responder,
    keep_alive: false,
};

// === impl RequestReader ===

impl RequestReader {
    /// A reader at the start of a connection. Takes no memory yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            framer: Framer::default(),
            record: Record::Between,
            phase: Phase::Idle,
            request: NO_REQUEST,
            params: Params::new(),
            decoder: PairDecoder::default(),
            close_after_replies: false,
            failed: None,
        }
    }

    /// Consumes a prefix of `input` up to the next event, or all of it. The caller loops until there is no
    /// event, then reads more. Cut records are kept inside; body content is not copied.
    ///
    /// Answers that are due at once (GET_VALUES_RESULT, UNKNOWN_TYPE, END_REQUEST for a request that is
    /// refused) are appended to `replies`, over a connection never more than twice what was fed. They are
    /// whole records, to be sent between two records of a response ([`crate::ResponseWriter::raw`]).
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the connection is to be closed. Every later call gives the
    /// same error.
    pub fn feed(&mut self, input: &[u8], replies: &mut Vec<u8>) -> Result<Fed, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut consumed = 0;
        match self.advance(input, &mut consumed, replies) {
            Ok(event) => Ok(Fed { consumed, event }),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Id of the current request, to be repeated in its response; 0 without a request.
    pub fn request_id(&self) -> u16 {
        self.request.request_id
    }

    /// Role of the current request; Responder without one.
    pub fn role(&self) -> Role {
        self.request.role
    }

    /// Whether the web server wants to use the connection again after the current request.
    pub fn keep_alive(&self) -> bool {
        self.request.keep_alive
    }

    /// Parameters of the current request, complete once [`Event::Request`] came.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The same, to be changed before PHP sees them.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Whether the end of the body has been read, even if its event is yet to come.
    pub fn stdin_done(&self) -> bool {
        self.phase == Phase::Complete || self.record == Record::StdinEnd
    }

    /// Gets ready for the next request on this connection, in whatever state the current one is, and keeps
    /// the memory. What still comes for the old request is skipped, as is the rest of a record of it.
    pub fn next_request(&mut self) {
        self.phase = Phase::Idle;
        self.request = NO_REQUEST;
        self.params.clear();
        self.decoder.clear();
        self.record = match self.record {
            Record::Skip | Record::Params | Record::Stdin => Record::Skip,
            Record::Between | Record::StdinEnd => Record::Between,
            // Neither belongs to the old request.
            Record::Begin { .. } | Record::GetValues => self.record,
        };
    }

    /// Starts a new connection with the memory of the old one, as [`RequestReader::new`] would without.
    pub fn restart(&mut self) {
        self.next_request();
        self.framer = Framer::default();
        self.record = Record::Between;
        self.close_after_replies = false;
        self.failed = None;
    }

    /// No byte of a request has been seen since `new` or `next_request`, and no record is half-read: the
    /// connection could go on in another reader.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.framer.at_boundary()
    }

    /// A request of unknown role was refused, and its client did not ask to keep the connection: when no
    /// request is current, close it after the replies are sent (section 5.1, FCGI_KEEP_CONN).
    pub fn close_after_replies(&self) -> bool {
        self.close_after_replies
    }

    /// Bytes of heap held, kept from request to request. Bounded by the limits: parameters once in the
    /// arena and once, when they arrive in pieces, in a carry buffer, each up to doubled by growth.
    pub fn capacity_bytes(&self) -> usize {
        self.framer.capacity_bytes() + self.decoder.capacity_bytes() + self.params.capacity_bytes()
    }

    fn advance(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        replies: &mut Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        loop {
            match self.record {
                Record::Between => {
                    let Some(header) = self.framer.header(input, pos)? else {
                        return Ok(None);
                    };
                    if let Some(event) = self.start_record(header, replies)? {
                        return Ok(Some(event));
                    }
                }
                Record::Skip => {
                    self.framer.content(input, pos);
                    if self.framer.content_left() > 0 {
                        return Ok(None);
                    }
                    self.record = Record::Between;
                }
                Record::Begin { request_id } => {
                    let Some(whole) = self.framer.whole(input, pos) else {
                        return Ok(None);
                    };
                    let content = whole.bytes(&self.framer, input).first_chunk();
                    let content = *content.expect("start_record() has checked the length");
                    self.record = Record::Between;
                    self.begin(request_id, content, replies);
                }
                Record::GetValues => {
                    let Some(whole) = self.framer.whole(input, pos) else {
                        return Ok(None);
                    };
                    replies::push_values(whole.bytes(&self.framer, input), &self.limits, replies)?;
                    self.record = Record::Between;
                }
                Record::Params => {
                    let content = &input[self.framer.content(input, pos)];
                    self.decoder.decode(content, &mut self.params, &self.limits)?;
                    if self.framer.content_left() > 0 {
                        return Ok(None);
                    }
                    self.record = Record::Between;
                }
                Record::Stdin => {
                    let range = self.framer.content(input, pos);
                    if self.framer.content_left() == 0 {
                        self.record = Record::Between;
                    }
                    return Ok((!range.is_empty()).then_some(Event::Stdin(range)));
                }
                Record::StdinEnd => {
                    self.record = Record::Between;
                    self.phase = Phase::Complete;
                    return Ok(Some(Event::StdinEnd));
                }
            }
        }
    }

    /// Acts on a header. Events come from here when the record needs no content.
    fn start_record(
        &mut self,
        header: Header,
        replies: &mut Vec<u8>,
    ) -> Result<Option<Event>, ProtocolError> {
        self.record = Record::Skip;
        match decide(self.phase, self.request.request_id, &header) {
            Verdict::Skip => Ok(None),
            Verdict::Begin => {
                check_length(RecordType::BeginRequest, &header)?;
                self.record = Record::Begin {
                    request_id: header.request_id,
                };
                Ok(None)
            }
            Verdict::RefuseSecond => {
                check_length(RecordType::BeginRequest, &header)?;
                replies::refuse(header.request_id, ProtocolStatus::CantMpxConn, replies);
                Ok(None)
            }
            Verdict::Params => {
                self.record = Record::Params;
                Ok(None)
            }
            Verdict::ParamsEnd => {
                self.end_params()?;
                Ok(Some(Event::Request))
            }
            Verdict::ParamsAndStdinEnd => {
                self.end_params()?;
                self.record = Record::StdinEnd;
                Ok(Some(Event::Request))
            }
            Verdict::Stdin => {
                self.record = Record::Stdin;
                Ok(None)
            }
            Verdict::StdinEnd => {
                self.phase = Phase::Complete;
                Ok(Some(Event::StdinEnd))
            }
            Verdict::Abort => {
                self.params.settle();
                self.decoder.clear();
                self.phase = Phase::Aborted;
                Ok(Some(Event::Aborted))
            }
            Verdict::GetValues => {
                self.record = Record::GetValues;
                Ok(None)
            }
            Verdict::UnknownType => {
                replies::push_unknown_type(header.type_byte, replies);
                Ok(None)
            }
            Verdict::OutOfPlace(record, place) => Err(ProtocolError::OutOfPlace {
                record,
                request_id: header.request_id,
                content_length: header.content_length,
                place,
            }),
        }
    }

    fn begin(&mut self, request_id: u16, content: [u8; 8], replies: &mut Vec<u8>) {
        let [role1, role0, flags, ..] = content;
        let keep_alive = flags & KEEP_CONN != 0;
        match Role::from_number(u16::from_be_bytes([role1, role0])) {
            Some(role) => {
                self.request = Begin {
                    request_id,
                    role,
                    keep_alive,
                };
                self.phase = Phase::Params;
            }
            None => {
                replies::refuse(request_id, ProtocolStatus::UnknownRole, replies);
                self.close_after_replies |= !keep_alive;
            }
        }
    }

    fn end_params(&mut self) -> Result<(), ProtocolError> {
        self.decoder.finish()?;
        self.params.settle();
        self.phase = Phase::Stdin;
        Ok(())
    }
}

fn check_length(record: RecordType, header: &Header) -> Result<(), ProtocolError> {
    const EXPECTED: u16 = 8;
    if header.content_length == EXPECTED {
        return Ok(());
    }
    Err(ProtocolError::Length {
        record,
        found: header.content_length,
        expected: EXPECTED,
    })
}
