//! Behaviour of the reader on streams written by hand.

use super::*;
use crate::client::RequestEncoder;

/// What a run over a whole input gave.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request,
    Stdin(Vec<u8>),
    StdinEnd,
    Aborted,
}

fn record(type_byte: u8, request_id: u16, content: &[u8], padding_length: u8) -> Vec<u8> {
    let content_length = u16::try_from(content.len()).unwrap();
    let header = Header {
        type_byte,
        request_id,
        content_length,
        padding_length,
    };
    [
        &header.encode()[..],
        content,
        &vec![0xee; usize::from(padding_length)],
    ]
    .concat()
}

fn begin(request_id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(1, request_id, &[0, role, flags, 0, 0, 0, 0, 0], 0)
}

/// Feeds everything and checks that "no event" means that everything was consumed.
fn run(reader: &mut RequestReader, input: &[u8], replies: &mut Vec<u8>) -> Result<Vec<Seen>, ProtocolError> {
    let mut seen = Vec::new();
    let mut rest = input;
    loop {
        let fed = reader.feed(rest, replies)?;
        seen.push(match fed.event {
            None => {
                assert_eq!(fed.consumed, rest.len());
                return Ok(seen);
            }
            Some(Event::Request) => Seen::Request,
            Some(Event::Stdin(range)) => Seen::Stdin(rest[range].to_vec()),
            Some(Event::StdinEnd) => Seen::StdinEnd,
            Some(Event::Aborted) => Seen::Aborted,
        });
        rest = &rest[fed.consumed..];
    }
}

fn run_new(parts: &[Vec<u8>]) -> (RequestReader, Result<Vec<Seen>, ProtocolError>, Vec<u8>) {
    let mut reader = RequestReader::new(Limits {
        max_conns: 12,
        max_reqs: 34,
        ..Limits::default()
    });
    let mut replies = Vec::new();
    let result = run(&mut reader, &parts.concat(), &mut replies);
    (reader, result, replies)
}

fn error_of(parts: &[Vec<u8>]) -> ProtocolError {
    run_new(parts).1.unwrap_err()
}

#[test]
fn a_restart_forgets_the_connection_before() {
    let mut reader = RequestReader::new(Limits::default());
    let mut replies = Vec::new();
    reader
        .feed(&[1, 1, 0, 1, 0, 8, 0, 0, 0, 1], &mut replies)
        .expect("half a record");
    assert!(!reader.is_idle());
    reader.restart();
    assert!(reader.is_idle());
    reader
        .feed(b"GET / HTTP/1.1", &mut replies)
        .expect_err("not FastCGI");
    reader.restart();
    let mut input = Vec::new();
    crate::client::RequestEncoder::begin(&mut input, 7, Role::Responder, true);
    crate::client::RequestEncoder::params(&mut input, 7, [(&b"A"[..], &b"b"[..])]);
    let fed = reader.feed(&input, &mut replies).expect("FastCGI");
    assert_eq!(fed.event, Some(Event::Request));
    assert_eq!(reader.params().get(b"A"), Some(&b"b"[..]));
}

#[test]
fn a_request_with_a_body() {
    let (reader, seen, replies) = run_new(&[
        begin(0x0102, 1, 1),
        record(4, 0x0102, b"\x01\x02Abc", 3),
        record(4, 0x0102, b"", 7),
        record(5, 0x0102, b"body", 4),
        record(5, 0x0102, b"", 0),
    ]);
    assert_eq!(
        seen,
        Ok(vec![Seen::Request, Seen::Stdin(b"body".to_vec()), Seen::StdinEnd])
    );
    assert_eq!(
        (reader.request_id(), reader.role(), reader.keep_alive()),
        (0x0102, Role::Responder, true)
    );
    assert_eq!(reader.params().get(b"A"), Some(&b"bc"[..]));
    assert!(reader.stdin_done());
    assert!(!reader.is_idle());
    assert!(replies.is_empty());
}

