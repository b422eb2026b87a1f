use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glasspool_abi::record::{End, FINISHED_EARLY};
use proptest::prelude::*;

use super::*;
use crate::semconv::Conventions;
use crate::span::server_span;
use crate::span::tests::{begin, end, facts};

const MS: u64 = 1_000_000;

fn query() -> WaitSpan {
    WaitSpan {
        began_mono_ns: begin().start_mono_ns + 100 * MS,
        blocked_ns: 50 * MS,
        runqueue_ns: 3 * MS,
        class: "network",
        syscall: Some("poll".into()),
        function: Some("mysqli_query".to_owned()),
        file: Some("/srv/wp-db.php".to_owned()),
        line: Some(2347),
        stacktrace: "#0 /srv/wp-db.php(2347): mysqli_query()\n#1 {main}".into(),
        peer: Some(Peer {
            address: "127.0.0.1".to_owned(),
            port: Some(3306),
            transport: Some("tcp".to_owned()),
        }),
        tcp: Some(TcpState {
            state: "established",
            receive_queue: 0,
            send_queue: 23,
        }),
        file_name: None,
    }
}

fn place(blocked_ms: u64, line: u32) -> WaitPlace {
    WaitPlace {
        function: Some("mysqli_query".to_owned()),
        file: Some("/srv/wp-db.php".to_owned()),
        line: Some(line),
        class: "network",
        with: Some("127.0.0.1:3306".to_owned()),
        blocked_ns: blocked_ms * MS,
        waits: 3,
    }
}

/// The span of that request, and those below it.
fn spans(end: &End, waits: &RequestWaits) -> (SpanData, Vec<SpanData>) {
    let mut span = server_span(end, &facts(), &[], &Conventions::default());
    let account = Account {
        times: &end.times,
        end_mono_ns: end.end_mono_ns,
        cpu_ns: end.cpu_user_ns + end.cpu_system_ns,
        waits,
    };
    let children = tell(&mut span, &end.begin, &facts(), &account);
    (span, children)
}

