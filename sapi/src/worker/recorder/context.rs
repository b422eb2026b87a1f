//! A request's place in a trace: whose context is gone on with, whether it is sampled,
//! and what PHP is told. On the way of every request, so without memory and without a
//! system call.

use glasspool_abi::control::PoolSpec;
use glasspool_abi::record::BeginScalars;
use glasspool_abi::trace::lists::{baggage_is_valid, tracestate_is_valid};
use glasspool_abi::trace::origin::{Origin, Said, origin};
use glasspool_abi::trace::policy::{Policy, Propagators};
use glasspool_abi::trace::{Caller, FLAG_RANDOM, FLAG_SAMPLED, Sampler, SpanId, TraceId, TraceParent, b3};
use glasspool_fastcgi::Params;

use super::Recorder;

/// Names of the parameters of B3 in several headers.
const B3_TRACE_ID: &[u8] = b"HTTP_X_B3_TRACEID";
const B3_SPAN_ID: &[u8] = b"HTTP_X_B3_SPANID";
const B3_SAMPLED: &[u8] = b"HTTP_X_B3_SAMPLED";
const B3_FLAGS: &[u8] = b"HTTP_X_B3_FLAGS";
const B3_PARENT: &[u8] = b"HTTP_X_B3_PARENTSPANID";

impl Recorder {
    /// Draws ids, decides on sampling and has PHP see our span as its parent: the
    /// parameters of the pool's propagators are rewritten. An invalid header counts as
    /// none, and what belongs to it goes with it. The context of a caller that is not
    /// trusted is kept to be linked, and a new trace begins. When no spans are made the
    /// parameters stay: our span would be a parent that nobody ever sees.
    pub(crate) fn trace(&mut self, params: &mut Params, pool: &PoolSpec) -> BeginScalars {
        let policy = &pool.trace;
        self.route.clear();
        let is_trusted = policy.trust.trusts(|| {
            let peer = params.get(b"REMOTE_ADDR").unwrap_or_default();
            origin_of(params, peer, policy).address
        });
        let found = incoming(params, policy.propagators);
        let caller = found.as_ref().map(|found| found.caller);
        self.link = caller.filter(|_| !is_trusted).map(|caller| as_parent(&caller));
        let caller = caller.filter(|_| is_trusted);

        let (trace_id, random) = match &caller {
            Some(caller) => (caller.trace_id, caller.random),
            None => (TraceId(self.random.take()), true),
        };
        let span_id = SpanId(self.random.take());
        let sampled = self.sample(params, pool, caller.and_then(|caller| caller.sampled), &trace_id);
        if pool.tracing {
            let ours = Caller {
                trace_id,
                span_id,
                sampled: Some(sampled),
                random,
            };
            let keeps_state = is_trusted && found.is_some_and(|found| found.is_w3c);
            pass_on(params, policy.propagators, &ours, keeps_state, is_trusted);
        }
        self.number += 1;
        BeginScalars {
            number: self.number,
            start_unix_ns: self.start.0,
            start_mono_ns: self.start.1,
            trace_id,
            span_id,
            parent: caller.map(|caller| caller.span_id),
            sampled,
            random,
        }
    }

    /// The pool's sampler, with the ratio of the first rule that is for this request. A
    /// rule that is raised for a time adds to what would be sampled anyway.
    fn sample(&mut self, params: &Params, pool: &PoolSpec, caller: Option<bool>, trace_id: &TraceId) -> bool {
        let is_raised = self.raised.as_mut().is_some_and(|raised| raised.is_any());
        if pool.trace.rules.is_empty() && !is_raised {
            return pool.sampler.sample(caller, trace_id);
        }
        let method = params.get(b"REQUEST_METHOD").unwrap_or_default();
        let path = path_of(params);
        let mut rules = pool.trace.rules.iter();
        let ratio = rules
            .find(|rule| rule.which.matches(method, path))
            .map_or(pool.sampler.ratio, |rule| rule.ratio);
        let sampler = Sampler {
            ratio,
            ..pool.sampler
        };
        let raised = self.raised.as_ref().filter(|_| is_raised);
        sampler.sample(caller, trace_id)
            || raised.is_some_and(|raised| raised.sample(method, path, trace_id, self.start.1))
    }
}

/// Where a request comes from, for its record. Without trusted proxies that is where the
/// web server says, whatever that is.
pub(super) fn origin_for_record<'a>(params: &'a Params, peer: &'a [u8], policy: &Policy) -> Origin<'a> {
    if policy.proxies.is_empty() {
        return Origin {
            client: peer,
            ..Origin::default()
        };
    }
    origin_of(params, peer, policy)
}

