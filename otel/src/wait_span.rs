//! The waits of a request: those that were long enough as spans below its own, and the
//! places that waited most as an attribute of it. Pure.
//!
//! What a wait was is told by the caller, in plain texts and numbers; where PHP's stack
//! comes from is not this room's business. Times and texts may come from a worker: no span
//! ends before it starts or leaves the time of its request, whatever they say.

use std::borrow::Cow;
use std::sync::Arc;

use glasspool_abi::record::Begin;
use glasspool_abi::times::{Known, Times};
use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, KeyValue, StringValue, Value};
pub use opentelemetry_sdk::trace::SpanData;

use crate::rollup::OnCpu;
use crate::semconv::name;
use crate::slow::{MAX_STACKTRACE_BYTES, Peer, cut_stacktrace, time};
use crate::span::{Facts, child_span, unix_end};
use crate::tcp::TcpState;
use crate::times::{Spent, seconds};

/// Spans below one request's, at most: those of the longest waits.
pub const MOST_SPANS: usize = 64;
/// Places that are told at most.
const MOST_PLACES: usize = 5;

/// One wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaitSpan {
    /// When the worker left its CPU, `CLOCK_MONOTONIC`, nanoseconds.
    pub began_mono_ns: u64,
    /// Until it was woken.
    pub blocked_ns: u64,
    /// From then until it ran.
    pub runqueue_ns: u64,
    /// What for: one of [`crate::times::CAUSE_NAMES`].
    pub class: &'static str,
    /// The system call.
    pub syscall: Option<Cow<'static, str>>,
    /// Innermost function, with its class.
    pub function: Option<String>,
    /// Innermost file of PHP code.
    pub file: Option<String>,
    /// The line in there, from 1.
    pub line: Option<u32>,
    /// One frame per line, innermost first; empty if no PHP code waited.
    pub stacktrace: Arc<str>,
    /// Who was waited for, if it was a connection.
    pub peer: Option<Peer>,
    /// And that connection, if it is one of TCP.
    pub tcp: Option<TcpState>,
    /// The file that was waited for: the last part of its path.
    pub file_name: Option<String>,
}

/// Waits at one line of PHP for the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaitPlace {
    /// See [`WaitSpan::function`].
    pub function: Option<String>,
    /// See [`WaitSpan::file`].
    pub file: Option<String>,
    /// See [`WaitSpan::line`].
    pub line: Option<u32>,
    /// See [`WaitSpan::class`].
    pub class: &'static str,
    /// The peer or the file.
    pub with: Option<String>,
    /// How long, all together.
    pub blocked_ns: u64,
    /// How many.
    pub waits: u64,
}

/// What was told of a request's waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestWaits {
    /// Those that become spans, the first [`MOST_SPANS`] at most.
    pub spans: Vec<WaitSpan>,
    /// Waits that should have been spans, and for which there was no room.
    pub without_span: u64,
    /// Where it waited, in any order.
    pub places: Vec<WaitPlace>,
    /// Waits of which the worker's kernel spoke, and that did not come.
    pub missing: u64,
    /// And what it did while it did not wait, once it was past its limit.
    pub on_cpu: OnCpu,
}

/// All that is known of where a request's time went.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The parts.
    pub times: &'a Known,
    /// When the worker was done with it, or died; `CLOCK_MONOTONIC`, nanoseconds.
    pub end_mono_ns: u64,
    /// CPU time used.
    pub cpu_ns: u64,
    /// Its waits.
    pub waits: &'a RequestWaits,
}

/// Puts on a request's span where its time went. Returns the spans below it: they lie
/// within the request's time, which is longer than its span if it worked on after its
/// response.
pub fn tell(span: &mut SpanData, begin: &Begin, facts: &Facts, account: &Account<'_>) -> Vec<SpanData> {
    let busy_ns = account.end_mono_ns.saturating_sub(begin.start_mono_ns);
    if let Some(spent) = Spent::new(account.times, busy_ns, account.cpu_ns) {
        span.attributes.extend(spent.attributes());
    }
    span.attributes.extend(attributes(account));
    span.attributes.extend(account.waits.on_cpu.attributes());
    let waits = account.waits.spans.iter().take(MOST_SPANS);
    waits
        .map(|wait| child(span, begin, facts, account, wait))
        .collect()
}

