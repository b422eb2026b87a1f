//! The rules of the OTLP specification for answers, each over both transports against a
//! collector on loopback: what is sent again and when, what is counted as what.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use glasspool_abi::{
    record::{Begin, End, Text},
    trace::{SpanId, TraceId},
};
use glasspool_otel::{
    export::{Counters, Pipeline, Terminal},
    metrics::{Figure, KeyValue, Metric, Snapshot, instruments},
    options::{FileDefaults, Options},
    queue::Priority,
    resource::{Runtime, resource},
    semconv::Conventions,
    span::{Facts, server_span},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse},
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    metrics::v1::{metric::Data, number_data_point::Value},
};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

use crate::collector::{self, Answer, Collector, message, taken};

const PATIENCE: Duration = Duration::from_secs(30);
const BOTH: [bool; 2] = [true, false];

fn pipeline(grpc: bool, collector: &Collector, more: &[(&str, &str)]) -> Pipeline {
    let endpoint = format!("http://{}", collector.address);
    let protocol = if grpc { "grpc" } else { "http/protobuf" };
    let mut variables = HashMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), protocol.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "0".to_owned()),
    ]);
    variables.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let (options, warnings) = Options::from_env(&variables, FileDefaults::default());
    assert_eq!(warnings, []);
    let runtime = Runtime {
        php_version: None,
        host_name: None,
        instance_id: "i".into(),
        ..Runtime::default()
    };
    let terminal = Terminal {
        out: Box::new(std::io::sink()),
        colours: false,
    };
    Pipeline::new(&options, &resource(&options, &runtime), terminal).expect("is set up")
}

fn begin() -> Begin {
    Begin {
        number: 1,
        start_unix_ns: 1_700_000_000_000_000_000,
        start_mono_ns: 1,
        trace_id: TraceId([1; 16]),
        span_id: SpanId([2; 8]),
        parent: None,
        sampled: true,
        random: true,
        texts: [
            (Text::Method, b"GET".to_vec()),
            (Text::Path, b"/a-path-that-is-long".to_vec()),
        ]
        .into_iter()
        .collect(),
    }
}

fn facts() -> Facts {
    Facts {
        pid: 1,
        pool: "www".into(),
        worker: 1,
        born_mono_ns: 0,
        server_name: None,
    }
}

fn span() -> SpanData {
    let end = End {
        begin: begin(),
        responded_mono_ns: 2,
        end_mono_ns: 2,
        status: 200,
        flags: 0,
        bytes_in: 0,
        bytes_out: 0,
        cpu_user_ns: 0,
        cpu_system_ns: 0,
        memory_peak: 0,
        error_level: 0,
        error_line: 0,
        times: glasspool_abi::times::Known::Nothing,
    };
    server_span(&end, &facts(), &[], &Conventions::default())
}

fn snapshot(time: u64, looks: u64) -> Snapshot {
    let mut metric = Metric::new(&instruments::LOOKS);
    metric.add(
        vec![KeyValue::new("php.look.outcome", "exact")],
        Figure::from(looks),
    );
    Snapshot {
        start_unix_ns: 1,
        time_unix_ns: time,
        metrics: vec![metric],
    }
}