/// Where a request comes from; without trusted proxies, where the web server says.
fn origin_of<'a>(params: &'a Params, peer: &'a [u8], policy: &Policy) -> Origin<'a> {
    let mut said = Said {
        peer,
        ..Said::default()
    };
    if !policy.proxies.is_empty() {
        let get = |name| params.get(name).unwrap_or_default();
        said = Said {
            peer,
            x_for: get(b"HTTP_X_FORWARDED_FOR"),
            x_proto: get(b"HTTP_X_FORWARDED_PROTO"),
            x_host: get(b"HTTP_X_FORWARDED_HOST"),
            forwarded: get(b"HTTP_FORWARDED"),
        };
    }
    origin(&said, &policy.proxies, policy.proxy_headers)
}

/// The path that rules are for: that of REQUEST_URI, else SCRIPT_NAME.
fn path_of(params: &Params) -> &[u8] {
    let uri = params.get(b"REQUEST_URI").filter(|uri| !uri.is_empty());
    let uri = uri.or_else(|| params.get(b"SCRIPT_NAME")).unwrap_or_default();
    uri.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// A context that came with a request.
struct Incoming {
    caller: Caller,
    /// It came as `traceparent`, so that `tracestate` belongs to it.
    is_w3c: bool,
}

/// The context of the request: `traceparent` before B3 in one header before B3 in several.
fn incoming(params: &Params, propagators: Propagators) -> Option<Incoming> {
    if propagators.trace_context
        && let Some(parent) = params.get(b"HTTP_TRACEPARENT").and_then(TraceParent::parse)
    {
        return Some(Incoming {
            caller: parent.into(),
            is_w3c: true,
        });
    }
    if !propagators.any_b3() {
        return None;
    }
    let multi = || {
        b3::parse_multi(
            params.get(B3_TRACE_ID)?,
            params.get(B3_SPAN_ID)?,
            params.get(B3_SAMPLED),
            params.get(B3_FLAGS),
        )
    };
    let caller = params.get(b"HTTP_B3").and_then(b3::parse_single).or_else(multi)?;
    Some(Incoming {
        caller,
        is_w3c: false,
    })
}

/// Puts our span in the place of the caller's. Headers of propagators that are not in use
/// stay as they are.
fn pass_on(
    params: &mut Params,
    propagators: Propagators,
    ours: &Caller,
    keeps_state: bool,
    is_trusted: bool,
) {
    if propagators.trace_context {
        let keeps = keeps_state && params.get(b"HTTP_TRACESTATE").is_some_and(tracestate_is_valid);
        if !keeps {
            params.remove(b"HTTP_TRACESTATE");
        }
        params.set(b"HTTP_TRACEPARENT", &as_parent(ours).to_header());
    }
    if propagators.baggage
        && let Some(baggage) = params.get(b"HTTP_BAGGAGE")
        && !(is_trusted && baggage_is_valid(baggage))
    {
        params.remove(b"HTTP_BAGGAGE");
    }
    if propagators.any_b3() {
        pass_on_b3(params, propagators, ours);
    }
}

/// Both forms are read by whoever reads one of them, so that none may be left over.
fn pass_on_b3(params: &mut Params, propagators: Propagators, ours: &Caller) {
    let sampled = ours.sampled == Some(true);
    for name in [
        b"HTTP_B3",
        B3_TRACE_ID,
        B3_SPAN_ID,
        B3_SAMPLED,
        B3_FLAGS,
        B3_PARENT,
    ] {
        params.remove(name);
    }
    if propagators.b3 {
        params.set(b"HTTP_B3", &b3::single(&ours.trace_id, &ours.span_id, sampled));
    }
    if propagators.b3_multi {
        params.set(B3_TRACE_ID, &b3::multi_trace_id(&ours.trace_id));
        params.set(B3_SPAN_ID, &b3::multi_span_id(&ours.span_id));
        params.set(B3_SAMPLED, if sampled { b"1" } else { b"0" });
    }
}

fn as_parent(caller: &Caller) -> TraceParent {
    let sampled = if caller.sampled == Some(true) {
        FLAG_SAMPLED
    } else {
        0
    };
    let random = if caller.random { FLAG_RANDOM } else { 0 };
    TraceParent {
        trace_id: caller.trace_id,
        span_id: caller.span_id,
        flags: sampled | random,
    }
}

#[cfg(test)]
mod tests;
