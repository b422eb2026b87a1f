//! `glasspool.toml`: what php-fpm.conf has no words for.
//!
//! Every section and key is optional and kept as an `Option` where the environment (`OTEL_*`) or a default
//! elsewhere may still speak; that order is not decided here. Unknown keys are refused, with the nearest known one.

mod controllers;
mod ebpf;
mod logs;
mod read;
mod text;
mod trace;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::effective::{ListenAddress, PoolPhp, SlowStop};

pub use ebpf::{Ebpf, EbpfMode};
pub use logs::{AccessForm, LogForm, Logs};
pub(super) use read::{read, refuse_unknown_pools};
pub use text::Secret;
pub(super) use text::defines;
pub use text::scrape_host;
pub use trace::{PoolRule, PoolTrace, Sampler, Trace};

/// Bytes of spans and logs that wait for the collector unless configured.
pub const DEFAULT_QUEUE_BYTES: u64 = 16 * 1024 * 1024;

/// Memory for what `glasspool tail` shows unless configured: some ten thousand requests.
const DEFAULT_HISTORY_BYTES: u64 = 4 * 1024 * 1024;

/// Looks into slow requests per second unless configured; each takes the observer some
/// 0.2 ms.
const DEFAULT_SAMPLES_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// Time per second for which workers may be stopped unless configured: 1 % of one.
const DEFAULT_STOP_PER_SECOND: Duration = Duration::from_millis(10);

/// The checked content of `glasspool.toml`; the default is an empty file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overlay {
    /// `[php]`: which PHP is hosted.
    pub php: Php,
    /// `[otel]`: where telemetry goes.
    pub otel: Otel,
    /// `[metrics]`: where metrics can be fetched.
    pub metrics: Metrics,
    /// `[trace]`: which requests are sampled, whose word counts, what they are called.
    pub trace: Trace,
    /// `[slow]`: when a request is looked at; already applied to the pools of `Settings`.
    pub slow: Slow,
    /// `[logs]`: forms of logs; already applied to the pools of `Settings`.
    pub logs: Logs,
    /// `[observer]`: how the observer runs.
    pub observer: Observer,
    /// `[ebpf]`: what the kernel is asked to tell of workers' waits.
    pub ebpf: Ebpf,
    /// `[pool.NAME]`: overrides of one pool, by the name as written here; already applied to the pools of `Settings`.
    #[serde(rename = "pool")]
    pools: BTreeMap<toml::Spanned<String>, PoolOverlay>,
}

impl Overlay {
    /// The overrides of the pool; names compare without regard to case, as php-fpm's sections do.
    pub(super) fn pool(&self, name: &str) -> Option<&PoolOverlay> {
        self.pools
            .iter()
            .find(|(key, _)| key.get_ref().eq_ignore_ascii_case(name))
            .map(|(_, pool)| pool)
    }
}

/// `[php]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Php {
    /// The stock php executable to host in.
    pub binary: Option<PathBuf>,
    /// php.ini, as `-c` names it.
    pub ini: Option<PathBuf>,
    /// INI entries `name=value` (or `name`, which is `name=1`), as `-d` gives them.
    #[serde(deserialize_with = "text::defines")]
    pub define: Vec<String>,
}

/// `[otel]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otel {
    /// Resource attribute `service.name`.
    pub service_name: Option<String>,
    /// Base URL of the OTLP receiver, `http://` or `https://`.
    #[serde(deserialize_with = "text::endpoint")]
    pub endpoint: Option<String>,
    /// Transport of OTLP.
    pub protocol: Option<Protocol>,
    /// Headers of each export; often credentials, so `Debug` hides the values.
    pub headers: BTreeMap<String, Secret>,
    /// Further resource attributes.
    pub resource: BTreeMap<String, String>,
    /// Where spans go.
    pub traces: Option<Exporter>,
    /// Where log records go.
    pub logs: Option<Exporter>,
    /// Where metrics go.
    pub metrics: Option<Exporter>,
    /// File for what goes to the exporter `otlp_file`; without an `endpoint`, all that says
    /// nothing else. Opened anew on SIGUSR1, as logs are.
    #[serde(deserialize_with = "text::output_file")]
    pub file: Option<String>,
    /// Bound of the export queue, in bytes, 64 KiB to 4 GiB.
    #[serde(deserialize_with = "text::queue_bytes")]
    pub queue_bytes: u64,
    /// Longest time a record waits for others to be sent with.
    #[serde(deserialize_with = "text::positive_duration")]
    pub flush: Option<Duration>,
}

impl Default for Otel {
    fn default() -> Self {
        Self {
            service_name: None,
            endpoint: None,
            protocol: None,
            headers: BTreeMap::new(),
            resource: BTreeMap::new(),
            traces: None,
            logs: None,
            metrics: None,
            file: None,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            flush: None,
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where Prometheus fetches them, besides what `[otel] metrics` sends.
    #[serde(deserialize_with = "text::scrape_address")]
    pub listen: Option<ListenAddress>,
    /// Whether pools are told under the names of php-fpm's exporters (`phpfpm_…`) too.
    pub phpfpm_names: bool,
}

/// Transport of OTLP, by the names of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP/1.1.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Where one signal goes, by the names of `OTEL_TRACES_EXPORTER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exporter {
    /// To the OTLP receiver.
    Otlp,
    /// To `otel.file`, as lines of OTLP/JSON.
    #[serde(rename = "otlp_file")]
    OtlpFile,
    /// To standard output, likewise.
    #[serde(rename = "otlp/stdout")]
    OtlpStdout,
    /// To standard output, for people.
    Console,
    /// Nowhere.
    None,
}

/// `[slow]` and `[pool.NAME.slow]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slow {
    /// Run time after which a request is slow; zero looks at no request.
    #[serde(deserialize_with = "text::duration")]
    pub after: Option<Duration>,
    /// Most frames in one backtrace.
    pub depth: Option<NonZeroU32>,
    /// Most looks into one request: at one, two, four … times `after`.
    pub samples: Option<NonZeroU32>,
    /// Whether a worker may be stopped to be read.
    pub stop: Option<SlowStop>,
    /// Whether a slow request has a span of its own, sent while it still runs.
    pub still_running: Option<bool>,
}

/// `[observer]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observer {
    /// Name or number of the user that the observer becomes when started as root.
    pub user: Option<String>,
    /// Most looks into slow requests per second, all workers together; what is above
    /// is skipped and counted.
    pub samples_per_second: NonZeroU32,
    /// Longest time per second for which workers are stopped, all together, up to a
    /// second.
    #[serde(deserialize_with = "text::stop_time")]
    pub stop_per_second: Duration,
    /// Memory for what `glasspool tail` shows, bytes: 0 for none, else 64 KiB to 64 MiB.
    #[serde(deserialize_with = "text::history_bytes")]
    pub history_bytes: u64,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            user: None,
            samples_per_second: DEFAULT_SAMPLES_PER_SECOND,
            stop_per_second: DEFAULT_STOP_PER_SECOND,
            history_bytes: DEFAULT_HISTORY_BYTES,
        }
    }
}

/// `[pool.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolOverlay {
    /// `[pool.NAME.php]`, over `[php]`.
    pub php: PoolPhp,
    /// `access_format`, before that of `[logs]`.
    pub access_format: Option<AccessForm>,
    /// `[pool.NAME.slow]`, before `[slow]`.
    pub slow: Slow,
    /// `[pool.NAME.trace]`, over `[trace]`.
    pub trace: PoolTrace,
}
