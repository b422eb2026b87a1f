//! [`Options`] from the file and the variables: which name means what, and who wins.

use std::{collections::HashMap, time::Duration};

use glasspool_abi::trace::Sampler;

use super::propagators::propagators;
use super::{
    BatchOptions, ExemplarFilter, ExporterKind, FileDefaults, Limits, MetricReader, Options, OtlpTarget,
    PrometheusOptions, Protocol, SignalOptions, Temporality, TlsFiles,
};
use crate::{
    env::{Env, Warning},
    semconv::Conventions,
};

/// `service.name` when nobody names the service.
const DEFAULT_SERVICE_NAME: &str = "php";
/// The exporter that lets metrics be fetched.
const PROMETHEUS: &str = "prometheus";
/// Upper bound of item counts, so that a slip of the finger is not an allocation of everything.
const MOST_ITEMS: usize = 1_000_000;
/// Metrics are not sent more often than this, whatever is asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Variables of the specification that mean something to others and nothing here, with
/// what is used instead. Who sets one is told.
const NOT_READ: &[(&str, &str)] = &[
    ("OTEL_CONFIG_FILE", "glasspool.toml has the configuration"),
    (
        "OTEL_ENTITIES",
        "OTEL_RESOURCE_ATTRIBUTES takes the same attributes",
    ),
    ("OTEL_LOG_LEVEL", "log_level in php-fpm.conf says what is logged"),
    (
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "names are those of the stable conventions",
    ),
    (
        "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN",
        "exceptions are events on spans",
    ),
];

impl Options {
    /// The file's values with the variables over them. Per signal variables win over
    /// general ones, those over the file, the file over the defaults.
    pub fn from_env(variables: &HashMap<String, String>, file: FileDefaults) -> (Options, Vec<Warning>) {
        let env = Env::new(variables);
        let mut traces = signal(&env, &file, "TRACES", "/v1/traces", file.traces_exporter);
        let mut logs = signal(&env, &file, "LOGS", "/v1/logs", file.logs_exporter);
        let mut metrics = signal(&env, &file, "METRICS", "/v1/metrics", file.metrics_exporter);
        let mut prometheus = prometheus(&env);
        let disabled = env.flag("OTEL_SDK_DISABLED");
        if disabled {
            prometheus.wanted = false;
            for signal in [&mut traces, &mut logs, &mut metrics] {
                signal.exporter = ExporterKind::None;
            }
        }
        for (name, instead) in NOT_READ {
            if env.text(name).is_some() {
                env.warn(name, format!("is not read here: {instead}"));
            }
        }
        let options = Options {
            resource_attributes: resource_attributes(&env, &file),
            traces,
            logs,
            metrics,
            metric_reader: metric_reader(&env),
            prometheus,
            exemplars: env
                .word(
                    "OTEL_METRICS_EXEMPLAR_FILTER",
                    ExemplarFilter::parse,
                    "trace_based, always_on, always_off",
                )
                .unwrap_or_default(),
            disabled,
            sampler: sampler(&env).or(file.sampler).unwrap_or_default(),
            propagators: propagators(&env),
            batch: batch(&env, &file, "BSP", file.schedule_delay),
            // Not the specification's second: they tell of what hangs right now.
            log_batch: batch(&env, &file, "BLRP", Some(Duration::ZERO)),
            limits: Limits::from_env(&env),
            slow_signal: file.slow_signal.unwrap_or_default(),
            conventions: conventions(&env, &file),
        };
        (options, env.into_warnings())
    }
}

fn resource_attributes(env: &Env<'_>, file: &FileDefaults) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: &str| {
        all.retain(|(k, _)| k != key);
        all.push((key.to_owned(), value.to_owned()));
    };
    set("service.name", DEFAULT_SERVICE_NAME);
    file.resource_attributes
        .iter()
        .for_each(|(key, value)| set(key, value));
    if let Some(name) = &file.service_name {
        set("service.name", name);
    }
    for (key, value) in env.pairs("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default() {
        set(&key, &value);
    }
    if let Some(name) = env.text("OTEL_SERVICE_NAME") {
        set("service.name", name);
    }
    all
}

