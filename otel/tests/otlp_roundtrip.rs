//! What a real OTLP receiver gets to see, over both transports, and what becomes of
//! telemetry when the receiver is silent or not there.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use glasspool_abi::{
    record::{Begin, End, FATAL, Text},
    trace::{SpanId, TraceId},
};
use glasspool_otel::{
    export::{Counters, Pipeline, Terminal},
    options::{FileDefaults, Options},
    queue::Priority,
    resource::{Runtime, resource},
    semconv::Conventions,
    slow::SlowEvent,
    span::{Death, Facts, killed_span, server_span},
};
use serde_json::{Value, json};

const START: u64 = 1_795_336_481_195_287_583;
const PATIENCE: Duration = Duration::from_secs(20);

/// The receiver of `tests/tools/otlp-sink`, ended with this value.
struct Collector {
    child: Child,
    lines: Receiver<Value>,
    grpc: u64,
    http: u64,
}

impl Collector {
    fn start() -> Collector {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = std::env::var_os("GLASSPOOL_TEST_PYTHON")
            .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
        let mut child = Command::new(&python)
            .arg(root.join("tests/tools/otlp-sink"))
            .args(["0", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}: run `make deps` first", python.display()));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender
                    .send(serde_json::from_str(&line).expect("the sink writes JSON"))
                    .is_err()
                {
                    break;
                }
            }
        });
        let ready: Value = lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("{} has no OTLP receiver: run `make deps` first", python.display()));
        let port = |name: &str| ready["ready"][name].as_u64().expect("a port");
        Collector {
            child,
            lines,
            grpc: port("grpc"),
            http: port("http"),
        }
    }

    /// The next request of that signal, which must come by that way.
    fn next(&self, via: &str, signal: &str) -> Value {
        let line = self
            .lines
            .recv_timeout(PATIENCE)
            .expect("an export request arrives");
        assert_eq!(
            (line["via"].as_str(), line["signal"].as_str()),
            (Some(via), Some(signal)),
            "{line}"
        );
        line
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child and not yet waited for");
        self.child.wait().expect("it is our child");
    }
}

fn options(variables: &[(&str, String)]) -> Options {
    let variables: HashMap<_, _> = variables
        .iter()
        .map(|(k, v)| (k.to_string(), v.clone()))
        .collect();
    let (options, warnings) = Options::from_env(&variables, FileDefaults::default());
    assert_eq!(warnings, []);
    options
}

fn pipeline(options: &Options) -> Pipeline {
    let runtime = Runtime {
        php_version: Some("8.2.28".into()),
        host_name: Some("web1".into()),
        instance_id: "instance-1".into(),
        ..Runtime::default()
    };
    let terminal = Terminal {
        out: Box::new(std::io::sink()),
        colours: false,
    };
    Pipeline::new(options, &resource(options, &runtime), terminal).expect("is set up")
}

fn facts() -> Facts {
    Facts {
        pid: 4182,
        pool: "www".into(),
        worker: 2,
        born_mono_ns: 0,
        server_name: None,
    }
}

fn begin() -> Begin {
    let texts = [
        (Text::Method, "GET"),
        (Text::Path, "/slow.php"),
        (Text::Query, "x=1&sig=secret"),
        (Text::Scheme, "http"),
        (Text::Host, "localhost:8080"),
        (Text::Protocol, "HTTP/1.1"),
        (Text::TraceState, "rojo=00f067aa0ba902b7"),
        (Text::ErrorType, "RuntimeException"),
        (Text::ErrorMessage, "no"),
    ];
    Begin {
        number: 1,
        start_unix_ns: START,
        start_mono_ns: 77,
        trace_id: TraceId(*b"\x11\x11\x22\x22\x33\x33\x44\x44\x55\x55\x66\x66\x77\x77\x88\x88"),
        span_id: SpanId([0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22]),
        parent: Some(SpanId([0x99; 8])),
        sampled: true,
        random: true,
        texts: texts
            .map(|(kind, text)| (kind, text.as_bytes().to_vec()))
            .into_iter()
            .collect(),
    }
}

