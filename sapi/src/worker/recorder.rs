//! Tells the observer what this worker serves, through the slot; and gives each
//! request its place in a trace.

use std::os::fd::OwnedFd;

use glasspool_abi::record::{self, BeginScalars, Encoder, EndScalars, Text};
use glasspool_abi::slot::{SlotWriter, Stage};
use glasspool_abi::trace::{
    FLAG_RANDOM, FLAG_SAMPLED, Sampler, SpanId, TraceId, TraceParent, tracestate_is_valid,
};
use glasspool_fastcgi::Params;

use super::clock;
use super::exchange::KeptError;

/// Random bytes fetched from the kernel at once.
const POOL_BYTES: usize = 4096;

/// The worker's side of its slot, and the numbers of the request under way.
#[derive(Debug)]
pub(crate) struct Recorder {
    slot: SlotWriter,
    doorbell: OwnedFd,
    begin: Encoder,
    end: Encoder,
    number: u64,
    start: (u64, u64),
    cpu: (u64, u64),
    random: RandomBytes,
}

impl Recorder {
    pub(crate) fn new(slot: SlotWriter, doorbell: OwnedFd) -> Recorder {
        Recorder {
            slot,
            doorbell,
            begin: Encoder::default(),
            end: Encoder::default(),
            number: 0,
            start: (0, 0),
            cpu: clock::cpu_ns(),
            random: RandomBytes::new(),
        }
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.slot.set_stage(stage);
    }

    /// Takes the time: the first byte of a request is here.
    pub(crate) fn mark_start(&mut self) {
        self.start = (clock::unix_ns(), clock::monotonic_ns());
    }

    /// Draws ids, decides on sampling and has PHP see our span as its parent: the
    /// parameters HTTP_TRACEPARENT and HTTP_TRACESTATE are rewritten. An invalid
    /// traceparent counts as none, and its tracestate goes with it. When no spans are
    /// made (`tracing` is false) the parameters stay: our span would be a parent that
    /// nobody ever sees.
    pub(crate) fn trace(&mut self, params: &mut Params, sampler: &Sampler, tracing: bool) -> BeginScalars {
        let parent = params.get(b"HTTP_TRACEPARENT").and_then(TraceParent::parse);
        let (trace_id, random) = match &parent {
            Some(parent) => (parent.trace_id, parent.flags & FLAG_RANDOM != 0),
            None => (TraceId(self.random.take()), true),
        };
        let span_id = SpanId(self.random.take());
        let sampled = sampler.sample(parent.as_ref(), &trace_id);
        let flags = if sampled { FLAG_SAMPLED } else { 0 } | if random { FLAG_RANDOM } else { 0 };
        let state_is_valid =
            parent.is_some() && params.get(b"HTTP_TRACESTATE").is_some_and(tracestate_is_valid);
        if tracing && !state_is_valid {
            params.remove(b"HTTP_TRACESTATE");
        }
        if tracing {
            params.set(
                b"HTTP_TRACEPARENT",
                &TraceParent {
                    trace_id,
                    span_id,
                    flags,
                }
                .to_header(),
            );
        }
        self.number += 1;
        BeginScalars {
            number: self.number,
            start_unix_ns: self.start.0,
            start_mono_ns: self.start.1,
            trace_id,
            span_id,
            parent: parent.map(|p| p.span_id),
            sampled,
            random,
        }
    }

    /// Publishes what begins.
    pub(crate) fn begin(&mut self, scalars: &BeginScalars, params: &Params, script: Option<&[u8]>) {
        let said = Said::of(params);
        let begin = &mut self.begin;
        begin.begin(scalars);
        begin.text(Text::Method, said.method);
        let path = if said.uri.is_empty() {
            said.script_name
        } else {
            said.uri
        };
        begin.text(Text::Path, path.split(|b| *b == b'?').next().unwrap_or_default());
        begin.text(Text::Query, said.query);
        begin.text(Text::Script, script.unwrap_or_default());
        let scheme: &[u8] = match (said.scheme, said.https) {
            (b"", b"on" | b"1" | b"https") => b"https",
            (b"", _) => b"http",
            (scheme, _) => scheme,
        };
        begin.text(Text::Scheme, scheme);
        let host = if said.host.is_empty() {
            said.server_name
        } else {
            said.host
        };
        begin.text(Text::Host, host);
        begin.text(Text::Port, said.port);
        begin.text(Text::Client, said.client);
        begin.text(Text::UserAgent, said.user_agent);
        begin.text(Text::Protocol, said.protocol);
        begin.text(Text::TraceState, said.trace_state);
        self.slot.publish_begin(begin.bytes());
        self.slot.set_stage(Stage::Info);
    }

