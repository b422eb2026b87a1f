//! Every `OTEL_*` variable of the OpenTelemetry specification
//! (`specification/configuration/sdk-environment-variables.md`,
//! `specification/protocol/exporter.md`): what it changes here, and what becomes of nonsense.

use std::{collections::HashMap, path::Path, time::Duration};

use glasspool_otel::{
    env::Warning,
    options::{ExemplarFilter, ExporterKind, FileDefaults, Options, Protocol, SignalOptions, Temporality},
};

fn options(variables: &[(&str, &str)]) -> (Options, Vec<Warning>) {
    let variables: HashMap<_, _> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Options::from_env(&variables, FileDefaults::default())
}

type Check = fn(&Options) -> bool;

/// Variable, value, and whether it has come to what it means; without the variable it must
/// not have.
const READ: &[(&str, &str, Check)] = &[
    ("OTEL_SDK_DISABLED", "True", |o| {
        [&o.traces, &o.logs, &o.metrics].map(|s| s.exporter) == [ExporterKind::None; 3]
    }),
    ("OTEL_SERVICE_NAME", "shop", |o| has(o, "service.name", "shop")),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b%20c,service.name=x", |o| {
        has(o, "a", "b c") && has(o, "service.name", "x")
    }),
    ("OTEL_TRACES_SAMPLER", "always_off", |o| o.sampler.ratio == 0.0),
    ("OTEL_TRACES_EXPORTER", "none", |o| {
        o.traces.exporter == ExporterKind::None
    }),
    ("OTEL_METRICS_EXPORTER", "console", |o| {
        o.metrics.exporter == ExporterKind::Console
    }),
    ("OTEL_METRICS_EXPORTER", "Prometheus", |o| {
        o.prometheus.wanted && o.metrics.exporter == ExporterKind::None
    }),
    ("OTEL_METRICS_EXPORTER", "otlp, prometheus", |o| {
        o.prometheus.wanted && o.metrics.exporter == ExporterKind::Otlp
    }),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", "0.0.0.0", |o| {
        o.prometheus.host.as_deref() == Some("0.0.0.0") && !o.prometheus.wanted
    }),
    ("OTEL_EXPORTER_PROMETHEUS_PORT", "9465", |o| {
        o.prometheus.port == Some(9465)
    }),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "Always_Off", |o| {
        o.exemplars == ExemplarFilter::AlwaysOff
    }),
    ("OTEL_LOGS_EXPORTER", "NONE", |o| {
        o.logs.exporter == ExporterKind::None
    }),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET,BREW", |o| {
        o.conventions.known_methods == ["GET", "BREW"]
    }),
    ("OTEL_BSP_SCHEDULE_DELAY", "1234", |o| {
        o.batch.schedule_delay == millis(1234)
    }),
    ("OTEL_BSP_EXPORT_TIMEOUT", "1234", |o| {
        o.batch.export_timeout == millis(1234)
    }),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "1234", |o| {
        o.batch.max_queue_items == 1234 && o.log_batch.max_queue_items != 1234
    }),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "123", |o| {
        o.batch.max_batch_items == 123
    }),
    ("OTEL_BLRP_SCHEDULE_DELAY", "1234", |o| {
        o.log_batch.schedule_delay == millis(1234)
    }),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "1234", |o| {
        o.log_batch.export_timeout == millis(1234)
    }),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "1234", |o| {
        o.log_batch.max_queue_items == 1234 && o.batch.max_queue_items != 1234
    }),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "123", |o| {
        o.log_batch.max_batch_items == 123
    }),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "7", |o| {
        o.limits.span.value_chars == Some(7) && o.limits.log.value_chars == Some(7)
    }),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7", |o| {
        o.limits.span.count == 7 && o.limits.log.count == 7
    }),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "7", |o| {
        o.limits.span.value_chars == Some(7) && o.limits.log.value_chars.is_none()
    }),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0", |o| {
        o.limits.span.count == 0 && o.limits.log.count == 128
    }),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "7", |o| o.limits.events == 7),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "7", |o| o.limits.links == 7),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "7", |o| {
        o.limits.event_attribute_count == 7
    }),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "7", |o| {
        o.limits.link_attribute_count == 7
    }),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "7", |o| {
        o.limits.log.value_chars == Some(7) && o.limits.span.value_chars.is_none()
    }),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "7", |o| {
        o.limits.log.count == 7 && o.limits.span.count == 128
    }),
    ("OTEL_METRIC_EXPORT_INTERVAL", "1234", |o| {
        o.metric_reader.interval == millis(1234)
    }),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "1234", |o| {
        o.metric_reader.timeout == millis(1234)
    }),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "LowMemory",
        |o| o.metric_reader.temporality == Temporality::LowMemory,
    ),
];