fn end() -> End {
    End {
        begin: begin(),
        responded_mono_ns: 77 + 3_250_000_001,
        end_mono_ns: 77 + 3_250_000_001,
        status: 500,
        flags: FATAL,
        bytes_in: 0,
        bytes_out: 12,
        cpu_user_ns: 1_000_000,
        cpu_system_ns: 0,
        memory_peak: 4096,
        error_level: 1,
        error_line: 3,
        times: glasspool_abi::times::Known::Nothing,
    }
}

fn slow() -> SlowEvent {
    SlowEvent {
        time_unix_ns: START + 1_000_000_007,
        elapsed: Duration::from_nanos(1_000_000_007),
        stacktrace:
            "#0 /srv/app/db.php(42): wpdb->_do_query()\n#1 /srv/app/handler.php(7): Repo->find()\n#2 {main}"
                .into(),
        function: Some("wpdb::_do_query".into()),
        file: Some("/srv/app/db.php".into()),
        line: Some(42),
        line_exact: true,
        how: "exact".into(),
        wait: Some("recvfrom on tcp 127.0.0.1:3306".into()),
        ..SlowEvent::default()
    }
}

/// `[{key, value: {stringValue: …}}]` as an object of plain values; a key may not come twice.
fn attributes(list: &Value) -> HashMap<String, Value> {
    let mut all = HashMap::new();
    for pair in list.as_array().expect("attributes") {
        let value = pair["value"]
            .as_object()
            .expect("a value")
            .values()
            .next()
            .expect("a value")
            .clone();
        let old = all.insert(pair["key"].as_str().expect("a key").to_owned(), value);
        assert!(old.is_none(), "twice: {pair}");
    }
    all
}

fn assert_has(list: &Value, expected: &[(&str, Value)]) {
    let all = attributes(list);
    for (key, value) in expected {
        assert_eq!(all.get(*key), Some(value), "{key}");
    }
}

fn assert_resource(resource: &Value) {
    assert_has(
        &resource["attributes"],
        &[
            ("service.name", json!("shop")),
            ("service.instance.id", json!("instance-1")),
            ("process.runtime.name", json!("fpm-fcgi")),
            ("process.runtime.version", json!("8.2.28")),
            ("telemetry.sdk.language", json!("rust")),
            ("host.name", json!("web1")),
        ],
    );
}

// Protobuf's JSON of bytes is base64.
const TRACE_ID: &str = "EREiIjMzRERVVWZmd3eIiA==";
const SPAN_ID: &str = "ERERESIiIiI=";
const PARENT_ID: &str = "mZmZmZmZmZk=";

