//! What to export, where to, and how often: the `[otel]` part of the configuration
//! file under the `OTEL_*` variables, which win.
//!
//! The types are here, what wins over what is in `resolve.rs`.
//!
//! Pure. A variable that cannot be understood becomes a [`Warning`](crate::env::Warning) and counts as
//! absent; nothing here fails.

mod limits;
mod propagators;
mod resolve;

use std::{path::PathBuf, time::Duration};

use glasspool_abi::trace::{Sampler, policy::Propagators};

pub use self::limits::{AttributeLimits, Limits};
use crate::semconv::Conventions;

/// Where a signal goes (`OTEL_TRACES_EXPORTER`, `OTEL_LOGS_EXPORTER`,
/// `OTEL_METRICS_EXPORTER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExporterKind {
    /// To a collector.
    Otlp,
    /// To the file of `[otel]`, as lines of OTLP/JSON.
    OtlpFile,
    /// To standard output, likewise.
    OtlpStdout,
    /// To the terminal, for people.
    Console,
    /// Nowhere.
    None,
}

impl ExporterKind {
    /// The words of the specification, in lower case; `otlp_file` is that of its
    /// configuration files.
    pub fn parse(word: &str) -> Option<ExporterKind> {
        match word {
            "otlp" => Some(ExporterKind::Otlp),
            "otlp_file" => Some(ExporterKind::OtlpFile),
            "otlp/stdout" => Some(ExporterKind::OtlpStdout),
            "console" => Some(ExporterKind::Console),
            "none" => Some(ExporterKind::None),
            _ => None,
        }
    }
}

/// Transport of OTLP (`OTEL_EXPORTER_OTLP_PROTOCOL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// gRPC, port 4317.
    Grpc,
    /// Protobuf in HTTP POST, port 4318: the specification's default.
    #[default]
    HttpProtobuf,
}

impl Protocol {
    /// The words of the specification, in lower case.
    pub fn parse(word: &str) -> Option<Protocol> {
        match word {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => None,
        }
    }

    fn default_endpoint(self) -> &'static str {
        match self {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318",
        }
    }
}

/// Where the sample of a slow request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowSignal {
    /// As an event on the span, seen when the request has ended. Jaeger shows only these.
    Span,
    /// As a log record, sent at once.
    Log,
    /// Both.
    #[default]
    Both,
}

impl SlowSignal {
    /// `span`, `log` or `both`.
    pub fn parse(word: &str) -> Option<SlowSignal> {
        match word {
            "span" => Some(SlowSignal::Span),
            "log" => Some(SlowSignal::Log),
            "both" => Some(SlowSignal::Both),
            _ => None,
        }
    }

    /// Whether samples go onto the span.
    pub fn on_span(self) -> bool {
        matches!(self, SlowSignal::Span | SlowSignal::Both)
    }

    /// Whether samples go out as log records.
    pub fn as_log(self) -> bool {
        matches!(self, SlowSignal::Log | SlowSignal::Both)
    }
}

/// How counts and distributions are told
/// (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporality {
    /// All of them since the start.
    #[default]
    Cumulative,
    /// What only grows: since the last export.
    Delta,
    /// Distributions since the last export, the rest since the start.
    LowMemory,
}

impl Temporality {
    /// The words of the specification, in lower case.
    pub fn parse(word: &str) -> Option<Temporality> {
        match word {
            "cumulative" => Some(Temporality::Cumulative),
            "delta" => Some(Temporality::Delta),
            "lowmemory" => Some(Temporality::LowMemory),
            _ => None,
        }
    }
}

/// When metrics are sent, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricReader {
    /// From one export to the next (`OTEL_METRIC_EXPORT_INTERVAL`).
    pub interval: Duration,
    /// Longest time for one export (`OTEL_METRIC_EXPORT_TIMEOUT`).
    pub timeout: Duration,
    /// How counts are told.
    pub temporality: Temporality,
}

impl Default for MetricReader {
    /// The specification's numbers.
    fn default() -> Self {
        MetricReader {
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            temporality: Temporality::Cumulative,
        }
    }
}

/// Where Prometheus reads the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrometheusOptions {
    /// Whether `OTEL_METRICS_EXPORTER` names it.
    pub wanted: bool,
    /// `OTEL_EXPORTER_PROMETHEUS_HOST`, if it is set; `localhost` to the specification.
    pub host: Option<String>,
    /// `OTEL_EXPORTER_PROMETHEUS_PORT`, likewise; 9464.
    pub port: Option<u16>,
}

/// Which requests stand for their bucket of a distribution
/// (`OTEL_METRICS_EXEMPLAR_FILTER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExemplarFilter {
    /// Those whose span is exported.
    #[default]
    TraceBased,
    /// Every one.
    AlwaysOn,
    /// None.
    AlwaysOff,
}

