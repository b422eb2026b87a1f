//! Properties of the codec: what one side encodes the other decodes, however the bytes are cut into records
//! and reads; and no input panics, stalls, or takes memory past the limits.

use std::collections::HashMap;

use glasspool_fastcgi::client::{self, RequestEncoder, ResponseReader};
use glasspool_fastcgi::{
    EndRequest, Event, Header, Limits, ProtocolError, ProtocolStatus, RecordType, RequestReader,
    ResponseWriter, Role,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as the reader told it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    id: u16,
    keep_alive: bool,
    params: Pairs,
    body: Vec<u8>,
}

/// A response as the client reader told it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Response {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Option<EndRequest>,
}

// === reading, with reads of given sizes ===

/// A socket in miniature: hands out a stream in chunks, and keeps what was not consumed, as a caller does.
struct Reads<'a> {
    stream: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    start: usize,
    end: usize,
}

impl<'a> Reads<'a> {
    fn new(stream: &'a [u8], sizes: &'a [usize]) -> Self {
        Self {
            stream,
            sizes: sizes.iter().cycle(),
            start: 0,
            end: 0,
        }
    }

    fn unconsumed(&self) -> &'a [u8] {
        &self.stream[self.start..self.end]
    }

    /// False at the end of the stream.
    fn read(&mut self) -> bool {
        let size = self.sizes.next().copied().unwrap_or(usize::MAX).max(1);
        let before = self.end;
        self.end = self.end.saturating_add(size).min(self.stream.len());
        self.end > before
    }
}

/// Reads requests until the stream ends; a request is over with the end of its body.
fn read_requests(stream: &[u8], sizes: &[usize]) -> Result<(Vec<Request>, Vec<u8>), ProtocolError> {
    let mut reader = RequestReader::new(Limits::default());
    let mut reads = Reads::new(stream, sizes);
    let (mut requests, mut replies, mut current) = (Vec::new(), Vec::new(), Request::default());
    loop {
        let input = reads.unconsumed();
        let fed = reader.feed(input, &mut replies)?;
        reads.start += fed.consumed;
        match fed.event {
            None => {
                assert_eq!(
                    fed.consumed,
                    input.len(),
                    "without an event everything is consumed"
                );
                if !reads.read() {
                    return Ok((requests, replies));
                }
            }
            Some(Event::Request) => {
                current.id = reader.request_id();
                current.keep_alive = reader.keep_alive();
                current.params = reader
                    .params()
                    .iter()
                    .map(|(name, value)| (name.to_vec(), value.to_vec()))
                    .collect();
                for (with_nul, (name, value)) in reader.params().iter_with_nul().zip(reader.params().iter()) {
                    assert_eq!(
                        with_nul,
                        (&[name, b"\0"].concat()[..], &[value, b"\0"].concat()[..])
                    );
                }
            }
            Some(Event::Stdin(range)) => current.body.extend_from_slice(&input[range]),
            Some(Event::StdinEnd) => {
                assert!(reader.stdin_done());
                requests.push(std::mem::take(&mut current));
                reader.next_request();
            }
            Some(Event::Aborted) => panic!("nobody aborted"),
        }
    }
}

fn read_response(stream: &[u8], sizes: &[usize]) -> Result<Response, ProtocolError> {
    let mut reader = ResponseReader::new();
    let mut reads = Reads::new(stream, sizes);
    let mut response = Response::default();
    loop {
        let input = reads.unconsumed();
        let fed = reader.feed(input)?;
        reads.start += fed.consumed;
        match fed.event {
            None => {
                assert_eq!(
                    fed.consumed,
                    input.len(),
                    "without an event everything is consumed"
                );
                if !reads.read() {
                    return Ok(response);
                }
            }
            Some(client::Event::Stdout(range)) => response.stdout.extend_from_slice(&input[range]),
            Some(client::Event::Stderr(range)) => response.stderr.extend_from_slice(&input[range]),
            Some(client::Event::End(end)) => response.end = Some(end),
            Some(other) => panic!("{other:?} was not sent"),
        }
    }
}

// === encoding, with records of given sizes ===

/// Cuts streams into records of the given sizes and paddings, in turn, and puts records that are to be
/// skipped between them.
struct Cutter {
    shapes: Vec<(usize, u8, bool)>,
    next: usize,
}