fn signal(
    env: &Env<'_>,
    file: &FileDefaults,
    signal: &str,
    path: &str,
    file_exporter: Option<ExporterKind>,
) -> SignalOptions {
    let own = |what: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
    let general = |what: &str| format!("OTEL_EXPORTER_OTLP_{what}");

    let protocol = |name: &str| env.word(name, Protocol::parse, "grpc, http/protobuf");
    let protocol = protocol(&own("PROTOCOL"))
        .or_else(|| protocol(&general("PROTOCOL")))
        .or(file.protocol)
        .unwrap_or_default();

    // The per-signal address is used as it is; the general one is a base, to which
    // only HTTP appends (specification/protocol/exporter.md, "Endpoint URLs for OTLP/HTTP").
    let endpoint = env.text(&own("ENDPOINT")).map(str::to_owned).unwrap_or_else(|| {
        let base = env
            .text("OTEL_EXPORTER_OTLP_ENDPOINT")
            .or(file.endpoint.as_deref());
        let base = base.unwrap_or(protocol.default_endpoint());
        match protocol {
            Protocol::Grpc => base.to_owned(),
            Protocol::HttpProtobuf => format!("{}{path}", base.trim_end_matches('/')),
        }
    });

    let compression = |name: &str| {
        let gzip = |word: &str| match word {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        env.word(name, gzip, "gzip, none")
    };
    let file_of = |what: &str| env.text(&own(what)).or_else(|| env.text(&general(what)));
    let insecure = match env.text(&own("INSECURE")) {
        Some(_) => own("INSECURE"),
        None => general("INSECURE"),
    };
    SignalOptions {
        exporter: exporter(env, signal)
            .or(file_exporter)
            .unwrap_or(ExporterKind::Otlp),
        target: OtlpTarget {
            protocol,
            endpoint,
            headers: env
                .pairs(&own("HEADERS"))
                .or_else(|| env.pairs(&general("HEADERS")))
                .unwrap_or_else(|| file.headers.clone()),
            timeout: env
                .millis(&own("TIMEOUT"))
                .or_else(|| env.millis(&general("TIMEOUT")))
                .or(file.timeout)
                .unwrap_or(Duration::from_secs(10)),
            gzip: compression(&own("COMPRESSION"))
                .or_else(|| compression(&general("COMPRESSION")))
                .or(file.gzip)
                .unwrap_or(false),
            insecure: env.flag(&insecure),
            tls: TlsFiles {
                certificate: file_of("CERTIFICATE").map(Into::into),
                client_certificate: file_of("CLIENT_CERTIFICATE").map(Into::into),
                client_key: file_of("CLIENT_KEY").map(Into::into),
            },
        },
    }
}

/// Metrics may have a list: one exporter that sends them, and `prometheus`, which lets them
/// be fetched; that alone sends nothing.
fn exporter(env: &Env<'_>, signal: &str) -> Option<ExporterKind> {
    let name = format!("OTEL_{signal}_EXPORTER");
    if signal != "METRICS" {
        return env.word(
            &name,
            ExporterKind::parse,
            "otlp, otlp_file, otlp/stdout, console, none",
        );
    }
    let mut chosen = None;
    for word in list(env, &name) {
        match ExporterKind::parse(&word) {
            Some(kind) if chosen.is_none() => chosen = Some(kind),
            Some(_) => env.warn(
                &name,
                format!("one exporter can send metrics; {word:?} is ignored"),
            ),
            None if word == PROMETHEUS => {}
            None => env.warn(
                &name,
                format!(
                    "{word:?} is not one of otlp, otlp_file, otlp/stdout, console, none, prometheus; ignored"
                ),
            ),
        }
    }
    chosen.or_else(|| prometheus(env).wanted.then_some(ExporterKind::None))
}

fn prometheus(env: &Env<'_>) -> PrometheusOptions {
    let port = env.count("OTEL_EXPORTER_PROMETHEUS_PORT", 1, usize::from(u16::MAX));
    PrometheusOptions {
        wanted: list(env, "OTEL_METRICS_EXPORTER").any(|word| word == PROMETHEUS),
        host: env.text("OTEL_EXPORTER_PROMETHEUS_HOST").map(str::to_owned),
        port: port.and_then(|port| u16::try_from(port).ok()),
    }
}

/// The words of a list, in lower case.
fn list<'a>(env: &Env<'a>, name: &str) -> impl Iterator<Item = String> + 'a {
    let words = env.text(name).unwrap_or_default().split(',');
    words
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
}

