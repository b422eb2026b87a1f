//! Where a request came from, what it is called, and why it is exported.

use super::*;

#[test]
fn who_was_connected_and_how_long_the_request_had_waited() {
    let direct = span(&end());
    assert_eq!(
        attribute(&direct, name::NETWORK_PEER_ADDRESS),
        Some("192.0.2.7".into())
    );
    assert_eq!(attribute(&direct, name::PHP_QUEUE_TIME), None);
    assert_eq!(attribute(&direct, name::PHP_WORKER_REQUESTS), Some(7i64.into()));
    assert_eq!(attribute(&direct, name::PHP_WORKER_AGE), Some(3.0.into()));
    let texts = [
        (Text::Client, "203.0.113.9"),
        (Text::Peer, "10.0.0.1"),
        (Text::PeerPort, "4711"),
        (Text::Queued, "250000000"),
    ];
    let begin = with_texts(&begin(), &texts);
    let proxied = span(&End { begin, ..end() });
    assert_eq!(
        attribute(&proxied, name::CLIENT_ADDRESS),
        Some("203.0.113.9".into())
    );
    assert_eq!(
        attribute(&proxied, name::NETWORK_PEER_ADDRESS),
        Some("10.0.0.1".into())
    );
    assert_eq!(attribute(&proxied, name::NETWORK_PEER_PORT), Some(4711i64.into()));
    assert_eq!(attribute(&proxied, name::PHP_QUEUE_TIME), Some(0.25.into()));
    let lies = [(Text::PeerPort, "99999"), (Text::Queued, "soon")];
    let begin = with_texts(&end().begin, &lies);
    let lied = span(&End { begin, ..end() });
    assert_eq!(attribute(&lied, name::NETWORK_PEER_PORT), None);
    assert_eq!(attribute(&lied, name::PHP_QUEUE_TIME), None);
}

#[test]
fn a_route_is_the_applications_word_or_a_rules() {
    use glasspool_abi::trace::sampling::{Glob, Route, Which};

    let conventions = Conventions {
        routes: vec![Route {
            which: Which {
                path: Some(Glob::new("/index*").expect("a pattern")),
                method: None,
            },
            route: "/{page}".to_owned(),
        }],
        ..Conventions::default()
    };
    let by_rule = server_span(&end(), &facts(), &[], &conventions);
    assert_eq!(by_rule.name, "GET /{page}");
    assert_eq!(attribute(&by_rule, name::HTTP_ROUTE), Some("/{page}".into()));
    let begin = with_texts(&begin(), &[(Text::Route, "/user/{id}")]);
    let said = server_span(&End { begin, ..end() }, &facts(), &[], &conventions);
    assert_eq!(said.name, "GET /user/{id}");
    let mut none = span(&end());
    assert_eq!((&*none.name, attribute(&none, name::HTTP_ROUTE)), ("GET", None));
    assert!(has_route(&said) && !has_route(&none));
    give_route(&mut none, "Page::show".to_owned());
    assert_eq!(none.name, "GET Page::show");
    assert_eq!(attribute(&none, name::HTTP_ROUTE), Some("Page::show".into()));
    let begin = with_texts(&end().begin, &[(Text::Method, "BREW")]);
    let odd = server_span(&End { begin, ..end() }, &facts(), &[], &conventions);
    assert_eq!(odd.name, "HTTP /{page}");
}

#[test]
fn the_context_of_a_stranger_is_a_link() {
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let begin = Begin {
        parent: None,
        ..with_texts(&begin(), &[(Text::Link, caller)])
    };
    let linked = span(&End { begin, ..end() });
    assert_eq!(linked.parent_span_id, opentelemetry::SpanId::INVALID);
    let [link] = &linked.links.links[..] else {
        panic!("{:?}", linked.links)
    };
    assert_eq!(link.span_context.trace_id().to_string(), caller[3..35]);
    assert!(link.span_context.is_remote() && link.span_context.is_sampled());
    let begin = with_texts(&end().begin, &[(Text::Link, "nonsense")]);
    assert!(span(&End { begin, ..end() }).links.links.is_empty());
}

#[test]
fn work_after_the_response_is_a_child() {
    assert!(post_response_span(&end(), &facts()).is_none());
    let early = End {
        flags: FINISHED_EARLY,
        ..end()
    };
    let (child, request) = (
        post_response_span(&early, &facts()).expect("a span"),
        span(&early),
    );
    assert_eq!(
        (&*child.name, child.span_kind.clone()),
        ("php.request.post_response", SpanKind::Internal)
    );
    assert_eq!(child.parent_span_id, request.span_context.span_id());
    assert_eq!(child.span_context.trace_id(), request.span_context.trace_id());
    assert_eq!(child.start_time, request.end_time);
    let length = child.end_time.duration_since(child.start_time);
    assert_eq!(length.expect("forwards"), Duration::from_nanos(187_600_000));
}

#[test]
fn what_sampling_did_not_take_says_why_it_is_here() {
    let why = |sampled, flags, status, is_slow| {
        let begin = Begin { sampled, ..begin() };
        Kept::why(
            &End {
                begin,
                flags,
                status,
                ..end()
            },
            is_slow,
        )
    };
    for (flags, status, is_slow, expected) in [
        (FATAL, 200, false, Kept::Error),
        (0, 503, true, Kept::Error),
        (ABORTED, 200, false, Kept::Aborted),
        (ABORTED, 200, true, Kept::Slow),
        (0, 200, true, Kept::Slow),
    ] {
        assert_eq!(why(false, flags, status, is_slow), Some(expected));
        assert_eq!(why(true, flags, status, is_slow), None);
    }
    let death = Death::Signal("SIGKILL".to_owned());
    let killed = |sampled| {
        let begin = Begin { sampled, ..begin() };
        killed_span(&begin, &facts(), &death, 1, &[], &Conventions::default())
    };
    assert_eq!(
        attribute(&killed(false), name::PHP_SAMPLING_KEPT),
        Some("killed".into())
    );
    assert_eq!(attribute(&killed(true), name::PHP_SAMPLING_KEPT), None);
    assert!(!killed(false).span_context.is_sampled());
}