impl Cutter {
    fn record(out: &mut Vec<u8>, record: u8, id: u16, content: &[u8], padding: u8) {
        let content_length = u16::try_from(content.len()).expect("callers cut at 65535");
        let header = Header {
            type_byte: record,
            request_id: id,
            content_length,
            padding_length: padding,
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(content);
        out.extend(std::iter::repeat_n(0xa5, usize::from(padding)));
    }

    fn stream(&mut self, out: &mut Vec<u8>, record: RecordType, id: u16, content: &[u8]) {
        let mut rest = content;
        loop {
            let (size, padding, stranger) = self.shapes[self.next % self.shapes.len()];
            self.next += 1;
            if stranger {
                Self::record(out, record as u8, id ^ 0x4000, b"not yours", padding);
                Self::record(out, RecordType::Data as u8, id, b"skipped", 1);
            }
            let (part, after) = rest.split_at(size.clamp(1, 0xffff).min(rest.len()));
            Self::record(out, record as u8, id, part, padding);
            if part.is_empty() {
                return;
            }
            rest = after;
        }
    }
}

fn encode_pairs(pairs: &Pairs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        for part in [name, value] {
            match u8::try_from(part.len()) {
                Ok(length) if length < 128 => out.push(length),
                _ => {
                    out.extend((u32::try_from(part.len()).expect("values are short") | 1 << 31).to_be_bytes())
                }
            }
        }
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    out
}

/// What a list of pairs means: each name once, at its first place, with its last value.
fn settled(pairs: &Pairs) -> Pairs {
    let last: HashMap<_, _> = pairs.iter().cloned().collect();
    let mut seen = std::collections::HashSet::new();
    let first = pairs.iter().filter(|(name, _)| seen.insert(name.clone()));
    first
        .map(|(name, _)| (name.clone(), last[name].clone()))
        .collect()
}

// === what to try ===

fn some_pairs() -> impl Strategy<Value = Pairs> {
    let name = prop_oneof![4 => vec(b'A'..=b'F', 0..3), 1 => vec(any::<u8>(), 100..200)];
    let value = prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 120..400)];
    prop_oneof![8 => vec((name.clone(), value.clone()), 0..30), 1 => vec((name, value), 60..120)]
}

fn some_sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![2 => 1..20usize, 1 => 20..2000usize, 1 => Just(usize::MAX)];
    vec(size, 1..8)
}

fn some_shapes() -> impl Strategy<Value = Vec<(usize, u8, bool)>> {
    let size = prop_oneof![2 => 1..20usize, 1 => 20..2000usize, 1 => Just(0xffff)];
    vec((size, any::<u8>(), prop::bool::weighted(0.2)), 1..8)
}

/// Small pieces as PHP writes them, and now and then more than a record holds.
fn some_write_size() -> impl Strategy<Value = usize> {
    prop_oneof![9 => 0..100usize, 1 => 60_000..140_000usize]
}