#[test]
fn a_pair_may_straddle_records_and_repeated_names_take_the_last_value() {
    let (reader, seen, _) = run_new(&[
        begin(1, 3, 0),
        record(4, 1, b"\x04", 0),
        record(4, 1, b"\x03NA", 5),
        record(4, 1, b"MEabc\x01\x01Xy\x04\x01N", 0),
        record(4, 1, b"AMEz", 0),
        record(4, 1, b"", 0),
    ]);
    assert_eq!(seen, Ok(vec![Seen::Request]));
    let params: Vec<_> = reader.params().iter().collect();
    assert_eq!(params, [(&b"NAME"[..], &b"z"[..]), (b"X", b"y")]);
    assert_eq!((reader.role(), reader.keep_alive()), (Role::Filter, false));
}

#[test]
fn parameters_that_end_inside_a_pair_are_refused() {
    let error = error_of(&[
        begin(1, 1, 1),
        record(4, 1, b"\x01\x02AbcB", 3),
        record(4, 1, b"", 0),
    ]);
    assert_eq!(
        error,
        ProtocolError::PairTruncated {
            record: RecordType::Params,
            found: 1,
            needed: 2
        }
    );
}

#[test]
fn get_values_is_answered_wherever_it_comes() {
    let ask = record(
        9,
        0,
        b"\x0f\0FCGI_MPXS_CONNS\x03\0FOO\x0d\0FCGI_MAX_REQS\x0d\0FCGI_MAX_REQS",
        2,
    );
    let (mut reader, seen, replies) = run_new(&[ask.clone(), ask.clone()]);
    assert_eq!(seen, Ok(vec![]));
    assert!(reader.is_idle(), "management is not a request");
    let answer = record(10, 0, b"\x0d\x02FCGI_MAX_REQS34\x0f\x01FCGI_MPXS_CONNS0", 0);
    let mut padded = answer.clone();
    padded[6] = 5;
    padded.extend([0; 5]);
    assert_eq!(replies, [padded.clone(), padded.clone()].concat());

    let mut replies = Vec::new();
    let input = [begin(1, 1, 0), ask.clone(), record(4, 1, b"\x01\x01A", 0), ask].concat();
    for byte in input {
        assert_eq!(
            reader.feed(&[byte], &mut replies),
            Ok(Fed {
                consumed: 1,
                event: None
            })
        );
    }
    assert_eq!(replies, [padded.clone(), padded].concat());
    assert!(!reader.is_idle());
}

#[test]
fn a_broken_question_is_an_error() {
    let error = error_of(&[record(9, 0, b"\x0f\0FCGI", 0)]);
    assert_eq!(
        error,
        ProtocolError::PairTruncated {
            record: RecordType::GetValues,
            found: 6,
            needed: 17
        }
    );
}

#[test]
fn unknown_management_records_are_named_back() {
    let (reader, seen, replies) = run_new(&[record(12, 0, b"whatever", 1), record(0, 0, b"", 0)]);
    assert_eq!(seen, Ok(vec![]));
    assert_eq!(
        replies,
        [record(11, 0, b"\x0c\0\0\0\0\0\0\0", 0), record(11, 0, &[0; 8], 0)].concat()
    );
    assert!(reader.is_idle());
}

#[test]
fn an_unknown_role_is_refused_and_its_records_skipped() {
    let (reader, seen, replies) = run_new(&[
        begin(9, 4, 1),
        record(4, 9, b"\xff not pairs", 0),
        record(5, 9, b"x", 0),
        record(2, 9, b"", 0),
    ]);
    assert_eq!(seen, Ok(vec![]));
    assert_eq!(replies, record(3, 9, b"\0\0\0\0\x03\0\0\0", 0));
    assert!(reader.is_idle() && !reader.close_after_replies());
    assert!(run_new(&[begin(9, 0, 0)]).0.close_after_replies());
}