fn metric_reader(env: &Env<'_>) -> MetricReader {
    let defaults = MetricReader::default();
    let temporality = env.word(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        Temporality::parse,
        "cumulative, delta, lowmemory",
    );
    MetricReader {
        interval: env
            .delay("OTEL_METRIC_EXPORT_INTERVAL")
            .unwrap_or(defaults.interval)
            .max(SHORTEST_INTERVAL),
        timeout: env
            .millis("OTEL_METRIC_EXPORT_TIMEOUT")
            .unwrap_or(defaults.timeout),
        temporality: temporality.unwrap_or(defaults.temporality),
    }
}

/// `processor` is `BSP` (spans) or `BLRP` (log records).
fn batch(env: &Env<'_>, file: &FileDefaults, processor: &str, delay: Option<Duration>) -> BatchOptions {
    let defaults = BatchOptions::default();
    let name = |what: &str| format!("OTEL_{processor}_{what}");
    let max_queue_items = env
        .count(&name("MAX_QUEUE_SIZE"), 1, MOST_ITEMS)
        .or(file.max_queue_items)
        .unwrap_or(defaults.max_queue_items)
        .clamp(1, MOST_ITEMS);
    let batch_size = name("MAX_EXPORT_BATCH_SIZE");
    let mut max_batch_items = env
        .count(&batch_size, 1, MOST_ITEMS)
        .unwrap_or(defaults.max_batch_items);
    if max_batch_items > max_queue_items {
        if env.text(&batch_size).is_some() {
            env.warn(
                &batch_size,
                format!("is above the queue's {max_queue_items}; cut to it"),
            );
        }
        max_batch_items = max_queue_items;
    }
    BatchOptions {
        schedule_delay: env
            .delay(&name("SCHEDULE_DELAY"))
            .or(delay)
            .unwrap_or(defaults.schedule_delay),
        export_timeout: env
            .millis(&name("EXPORT_TIMEOUT"))
            .unwrap_or(defaults.export_timeout),
        max_queue_items,
        max_queue_bytes: file.max_queue_bytes.unwrap_or(defaults.max_queue_bytes),
        max_batch_items,
    }
}

fn sampler(env: &Env<'_>) -> Option<Sampler> {
    let ratio = || {
        let Some(value) = env.text("OTEL_TRACES_SAMPLER_ARG") else {
            return 1.0;
        };
        match value.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                env.warn(
                    "OTEL_TRACES_SAMPLER_ARG",
                    format!("{value:?} is not a number from 0 to 1; taken as 1"),
                );
                1.0
            }
        }
    };
    let parse = |word: &str| {
        let (parent_based, root) = match word.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, word),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio(),
            _ => return None,
        };
        Some(Sampler { parent_based, ratio })
    };
    env.word(
        "OTEL_TRACES_SAMPLER",
        parse,
        "[parentbased_]always_on, …always_off, …traceidratio",
    )
}

fn conventions(env: &Env<'_>, file: &FileDefaults) -> Conventions {
    let mut conventions = Conventions::default();
    if let Some(list) = env.text("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS") {
        let methods = list.split(',').map(str::trim).filter(|method| !method.is_empty());
        conventions.known_methods = methods.map(str::to_owned).collect();
    }
    if let Some(keys) = &file.redacted_query_keys {
        conventions.redacted_query_keys.clone_from(keys);
    }
    conventions
}

#[cfg(test)]
mod tests;