/// Waits until the pipeline has something to show.
async fn until(pipeline: &Pipeline, what: impl Fn(&Counters) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !what(&pipeline.counters()) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            pipeline.counters()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends one span to a collector that first gives that answer and then takes everything.
/// Returns how often it was asked, and the counters.
async fn first(grpc: bool, answer: Answer) -> (Vec<collector::Seen>, Counters) {
    let mut collector = Collector::start(None, move |number, _| match number {
        0 => answer.clone(),
        _ => taken(grpc),
    })
    .await;
    let pipeline = pipeline(grpc, &collector, &[]);
    pipeline.push_span(span(), Priority::Ordinary);
    until(&pipeline, |counters| {
        counters.spans.exported + counters.spans.lost() == 1
    })
    .await;
    (collector.seen(), pipeline.counters())
}

fn http(status: u16) -> Answer {
    Answer::Http(status, Vec::new(), Vec::new())
}

fn grpc(code: Code) -> Answer {
    Answer::Status(tonic::Status::new(code, "as the test wants it"))
}

fn with_retry_info(code: Code, delay: Duration) -> Answer {
    let details = ErrorDetails::with_retry_info(Some(delay));
    Answer::Status(tonic::Status::with_error_details(code, "busy", details))
}

#[tokio::test]
async fn what_may_be_sent_again_is_and_what_may_not_is_not() {
    let soon = Duration::from_millis(1);
    let table = [
        // Answer, over gRPC, sent again.
        (http(400), false, false),
        (http(401), false, false),
        (http(403), false, false),
        (http(404), false, false),
        (http(413), false, false),
        (http(429), false, true),
        (http(500), false, false),
        (http(501), false, false),
        (http(502), false, true),
        (http(503), false, true),
        (http(504), false, true),
        (Answer::Close, false, true),
        (grpc(Code::Cancelled), true, true),
        (grpc(Code::Unknown), true, false),
        (grpc(Code::InvalidArgument), true, false),
        (grpc(Code::DeadlineExceeded), true, true),
        (grpc(Code::NotFound), true, false),
        (grpc(Code::AlreadyExists), true, false),
        (grpc(Code::PermissionDenied), true, false),
        (grpc(Code::Unauthenticated), true, false),
        (grpc(Code::ResourceExhausted), true, false),
        (with_retry_info(Code::ResourceExhausted, soon), true, true),
        (grpc(Code::FailedPrecondition), true, false),
        (grpc(Code::Aborted), true, true),
        (grpc(Code::OutOfRange), true, true),
        (grpc(Code::Unimplemented), true, false),
        (grpc(Code::Internal), true, false),
        (grpc(Code::Unavailable), true, true),
        (grpc(Code::DataLoss), true, true),
        (Answer::Close, true, true),
    ];
    let all = table.map(|(answer, grpc, again)| {
        tokio::spawn(async move {
            let (seen, counters) = first(grpc, answer.clone()).await;
            let expected = if again { (2, 1, 0) } else { (1, 0, 1) };
            let got = (seen.len(), counters.spans.exported, counters.spans.failed);
            assert_eq!(got, expected, "{answer:?}: {counters:?}");
            if again {
                assert_eq!(seen[0].body, seen[1].body, "{answer:?}: the same is sent again");
            }
        })
    });
    for one in all {
        one.await.expect("holds");
    }
}

#[tokio::test]
async fn a_collector_is_waited_for_as_long_as_it_says() {
    let asked = Duration::from_secs(1);
    let retry_after = Answer::Http(503, vec![("retry-after", "1".to_owned())], Vec::new());
    for (grpc, answer) in [
        (false, retry_after),
        (true, with_retry_info(Code::Unavailable, asked)),
        (true, with_retry_info(Code::ResourceExhausted, asked)),
    ] {
        let (seen, counters) = first(grpc, answer.clone()).await;
        assert_eq!(counters.spans.exported, 1, "{answer:?}");
        let waited = seen[1].at - seen[0].at;
        assert!(waited >= asked, "{answer:?}: {waited:?}");
    }
}

#[tokio::test]
async fn a_batch_is_given_up_at_once_when_the_wait_is_too_long_for_it() {
    let started = Instant::now();
    let answer = Answer::Http(429, vec![("retry-after", "100".to_owned())], Vec::new());
    let (seen, counters) = first(false, answer).await;
    assert_eq!((seen.len(), counters.spans.failed), (1, 1));
    // Not the 10 s that all tries together may take.
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_partial_success_is_counted_as_rejected_and_not_sent_again() {
    for grpc in BOTH {
        let answer = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 2,
                error_message: "too old".into(),
            }),
        };
        let mut collector = Collector::start(None, move |_, _| message(grpc, &answer)).await;
        let pipeline = pipeline(grpc, &collector, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
        for _ in 0..3 {
            pipeline.push_span(span(), Priority::Ordinary);
        }
        let counters = pipeline.shutdown(PATIENCE).await;
        let spans = counters.spans;
        assert_eq!(
            (spans.exported, spans.rejected, spans.failed),
            (1, 2, 0),
            "{grpc}"
        );
        assert_eq!(collector.seen().len(), 1, "{grpc}");
    }
}

#[tokio::test]
async fn a_warning_with_nothing_rejected_is_a_success() {
    for grpc in BOTH {
        let answer = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 0,
                error_message: "use the other endpoint".into(),
            }),
        };
        let (seen, counters) = first(grpc, message(grpc, &answer)).await;
        assert_eq!(
            (seen.len(), counters.spans.exported, counters.spans.lost()),
            (1, 1, 0)
        );
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_or_is_too_long_is_still_a_success() {
    let (seen, counters) = first(false, Answer::Http(200, Vec::new(), b"<html>".to_vec())).await;
    assert_eq!((seen.len(), counters.spans.exported), (1, 1));
    let (seen, counters) = first(false, Answer::Http(200, Vec::new(), vec![0; 5 << 20])).await;
    assert_eq!((seen.len(), counters.spans.exported), (1, 1));
}

