//! Whose trace a request belongs to, and what PHP sees of it.

use glasspool_abi::slot::SlotWriter;
use glasspool_abi::trace::policy::Trust;
use glasspool_abi::trace::raised::{Raised, RaisedPage, RaisedRules};
use glasspool_abi::trace::sampling::{Glob, Rule, Which};

use super::super::super::account::Account;
use super::*;

const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const B3: &[u8] = b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0";

fn recorder(raised: Option<RaisedRules>) -> Recorder {
    let bytes = glasspool_abi::slot::SLOT_HEAD_BYTES + 16384;
    let file = glasspool_abi::create_slot_memory(bytes).expect("a memory file");
    let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
    let account = Account::of(None, false, || false);
    Recorder::new(
        SlotWriter::map(file, bytes).expect("maps"),
        doorbell,
        account,
        raised,
    )
}

fn params(pairs: &[(&str, &[u8])]) -> Params {
    let mut params = Params::new();
    for (name, value) in pairs {
        params.push(name.as_bytes(), value);
    }
    params
}

fn pool(policy: Policy) -> PoolSpec {
    PoolSpec {
        tracing: true,
        trace: policy,
        ..PoolSpec::default()
    }
}

fn seen_parent(params: &Params) -> TraceParent {
    TraceParent::parse(params.get(b"HTTP_TRACEPARENT").expect("set")).expect("valid")
}

