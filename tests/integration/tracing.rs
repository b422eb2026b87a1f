//! Traces of a real pool, as a collector gets them: parents and children, who is believed,
//! which requests are sampled, and rules that are raised while it runs.

mod raised;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::collector::{Collector, each, text};
use crate::fastcgi::{answer, ask};
use crate::harness::{PATIENCE, Supervised, launch, skipped};

/// Makes a span by hand, as an SDK in the application would, and sends it to `OTLP`.
const CHILD: &str = r#"<?php
function field(int $number, string $bytes): string {
    for ($length = strlen($bytes), $size = ''; $length > 127; $length >>= 7) $size .= chr($length & 127 | 128);
    return chr($number << 3 | 2) . $size . chr($length) . $bytes;
}
function fixed(int $number, int $value): string {
    return chr($number << 3 | 1) . pack('P', $value);
}
[, $trace, $parent, $flags] = explode('-', $_SERVER['HTTP_TRACEPARENT']);
$now = (int) (microtime(true) * 1e9);
$span = field(1, hex2bin($trace)) . field(2, random_bytes(8)) . field(4, hex2bin($parent)) . field(5, 'child')
    . fixed(7, $now) . fixed(8, $now);
$context = stream_context_create(['http' => [
    'method' => 'POST', 'header' => 'content-type: application/x-protobuf',
    'content' => field(1, field(2, field(2, $span))),
]]);
file_get_contents($_SERVER['OTLP'] . '/v1/traces', false, $context);
echo $_SERVER['HTTP_TRACEPARENT'], ' ', $_SERVER['HTTP_TRACESTATE'] ?? '-', ' ', $_SERVER['HTTP_BAGGAGE'] ?? '-';
"#;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Stand {
    supervised: Supervised,
    collector: Collector,
    endpoint: String,
}