async fn everything_arrives(via: &str, variables: Vec<(&str, String)>, collector: &Collector) {
    let mut variables = variables;
    variables.push(("OTEL_SERVICE_NAME", "shop".into()));
    variables.push(("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%2525".into()));
    let options = options(&variables);
    assert_eq!(
        options.batch.schedule_delay,
        Duration::from_secs(5),
        "the log record must not wait for it"
    );
    let pipeline = pipeline(&options);

    // The log record of a hanging request goes at once, long before its span.
    let started = Instant::now();
    pipeline.push_log(slow().to_log_record(&begin(), &facts(), &Conventions::default()));
    let mut waiting = 400;
    while pipeline.counters().logs.exported == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        waiting -= 1;
        assert!(
            waiting > 0,
            "the log record did not go: {:?}",
            pipeline.counters()
        );
    }
    assert!(started.elapsed() < Duration::from_secs(4));
    let request = collector.next(via, "logs");
    assert_eq!(request["headers"]["api-key"], "a b%25");
    let logs = &request["data"]["resourceLogs"][0];
    assert_resource(&logs["resource"]);
    assert_eq!(logs["scopeLogs"][0]["scope"]["name"], "glasspool");
    let record = &logs["scopeLogs"][0]["logRecords"][0];
    for (key, value) in [
        ("eventName", json!("php.request.slow")),
        ("traceId", json!(TRACE_ID)),
        ("spanId", json!(SPAN_ID)),
        ("flags", json!(3)),
        ("timeUnixNano", json!((START + 1_000_000_007).to_string())),
        ("severityNumber", json!("SEVERITY_NUMBER_WARN")),
        ("severityText", json!("WARN")),
    ] {
        assert_eq!(record[key], value, "{key}");
    }
    assert_has(
        &record["attributes"],
        &[
            ("code.stacktrace", json!(slow().stacktrace)),
            ("code.function.name", json!("wpdb::_do_query")),
            ("code.line.number", json!("42")),
            ("php.request.elapsed", json!(1.000000007)),
            ("url.path", json!("/slow.php")),
            ("process.pid", json!("4182")),
        ],
    );

    pipeline.push_span(
        server_span(&end(), &facts(), &[slow()], &Conventions::default()),
        Priority::Urgent,
    );
    let death = Death::Signal("SIGKILL".into());
    let killed = killed_span(&begin(), &facts(), &death, 1077, &[], &Conventions::default());
    pipeline.push_span(killed, Priority::Ordinary);
    let counters = pipeline.shutdown(PATIENCE).await;
    assert_eq!(
        (counters.spans.exported, counters.spans.lost()),
        (2, 0),
        "{counters:?}"
    );
    assert_eq!(
        (counters.logs.exported, counters.logs.lost()),
        (1, 0),
        "{counters:?}"
    );

    let request = collector.next(via, "traces");
    let spans = &request["data"]["resourceSpans"][0];
    assert_resource(&spans["resource"]);
    let span = &spans["scopeSpans"][0]["spans"][0];
    for (key, value) in [
        ("traceId", json!(TRACE_ID)),
        ("spanId", json!(SPAN_ID)),
        ("parentSpanId", json!(PARENT_ID)),
        ("traceState", json!("rojo=00f067aa0ba902b7")),
        ("name", json!("GET")),
        ("kind", json!("SPAN_KIND_SERVER")),
        ("startTimeUnixNano", json!(START.to_string())),
        ("endTimeUnixNano", json!((START + 3_250_000_001).to_string())),
        ("status", json!({"code": "STATUS_CODE_ERROR", "message": "no"})),
        // Sampled, random, "is remote" is known, and it is.
        ("flags", json!(0x303)),
    ] {
        assert_eq!(span[key], value, "{key}");
    }
    assert_has(
        &span["attributes"],
        &[
            ("http.response.status_code", json!("500")),
            ("url.query", json!("x=1&sig=REDACTED")),
            ("server.port", json!("8080")),
            ("error.type", json!("RuntimeException")),
        ],
    );
    let events = span["events"].as_array().expect("events");
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["name"], "php.request.slow");
    assert_eq!(
        events[0]["timeUnixNano"],
        json!((START + 1_000_000_007).to_string())
    );
    assert_has(
        &events[0]["attributes"],
        &[("code.stacktrace", json!(slow().stacktrace))],
    );
    assert_eq!(events[1]["name"], "exception");
    assert_eq!(
        events[1]["timeUnixNano"],
        json!((START + 3_250_000_001).to_string())
    );

    let killed = &spans["scopeSpans"][0]["spans"][1];
    assert_eq!(killed["endTimeUnixNano"], json!((START + 1000).to_string()));
    assert_has(&killed["attributes"], &[("error.type", json!("SIGKILL"))]);
}

#[tokio::test]
async fn over_grpc() {
    let collector = Collector::start();
    let endpoint = format!("http://127.0.0.1:{}", collector.grpc);
    let variables = vec![
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    ];
    everything_arrives("grpc", variables, &collector).await;
}

#[tokio::test]
async fn over_http_with_gzip() {
    let collector = Collector::start();
    let endpoint = format!("http://127.0.0.1:{}/", collector.http);
    let variables = vec![
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    ];
    everything_arrives("http", variables, &collector).await;
}

