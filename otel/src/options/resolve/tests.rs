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