#[test]
fn a_second_request_is_refused_while_one_is_active() {
    let (_, seen, replies) = run_new(&[
        begin(1, 1, 1),
        begin(2, 1, 1),
        record(4, 2, b"\xff", 0),
        record(4, 1, b"", 0),
        record(5, 2, b"x", 0),
        record(5, 1, b"", 0),
        begin(3, 1, 1),
        record(2, 3, b"", 0),
    ]);
    assert_eq!(seen, Ok(vec![Seen::Request, Seen::StdinEnd]));
    let refused = |id| record(3, id, b"\0\0\0\0\x01\0\0\0", 0);
    assert_eq!(replies, [refused(2), refused(3)].concat());
}

#[test]
fn abort_is_told_in_every_phase_once() {
    let abort = || record(2, 1, b"", 0);
    let params_end = || record(4, 1, b"", 0);
    let (mut reader, seen, _) = run_new(&[begin(1, 1, 1), record(4, 1, b"\x05", 0), abort(), abort()]);
    assert_eq!(seen, Ok(vec![Seen::Aborted]));
    reader.next_request();
    let input = [
        begin(1, 1, 0),
        params_end(),
        record(5, 1, b"x", 0),
        abort(),
        record(5, 1, b"y", 0),
    ]
    .concat();
    let seen = run(&mut reader, &input, &mut Vec::new());
    assert_eq!(
        seen,
        Ok(vec![Seen::Request, Seen::Stdin(b"x".to_vec()), Seen::Aborted])
    );
    let (_, seen, _) = run_new(&[begin(1, 1, 1), params_end(), record(5, 1, b"", 0), abort()]);
    assert_eq!(seen, Ok(vec![Seen::Request, Seen::StdinEnd, Seen::Aborted]));
}

#[test]
fn an_empty_stdin_ends_the_parameters_too() {
    let mut reader = RequestReader::new(Limits::default());
    let input = [
        begin(1, 1, 0),
        record(4, 1, b"\x01\x01Ab", 0),
        record(5, 1, b"", 0),
    ]
    .concat();
    let fed = reader.feed(&input, &mut Vec::new()).unwrap();
    assert_eq!(
        fed,
        Fed {
            consumed: input.len(),
            event: Some(Event::Request)
        }
    );
    assert!(reader.stdin_done(), "known although its event is still owed");
    let fed = reader.feed(b"", &mut Vec::new()).unwrap();
    assert_eq!(fed.event, Some(Event::StdinEnd));
    assert_eq!(reader.feed(b"", &mut Vec::new()).unwrap().event, None);
}

#[test]
fn the_rest_of_a_request_that_was_answered_early_is_skipped() {
    let mut reader = RequestReader::new(Limits::default());
    let first = [
        begin(1, 1, 1),
        record(4, 1, b"\x01\x01Ab", 0),
        record(4, 1, b"", 0),
        record(5, 1, b"body", 4),
    ];
    let second = [
        record(5, 1, b"more", 0),
        record(5, 1, b"", 0),
        begin(1, 1, 1),
        record(4, 1, b"", 0),
    ];
    let first = first.concat();
    let (head, tail) = first.split_at(first.len() - 6);
    let seen = run(&mut reader, head, &mut Vec::new());
    assert_eq!(seen, Ok(vec![Seen::Request, Seen::Stdin(b"bo".to_vec())]));

    reader.next_request();
    assert!(!reader.is_idle(), "in the middle of a record");
    assert!(reader.params().is_empty());
    assert_eq!((reader.request_id(), reader.stdin_done()), (0, false));
    assert_eq!(run(&mut reader, tail, &mut Vec::new()), Ok(vec![]));
    assert!(reader.is_idle());
    assert_eq!(
        run(&mut reader, &second.concat(), &mut Vec::new()),
        Ok(vec![Seen::Request])
    );
    assert!(reader.params().is_empty());
}

#[test]
fn idle_means_that_nothing_is_kept_inside() {
    let mut reader = RequestReader::new(Limits::default());
    assert!(reader.is_idle());
    let stray = record(5, 0, b"", 0);
    assert_eq!(run(&mut reader, &stray, &mut Vec::new()), Ok(vec![]));
    assert!(reader.is_idle(), "php-fpm skips empty STDIN records too");
    assert_eq!(
        run(&mut reader, &begin(1, 1, 0)[..1], &mut Vec::new()),
        Ok(vec![])
    );
    assert!(!reader.is_idle());
}

