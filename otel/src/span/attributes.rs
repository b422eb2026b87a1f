//! What a begin record says of a request, as attributes.

use std::borrow::Cow;

use glasspool_abi::record::{Begin, Text};
use glasspool_abi::trace::TraceParent;
use opentelemetry::{
    KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Link, SpanContext, TraceState},
};

use super::{Facts, int, seconds};
use crate::semconv::{Conventions, name};

/// About as many as a request's span has in the end.
const USUAL: usize = 40;

/// What spans and log records of one request have in common.
pub(crate) fn request_attributes(begin: &Begin, facts: &Facts, conventions: &Conventions) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(USUAL);
    let mut push = |key: &'static str, value: Value| attributes.push(KeyValue::new(key, value));
    let text = |text| begin.texts.text(text);

    let method = text(Text::Method).unwrap_or_default();
    if conventions.knows_method(&method) {
        push(name::HTTP_REQUEST_METHOD, owned(method));
    } else {
        push(name::HTTP_REQUEST_METHOD, "_OTHER".into());
        push(name::HTTP_REQUEST_METHOD_ORIGINAL, owned(method));
    }
    push(name::URL_PATH, owned(text(Text::Path).unwrap_or_default()));
    push(name::URL_SCHEME, text(Text::Scheme).map_or("http".into(), owned));
    if let Some(query) = text(Text::Query) {
        push(name::URL_QUERY, conventions.redact_query(&query).into());
    }

    let host = text(Text::Host);
    let (address, host_port) = host.as_deref().map_or((None, None), split_host);
    if let Some(address) = address.or(facts.server_name.as_deref()) {
        push(name::SERVER_ADDRESS, address.to_owned().into());
    }
    if let Some(port) = host_port.or_else(|| text(Text::Port)?.parse().ok()) {
        push(name::SERVER_PORT, i64::from(port).into());
    }
    if let Some((protocol, version)) = text(Text::Protocol).as_deref().and_then(|p| p.split_once('/')) {
        push(name::NETWORK_PROTOCOL_NAME, protocol.to_ascii_lowercase().into());
        // The conventions say "2" and "3" where servers say HTTP/2.0 and HTTP/3.0.
        let version = version
            .strip_suffix(".0")
            .filter(|major| *major != "1")
            .unwrap_or(version);
        push(name::NETWORK_PROTOCOL_VERSION, version.to_owned().into());
    }
    for (key, kind) in [
        (name::CLIENT_ADDRESS, Text::Client),
        (name::USER_AGENT_ORIGINAL, Text::UserAgent),
        (name::PHP_SCRIPT, Text::Script),
    ] {
        if let Some(value) = text(kind) {
            push(key, owned(value));
        }
    }
    if let Some(route) = route(begin, conventions) {
        push(name::HTTP_ROUTE, owned(route));
    }
    push(name::PROCESS_PID, i64::from(facts.pid).into());
    push(name::PHP_POOL, facts.pool.clone().into());
    push(name::PHP_WORKER_ID, i64::from(facts.worker).into());
    attributes
}

fn owned(text: Cow<'_, str>) -> Value {
    text.into_owned().into()
}

/// What only the request's own span says: who was connected, how long the request had
/// waited, and what the worker had done before. On a log record or span of a look these
/// names stand for what the worker waits for.
pub(super) fn own_attributes(begin: &Begin, facts: &Facts) -> impl Iterator<Item = KeyValue> {
    let text = |text| begin.texts.text(text);
    let peer = text(Text::Peer).or_else(|| text(Text::Client));
    let port = text(Text::PeerPort).and_then(|port| port.parse::<u16>().ok());
    let queued = text(Text::Queued).and_then(|ns| ns.parse().ok());
    let age = begin.start_mono_ns.saturating_sub(facts.born_mono_ns);
    let pair = |key: &'static str, value: Value| Some(KeyValue::new(key, value));
    [
        peer.and_then(|peer| pair(name::NETWORK_PEER_ADDRESS, owned(peer))),
        port.and_then(|port| pair(name::NETWORK_PEER_PORT, i64::from(port).into())),
        queued.and_then(|queued| pair(name::PHP_QUEUE_TIME, seconds(queued).into())),
        pair(name::PHP_WORKER_REQUESTS, int(begin.number).into()),
        pair(name::PHP_WORKER_AGE, seconds(age).into()),
    ]
    .into_iter()
    .flatten()
}

/// What the request is called: what the application said, else by a rule of the
/// configuration. The path never stands in for it.
pub(super) fn route<'a>(begin: &'a Begin, conventions: &'a Conventions) -> Option<Cow<'a, str>> {
    let texts = &begin.texts;
    texts.text(Text::Route).or_else(|| {
        let method = texts.get(Text::Method).unwrap_or_default();
        conventions
            .route(method, texts.get(Text::Path).unwrap_or_default())
            .map(Cow::Borrowed)
    })
}

/// The context of a caller that was not trusted.
pub(super) fn link(begin: &Begin) -> Option<Link> {
    let caller = TraceParent::parse(begin.texts.get(Text::Link)?)?;
    let context = SpanContext::new(
        TraceId::from_bytes(caller.trace_id.0),
        SpanId::from_bytes(caller.span_id.0),
        TraceFlags::new(caller.flags),
        true,
        TraceState::NONE,
    );
    Some(Link::with_context(context))
}

/// `name:port`, `[v6]:port` or either without a port.
pub(super) fn split_host(host: &str) -> (Option<&str>, Option<u16>) {
    let (address, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => match host.rsplit_once(':') {
            Some((address, port)) if !address.contains(':') => (address, Some(port)),
            _ => (host, None),
        },
    };
    (
        (!address.is_empty()).then_some(address),
        port.and_then(|port| port.parse().ok()),
    )
}