#[tokio::test]
async fn a_signal_that_the_collector_does_not_take_is_sent_no_more_and_others_are() {
    for grpc in BOTH {
        let mut collector = Collector::start(None, move |_, path| match path.contains("race") {
            true => taken(grpc),
            false if grpc => self::grpc(Code::Unimplemented),
            false => http(404),
        })
        .await;
        let pipeline = pipeline(grpc, &collector, &[]);
        for time in 2..5 {
            pipeline.push_metrics(snapshot(time, time));
            until(&pipeline, |counters| counters.metrics.unsupported == time - 1).await;
        }
        pipeline.push_span(span(), Priority::Ordinary);
        let counters = pipeline.shutdown(PATIENCE).await;
        assert_eq!(
            (counters.metrics.unsupported, counters.metrics.lost()),
            (3, 3),
            "{grpc}"
        );
        assert_eq!(counters.spans.exported, 1, "{grpc}");
        assert_eq!(collector.seen().len(), 2, "{grpc}: one of metrics, one of spans");
    }
}

/// Value and start of the one point of the one metric.
fn point(seen: &collector::Seen) -> (i64, u64) {
    let request = ExportMetricsServiceRequest::decode(seen.body.clone()).expect("is protobuf");
    let of_resource = &request.resource_metrics[0];
    let resource = of_resource.resource.as_ref().expect("has a resource");
    assert!(
        resource
            .attributes
            .iter()
            .any(|kv| kv.key == "service.instance.id")
    );
    let of_scope = &of_resource.scope_metrics[0];
    assert_eq!(
        of_scope.scope.as_ref().map(|scope| scope.name.as_str()),
        Some("glasspool")
    );
    let metric = &of_scope.metrics[0];
    assert_eq!(
        (metric.name.as_str(), metric.unit.as_str()),
        ("php.observer.looks", "{look}")
    );
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("not a sum: {metric:?}")
    };
    assert!(sum.is_monotonic);
    let point = &sum.data_points[0];
    let Some(Value::AsInt(value)) = point.value else {
        panic!("not a whole number: {point:?}")
    };
    (value, point.start_time_unix_nano)
}

#[tokio::test]
async fn metrics_arrive_as_totals_or_as_differences_that_survive_a_failure() {
    const DELTA: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta");
    for grpc in BOTH {
        for delta in BOTH {
            // The second snapshot is refused for good.
            let mut collector = Collector::start(None, move |number, path| {
                assert!(
                    path == "/v1/metrics"
                        || path == "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
                );
                match (number, grpc) {
                    (1, true) => self::grpc(Code::InvalidArgument),
                    (1, false) => http(400),
                    _ => taken(grpc),
                }
            })
            .await;
            let more: &[_] = if delta { &[DELTA] } else { &[] };
            let pipeline = pipeline(grpc, &collector, more);
            for (time, looks) in [(10, 5), (20, 6), (30, 9)] {
                pipeline.push_metrics(snapshot(time, looks));
                let done = time / 10;
                until(&pipeline, |counters| {
                    counters.metrics.exported + counters.metrics.failed == done
                })
                .await;
            }
            let seen: Vec<_> = collector.seen().iter().map(point).collect();
            let expected = if delta {
                [(5, 1), (1, 10), (4, 10)]
            } else {
                [(5, 1), (6, 1), (9, 1)]
            };
            assert_eq!(seen, expected, "gRPC {grpc}, delta {delta}");
        }
    }
}

#[tokio::test]
async fn attributes_are_cut_to_the_limits_and_headers_go_along() {
    let mut collector = Collector::start(None, |_, _| taken(false)).await;
    let pipeline = pipeline(
        false,
        &collector,
        &[
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%2525"),
        ],
    );
    pipeline.push_span(span(), Priority::Ordinary);
    let seen = collector.next().await;
    assert_eq!(seen.path, "/v1/traces");
    assert_eq!(seen.headers["api-key"], "a b%25");
    let agent = seen.headers["user-agent"].to_str().expect("text");
    assert!(agent.starts_with("Glasspool-OTLP-Exporter-Rust/"), "{agent}");
    let request = ExportTraceServiceRequest::decode(seen.body).expect("is protobuf");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.attributes.len(), 2);
    assert!(span.dropped_attributes_count > 5);
    let texts: Vec<_> = span
        .attributes
        .iter()
        .map(|kv| format!("{:?}", kv.value))
        .collect();
    assert!(texts.iter().any(|text| text.contains("\"/a-\"")), "{texts:?}");
}