#[test]
fn records_out_of_place() {
    let place = |parts: &[Vec<u8>]| match error_of(parts) {
        ProtocolError::OutOfPlace {
            record, request_id, ..
        } => (record, request_id),
        other => panic!("{other}"),
    };
    let params_end = || record(4, 1, b"", 0);
    assert_eq!(place(&[begin(0, 1, 0)]), (RecordType::BeginRequest, 0));
    assert_eq!(place(&[record(5, 0, b"x", 0)]), (RecordType::Stdin, 0));
    assert_eq!(place(&[record(10, 0, b"", 0)]), (RecordType::GetValuesResult, 0));
    assert_eq!(
        place(&[begin(1, 1, 0), begin(1, 1, 0)]),
        (RecordType::BeginRequest, 1)
    );
    assert_eq!(
        place(&[begin(1, 1, 0), record(5, 1, b"x", 0)]),
        (RecordType::Stdin, 1)
    );
    assert_eq!(
        place(&[begin(1, 1, 0), record(6, 1, b"x", 0)]),
        (RecordType::Stdout, 1)
    );
    assert_eq!(
        place(&[begin(1, 1, 0), params_end(), record(4, 1, b"x", 0)]),
        (RecordType::Params, 1)
    );
    let end = || record(5, 1, b"", 0);
    assert_eq!(
        place(&[begin(1, 1, 0), params_end(), end(), record(5, 1, b"x", 0)]),
        (RecordType::Stdin, 1)
    );
    let (_, seen, _) = run_new(&[begin(1, 1, 0), record(8, 1, b"x", 0), params_end(), end(), end()]);
    assert_eq!(
        seen,
        Ok(vec![Seen::Request, Seen::StdinEnd]),
        "DATA and a second end are skipped"
    );
}

#[test]
fn errors_say_what_was_found_and_stay() {
    let (mut reader, seen, _) = run_new(&[b"GET / HTTP/1.1\r\n".to_vec()]);
    let error = seen.unwrap_err();
    assert_eq!(error, ProtocolError::Version { found: 71 });
    assert_eq!(
        error.to_string(),
        "cannot read record: protocol version is 71, expected 1 (does the peer speak FastCGI?)"
    );
    assert_eq!(reader.feed(&begin(1, 1, 0), &mut Vec::new()), Err(error));
    let error = error_of(&[record(1, 1, &[0; 7], 1)]);
    assert_eq!(
        error,
        ProtocolError::Length {
            record: RecordType::BeginRequest,
            found: 7,
            expected: 8
        }
    );
    assert_eq!(
        error.to_string(),
        "cannot read BEGIN_REQUEST record: content is 7 bytes, expected 8"
    );
    let error = error_of(&[begin(1, 1, 0), record(5, 1, b"x", 0)]);
    assert_eq!(
        error.to_string(),
        "STDIN record (request id 1, content length 1) is out of place before the end of PARAMS"
    );
}

#[test]
fn no_memory_is_taken_after_the_first_request() {
    let mut reader = RequestReader::new(Limits::default());
    let mut input = Vec::new();
    RequestEncoder::begin(&mut input, 1, Role::Responder, true);
    let pairs = (0..30).map(|index| (format!("NAME_{index}"), "a value of ordinary length"));
    RequestEncoder::params(&mut input, 1, pairs);
    RequestEncoder::stdin_end(&mut input, 1);
    let mut run_once = || {
        assert_eq!(
            run(&mut reader, &input, &mut Vec::new()),
            Ok(vec![Seen::Request, Seen::StdinEnd])
        );
        assert_eq!(reader.params().len(), 30);
        reader.next_request();
        reader.capacity_bytes()
    };
    let warm = run_once();
    assert_eq!(run_once(), warm);
}
