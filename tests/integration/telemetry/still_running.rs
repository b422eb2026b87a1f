//! The early span of a request that hangs.

use std::io::Write;
use std::os::unix::net::UnixStream;

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::RequestEncoder;
use rustix::process::Signal;
use serde_json::Value;

use super::{Plan, Stand, collector, is_server, scratch, to, until};
use crate::collector::{Collector, text};
use crate::harness::kill;

const HANG: (&str, &str) = (
    "hang.php",
    "<?php\nfunction wait() {\n    sleep(1000);\n}\nfile_put_contents('ROOT/pid.txt', getmypid());\nwait();\n",
);
const SLOW: &str = "[slow]\nafter = \"200ms\"\nsamples = 3\n";

#[test]
fn a_request_that_never_ends_is_told_before_it_ends() {
    let scratch = scratch();
    let collector = collector(&scratch);
    let mut variables = to(&collector);
    // Other spans wait for longer than this test does.
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", "600000".to_owned()));
    let plan = Plan {
        scripts: &[HANG],
        overlay: SLOW,
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &variables) else {
        return;
    };
    let script = stand.supervised.path("hang.php").display().to_string();
    let mut asked = UnixStream::connect(stand.supervised.path("sock")).expect("connects");
    let mut request = Vec::new();
    RequestEncoder::begin(&mut request, 1, Role::Responder, false);
    let params = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_FILENAME", script.as_str()),
        ("SCRIPT_NAME", "/hang.php"),
        ("REQUEST_URI", "/hang.php"),
        (
            "HTTP_TRACEPARENT",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    RequestEncoder::params(&mut request, 1, params);
    RequestEncoder::stdin_end(&mut request, 1);
    asked.write_all(&request).expect("sends");

    let early = until("a span of the request that hangs", || collector.spans().pop());
    assert_eq!(early["name"], "php.request.still_running");
    assert_eq!(early["kind"], "SPAN_KIND_INTERNAL");
    for (key, expected) in [
        ("url.path", "/hang.php"),
        ("php.pool", "www"),
        ("code.function.name", "sleep"),
        ("code.file.path", script.as_str()),
    ] {
        assert_eq!(text(&early, key), Some(expected), "{key}: {early:#}");
    }
    assert!(text(&early, "php.wait").is_some(), "{early:#}");
    // The next looks come at twice and four times the limit; they are no spans.
    until("all looks are told as log records", || {
        (looks(&collector) == 3).then_some(())
    });
    assert_eq!(collector.spans().len(), 1);

    let pid = stand.read("pid.txt").parse().expect("a pid");
    kill(pid, Signal::KILL);
    let log = stand.finish();
    let spans = beside_waits(&collector);
    let [request] = spans.iter().filter(|span| is_server(span)).collect::<Vec<_>>()[..] else {
        panic!("not one span of the request: {spans:#?}")
    };
    assert_eq!(request["spanId"], early["parentSpanId"]);
    assert_eq!(request["traceId"], early["traceId"]);
    assert_ne!(request["spanId"], early["spanId"]);
    assert_eq!(text(request, "error.type"), Some("SIGKILL"));
    assert_eq!(spans.len(), 2);
    assert!(!log.contains("lost"), "{log}");
}

#[test]
fn a_pool_may_do_without_early_spans() {
    let scratch = scratch();
    let collector = collector(&scratch);
    let plan = Plan {
        scripts: &[("slow.php", "<?php usleep(600000); echo 'slept';")],
        overlay: &format!("{SLOW}[pool.www.slow]\nstill_running = false\n"),
        ..Plan::default()
    };
    let Some(stand) = Stand::start(&plan, &to(&collector)) else {
        return;
    };
    assert_eq!(stand.run("slow.php"), "slept");
    stand.finish();
    let spans = beside_waits(&collector);
    assert_eq!(
        (spans.len(), spans.iter().filter(|span| is_server(span)).count()),
        (1, 1)
    );
    assert!(looks(&collector) >= 2, "it was looked at");
}

/// All spans but those of waits, of which there are some where the kernel programs run.
fn beside_waits(collector: &Collector) -> Vec<Value> {
    let mut spans = collector.spans();
    spans.retain(|span| is_server(span) || span["name"] == "php.request.still_running");
    spans
}

/// Log records of looks at slow requests; what the supervisor logs comes too.
fn looks(collector: &Collector) -> usize {
    let records = collector.records();
    let slow = records
        .iter()
        .filter(|record| record["eventName"] == "php.request.slow");
    slow.count()
}