#[test]
fn php_sees_our_span_as_its_parent() {
    let mut params = params(&[
        ("HTTP_TRACEPARENT", PARENT),
        ("HTTP_TRACESTATE", b"a=b"),
        ("HTTP_BAGGAGE", b"user=alice"),
    ]);
    let scalars = recorder(None).trace(&mut params, &pool(Policy::default()));
    assert_eq!(scalars.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(
        scalars.parent.map(|p| p.to_string()).as_deref(),
        Some("b7ad6b7169203331")
    );
    let seen = seen_parent(&params);
    assert_eq!((seen.trace_id, seen.span_id), (scalars.trace_id, scalars.span_id));
    assert_eq!(params.get(b"HTTP_TRACESTATE"), Some(&b"a=b"[..]));
    assert_eq!(params.get(b"HTTP_BAGGAGE"), Some(&b"user=alice"[..]));
}

#[test]
fn what_is_invalid_is_ignored_and_nothing_else() {
    let upper: &[u8] = b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (parent, state, baggage, has_parent, has_state, has_baggage) in [
        (upper, &b"a=b"[..], &b"k=v"[..], false, false, true),
        (PARENT, b"NOT VALID", b"k=v", true, false, true),
        (PARENT, b"a=b", b"not valid", true, true, false),
    ] {
        let mut params = params(&[
            ("HTTP_TRACEPARENT", parent),
            ("HTTP_TRACESTATE", state),
            ("HTTP_BAGGAGE", baggage),
        ]);
        let scalars = recorder(None).trace(&mut params, &pool(Policy::default()));
        assert_eq!(scalars.parent.is_some(), has_parent);
        assert_eq!(params.get(b"HTTP_TRACESTATE").is_some(), has_state);
        assert_eq!(params.get(b"HTTP_BAGGAGE").is_some(), has_baggage);
        assert_eq!(seen_parent(&params).span_id, scalars.span_id);
    }
}

#[test]
fn without_spans_nothing_is_rewritten() {
    let mut params = params(&[("HTTP_TRACEPARENT", PARENT), ("HTTP_BAGGAGE", b"not valid")]);
    recorder(None).trace(&mut params, &PoolSpec::default());
    assert_eq!(params.get(b"HTTP_TRACEPARENT"), Some(PARENT));
    assert_eq!(params.get(b"HTTP_BAGGAGE"), Some(&b"not valid"[..]));
}

#[test]
fn the_trace_of_a_stranger_is_linked_and_a_new_one_begins() {
    let from = |networks: &[&str]| {
        Trust::From(
            networks
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect(),
        )
    };
    for (trust, proxies, is_trusted) in [
        (Trust::Everybody, &[][..], true),
        (Trust::Nobody, &[], false),
        (from(&["10.0.0.0/8"]), &[], true),
        (from(&["192.0.2.0/24"]), &[], false),
        // Behind a trusted proxy the client counts, and not the proxy.
        (from(&["10.0.0.0/8"]), &["10.0.0.1"], false),
        (from(&["203.0.113.0/24"]), &["10.0.0.1"], true),
    ] {
        let policy = Policy {
            trust: trust.clone(),
            proxies: proxies
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect(),
            ..Policy::default()
        };
        let mut params = params(&[
            ("REMOTE_ADDR", b"10.0.0.1"),
            ("HTTP_X_FORWARDED_FOR", b"203.0.113.9"),
            ("HTTP_TRACEPARENT", PARENT),
            ("HTTP_TRACESTATE", b"a=b"),
            ("HTTP_BAGGAGE", b"k=v"),
        ]);
        let mut recorder = recorder(None);
        let scalars = recorder.trace(&mut params, &pool(policy));
        let goes_on = scalars.trace_id.to_string() == "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(goes_on, is_trusted, "{trust:?}");
        assert_eq!(scalars.parent.is_some(), is_trusted);
        let link = recorder.link.map(|link| link.to_header());
        assert_eq!(link.is_none(), is_trusted);
        assert!(link.is_none_or(|link| link == *PARENT));
        assert_eq!(params.get(b"HTTP_TRACESTATE").is_some(), is_trusted);
        assert_eq!(params.get(b"HTTP_BAGGAGE").is_some(), is_trusted);
        assert_eq!(seen_parent(&params).trace_id, scalars.trace_id);
    }
}

#[test]
fn b3_is_read_and_rewritten_when_it_is_chosen() {
    let multi: [(&str, &[u8]); 3] = [
        ("HTTP_X_B3_TRACEID", b"80f198ee56343ba864fe8b2a57d3eff7"),
        ("HTTP_X_B3_SPANID", b"e457b5a2e4d86bd1"),
        ("HTTP_X_B3_FLAGS", b"1"),
    ];
    let only = |b3, b3_multi| Policy {
        propagators: Propagators {
            b3,
            b3_multi,
            ..Propagators::NONE
        },
        ..Policy::default()
    };
    for (policy, single) in [
        (only(true, false), true),
        (only(false, true), true),
        (only(true, true), false),
    ] {
        let mut params = if single {
            params(&[("HTTP_B3", B3)])
        } else {
            params(&multi)
        };
        let propagators = policy.propagators;
        let scalars = recorder(None).trace(&mut params, &pool(policy));
        assert_eq!(scalars.trace_id.to_string(), "80f198ee56343ba864fe8b2a57d3eff7");
        // Denied in the one, forced by the debug flag in the other.
        assert_eq!(scalars.sampled, !single);
        let seen = params.get(b"HTTP_B3").and_then(b3::parse_single);
        assert_eq!(
            seen.map(|seen| seen.span_id),
            propagators.b3.then_some(scalars.span_id)
        );
        let seen = params.get(B3_SPAN_ID).map(<[u8]>::to_vec);
        let ours = propagators
            .b3_multi
            .then(|| b3::multi_span_id(&scalars.span_id).to_vec());
        assert_eq!(seen, ours);
        assert_eq!(params.get(B3_FLAGS), None);
        assert_eq!(params.get(b"HTTP_TRACEPARENT"), None);
    }
    let mut ignored = params(&[("HTTP_B3", B3)]);
    assert_eq!(
        recorder(None)
            .trace(&mut ignored, &pool(Policy::default()))
            .parent,
        None
    );
    assert_eq!(ignored.get(b"HTTP_B3"), Some(B3));
    let none = Policy {
        propagators: Propagators::NONE,
        ..Policy::default()
    };
    let mut untouched = params(&[("HTTP_TRACEPARENT", PARENT)]);
    assert_eq!(recorder(None).trace(&mut untouched, &pool(none)).parent, None);
    assert_eq!(untouched.get(b"HTTP_TRACEPARENT"), Some(PARENT));
}

#[test]
fn rules_decide_in_their_order_and_callers_before_them() {
    let rule = |path: &str, ratio| Rule {
        which: Which {
            path: Some(Glob::new(path).expect("a pattern")),
            method: None,
        },
        ratio,
    };
    let policy = Policy {
        rules: vec![rule("/health", 0.0), rule("/check*", 1.0), rule("*", 0.0)],
        ..Policy::default()
    };
    let pool = pool(policy);
    let mut recorder = recorder(None);
    let mut sampled = |uri: &str, parent: &[u8]| {
        let pairs = [("REQUEST_URI", uri.as_bytes()), ("HTTP_TRACEPARENT", parent)];
        recorder.trace(&mut params(&pairs), &pool).sampled
    };
    assert!(!sampled("/health", b""));
    assert!(sampled("/checkout?x=/health", b""));
    assert!(!sampled("/other", b""));
    assert!(sampled("/other", PARENT));
    let mut denied = PARENT.to_vec();
    denied[54] = b'0';
    assert!(!sampled("/checkout", &denied));
}

#[test]
fn a_raised_rule_adds_to_what_is_sampled_until_it_ends() {
    let page = RaisedPage::create().expect("a page");
    let mut recorder = recorder(Some(RaisedRules::map(page.file(), "www").expect("maps")));
    recorder.start = (1, 50);
    let off = PoolSpec {
        sampler: Sampler {
            parent_based: true,
            ratio: 0.0,
        },
        ..pool(Policy::default())
    };
    let denied: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let sampled = |recorder: &mut Recorder| {
        let pairs = [("REQUEST_URI", &b"/checkout"[..]), ("HTTP_TRACEPARENT", denied)];
        recorder.trace(&mut params(&pairs), &off).sampled
    };
    assert!(!sampled(&mut recorder));
    page.publish(&[Raised {
        which: Which {
            path: Some(Glob::new("/check*").expect("a pattern")),
            method: None,
        },
        pool: None,
        ratio: 1.0,
        until_mono_ns: 100,
    }]);
    assert!(sampled(&mut recorder));
    recorder.start = (1, 100);
    assert!(!sampled(&mut recorder));
}