    /// Publishes what has ended. CPU time is counted from the end of the request
    /// before, so that accepting and reading this one belong to it.
    pub(crate) fn end(&mut self, scalars: EndScalars, error: Option<&KeptError>) {
        let cpu = clock::cpu_ns();
        let mut scalars = EndScalars {
            end_mono_ns: clock::monotonic_ns(),
            cpu_user_ns: cpu.0.saturating_sub(self.cpu.0),
            cpu_system_ns: cpu.1.saturating_sub(self.cpu.1),
            ..scalars
        };
        self.cpu = cpu;
        if let Some(error) = error {
            scalars.flags |= record::HAS_ERROR | if error.is_fatal() { record::FATAL } else { 0 };
            scalars.error_level = u32::try_from(error.kind).unwrap_or(0);
            scalars.error_line = error.line;
        }
        self.end.end(&scalars, self.begin.bytes());
        if let Some(error) = error {
            self.end.text(Text::ErrorType, error_type(error));
            self.end.text(Text::ErrorMessage, &error.message);
            self.end.text(Text::ErrorFile, &error.file);
        }
        self.publish();
    }

    /// Publishes that a connection failed before it had become a request.
    pub(crate) fn incident(&mut self, message: &str) {
        let now = (clock::unix_ns(), clock::monotonic_ns());
        self.begin.begin(&BeginScalars {
            number: self.number,
            start_unix_ns: now.0,
            start_mono_ns: now.1,
            trace_id: TraceId([0; 16]),
            span_id: SpanId([0; 8]),
            parent: None,
            sampled: false,
            random: false,
        });
        let scalars = EndScalars {
            responded_mono_ns: now.1,
            end_mono_ns: now.1,
            flags: record::INCIDENT,
            ..EndScalars::default()
        };
        self.end.end(&scalars, self.begin.bytes());
        self.end.text(Text::ErrorMessage, message.as_bytes());
        self.publish();
    }

    fn publish(&mut self) {
        if self.slot.publish_end(self.number, self.end.bytes()) {
            // The doorbell never blocks; if it is full it has been rung already.
            let _rung = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
        }
    }
}

/// What the web server said, found in one pass over the parameters.
#[derive(Default)]
struct Said<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    script_name: &'a [u8],
    query: &'a [u8],
    scheme: &'a [u8],
    https: &'a [u8],
    host: &'a [u8],
    server_name: &'a [u8],
    port: &'a [u8],
    client: &'a [u8],
    user_agent: &'a [u8],
    protocol: &'a [u8],
    trace_state: &'a [u8],
}

impl<'a> Said<'a> {
    fn of(params: &'a Params) -> Said<'a> {
        let mut said = Said::default();
        for (name, value) in params.iter() {
            let place = match name {
                b"REQUEST_METHOD" => &mut said.method,
                b"REQUEST_URI" => &mut said.uri,
                b"SCRIPT_NAME" => &mut said.script_name,
                b"QUERY_STRING" => &mut said.query,
                b"REQUEST_SCHEME" => &mut said.scheme,
                b"HTTPS" => &mut said.https,
                b"HTTP_HOST" => &mut said.host,
                b"SERVER_NAME" => &mut said.server_name,
                b"SERVER_PORT" => &mut said.port,
                b"REMOTE_ADDR" => &mut said.client,
                b"HTTP_USER_AGENT" => &mut said.user_agent,
                b"SERVER_PROTOCOL" => &mut said.protocol,
                b"HTTP_TRACESTATE" => &mut said.trace_state,
                _ => continue,
            };
            *place = value;
        }
        said
    }
}

/// The class of an uncaught exception, else PHP's name of the level.
fn error_type(error: &KeptError) -> &[u8] {
    if let Some(rest) = error.message.strip_prefix(b"Uncaught ") {
        let end = rest
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'\\' | 0x80..)));
        let class = &rest[..end.unwrap_or(rest.len())];
        if !class.is_empty() {
            return class;
        }
    }
    match error.kind {
        1 => b"E_ERROR",
        2 => b"E_WARNING",
        4 => b"E_PARSE",
        8 => b"E_NOTICE",
        16 => b"E_CORE_ERROR",
        32 => b"E_CORE_WARNING",
        64 => b"E_COMPILE_ERROR",
        128 => b"E_COMPILE_WARNING",
        256 => b"E_USER_ERROR",
        512 => b"E_USER_WARNING",
        1024 => b"E_USER_NOTICE",
        2048 => b"E_STRICT",
        4096 => b"E_RECOVERABLE_ERROR",
        8192 => b"E_DEPRECATED",
        16384 => b"E_USER_DEPRECATED",
        _ => b"unknown",
    }
}