/// What is known of waits; nothing where the kernel does not tell of them.
fn attributes(account: &Account<'_>) -> Vec<KeyValue> {
    let Known::All(times) = account.times else {
        return Vec::new();
    };
    let waits = account.waits;
    let mut attributes = vec![KeyValue::new(name::PHP_WAITS_COUNT, int(times.waits))];
    attributes.extend(system_calls(times));
    let mut places: Vec<&WaitPlace> = waits.places.iter().collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.blocked_ns));
    if !places.is_empty() {
        let top = places.iter().take(MOST_PLACES);
        let top = top.map(|place| StringValue::from(place.line())).collect();
        attributes.push(KeyValue::new(
            name::PHP_WAITS_TOP,
            Value::Array(Array::String(top)),
        ));
    }
    let beyond = waits.spans.len().saturating_sub(MOST_SPANS) as u64;
    for (key, count) in [
        (name::PHP_WAITS_LOST, times.lost.saturating_add(waits.missing)),
        (
            name::PHP_WAITS_SPANS_DROPPED,
            waits.without_span.saturating_add(beyond),
        ),
    ] {
        if count > 0 {
            attributes.push(KeyValue::new(key, int(count)));
        }
    }
    attributes
}

/// What is known of system calls: nothing unless they are counted, as a request without any
/// cannot be.
fn system_calls(times: &Times) -> impl Iterator<Item = KeyValue> {
    let facts = (times.calls > 0).then(|| {
        [
            KeyValue::new(name::PHP_SYSTEM_CALLS_COUNT, int(times.calls)),
            KeyValue::new(name::PHP_SYSTEM_CALLS_TIME, seconds(times.calls_ns)),
            KeyValue::new(name::PHP_NETWORK_SENT, int(times.sent)),
            KeyValue::new(name::PHP_NETWORK_RECEIVED, int(times.received)),
        ]
    });
    facts.into_iter().flatten()
}

fn child(
    parent: &SpanData,
    begin: &Begin,
    facts: &Facts,
    account: &Account<'_>,
    wait: &WaitSpan,
) -> SpanData {
    let last = time(unix_end(begin, account.end_mono_ns)).max(parent.end_time);
    let woken_ns = wait.began_mono_ns.saturating_add(wait.blocked_ns);
    let times = [wait.began_mono_ns, woken_ns].map(|mono_ns| time(unix_end(begin, mono_ns)).min(last));
    let name = wait.function.clone().map_or(Cow::Borrowed("wait"), Cow::Owned);
    let mut span = child_span(&parent.span_context, name, times, wait.attributes(facts));
    if wait.peer.is_some() {
        span.span_kind = SpanKind::Client;
    }
    span
}

impl WaitSpan {
    fn attributes(&self, facts: &Facts) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new(name::PHP_WAIT_CLASS, self.class),
            KeyValue::new(name::PHP_TIME_RUNQUEUE, seconds(self.runqueue_ns)),
            KeyValue::new(name::PHP_POOL, facts.pool.clone()),
            KeyValue::new(name::PROCESS_PID, i64::from(facts.pid)),
        ];
        let mut push = |key: &'static str, value: Value| attributes.push(KeyValue::new(key, value));
        if let Some(syscall) = &self.syscall {
            push(name::PHP_WAIT_SYSCALL, syscall.clone().into());
        }
        for (key, text) in [
            (name::CODE_FUNCTION_NAME, &self.function),
            (name::CODE_FILE_PATH, &self.file),
            (name::FILE_NAME, &self.file_name),
        ] {
            if let Some(text) = text {
                push(key, text.clone().into());
            }
        }
        if let Some(line) = self.line {
            push(name::CODE_LINE_NUMBER, i64::from(line).into());
        }
        if !self.stacktrace.is_empty() {
            let stack = if self.stacktrace.len() <= MAX_STACKTRACE_BYTES {
                StringValue::from(Arc::clone(&self.stacktrace))
            } else {
                cut_stacktrace(&self.stacktrace).into()
            };
            push(name::CODE_STACKTRACE, Value::String(stack));
        }
        if let Some(peer) = &self.peer {
            push(name::NETWORK_PEER_ADDRESS, peer.address.clone().into());
            if let Some(port) = peer.port {
                push(name::NETWORK_PEER_PORT, i64::from(port).into());
            }
            if let Some(transport) = &peer.transport {
                push(name::NETWORK_TRANSPORT, transport.clone().into());
            }
        }
        attributes.extend(self.tcp.iter().flat_map(TcpState::attributes));
        attributes
    }
}

impl WaitPlace {
    /// `mysqli_query /srv/wp-db.php:2347 network 127.0.0.1:3306 0.412 s in 3`.
    fn line(&self) -> String {
        let mut line = self.function.clone().unwrap_or_else(|| "no PHP code".to_owned());
        match (&self.file, self.line) {
            (Some(file), Some(number)) => line += &format!(" {file}:{number}"),
            (Some(file), None) => line += &format!(" {file}"),
            (None, _) => {}
        }
        line += &format!(" {}", self.class);
        if let Some(with) = &self.with {
            line += &format!(" {with}");
        }
        line + &format!(" {:.3} s in {}", seconds(self.blocked_ns), self.waits)
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "wait_span_tests.rs"]
mod tests;