fn has(options: &Options, key: &str, value: &str) -> bool {
    options.resource_attributes.contains(&(key.into(), value.into()))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn each_variable_has_its_effect_and_only_when_it_is_set() {
    let (defaults, _) = options(&[]);
    for (name, value, check) in READ {
        assert!(!check(&defaults), "{name} has its effect without being set");
        let (empty, warnings) = options(&[(name, " ")]);
        assert_eq!(
            (empty, warnings),
            (defaults.clone(), vec![]),
            "{name}: empty is unset"
        );
        let (set, warnings) = options(&[(name, value)]);
        assert_eq!(warnings, [], "{name}");
        assert!(check(&set), "{name}={value} has no effect: {set:?}");
    }
}

type SignalCheck = fn(&SignalOptions) -> bool;

/// The same for the variables that each signal has of its own, besides the general ones.
const OTLP: &[(&str, &str, SignalCheck)] = &[
    ("ENDPOINT", "http://c:1", |s| {
        s.target.endpoint.starts_with("http://c:1")
    }),
    ("HEADERS", "k=v%2C", |s| {
        s.target.headers == [("k".to_owned(), "v,".to_owned())]
    }),
    ("TIMEOUT", "1234", |s| s.target.timeout == millis(1234)),
    ("PROTOCOL", "grpc", |s| s.target.protocol == Protocol::Grpc),
    ("COMPRESSION", "gzip", |s| s.target.gzip),
    ("INSECURE", "true", |s| s.target.insecure),
    ("CERTIFICATE", "/c", |s| {
        s.target.tls.certificate.as_deref() == Some(Path::new("/c"))
    }),
    ("CLIENT_CERTIFICATE", "/c", |s| {
        s.target.tls.client_certificate.as_deref() == Some(Path::new("/c"))
    }),
    ("CLIENT_KEY", "/c", |s| {
        s.target.tls.client_key.as_deref() == Some(Path::new("/c"))
    }),
];

#[test]
fn exporter_variables_are_for_all_signals_or_for_one() {
    let of = |options: &Options| [&options.traces, &options.metrics, &options.logs].map(Clone::clone);
    for (what, value, check) in OTLP {
        let general = format!("OTEL_EXPORTER_OTLP_{what}");
        let (all, warnings) = options(&[(&general, value)]);
        assert_eq!(warnings, [], "{general}");
        assert!(of(&all).iter().all(check), "{general}");
        for (at, signal) in ["TRACES", "METRICS", "LOGS"].into_iter().enumerate() {
            let own = format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
            let (one, warnings) = options(&[(&own, value)]);
            assert_eq!(warnings, [], "{own}");
            let expected: [bool; 3] = std::array::from_fn(|other| other == at);
            assert_eq!(of(&one).each_ref().map(check), expected, "{own}");
        }
    }
}

#[test]
fn a_base_gets_a_path_for_each_signal_and_an_address_of_its_own_does_not() {
    let (options, _) = options(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:1/"),
    ]);
    assert_eq!(options.traces.target.endpoint, "http://c:4318/base/v1/traces");
    assert_eq!(options.metrics.target.endpoint, "http://c:4318/base/v1/metrics");
    assert_eq!(options.logs.target.endpoint, "http://l:1/");
}

#[test]
fn the_sampler_has_an_argument() {
    let (options, warnings) = options(&[
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    assert_eq!(
        (options.sampler.ratio, options.sampler.parent_based),
        (0.25, false)
    );
    assert_eq!(warnings, []);
}

#[test]
fn nonsense_is_told_and_changes_nothing() {
    let (defaults, _) = options(&[]);
    for (name, value) in [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_METRICS_EXPORTER", "statsd"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "0"),
        ("OTEL_LOGS_EXPORTER", "file"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1.5"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "weekly"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
    ] {
        let (got, warnings) = options(&[(name, value)]);
        assert_eq!(got, defaults, "{name}");
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert_eq!(warnings[0].variable, name);
    }
}

#[test]
fn what_is_not_read_here_is_said_so() {
    for name in [
        "OTEL_CONFIG_FILE",
        "OTEL_ENTITIES",
        "OTEL_LOG_LEVEL",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN",
    ] {
        let (_, warnings) = options(&[(name, "x")]);
        assert_eq!(warnings.len(), 1, "{name}");
        assert!(
            warnings[0].problem.starts_with("is not read here: "),
            "{warnings:?}"
        );
    }
    for (list, complaints) in [
        ("tracecontext,baggage", 0),
        ("tracecontext", 0),
        ("tracecontext,b3", 0),
        ("none", 0),
        ("tracecontext,jaeger", 1),
    ] {
        let (_, warnings) = options(&[("OTEL_PROPAGATORS", list)]);
        assert_eq!(warnings.len(), complaints, "{list}: {warnings:?}");
    }
}