/// Random bytes of the kernel, fetched many at a time so that ids cost no system
/// call each.
#[derive(Debug)]
struct RandomBytes {
    pool: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl RandomBytes {
    fn new() -> RandomBytes {
        RandomBytes {
            pool: Box::new([0; POOL_BYTES]),
            used: POOL_BYTES,
        }
    }

    /// Never all zero, which would be an invalid id.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        loop {
            if self.used + N > POOL_BYTES {
                self.refill();
            }
            let mut id = [0; N];
            id.copy_from_slice(&self.pool[self.used..self.used + N]);
            self.used += N;
            if id != [0; N] {
                return id;
            }
        }
    }

    fn refill(&mut self) {
        let mut filled = 0;
        while filled < POOL_BYTES {
            match rustix::rand::getrandom(&mut self.pool[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // getrandom(2) fails otherwise only on kernels that do not have it.
                Err(_) => {
                    let mut seed = clock::unix_ns() | 1;
                    for byte in &mut self.pool[filled..] {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        *byte = seed.to_ne_bytes()[0];
                    }
                    filled = POOL_BYTES;
                }
            }
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        let bytes = glasspool_abi::slot::SLOT_HEAD_BYTES + 16384;
        let file = glasspool_abi::create_slot_memory(bytes).expect("a memory file");
        let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
        Recorder::new(SlotWriter::map(file, bytes).expect("maps"), doorbell)
    }

    #[test]
    fn php_sees_our_span_as_its_parent() {
        let mut params = Params::new();
        params.push(
            b"HTTP_TRACEPARENT",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
        params.push(b"HTTP_TRACESTATE", b"a=b");
        let scalars = recorder().trace(&mut params, &Sampler::default(), true);
        assert_eq!(scalars.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(
            scalars.parent.map(|p| p.to_string()).as_deref(),
            Some("b7ad6b7169203331")
        );
        let seen = TraceParent::parse(params.get(b"HTTP_TRACEPARENT").expect("set")).expect("valid");
        assert_eq!((seen.trace_id, seen.span_id), (scalars.trace_id, scalars.span_id));
        assert_eq!(params.get(b"HTTP_TRACESTATE"), Some(&b"a=b"[..]));
    }

    #[test]
    fn an_invalid_traceparent_is_ignored_whole() {
        let mut params = Params::new();
        params.push(
            b"HTTP_TRACEPARENT",
            b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
        params.push(b"HTTP_TRACESTATE", b"a=b");
        let scalars = recorder().trace(&mut params, &Sampler::default(), true);
        assert_eq!(scalars.parent, None);
        assert_eq!(params.get(b"HTTP_TRACESTATE"), None);
        let seen = TraceParent::parse(params.get(b"HTTP_TRACEPARENT").expect("set")).expect("valid");
        assert_eq!((seen.trace_id, seen.span_id), (scalars.trace_id, scalars.span_id));
    }

    #[test]
    fn an_uncaught_exception_is_named_by_its_class() {
        let error = |kind, message: &[u8]| KeptError {
            kind,
            message: message.to_vec(),
            ..KeptError::default()
        };
        assert_eq!(
            error_type(&error(1, b"Uncaught App\\Oops: no in /a.php:3")),
            b"App\\Oops"
        );
        assert_eq!(error_type(&error(1, b"Allowed memory size")), b"E_ERROR");
        assert_eq!(error_type(&error(4, b"Uncaught ")), b"E_PARSE");
    }

    #[test]
    fn ids_differ() {
        let mut random = RandomBytes::new();
        let ids: std::collections::HashSet<[u8; 8]> = (0..2000).map(|_| random.take()).collect();
        assert_eq!(ids.len(), 2000);
    }
}
