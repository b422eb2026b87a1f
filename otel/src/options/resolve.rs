//! [`Options`] from the file and the variables: which name means what, and who wins.

use std::{collections::HashMap, time::Duration};

use glasspool_abi::trace::Sampler;

use super::{BatchOptions, ExporterKind, FileDefaults, Options, OtlpTarget, Protocol, SignalOptions};
use crate::{
    env::{Env, Warning},
    semconv::Conventions,
};

/// `service.name` when nobody names the service.
const DEFAULT_SERVICE_NAME: &str = "php";
/// Upper bound of item counts, so that a slip of the finger is not an allocation of everything.
const MOST_ITEMS: usize = 1_000_000;

impl Options {
    /// The file's values with the variables over them. Per signal variables win over
    /// general ones, those over the file, the file over the defaults.
    pub fn from_env(variables: &HashMap<String, String>, file: FileDefaults) -> (Options, Vec<Warning>) {
        let env = Env::new(variables);
        let mut traces = signal(&env, &file, "TRACES", "/v1/traces", file.traces_exporter);
        let mut logs = signal(&env, &file, "LOGS", "/v1/logs", file.logs_exporter);
        if env.flag("OTEL_SDK_DISABLED") {
            traces.exporter = ExporterKind::None;
            logs.exporter = ExporterKind::None;
        }
        let options = Options {
            resource_attributes: resource_attributes(&env, &file),
            traces,
            logs,
            sampler: sampler(&env).or(file.sampler).unwrap_or_default(),
            batch: batch(&env, &file),
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
    SignalOptions {
        exporter: env
            .word(
                &format!("OTEL_{signal}_EXPORTER"),
                ExporterKind::parse,
                "otlp, console, none",
            )
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
        },
    }
}

fn batch(env: &Env<'_>, file: &FileDefaults) -> BatchOptions {
    let defaults = BatchOptions::default();
    let max_queue_items = env
        .count("OTEL_BSP_MAX_QUEUE_SIZE", 1, MOST_ITEMS)
        .or(file.max_queue_items)
        .unwrap_or(defaults.max_queue_items)
        .clamp(1, MOST_ITEMS);
    let mut max_batch_items = env
        .count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, MOST_ITEMS)
        .unwrap_or(defaults.max_batch_items);
    if max_batch_items > max_queue_items {
        if env.text("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").is_some() {
            env.warn(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                format!("is above the queue's {max_queue_items}; cut to it"),
            );
        }
        max_batch_items = max_queue_items;
    }
    BatchOptions {
        schedule_delay: env
            .millis("OTEL_BSP_SCHEDULE_DELAY")
            .or(file.schedule_delay)
            .unwrap_or(defaults.schedule_delay),
        export_timeout: env
            .millis("OTEL_BSP_EXPORT_TIMEOUT")
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
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)], file: FileDefaults) -> (Options, Vec<Warning>) {
        let map = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Options::from_env(&map, file)
    }

    fn clean(pairs: &[(&str, &str)], file: FileDefaults) -> Options {
        let (options, warnings) = options(pairs, file);
        assert_eq!(warnings, []);
        options
    }

    #[test]
    fn nothing_said_gives_the_specifications_defaults() {
        let options = clean(&[], FileDefaults::default());
        assert_eq!(options.traces.exporter, ExporterKind::Otlp);
        assert_eq!(options.traces.target.endpoint, "http://localhost:4318/v1/traces");
        assert_eq!(options.logs.target.endpoint, "http://localhost:4318/v1/logs");
        assert_eq!(options.traces.target.timeout, Duration::from_secs(10));
        assert_eq!(options.batch, BatchOptions::default());
        assert_eq!(options.sampler, Sampler::default());
        assert_eq!(
            options.resource_attributes,
            [("service.name".to_owned(), "php".to_owned())]
        );
    }

    #[test]
    fn a_general_endpoint_is_a_base_and_a_per_signal_one_is_not() {
        let options = clean(
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otel/"),
                ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:1/in"),
            ],
            FileDefaults::default(),
        );
        assert_eq!(options.traces.target.endpoint, "http://c:4318/otel/v1/traces");
        assert_eq!(options.logs.target.endpoint, "http://l:1/in");
        let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC")];
        assert_eq!(
            clean(&grpc, FileDefaults::default()).logs.target.endpoint,
            "http://localhost:4317"
        );
    }

    #[test]
    fn variables_win_over_the_file_and_special_ones_over_general_ones() {
        let file = FileDefaults {
            service_name: Some("file".into()),
            resource_attributes: vec![("a".into(), "file".into()), ("b".into(), "file".into())],
            endpoint: Some("http://file:1".into()),
            headers: vec![("k".into(), "file".into())],
            timeout: Some(Duration::from_secs(1)),
            traces_exporter: Some(ExporterKind::None),
            sampler: Some(Sampler {
                parent_based: false,
                ratio: 0.5,
            }),
            schedule_delay: Some(Duration::from_secs(1)),
            ..Default::default()
        };
        let kept = clean(&[], file.clone());
        assert_eq!(kept.traces.exporter, ExporterKind::None);
        assert_eq!(kept.traces.target.endpoint, "http://file:1/v1/traces");
        assert_eq!(kept.sampler.ratio, 0.5);
        assert_eq!(kept.batch.schedule_delay, Duration::from_secs(1));

        let over = clean(
            &[
                ("OTEL_SERVICE_NAME", "env"),
                ("OTEL_RESOURCE_ATTRIBUTES", "a=env%21,service.name=lost"),
                ("OTEL_TRACES_EXPORTER", "Console"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "k=general"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "k=traces"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
                ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ],
            file,
        );
        let has = |key: &str, value: &str| over.resource_attributes.contains(&(key.into(), value.into()));
        assert!(has("service.name", "env") && has("a", "env!") && has("b", "file"));
        assert_eq!(over.resource_attributes.len(), 3);
        assert_eq!(over.traces.exporter, ExporterKind::Console);
        assert_eq!(over.traces.target.headers[0].1, "traces");
        assert_eq!(over.logs.target.headers[0].1, "general");
        assert_eq!(over.logs.target.timeout, Duration::from_secs(2));
        assert_eq!(
            over.sampler,
            Sampler {
                parent_based: true,
                ratio: 0.01
            }
        );
        assert_eq!(over.batch.schedule_delay, Duration::from_millis(200));
    }

    #[test]
    fn nonsense_warns_and_is_ignored() {
        let (options, warnings) = options(
            &[
                ("OTEL_TRACES_EXPORTER", "zipkin"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "secret-token"),
            ],
            FileDefaults::default(),
        );
        assert_eq!(options.traces.exporter, ExporterKind::Otlp);
        assert_eq!(options.traces.target.protocol, Protocol::HttpProtobuf);
        assert_eq!(options.sampler, Sampler::default());
        assert_eq!(options.batch.max_batch_items, 2048);
        assert_eq!(warnings.len(), 6, "{warnings:?}");
        assert!(!warnings.iter().any(|w| w.to_string().contains("secret")));
    }

    #[test]
    fn disabled_means_nothing_is_exported() {
        let options = clean(&[("OTEL_SDK_DISABLED", "true")], FileDefaults::default());
        assert_eq!(options.traces.exporter, ExporterKind::None);
        assert_eq!(options.logs.exporter, ExporterKind::None);
    }

    #[test]
    fn a_header_value_is_not_in_the_debug_output() {
        let options = clean(
            &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2")],
            FileDefaults::default(),
        );
        let text = format!("{options:?}");
        assert!(text.contains("api-key") && !text.contains("hunter2"));
    }
}
