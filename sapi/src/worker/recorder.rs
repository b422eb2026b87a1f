//! Tells the observer what this worker serves, through the slot; and gives each
//! request its place in a trace.

use std::os::fd::OwnedFd;

use glasspool_abi::record::{self, BeginScalars, Encoder, EndScalars, Text};
use glasspool_abi::slot::{Last, SlotWriter, Stage};
use glasspool_abi::trace::{
    FLAG_RANDOM, FLAG_SAMPLED, Sampler, SpanId, TraceId, TraceParent, tracestate_is_valid,
};
use glasspool_fastcgi::Params;

use super::account::Account;
use super::clock;
use super::exchange::Resolved;
use super::php_error::KeptError;
use super::random::RandomBytes;

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
    account: Account,
    random: RandomBytes,
}

impl Recorder {
    pub(crate) fn new(slot: SlotWriter, doorbell: OwnedFd, account: Account) -> Recorder {
        Recorder {
            slot,
            doorbell,
            begin: Encoder::default(),
            end: Encoder::default(),
            number: 0,
            start: (0, 0),
            cpu: clock::cpu_ns(),
            account,
            random: RandomBytes::new(),
        }
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        self.slot.set_stage(stage);
    }

    /// Takes the time: the first byte of a request is here.
    pub(crate) fn mark_start(&mut self) {
        self.start = self.account.begin(self.number + 1);
        self.slot.set_started(self.start.1);
    }

    /// When the request under way began, wall clock and monotonic, and the user and
    /// system CPU time of the worker until then; all in nanoseconds.
    pub(crate) fn started(&self) -> ((u64, u64), (u64, u64)) {
        (self.start, self.cpu)
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
    pub(crate) fn begin(&mut self, scalars: &BeginScalars, params: &Params, resolved: &Resolved) {
        let said = Said::of(params);
        self.slot.set_content_length(resolved.content_length);
        let begin = &mut self.begin;
        begin.begin(scalars);
        begin.text(Text::Method, said.method);
        let path = if said.uri.is_empty() {
            said.script_name
        } else {
            said.uri
        };
        let path = path.split(|b| *b == b'?').next().unwrap_or_default();
        begin.text(Text::Path, path);
        begin.text(Text::Query, said.query);
        begin.text(Text::Script, resolved.script().unwrap_or_default());
        if let Some(uri) = resolved.uri().filter(|uri| *uri != path) {
            begin.text(Text::ScriptUri, uri);
        }
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
        self.slot.publish_begin(begin.bytes(), self.account.at_begin());
        self.slot.set_stage(Stage::Info);
    }

    /// Adds who the client says it is, once PHP has found out.
    pub(crate) fn user(&mut self, user: &[u8]) {
        self.begin.text(Text::User, user);
        self.slot
            .publish_begin(self.begin.bytes(), self.account.at_begin());
    }

    /// Publishes what has ended. CPU time is counted from the end of the request
    /// before, so that accepting and reading this one belong to it.
    pub(crate) fn end(&mut self, scalars: EndScalars, error: Option<&KeptError>) {
        let cpu = clock::cpu_ns();
        let cpu_user_ns = cpu.0.saturating_sub(self.cpu.0);
        let cpu_system_ns = cpu.1.saturating_sub(self.cpu.1);
        self.cpu = cpu;
        let (end_mono_ns, times) = self.account.end(self.start.1, cpu_user_ns + cpu_system_ns);
        let mut scalars = EndScalars {
            end_mono_ns,
            cpu_user_ns,
            cpu_system_ns,
            times,
            ..scalars
        };
        self.slot.set_last(Last {
            cpu_ns: scalars.cpu_user_ns + scalars.cpu_system_ns,
            duration_ns: scalars.end_mono_ns.saturating_sub(self.start.1),
            memory_peak: scalars.memory_peak,
        });
        if let Some(error) = error {
            scalars.flags |= record::HAS_ERROR | if error.is_fatal() { record::FATAL } else { 0 };
            scalars.error_level = u32::try_from(error.kind).unwrap_or(0);
            scalars.error_line = error.line;
        }
        self.end.end(&scalars, self.begin.bytes());
        if let Some(error) = error {
            self.end.text(Text::ErrorType, error.type_name());
            self.end.text(Text::ErrorMessage, &error.message);
            self.end.text(Text::ErrorFile, &error.file);
        }
        self.publish();
    }

    /// Publishes that a connection failed before it had become a request.
    pub(crate) fn incident(&mut self, message: &str) {
        let now = (clock::unix_ns(), clock::monotonic_ns());
        self.account.abandon();
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
        self.slot.set_started(0);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        let bytes = glasspool_abi::slot::SLOT_HEAD_BYTES + 16384;
        let file = glasspool_abi::create_slot_memory(bytes).expect("a memory file");
        let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
        let account = Account::of(None, false, || false);
        Recorder::new(SlotWriter::map(file, bytes).expect("maps"), doorbell, account)
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
}