fn all(times: Times) -> End {
    End {
        times: Known::All(times),
        ..end()
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let mut found = span.attributes.iter().filter(|pair| pair.key.as_str() == key);
    let value = found.next().map(|pair| pair.value.to_string());
    assert_eq!(found.next(), None, "{key} is there twice");
    value
}

fn at(mono_ns: u64) -> SystemTime {
    let since = mono_ns - begin().start_mono_ns;
    UNIX_EPOCH + Duration::from_nanos(begin().start_unix_ns + since)
}

#[test]
fn what_was_seen_on_a_cpu_is_told_whatever_else_is_known() {
    let waits = RequestWaits {
        on_cpu: OnCpu {
            samples: 2,
            places: vec![("md5 /srv/a.php:3".to_owned(), 2)],
        },
        ..RequestWaits::default()
    };
    for end in [end(), all(Times::default())] {
        let (parent, _) = spans(&end, &waits);
        let found = ["php.cpu.samples", "php.cpu.top_frames"].map(|key| attribute(&parent, key));
        let expected = ["2", "[\"md5 /srv/a.php:3 100%\"]"];
        assert_eq!(found, expected.map(|text| Some(text.to_owned())));
    }
}

#[test]
fn a_wait_for_a_connection_is_a_client_span_below_the_request() {
    let waits = RequestWaits {
        spans: vec![query()],
        ..RequestWaits::default()
    };
    let (parent, children) = spans(&all(Times::default()), &waits);
    let [child] = &children[..] else {
        panic!("{} spans", children.len());
    };
    let (context, above) = (&child.span_context, &parent.span_context);
    assert_eq!(child.parent_span_id, above.span_id());
    assert!(!child.parent_span_is_remote);
    assert_eq!(context.trace_id(), above.trace_id());
    assert_eq!(context.trace_flags(), above.trace_flags());
    assert_ne!(context.span_id(), above.span_id());
    assert!(context.is_valid());
    assert_eq!(
        (child.name.as_ref(), &child.span_kind),
        ("mysqli_query", &SpanKind::Client)
    );
    assert_eq!(child.start_time, at(query().began_mono_ns));
    assert_eq!(child.end_time, at(query().began_mono_ns + 50 * MS));
    for (key, value) in [
        ("php.wait_class", "network"),
        ("php.wait_syscall", "poll"),
        ("php.time.runqueue", "0.003"),
        ("code.function.name", "mysqli_query"),
        ("code.file.path", "/srv/wp-db.php"),
        ("code.line.number", "2347"),
        (
            "code.stacktrace",
            "#0 /srv/wp-db.php(2347): mysqli_query()\n#1 {main}",
        ),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", "3306"),
        ("network.transport", "tcp"),
        ("php.pool", "www"),
        ("process.pid", "123"),
    ] {
        assert_eq!(attribute(child, key).as_deref(), Some(value), "{key}");
    }
}

#[test]
fn any_other_wait_is_internal_and_named_for_what_is_known() {
    let lock = WaitSpan {
        function: Some("flock".to_owned()),
        class: "lock",
        peer: None,
        file_name: Some("cache.lock".to_owned()),
        ..query()
    };
    let unknown = WaitSpan {
        function: None,
        file: None,
        line: None,
        stacktrace: "".into(),
        ..lock.clone()
    };
    let waits = RequestWaits {
        spans: vec![lock, unknown],
        ..RequestWaits::default()
    };
    let (_, children) = spans(&all(Times::default()), &waits);
    assert!(children.iter().all(|child| child.span_kind == SpanKind::Internal));
    assert_eq!([&children[0].name, &children[1].name], ["flock", "wait"]);
    assert_eq!(
        attribute(&children[0], "file.name").as_deref(),
        Some("cache.lock")
    );
    for absent in ["code.function.name", "code.stacktrace", "network.peer.address"] {
        assert_eq!(attribute(&children[1], absent), None, "{absent}");
    }
    let [one, other] = [0, 1].map(|n| children[n].span_context.span_id());
    assert_ne!(one, other);
}

#[test]
fn the_request_tells_where_it_waited_most() {
    let waits = RequestWaits {
        places: (1..=9).map(|n| place(u64::from(n) * 100, n)).collect(),
        ..RequestWaits::default()
    };
    let times = Times {
        waits: 12,
        ..Times::default()
    };
    let (span, _) = spans(&all(times), &waits);
    assert_eq!(attribute(&span, "php.waits.count").as_deref(), Some("12"));
    let top = attribute(&span, "php.waits.top").expect("it has waited");
    assert!(
        top.starts_with("[\"mysqli_query /srv/wp-db.php:9 network 127.0.0.1:3306 0.900 s in 3\",")
            && top.matches("mysqli_query").count() == MOST_PLACES,
        "{top}"
    );
    for absent in ["php.waits.lost", "php.waits.spans_dropped"] {
        assert_eq!(attribute(&span, absent), None, "{absent}");
    }
}

#[test]
fn system_calls_are_told_where_they_are_counted() {
    let keys = [
        "php.system_calls.count",
        "php.system_calls.time",
        "php.network.sent",
        "php.network.received",
    ];
    let told = |times| {
        let (span, _) = spans(&all(times), &RequestWaits::default());
        keys.map(|key| attribute(&span, key))
    };
    assert_eq!(told(Times::default()), [const { None }; 4]);
    let counted = Times {
        calls: 12,
        calls_ns: 250 * MS,
        sent: 0,
        received: u64::MAX,
        ..Times::default()
    };
    let most = i64::MAX.to_string();
    assert_eq!(
        told(counted).map(Option::unwrap),
        ["12", "0.25", "0", most.as_str()]
    );
}

#[test]
fn what_is_lost_or_too_much_is_counted() {
    let waits = RequestWaits {
        spans: vec![query(); MOST_SPANS + 3],
        without_span: 4,
        missing: 2,
        ..RequestWaits::default()
    };
    let times = Times {
        lost: 5,
        ..Times::default()
    };
    let (span, children) = spans(&all(times), &waits);
    assert_eq!(children.len(), MOST_SPANS);
    assert_eq!(attribute(&span, "php.waits.lost").as_deref(), Some("7"));
    assert_eq!(attribute(&span, "php.waits.spans_dropped").as_deref(), Some("7"));
}

#[test]
fn without_programs_nothing_is_said_of_waits() {
    for times in [Known::Nothing, Known::RunQueue(3)] {
        let (span, _) = spans(&End { times, ..end() }, &RequestWaits::default());
        for absent in ["php.waits.count", "php.waits.top", "php.blocked.network"] {
            assert_eq!(attribute(&span, absent), None, "{absent}");
        }
    }
}

#[test]
fn work_after_the_response_may_wait_after_its_span() {
    let end = End {
        flags: FINISHED_EARLY,
        ..all(Times::default())
    };
    let late = WaitSpan {
        began_mono_ns: end.responded_mono_ns + 10 * MS,
        blocked_ns: 10_000 * MS,
        ..query()
    };
    let waits = RequestWaits {
        spans: vec![late],
        ..RequestWaits::default()
    };
    let (span, children) = spans(&end, &waits);
    assert!(children[0].start_time > span.end_time);
    assert_eq!(children[0].end_time, at(end.end_mono_ns));
}

#[test]
fn a_stack_is_cut_between_frames() {
    let deep: String = (0..200).map(|n| format!("#{n} /srv/a.php({n}): f()\n")).collect();
    let waits = RequestWaits {
        spans: vec![WaitSpan {
            stacktrace: deep.into(),
            ..query()
        }],
        ..RequestWaits::default()
    };
    let (_, children) = spans(&all(Times::default()), &waits);
    let stack = attribute(&children[0], "code.stacktrace").expect("there is one");
    assert!(
        stack.len() <= MAX_STACKTRACE_BYTES && stack.ends_with(" more"),
        "{stack}"
    );
}

proptest! {
    #[test]
    fn whatever_times_are_told_a_wait_lies_within_its_request(
        unix: u64, mono: u64, responded: u64, ended: u64, began: u64, blocked: u64, runqueue: u64,
        words: [u64; Times::WORDS],
    ) {
        let mut begin = begin();
        (begin.start_unix_ns, begin.start_mono_ns) = (unix, mono);
        let times = Known::All(Times::from_words(&words));
        let end = End { begin, responded_mono_ns: responded, end_mono_ns: ended, times, ..end() };
        let wait = WaitSpan { began_mono_ns: began, blocked_ns: blocked, runqueue_ns: runqueue, ..query() };
        let waits = RequestWaits {
            spans: vec![wait],
            places: vec![WaitPlace { blocked_ns: blocked, waits: runqueue, ..WaitPlace::default() }],
            without_span: blocked,
            missing: began,
            on_cpu: OnCpu { samples: began, places: vec![(String::new(), blocked)] },
        };
        let (span, children) = spans(&end, &waits);
        let last = time(unix_end(&end.begin, ended)).max(span.end_time);
        for child in &children {
            prop_assert!(span.start_time <= child.start_time);
            prop_assert!(child.start_time <= child.end_time && child.end_time <= last);
            let nanos = child.end_time.duration_since(UNIX_EPOCH).expect("after the epoch").as_nanos();
            prop_assert!(nanos <= u128::from(u64::MAX));
        }
    }
}
