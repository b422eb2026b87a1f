//! An OTLP receiver: counts what a server under test exports.
//!
//! It speaks OTLP over HTTP with protobuf bodies (OTLP specification, "OTLP/HTTP"): POST to `/v1/traces`,
//! `/v1/logs` and `/v1/metrics` on a loopback port, answered with an empty response message. A collector usually
//! runs on another machine, so its work must not compete with the servers for two cores: bodies are
//! kept as they come and decoded between the rounds, unless they exceed [`MAX_WAITING_BYTES`].

mod names;
mod sums;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use prost::Message;
use tokio::sync::oneshot;

use crate::BenchError;
use crate::stop::Stop;

pub use names::{Names, OWN_TRACE};
pub use sums::{CLOSE_NS, FAR_NS, Sums};

/// Largest request, as the OTLP specification recommends to accept.
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// Bodies kept undecoded; beyond it the receiver decodes as many as arrive, before it answers.
const MAX_WAITING_BYTES: usize = 512 << 20;
/// Samples kept of slow requests.
const MAX_SAMPLES: usize = 10_000;
/// How often a wait looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// Everything received so far.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Spans of kind SERVER: one for each request.
    pub spans: u64,
    /// Spans of other kinds.
    pub other_spans: u64,
    /// Export requests, logs included.
    pub exports: u64,
    /// Export requests that could not be decoded or were refused.
    pub refused: u64,
    /// Looks at slow requests, from the events on their spans.
    pub samples: Vec<Sample>,
    /// SERVER spans by their status; `killed` are those whose worker died.
    pub by_outcome: BTreeMap<String, u64>,
    /// The counts of `http.server.request.duration` likewise, as they were told last.
    pub durations: BTreeMap<String, u64>,
    /// Where the time of all requests went.
    pub sums: Sums,
}

/// One look at a slow request, as the server tells it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Attribute `php.sample.how`.
    pub how: String,
    /// Attribute `php.sample.cost`: what it cost the worker, microseconds.
    pub cost_us: f64,
}

/// A running receiver; ends when dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<Shared>,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    /// Nothing is answered.
    swallows: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    received: Received,
    /// What names requests, if that is to be judged.
    seen: Option<names::Seen>,
}

impl Sink {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// No port, runtime or thread.
    pub fn start() -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchError::system("start a runtime for the OTLP sink"))?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .map_err(BenchError::system("listen for OTLP on 127.0.0.1"))?;
        let address = listener.local_addr().map_err(BenchError::system("getsockname"))?;
        let state = Arc::new(Shared::default());
        let (quit, told_to_quit) = oneshot::channel();
        let shared = Arc::clone(&state);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = told_to_quit => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("otlp-sink".to_owned())
            .spawn(serve)
            .map_err(BenchError::system("start the thread of the OTLP sink"))?;
        Ok(Self {
            address,
            state,
            quit: Some(quit),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on takes connections and answers nothing, or answers again.
    pub fn swallow(&self, swallow: bool) {
        self.state.swallows.store(swallow, Ordering::Relaxed);
    }

    /// Decodes what waits, and returns everything received so far.
    pub fn received(&self) -> Received {
        let mut state = self.state.lock();
        state.decode();
        state.received.clone()
    }

    /// From now on keeps what is needed to tell whether what names a request names the right one.
    pub fn judge_names(&self) {
        self.state.lock().seen.get_or_insert_default();
    }

    /// Whether it does, of everything that has come since.
    pub fn names(&self) -> Names {
        let mut state = self.state.lock();
        state.decode();
        state.seen.as_ref().map(names::Seen::names).unwrap_or_default()
    }

    /// Begins anew to add up times.
    pub fn forget_sums(&self) {
        let mut state = self.state.lock();
        state.decode();
        state.received.sums = Sums::default();
    }

    /// Waits until `spans` SERVER spans are there, or nothing came for `quiet`.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn settle(&self, spans: u64, quiet: Duration, stop: &Stop) -> Result<Received, BenchError> {
        let mut exports = u64::MAX;
        let mut deadline = Instant::now() + quiet;
        let mut state = self.state.lock();
        loop {
            state.decode();
            if state.received.exports != exports {
                exports = state.received.exports;
                deadline = Instant::now() + quiet;
            }
            if state.received.spans >= spans || Instant::now() >= deadline {
                return Ok(state.received.clone());
            }
            stop.check()?;
            let waited = self.state.arrived.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Counters stay consistent at every point where a thread can panic, so a poisoned lock is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, body: Bytes) {
        let mut state = self.lock();
        state.waiting_bytes += body.len();
        state.waiting.push_back(body);
        state.received.exports += 1;
        // As much as came, and not all at once: nobody would be answered for seconds.
        while state.waiting_bytes > MAX_WAITING_BYTES && state.decode_first() {}
        drop(state);
        self.arrived.notify_all();
    }
}

// === impl State ===

impl State {
    fn decode(&mut self) {
        while self.decode_first() {}
    }

    /// The body that waits longest; false if there is none.
    fn decode_first(&mut self) -> bool {
        let Some(body) = self.waiting.pop_front() else {
            return false;
        };
        self.waiting_bytes -= body.len();
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) => self.received.add(&request, self.seen.as_mut()),
            Err(_) => self.received.refused += 1,
        }
        true
    }

    fn add_metrics(&mut self, request: ExportMetricsServiceRequest) {
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            match (metric.name.as_str(), metric.data) {
                ("http.server.request.duration", Some(Data::Histogram(durations))) => {
                    self.add_durations(&durations.data_points);
                }
                ("php.worker.lines_dropped", Some(Data::Sum(lines))) => {
                    if let Some(seen) = &mut self.seen {
                        seen.set_missing_lines(&lines.data_points);
                    }
                }
                _ => {}
            }
        }
    }

    fn add_durations(&mut self, points: &[HistogramDataPoint]) {
        let mut counts = BTreeMap::new();
        for point in points {
            *counts.entry(outcome(&point.attributes)).or_default() += point.count;
            if let Some(seen) = &mut self.seen {
                seen.add_exemplars(point);
            }
        }
        self.received.durations = counts;
    }
}

