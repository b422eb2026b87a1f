//! Headers that place a request in a trace, as any client may send them: nothing panics,
//! what is read is valid, and what we write is read again.
//!
//! Input: one header value, given to every parser.

#![no_main]

use glasspool_abi::trace::lists::{
    TRACESTATE_BYTES, baggage_is_valid, shorten_tracestate, tracestate_is_valid,
};
use glasspool_abi::trace::origin::{Network, ProxyHeaders, Said, origin};
use glasspool_abi::trace::queued::queued_ns;
use glasspool_abi::trace::sampling::Glob;
use glasspool_abi::trace::{Caller, TraceParent, b3};
use libfuzzer_sys::fuzz_target;

/// A time in 2023, nanoseconds since 1970.
const NOW: u64 = 1_700_000_000_000_000_000;

fn check(caller: &Caller) {
    assert!(caller.trace_id.0 != [0; 16] && caller.span_id.0 != [0; 8]);
    let again = b3::parse_single(&b3::single(&caller.trace_id, &caller.span_id, true));
    assert_eq!(again.map(|c| (c.trace_id, c.span_id)), Some((caller.trace_id, caller.span_id)));
}

fuzz_target!(|data: &[u8]| {
    if let Some(parent) = TraceParent::parse(data) {
        assert_eq!(TraceParent::parse(&parent.to_header()), Some(parent));
        check(&parent.into());
    }
    let callers = [b3::parse_single(data), b3::parse_multi(data, data, Some(data), Some(data))];
    callers.iter().flatten().for_each(check);

    if tracestate_is_valid(data) {
        let kept = shorten_tracestate(data);
        assert!(kept.len() <= TRACESTATE_BYTES && tracestate_is_valid(&kept));
    }
    assert!(!baggage_is_valid(data) || data.is_ascii());

    let proxies: [Network; 2] = ["10.0.0.0/8", "::/0"].map(|text| text.parse().expect("a network"));
    let said = Said {
        peer: b"10.0.0.1",
        x_for: data,
        x_proto: data,
        x_host: data,
        forwarded: data,
    };
    for headers in [ProxyHeaders::XForwarded, ProxyHeaders::Forwarded] {
        let found = origin(&said, &proxies, headers);
        assert!(found.is_proxied && found.address.is_some() && found.client.len() <= 45);
    }
    assert!(queued_ns(data, NOW).is_none_or(|queued| queued <= NOW));
    if let Some((pattern, path)) = data.split_at_checked(data.len() / 2)
        && let Ok(glob) = std::str::from_utf8(pattern).map_err(drop).and_then(|p| Glob::new(p).map_err(drop))
    {
        glob.matches(path);
    }
});
