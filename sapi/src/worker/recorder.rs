//! Tells the observer what this worker serves, through the slot; and gives each
//! request its place in a trace, which is in `context.rs`.

mod context;
pub(crate) mod line;

use std::os::fd::OwnedFd;

use glasspool_abi::record::{self, BeginScalars, Encoder, EndScalars, Text};
use glasspool_abi::slot::{Last, SlotWriter, Stage};
use glasspool_abi::trace::lists::shorten_tracestate;
use glasspool_abi::trace::policy::Policy;
use glasspool_abi::trace::queued::queued_ns;
use glasspool_abi::trace::raised::RaisedRules;
use glasspool_abi::trace::{SpanId, TraceId, TraceParent};
use glasspool_fastcgi::Params;

use self::line::Lines;
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
    /// Rules of sampling that the supervisor raises for a time.
    raised: Option<RaisedRules>,
    /// The context of the request's caller, who is not trusted.
    link: Option<TraceParent>,
    /// What the application calls the request.
    route: Vec<u8>,
    lines: Lines,
    /// How long the request under way had waited before it came, where somebody says so.
    queued_ns: Option<u64>,
}

impl Recorder {
    pub(crate) fn new(
        slot: SlotWriter,
        doorbell: OwnedFd,
        account: Account,
        raised: Option<RaisedRules>,
    ) -> Recorder {
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
            raised,
            link: None,
            route: Vec::with_capacity(Text::Route.max_bytes()),
            lines: Lines::default(),
            queued_ns: None,
        }
    }

    /// Trace and span of the request under way, or of the last one.
    pub(crate) fn ids(&self) -> Option<(TraceId, SpanId)> {
        let ids = record::Begin::ids(self.begin.bytes())?;
        (ids.0.0 != [0; 16]).then_some(ids)
    }

    pub(crate) fn set_stage(&mut self, stage: Stage) {
        if !self.is_copy() {
            self.slot.set_stage(stage);
        }
    }

    /// Whether this is a copy of the worker that its script has forked. It has the slot too,
    /// which tells of the worker's request and of no other; so it says nothing.
    pub(crate) fn is_copy(&self) -> bool {
        self.account.is_copy()
    }

    /// Takes the time: the first byte of a request is here.
    pub(crate) fn mark_start(&mut self) {
        self.start = self.account.begin(self.number + 1);
        if !self.is_copy() {
            self.slot.set_started(self.start.1);
        }
    }

    /// When the request under way began, wall clock and monotonic, and the user and
    /// system CPU time of the worker until then; all in nanoseconds.
    pub(crate) fn started(&self) -> ((u64, u64), (u64, u64)) {
        (self.start, self.cpu)
    }

    /// How long the request under way had waited before it came, nanoseconds, where somebody
    /// who can be believed says so.
    pub(crate) fn queued_ns(&self) -> Option<u64> {
        self.queued_ns
    }

    /// Tells where the time of the request under way goes.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Publishes what begins.
    pub(crate) fn begin(
        &mut self,
        scalars: &BeginScalars,
        params: &Params,
        resolved: &Resolved,
        policy: &Policy,
    ) {
        let said = Said::of(params);
        let origin = context::origin_for_record(params, said.client, policy);
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
        begin.text(Text::Scheme, origin.scheme.unwrap_or(scheme));
        let host = if said.host.is_empty() {
            said.server_name
        } else {
            said.host
        };
        begin.text(Text::Host, origin.host.unwrap_or(host));
        begin.text(Text::Port, said.port);
        begin.text(Text::Client, origin.client);
        if origin.client != said.client {
            begin.text(Text::Peer, said.client);
        }
        begin.text(Text::PeerPort, said.peer_port);
        begin.text(Text::UserAgent, said.user_agent);
        begin.text(Text::Protocol, said.protocol);
        begin.text(Text::TraceState, &shorten_tracestate(said.trace_state));
        if let Some(link) = &self.link {
            begin.text(Text::Link, &link.to_header());
        }
        let taken = said.taken(origin.is_proxied);
        self.queued_ns = taken.and_then(|taken| queued_ns(taken, self.start.0));
        if let Some(queued) = self.queued_ns {
            begin.text(Text::Queued, queued.to_string().as_bytes());
        }
        if !self.is_copy() {
            self.slot.set_content_length(resolved.content_length);
            self.slot
                .publish_begin(self.begin.bytes(), self.account.at_begin());
            self.slot.set_stage(Stage::Info);
        }
    }

    /// Takes the route that the application names.
    pub(crate) fn route(&mut self, route: &[u8]) {
        self.route.clear();
        self.route
            .extend_from_slice(&route[..route.len().min(Text::Route.max_bytes())]);
    }

    /// Adds who the client says it is, once PHP has found out.
    pub(crate) fn user(&mut self, user: &[u8]) {
        self.begin.text(Text::User, user);
        if !self.is_copy() {
            self.slot
                .publish_begin(self.begin.bytes(), self.account.at_begin());
        }
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
        if !self.is_copy() {
            self.slot.set_last(Last {
                cpu_ns: scalars.cpu_user_ns + scalars.cpu_system_ns,
                duration_ns: scalars.end_mono_ns.saturating_sub(self.start.1),
                memory_peak: scalars.memory_peak,
            });
        }
        if let Some(error) = error {
            scalars.flags |= record::HAS_ERROR | if error.is_fatal() { record::FATAL } else { 0 };
            scalars.error_level = u32::try_from(error.kind).unwrap_or(0);
            scalars.error_line = error.line;
        }
        self.end.end(&scalars, self.begin.bytes());
        self.end.text(Text::Route, &self.route);
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
        self.lines.ended = self.number;
        if self.is_copy() {
            return;
        }
        self.slot.set_started(0);
        if self.slot.publish_end(self.number, self.end.bytes()) {
            self.ring_bell();
        }
    }

    fn ring_bell(&self) {
        // The doorbell never blocks; if it is full it has been rung already.
        let _rung = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
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
    peer_port: &'a [u8],
    /// When the web server took the request, by itself: no client can send this name.
    taken_here: &'a [u8],
    /// The same by a header, so by whoever sent that.
    taken_before: &'a [u8],
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
                b"REMOTE_PORT" => &mut said.peer_port,
                b"REQUEST_START" => &mut said.taken_here,
                b"HTTP_X_REQUEST_START" | b"HTTP_X_QUEUE_START" => &mut said.taken_before,
                _ => continue,
            };
            *place = value;
        }
        said
    }

    /// When the request was taken over from the client, by somebody who can be believed.
    fn taken(&self, is_proxied: bool) -> Option<&'a [u8]> {
        match (self.taken_before, self.taken_here) {
            (before, _) if is_proxied && !before.is_empty() => Some(before),
            (_, b"") => None,
            (_, here) => Some(here),
        }
    }
}