/// Records that are nearly right, so that garbage gets past the first header.
fn some_garbage() -> impl Strategy<Value = Vec<u8>> {
    let header = (0..14u8, 0..3u16, vec(any::<u8>(), 0..30), 0..9u8);
    let record = header.prop_map(|(record, id, content, padding)| {
        let mut out = Vec::new();
        Cutter::record(&mut out, record, id, &content, padding);
        out
    });
    let begin = (0..3u16, 0..5u8, any::<u8>()).prop_map(|(id, role, flags)| {
        let mut out = Vec::new();
        Cutter::record(&mut out, 1, id, &[0, role, flags, 0, 0, 0, 0, 0], 0);
        out
    });
    let bytes = vec(any::<u8>(), 0..40);
    vec(prop_oneof![6 => record, 3 => begin, 1 => bytes], 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn requests_survive_any_cut(
        requests in vec((1..0x4000u16, any::<bool>(), some_pairs(), vec(any::<u8>(), 0..3000)), 1..4),
        shapes in some_shapes(),
        sizes in some_sizes(),
    ) {
        let mut stream = Vec::new();
        let mut cutter = Cutter { shapes, next: 0 };
        for (id, keep, pairs, body) in &requests {
            RequestEncoder::begin(&mut stream, *id, Role::Responder, *keep);
            cutter.stream(&mut stream, RecordType::Params, *id, &encode_pairs(pairs));
            cutter.stream(&mut stream, RecordType::Stdin, *id, body);
        }
        let expected: Vec<_> = requests
            .into_iter()
            .map(|(id, keep_alive, pairs, body)| Request { id, keep_alive, params: settled(&pairs), body })
            .collect();
        let (read, replies) = read_requests(&stream, &sizes).unwrap();
        prop_assert_eq!(read, expected);
        prop_assert!(replies.is_empty());
    }

    #[test]
    fn requests_of_our_client_survive_any_cut(
        id in 1..=u16::MAX,
        pairs in some_pairs(),
        long in 0..150_000usize,
        body in 0..150_000usize,
        sizes in some_sizes(),
    ) {
        let mut pairs = pairs;
        pairs.push((b"LONG".to_vec(), vec![b'l'; long]));
        let body = vec![b'b'; body];
        let mut stream = Vec::new();
        RequestEncoder::begin(&mut stream, id, Role::Responder, true);
        RequestEncoder::params(&mut stream, id, pairs.iter().map(|(name, value)| (name, value)));
        RequestEncoder::stdin(&mut stream, id, &body);
        RequestEncoder::stdin_end(&mut stream, id);
        let (read, _) = read_requests(&stream, &sizes).unwrap();
        prop_assert_eq!(read, [Request { id, keep_alive: true, params: settled(&pairs), body }]);
    }

    #[test]
    fn responses_survive_any_cut(
        id in 1..=u16::MAX,
        writes in vec((any::<bool>(), some_write_size(), any::<u8>()), 0..20),
        takes in vec(prop_oneof![Just(0usize), 1..100usize, Just(usize::MAX)], 1..6),
        status in any::<u32>(),
        sizes in some_sizes(),
    ) {
        let mut writer = ResponseWriter::new();
        let (mut stream, mut expected) = (Vec::new(), Response::default());
        let mut take = |writer: &mut ResponseWriter, count: usize| {
            stream.extend_from_slice(&writer.pending()[..count.min(writer.pending_len())]);
            writer.consume(count);
        };
        writer.begin(id);
        for ((to_stderr, size, byte), count) in writes.into_iter().zip(takes.iter().cycle()) {
            let content = vec![byte; size];
            if to_stderr {
                writer.stderr(&content);
                expected.stderr.extend(content);
            } else {
                writer.stdout(&content);
                expected.stdout.extend(content);
            }
            take(&mut writer, *count);
        }
        writer.end(status, ProtocolStatus::RequestComplete);
        take(&mut writer, usize::MAX);
        prop_assert_eq!(writer.pending_len(), 0);
        prop_assert_eq!(stream.len() % 8, 0, "every record is padded");
        let protocol_status = ProtocolStatus::RequestComplete;
        expected.end = Some(EndRequest { request_id: id, app_status: status, protocol_status });
        prop_assert_eq!(read_response(&stream, &sizes), Ok(expected));
    }

    /// However a stream is cut, a peer sees the same: the same requests, or the same error.
    #[test]
    fn garbage_neither_panics_nor_stalls_nor_takes_memory(stream in some_garbage(), sizes in some_sizes()) {
        let limits = Limits { params_bytes: 256, params_count: 16, ..Limits::default() };
        let mut outcomes = Vec::new();
        for sizes in [&sizes[..], &[usize::MAX], &[1]] {
            let mut reader = RequestReader::new(limits.clone());
            let mut reads = Reads::new(&stream, sizes);
            let (mut replies, mut events, mut body) = (Vec::new(), Vec::new(), Vec::new());
            let error = loop {
                let input = reads.unconsumed();
                let fed = match reader.feed(input, &mut replies) {
                    Ok(fed) => fed,
                    Err(error) => break Some(error),
                };
                prop_assert!(fed.consumed <= input.len());
                reads.start += fed.consumed;
                prop_assert!(reader.params().bytes() <= limits.params_bytes);
                prop_assert!(reader.params().len() <= limits.params_count);
                prop_assert!(replies.len() <= 2 * reads.start);
                prop_assert!(reader.capacity_bytes() <= 2 * (256 + 264 + 16 * 32) + stream.len());
                match fed.event {
                    None => {
                        prop_assert_eq!(fed.consumed, input.len());
                        if !reads.read() {
                            break None;
                        }
                    }
                    Some(Event::Stdin(range)) => {
                        prop_assert!(!range.is_empty() && range.end <= fed.consumed);
                        body.extend_from_slice(&input[range]);
                    }
                    Some(event) => {
                        let over = event != Event::Request;
                        events.push((event, reader.request_id(), reader.params().len()));
                        if over && !reader.is_idle() {
                            reader.next_request();
                        }
                    }
                }
            };
            outcomes.push((events, body, replies, error));
        }
        prop_assert_eq!(&outcomes[0], &outcomes[1]);
        prop_assert_eq!(&outcomes[0], &outcomes[2]);
    }

    #[test]
    fn garbage_does_not_trouble_the_client(stream in some_garbage(), sizes in some_sizes()) {
        let mut reader = ResponseReader::new();
        let mut reads = Reads::new(&stream, &sizes);
        loop {
            let input = reads.unconsumed();
            let Ok(fed) = reader.feed(input) else { break };
            prop_assert!(fed.consumed <= input.len());
            prop_assert!(fed.consumed > 0 || fed.event.is_none(), "an event comes from bytes");
            reads.start += fed.consumed;
            prop_assert!(reader.capacity_bytes() <= 2 * 65535);
            if fed.event.is_none() && !reads.read() {
                break;
            }
        }
    }
}

#[test]
fn the_client_reads_management_answers() {
    let mut question = Vec::new();
    RequestEncoder::get_values(&mut question, ["FCGI_MAX_CONNS", "FCGI_MPXS_CONNS", "X"]);
    let unknown = Header {
        type_byte: 200,
        request_id: 0,
        content_length: 0,
        padding_length: 0,
    };
    question.extend_from_slice(&unknown.encode());
    let mut server = RequestReader::new(Limits {
        max_conns: 8,
        ..Limits::default()
    });
    let mut answer = Vec::new();
    let fed = server.feed(&question, &mut answer).unwrap();
    assert_eq!((fed.consumed, fed.event), (question.len(), None));

    let mut client = ResponseReader::new();
    let fed = client.feed(&answer).unwrap();
    let values = vec![
        (b"FCGI_MAX_CONNS".to_vec(), b"8".to_vec()),
        (b"FCGI_MPXS_CONNS".to_vec(), b"0".to_vec()),
    ];
    assert_eq!(fed.event, Some(client::Event::Values(values)));
    let fed = client.feed(&answer[fed.consumed..]).unwrap();
    assert_eq!(fed.event, Some(client::Event::UnknownType(200)));
}

#[test]
fn the_client_refuses_what_an_application_does_not_send() {
    let mut request = Vec::new();
    RequestEncoder::begin(&mut request, 1, Role::Responder, false);
    let error = ResponseReader::new().feed(&request).unwrap_err();
    assert!(
        matches!(
            error,
            ProtocolError::OutOfPlace {
                record: RecordType::BeginRequest,
                ..
            }
        ),
        "{error}"
    );
    let mut end = Vec::new();
    EndRequest {
        request_id: 1,
        app_status: 0,
        protocol_status: ProtocolStatus::Overloaded,
    }
    .encode(&mut end);
    end[12] = 9;
    let error = ResponseReader::new().feed(&end).unwrap_err();
    assert_eq!(error, ProtocolError::UnknownStatus { found: 9 });
}

#[test]
fn parameters_past_the_limit_are_refused_in_whatever_pieces_they_come() {
    let limits = Limits {
        params_bytes: 100_000,
        params_count: 5000,
        ..Limits::default()
    };
    let outcome = |pairs: Vec<(String, Vec<u8>)>, size: usize| {
        let mut stream = Vec::new();
        RequestEncoder::begin(&mut stream, 1, Role::Responder, false);
        RequestEncoder::params(&mut stream, 1, pairs.iter().map(|(name, value)| (name, value)));
        let mut reader = RequestReader::new(limits.clone());
        let mut last = Ok(None);
        for chunk in stream.chunks(size) {
            last = reader.feed(chunk, &mut Vec::new()).map(|fed| fed.event);
        }
        last
    };
    for size in [1, 1000, usize::MAX] {
        // Name, value and two terminating bytes: exactly the limit, then one more.
        let fits = outcome(vec![("N".into(), vec![0; 99_997])], size);
        assert_eq!(fits, Ok(Some(Event::Request)));
        let error = outcome(vec![("N".into(), vec![0; 99_998])], size).unwrap_err();
        assert_eq!(
            error,
            ProtocolError::ParamsTooLarge {
                needed: 100_001,
                limit: 100_000
            }
        );
        let many = |count: usize| (0..count).map(|index| (format!("{index:04}"), vec![])).collect();
        assert_eq!(outcome(many(5000), size), Ok(Some(Event::Request)));
        let error = outcome(many(5001), size).unwrap_err();
        assert_eq!(
            error,
            ProtocolError::TooManyPairs {
                record: RecordType::Params,
                limit: 5000
            }
        );
    }
}