// === impl Received ===

impl Received {
    fn add(&mut self, request: &ExportTraceServiceRequest, mut seen: Option<&mut names::Seen>) {
        let scopes = request
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans);
        for span in scopes.flat_map(|scope| &scope.spans) {
            if span.kind() == SpanKind::Server {
                self.spans += 1;
                *self.by_outcome.entry(outcome(&span.attributes)).or_default() += 1;
                self.sums.add(span);
                if let Some(seen) = &mut seen {
                    seen.add_span(span);
                }
            } else {
                self.other_spans += 1;
            }
            let room = MAX_SAMPLES - self.samples.len();
            self.samples
                .extend(span.events.iter().filter_map(sample).take(room));
        }
    }
}

/// The status that a request ended with; `killed` if none, as its worker died.
fn outcome(attributes: &[KeyValue]) -> String {
    let status = attributes
        .iter()
        .find(|attribute| attribute.key == "http.response.status_code");
    match status.and_then(|status| status.value.as_ref()?.value.as_ref()) {
        Some(Value::IntValue(status)) => status.to_string(),
        _ => "killed".to_owned(),
    }
}

/// `docs` of the attribute names: `otel/src/semconv.rs`.
fn sample(event: &Event) -> Option<Sample> {
    let value = |name: &str| {
        let attribute = event.attributes.iter().find(|attribute| attribute.key == name)?;
        attribute.value.as_ref()?.value.as_ref()
    };
    let (Some(Value::DoubleValue(cost_s)), Some(Value::StringValue(how))) =
        (value("php.sample.cost"), value("php.sample.how"))
    else {
        return None;
    };
    (event.name == "php.request.slow").then(|| Sample {
        how: how.clone(),
        cost_us: cost_s * 1e6,
    })
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    loop {
        // Out of descriptors is the only likely failure, and then the next accept waits for one.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(request, &shared));
            let connection = hyper::server::conn::http1::Builder::new();
            // A connection that breaks is the sender's to notice; what arrived is counted.
            connection
                .serve_connection(TokioIo::new(stream), service)
                .await
                .unwrap_or_default();
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    while shared.swallows.load(Ordering::Relaxed) {
        tokio::time::sleep(TICK).await;
    }
    let status = receive(request, shared).await.err().unwrap_or(StatusCode::OK);
    if status != StatusCode::OK {
        shared.lock().received.refused += 1;
    }
    // An Export…ServiceResponse without partial success encodes to nothing.
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    let protobuf = hyper::header::HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert(CONTENT_TYPE, protobuf);
    Ok(response)
}

async fn receive(request: Request<Incoming>, shared: &Shared) -> Result<(), StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if request.headers().contains_key(CONTENT_ENCODING) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let path = request.uri().path().to_owned();
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
    let body = body.await.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
    match path.as_str() {
        "/v1/traces" => {
            shared.keep(body);
            return Ok(());
        }
        "/v1/logs" => {
            if let Some(seen) = &mut shared.lock().seen {
                let request = ExportLogsServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
                seen.add_lines(&request);
            }
        }
        "/v1/metrics" => {
            let request = ExportMetricsServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
            shared.lock().add_metrics(request);
        }
        _ => return Err(StatusCode::NOT_FOUND),
    }
    shared.lock().received.exports += 1;
    shared.arrived.notify_all();
    Ok(())
}

#[cfg(test)]
mod tests;