/// A running pool of two workers with this glasspool.toml and these variables, if PHP and an
/// engine object for it are here; else that is noted.
fn stand(toml: &str, variables: &[(&str, &str)]) -> Option<Stand> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
    let shown = folder.path().display();
    let conf = format!(
        "[global]\nerror_log = {shown}/error.log\npid = {shown}/pid\n\
         [www]\nlisten = {shown}/socket\nlisten.mode = 0666\nuser = nobody\ngroup = nogroup\n\
         pm = static\npm.max_children = 2\n"
    );
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("writes");
    write("fpm.conf", &conf);
    write("glasspool.toml", toml);
    write("child.php", CHILD);
    write("hello.php", "<?php echo $_SERVER['HTTP_TRACEPARENT'] ?? '-';");
    write(
        "route.php",
        "<?php header('X-Glasspool-Route: /user/{id}'); header('X-Other: 1'); echo 'hello';\n\
         fastcgi_finish_request(); usleep(20000);",
    );
    let checked = Command::new(env!("CARGO_BIN_EXE_glasspool"))
        .args(["check", "-R", "-y"])
        .arg(folder.path().join("fpm.conf"))
        .output()
        .expect("starts");
    if !checked.status.success() {
        skipped(&format!(
            "tracing: {}",
            String::from_utf8_lossy(&checked.stderr).trim()
        ));
        return None;
    }
    let collector = Collector::start(folder.path());
    let endpoint = collector.endpoint();
    let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
    command
        .args(["-F", "-O", "-R", "-y"])
        .arg(folder.path().join("fpm.conf"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .env("OTEL_LOGS_EXPORTER", "none")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .envs(variables.iter().copied());
    let mut supervised = launch(folder, command);
    supervised.wait_for("ready to handle connections");
    Some(Stand {
        supervised,
        collector,
        endpoint,
    })
}

impl Stand {
    fn params<'a>(
        &'a self,
        script: &'a str,
        uri: &'a str,
        more: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let mut params = vec![
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_FILENAME", script),
            ("SCRIPT_NAME", "/x.php"),
            ("REQUEST_URI", uri),
            ("OTLP", &self.endpoint),
        ];
        params.extend_from_slice(more);
        params
    }

    fn ask(&self, script: &str, uri: &str, more: &[(&str, &str)]) -> String {
        let script = self.supervised.path(script).display().to_string();
        ask(&self.supervised.path("socket"), &self.params(&script, uri, more)).expect("is answered")
    }

    /// Spans of requests with that path, as soon as there are so many.
    fn spans(&self, path: &str, count: usize) -> Vec<Value> {
        self.wait_for(|span| text(span, "url.path") == Some(path), count)
    }

    fn wait_for(&self, is_meant: impl Fn(&Value) -> bool, count: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let spans: Vec<Value> = self.collector.spans().into_iter().filter(&is_meant).collect();
            if spans.len() >= count {
                return spans;
            }
            assert!(
                Instant::now() < until,
                "{} of {count} spans: {spans:?}",
                spans.len()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// `glasspool trace` with these arguments, for this supervisor.
    fn trace(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .arg("trace")
            .args(arguments)
            .arg(self.supervised.pid().to_string())
            .output()
            .expect("starts")
    }

    /// Whether PHP sees a request for that URI as sampled.
    fn is_sampled(&self, uri: &str) -> bool {
        self.ask("hello.php", uri, &[]).ends_with("1") || self.ask("hello.php", uri, &[]).ends_with("3")
    }
}

fn number(of: &Value, key: &str) -> Option<f64> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["doubleValue"].as_f64()
}

#[test]
fn a_span_of_the_application_is_our_child_and_the_caller_is_our_parent() {
    let Some(stand) = stand("", &[]) else { return };
    let caller = [
        ("HTTP_TRACEPARENT", PARENT),
        ("HTTP_TRACESTATE", "vendor=1, other=2"),
        ("HTTP_BAGGAGE", "user=alice"),
    ];
    let seen = stand.ask("child.php", "/shop?x=1", &caller);
    assert!(seen.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{seen}");
    assert!(seen.ends_with("-01 vendor=1, other=2 user=alice"), "{seen}");
    let [ours] = &stand.spans("/shop", 1)[..] else {
        panic!("two spans")
    };
    let [child] = &stand.wait_for(|span| span["name"] == "child", 1)[..] else {
        panic!("two children")
    };
    assert_eq!(child["parentSpanId"], ours["spanId"]);
    assert_eq!(child["traceId"], ours["traceId"]);
    assert!(seen.contains(&hex(&ours["spanId"])), "{seen} {ours}");
    assert_eq!(hex(&ours["parentSpanId"]), "b7ad6b7169203331");
    assert_eq!(ours["traceState"], "vendor=1,other=2");
    assert_eq!(hex(&ours["traceId"]), "0af7651916cd43dd8448eb211c80319c");
}

/// Ids are base64 in protobuf's own JSON, and hexadecimal in OTLP's; the receiver may write either.
fn hex(id: &Value) -> String {
    let text = id.as_str().expect("an id");
    if text.len() == 16 || text.len() == 32 {
        return text.to_ascii_lowercase();
    }
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bits: String = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| format!("{:06b}", digit(byte)))
        .collect();
    let bytes = bits.as_bytes().chunks_exact(8);
    bytes
        .map(|bits| {
            let bits = std::str::from_utf8(bits).expect("digits");
            format!("{:02x}", u8::from_str_radix(bits, 2).expect("eight bits"))
        })
        .collect()
}

#[test]
fn at_the_edge_a_strangers_trace_is_linked_and_its_proxy_believed() {
    let toml = "[trace]\ntrust_incoming = [\"10.0.0.0/8\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
                redact_query = [\"token\"]\n";
    let Some(stand) = stand(toml, &[]) else { return };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let taken = now.expect("after 1970").as_secs_f64() - 0.5;
    let seen = stand.ask(
        "child.php",
        "/edge",
        &[
            ("REMOTE_ADDR", "10.0.0.1"),
            ("REMOTE_PORT", "4711"),
            ("QUERY_STRING", "token=secret&sig=open"),
            ("HTTP_HOST", "inner:8080"),
            ("HTTP_X_FORWARDED_FOR", "198.51.100.1, 203.0.113.9, 10.0.0.2"),
            ("HTTP_X_FORWARDED_PROTO", "https"),
            ("HTTP_X_FORWARDED_HOST", "shop.example"),
            ("HTTP_X_REQUEST_START", &format!("t={taken:.3}")),
            ("HTTP_TRACEPARENT", PARENT),
            ("HTTP_TRACESTATE", "vendor=1"),
            ("HTTP_BAGGAGE", "user=alice"),
        ],
    );
    assert!(!seen.contains("0af7651916cd43dd8448eb211c80319c"), "{seen}");
    assert!(seen.ends_with(" - -"), "{seen}");
    let [span] = &stand.spans("/edge", 1)[..] else {
        panic!("two spans")
    };
    assert!(span["parentSpanId"].as_str().is_none_or(str::is_empty), "{span}");
    let link = each(span, "links").next().expect("a link");
    assert_eq!(hex(&link["traceId"]), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&link["spanId"]), "b7ad6b7169203331");
    for (key, expected) in [
        ("client.address", "203.0.113.9"),
        ("network.peer.address", "10.0.0.1"),
        ("url.scheme", "https"),
        ("server.address", "shop.example"),
        ("url.query", "token=REDACTED&sig=open"),
    ] {
        assert_eq!(text(span, key), Some(expected), "{key}: {span}");
    }
    let queued = number(span, "php.request.queue_time").expect("was queued");
    assert!((0.4..30.0).contains(&queued), "{queued}");
    assert!(
        number(span, "php.worker.age").is_some_and(|age| age > 0.0),
        "{span}"
    );
    // A client that is no proxy is not believed, and has no say in the queue.
    stand.ask(
        "hello.php",
        "/direct",
        &[
            ("REMOTE_ADDR", "203.0.113.9"),
            ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
            ("HTTP_X_FORWARDED_PROTO", "https"),
            ("HTTP_X_REQUEST_START", &format!("t={taken:.3}")),
        ],
    );
    let [span] = &stand.spans("/direct", 1)[..] else {
        panic!("two spans")
    };
    assert_eq!(text(span, "client.address"), Some("203.0.113.9"));
    assert_eq!(text(span, "url.scheme"), Some("http"));
    assert_eq!(number(span, "php.request.queue_time"), None);
}

#[test]
fn b3_is_gone_on_with_when_it_is_chosen() {
    let Some(stand) = stand("", &[("OTEL_PROPAGATORS", "b3,xray")]) else {
        return;
    };
    fs::write(
        stand.supervised.path("hello.php"),
        "<?php echo $_SERVER['HTTP_B3'];",
    )
    .expect("writes");
    let b3 = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
    let seen = stand.ask(
        "hello.php",
        "/b3",
        &[("HTTP_B3", b3), ("HTTP_TRACEPARENT", PARENT)],
    );
    let [span] = &stand.spans("/b3", 1)[..] else {
        panic!("two spans")
    };
    assert_eq!(hex(&span["parentSpanId"]), "e457b5a2e4d86bd1");
    assert_eq!(
        seen,
        format!("80f198ee56343ba864fe8b2a57d3eff7-{}-1", hex(&span["spanId"]))
    );
    let log = fs::read_to_string(stand.supervised.path("error.log")).unwrap_or_default();
    let told = stand
        .supervised
        .log
        .iter()
        .any(|line| line.contains("\"xray\" is not one of"));
    assert!(told || log.contains("\"xray\" is not one of"), "{log}");
}

#[test]
fn rules_sample_and_routes_name_and_both_come_from_the_application_too() {
    let toml = "[trace]\nsampler = \"always_off\"\n\
                [[trace.rule]]\npath = \"/none*\"\nratio = 0\n\
                [[trace.rule]]\npath = \"/*/pay\"\nratio = 1\n\
                [[trace.rule]]\npath = \"/half*\"\nratio = 0.5\n\
                [[trace.route]]\npath = \"/user/*\"\ntemplate = \"/user/{name}\"\n";
    let Some(stand) = stand(toml, &[]) else { return };
    assert!(!stand.is_sampled("/none/pay") && stand.is_sampled("/cart/pay") && !stand.is_sampled("/"));
    let script = stand.supervised.path("hello.php").display().to_string();
    let socket = stand.supervised.path("socket");
    let sampled = (0..400)
        .filter(|_| {
            let seen = ask(&socket, &stand.params(&script, "/half", &[])).expect("is answered");
            seen.ends_with('1') || seen.ends_with('3')
        })
        .count();
    // Six standard deviations around 200.
    assert!((140..=260).contains(&sampled), "{sampled}");
    assert_eq!(stand.spans("/half", sampled).len(), sampled);
    // A request that failed is kept, and says that it is no share of anything.
    fs::write(stand.supervised.path("fatal.php"), "<?php nosuchfunction();").expect("writes");
    stand.ask("fatal.php", "/user/7", &[]);
    let [failed] = &stand.spans("/user/7", 1)[..] else {
        panic!("two spans")
    };
    assert_eq!(text(failed, "php.sampling.kept"), Some("error"));
    assert_eq!(
        (&failed["name"], text(failed, "http.route")),
        (&"GET /user/{name}".into(), Some("/user/{name}"))
    );
    assert_eq!(failed["flags"].as_u64().unwrap_or(0) & 1, 0, "{failed}");
}

#[test]
fn the_application_names_its_route_and_what_it_did_afterwards_is_a_child() {
    let Some(stand) = stand("", &[]) else { return };
    let script = stand.supervised.path("route.php").display().to_string();
    let params = stand.params(&script, "/user/7", &[]);
    let (head, body) = answer(&stand.supervised.path("socket"), &params).expect("is answered");
    assert!(
        head.contains("X-Other: 1") && !head.to_ascii_lowercase().contains("glasspool"),
        "{head}"
    );
    assert_eq!(body, "hello");
    let [span] = &stand.spans("/user/7", 1)[..] else {
        panic!("two spans")
    };
    assert_eq!(
        (&span["name"], text(span, "http.route")),
        (&"GET /user/{id}".into(), Some("/user/{id}"))
    );
    let [after] = &stand.wait_for(|span| span["name"] == "php.request.post_response", 1)[..] else {
        panic!("two children")
    };
    assert_eq!(after["parentSpanId"], span["spanId"]);
    assert_eq!(after["startTimeUnixNano"], span["endTimeUnixNano"]);
    let time = |key: &str| {
        after[key]
            .as_str()
            .and_then(|ns| ns.parse::<u64>().ok())
            .expect("a time")
    };
    assert!(time("endTimeUnixNano") - time("startTimeUnixNano") >= 20_000_000);
    // The next request of the worker has no route from this one.
    for _ in 0..4 {
        stand.ask("hello.php", "/plain", &[]);
    }
    assert!(stand.spans("/plain", 4).iter().all(|span| span["name"] == "GET"));
}