/// Far less than the 10 s of one export's timeout, far more than the second it is given, so
/// that a busy machine does not fail the test.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Pushes more than the queue holds, shuts down after the first export was tried.
async fn against(protocol: &str, address: &str) -> (Counters, Duration) {
    let pipeline = pipeline(&options(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100".into()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10".into()),
    ]));
    let span = server_span(&end(), &facts(), &[], &Conventions::default());
    let started = Instant::now();
    for _ in 0..1000 {
        pipeline.push_span(span.clone(), Priority::Ordinary);
    }
    pipeline.push_log(slow().to_log_record(&begin(), &facts(), &Conventions::default()));
    assert!(started.elapsed() < GIVEN_UP, "pushing never waits");
    assert_eq!(pipeline.counters().spans.dropped.full_items, 900);
    let started = Instant::now();
    let counters = pipeline.shutdown(Duration::from_secs(1)).await;
    (counters, started.elapsed())
}

#[tokio::test]
async fn a_collector_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    for protocol in ["grpc", "http/protobuf"] {
        // The kernel completes the connections; nobody accepts them.
        let (counters, took) = against(protocol, &address).await;
        assert!(took < GIVEN_UP, "{protocol}: {took:?}");
        assert_eq!(counters.spans.exported + counters.logs.exported, 0, "{protocol}");
        assert_eq!(
            (counters.spans.lost(), counters.logs.lost()),
            (1000, 1),
            "{protocol}: {counters:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_port_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    for protocol in ["grpc", "http/protobuf"] {
        let (counters, took) = against(protocol, &address).await;
        assert!(took < GIVEN_UP, "{protocol}: {took:?}");
        assert_eq!(counters.spans.exported + counters.logs.exported, 0, "{protocol}");
        assert_eq!(
            (counters.spans.lost(), counters.logs.lost()),
            (1000, 1),
            "{protocol}: {counters:?}"
        );
    }
}

#[tokio::test]
async fn what_can_never_work_is_refused_at_once() {
    for (protocol, endpoint, said) in [
        ("http/protobuf", "collector:4318", "http://HOST:PORT"),
        ("grpc", "http://", "http://HOST:PORT"),
        ("http/protobuf", "ftp://collector", "http://HOST:PORT"),
    ] {
        let options = options(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.into()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.into()),
        ]);
        let terminal = Terminal {
            out: Box::new(std::io::sink()),
            colours: false,
        };
        let runtime = Runtime {
            php_version: None,
            host_name: None,
            instance_id: "i".into(),
            ..Runtime::default()
        };
        let error = Pipeline::new(&options, &resource(&options, &runtime), terminal).expect_err("refused");
        assert!(error.to_string().contains(said), "{error}");
    }
}

/// A writer that others can read.
#[derive(Clone, Default)]
struct Screen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nothing panicked").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn to_the_terminal_and_nowhere() {
    let options = options(&[
        ("OTEL_TRACES_EXPORTER", "console".into()),
        ("OTEL_LOGS_EXPORTER", "none".into()),
    ]);
    let screen = Screen::default();
    let terminal = Terminal {
        out: Box::new(screen.clone()),
        colours: false,
    };
    let runtime = Runtime {
        php_version: None,
        host_name: None,
        instance_id: "i".into(),
        ..Runtime::default()
    };
    let pipeline = Pipeline::new(&options, &resource(&options, &runtime), terminal).expect("is set up");
    assert!(pipeline.takes_spans() && !pipeline.takes_logs());
    pipeline.push_span(
        server_span(&end(), &facts(), &[slow()], &Conventions::default()),
        Priority::Urgent,
    );
    pipeline.push_log(slow().to_log_record(&begin(), &facts(), &Conventions::default()));
    let counters = pipeline.shutdown(PATIENCE).await;
    assert_eq!((counters.spans.exported, counters.logs), (1, Default::default()));
    let text = String::from_utf8(screen.0.lock().expect("nothing panicked").clone()).expect("text");
    assert!(
        text.contains("  500  GET /slow.php?x=1&sig=REDACTED  3250.0 ms"),
        "{text}"
    );
    assert!(
        text.contains("\n        #1 /srv/app/handler.php(7): Repo->find()\n"),
        "{text}"
    );
}