impl ExemplarFilter {
    /// The words of the specification, in lower case.
    pub fn parse(word: &str) -> Option<ExemplarFilter> {
        match word {
            "trace_based" => Some(ExemplarFilter::TraceBased),
            "always_on" => Some(ExemplarFilter::AlwaysOn),
            "always_off" => Some(ExemplarFilter::AlwaysOff),
            _ => None,
        }
    }
}

/// Files for TLS, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Whom to trust; without it, whom the system trusts
    /// (`OTEL_EXPORTER_OTLP_CERTIFICATE`).
    pub certificate: Option<PathBuf>,
    /// Who we are (`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`).
    pub client_certificate: Option<PathBuf>,
    /// The private key to that (`OTEL_EXPORTER_OTLP_CLIENT_KEY`).
    pub client_key: Option<PathBuf>,
}

/// One OTLP destination.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpTarget {
    /// Transport.
    pub protocol: Protocol,
    /// The whole address; for HTTP with its path.
    pub endpoint: String,
    /// Headers of each request, often a secret.
    pub headers: Vec<(String, String)>,
    /// Longest time for one request with its retries.
    pub timeout: Duration,
    /// Whether bodies are compressed with gzip.
    pub gzip: bool,
    /// Whether a gRPC endpoint without a scheme is one without TLS.
    pub insecure: bool,
    /// What an `https://` endpoint needs.
    pub tls: TlsFiles,
}

impl std::fmt::Debug for OtlpTarget {
    /// Leaves the values of the headers out: they carry API keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpTarget")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint)
            .field(
                "headers",
                &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .field("insecure", &self.insecure)
            .field("tls", &self.tls)
            .finish()
    }
}

/// Where one signal (traces, logs or metrics) goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalOptions {
    /// Which exporter.
    pub exporter: ExporterKind,
    /// The destination if it is OTLP.
    pub target: OtlpTarget,
}

/// Bounds of the queue in front of an exporter and of what it sends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// How long an item may wait for others to travel with.
    pub schedule_delay: Duration,
    /// Longest time for one export, whatever the exporter does.
    pub export_timeout: Duration,
    /// Items waiting at most.
    pub max_queue_items: usize,
    /// Estimated bytes waiting at most.
    pub max_queue_bytes: usize,
    /// Items in one export at most.
    pub max_batch_items: usize,
}

impl Default for BatchOptions {
    /// The specification's numbers, and 8 MiB of memory.
    fn default() -> Self {
        BatchOptions {
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(30),
            max_queue_items: 2048,
            max_queue_bytes: 8 << 20,
            max_batch_items: 512,
        }
    }
}

/// What the configuration file says. `None` and empty: it says nothing.
#[derive(Debug, Clone, Default)]
#[expect(
    missing_docs,
    reason = "each field is the one of the same name in Options, SignalOptions or OtlpTarget"
)]
pub struct FileDefaults {
    pub service_name: Option<String>,
    pub resource_attributes: Vec<(String, String)>,
    pub traces_exporter: Option<ExporterKind>,
    pub logs_exporter: Option<ExporterKind>,
    pub metrics_exporter: Option<ExporterKind>,
    pub protocol: Option<Protocol>,
    /// Base address, as in `OTEL_EXPORTER_OTLP_ENDPOINT`: `/v1/traces` is appended for HTTP.
    pub endpoint: Option<String>,
    pub headers: Vec<(String, String)>,
    pub timeout: Option<Duration>,
    pub gzip: Option<bool>,
    pub sampler: Option<Sampler>,
    pub schedule_delay: Option<Duration>,
    pub max_queue_items: Option<usize>,
    pub max_queue_bytes: Option<usize>,
    pub slow_signal: Option<SlowSignal>,
    pub redacted_query_keys: Option<Vec<String>>,
}

/// The whole of what the exporting side must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Resource attributes of the operator, `service.name` included.
    pub resource_attributes: Vec<(String, String)>,
    /// Where spans go.
    pub traces: SignalOptions,
    /// Where log records go.
    pub logs: SignalOptions,
    /// Where metrics go.
    pub metrics: SignalOptions,
    /// When metrics go.
    pub metric_reader: MetricReader,
    /// Where they can be fetched besides.
    pub prometheus: PrometheusOptions,
    /// Which requests stand for others.
    pub exemplars: ExemplarFilter,
    /// Whether `OTEL_SDK_DISABLED` switches everything off.
    pub disabled: bool,
    /// How workers decide what is sampled.
    pub sampler: Sampler,
    /// Which headers workers read, and rewrite for PHP.
    pub propagators: Propagators,
    /// Queue and batches of spans.
    pub batch: BatchOptions,
    /// Queue and batches of log records, which do not wait unless somebody says so.
    pub log_batch: BatchOptions,
    /// To what spans and log records are cut.
    pub limits: Limits,
    /// Where slow samples are told.
    pub slow_signal: SlowSignal,
    /// Known methods, redacted query keys.
    pub conventions: Conventions,
}
