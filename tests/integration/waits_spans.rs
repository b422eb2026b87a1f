//! Requests that do not end by themselves, or outlive an observer, and what their spans and
//! events say of their waits: with PHP and the kernel programs. The table of known loads is
//! about those that end well.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use glasspool_waits::Settings;
use rustix::process::Signal;
use serde_json::Value;

use crate::collector::{Collector, each, text};
use crate::harness::{PATIENCE, kill, skipped};
use crate::looks::stand::{Site, Stand};

/// Glasspool with the kernel programs, and what it tells.
struct Watched {
    stand: Stand,
    collector: Collector,
    _folder: tempfile::TempDir,
}

impl Watched {
    /// `None` if the programs or PHP are not to be had here, which is noted.
    fn start(lines: &str, scripts: &[(&str, &str)]) -> Option<Watched> {
        if let Err(reason) = glasspool_waits::load(&Settings::default()) {
            skipped(&format!("waits on spans: {reason}"));
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(folder.path());
        let site = Site::new("waits", 1, lines);
        for (name, text) in scripts {
            site.write(name, text);
        }
        site.write("glasspool.toml", "[ebpf]\nmode = \"required\"\n");
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ];
        Some(Watched {
            stand: site.telling(&[], variables)?,
            collector,
            _folder: folder,
        })
    }

    /// The first that there is.
    fn wait_for<T>(&self, what: &str, find: impl Fn(&Watched) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            assert!(Instant::now() < end, "no {what} in {:#?}", self.collector.spans());
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The span of the request for that path.
    fn request(&self, path: &str) -> Value {
        self.wait_for(path, |watched| {
            let spans = watched.collector.spans();
            spans
                .into_iter()
                .find(|span| span["kind"] == "SPAN_KIND_SERVER" && text(span, "url.path") == Some(path))
        })
    }

    /// The wait of that name below that span.
    fn wait_of(&self, request: &Value, name: &str) -> Value {
        self.wait_for(name, |watched| {
            let spans = watched.collector.spans();
            let is_meant = |span: &Value| span["name"] == name && span["parentSpanId"] == request["spanId"];
            spans.into_iter().find(is_meant)
        })
    }
}

fn number(of: &Value, key: &str) -> Option<f64> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["doubleValue"].as_f64()
}

fn seconds(span: &Value) -> f64 {
    let nanos = |key: &str| -> u64 {
        let text = span[key].as_str().expect("a number as text");
        text.parse().expect("a number")
    };
    (nanos("endTimeUnixNano") - nanos("startTimeUnixNano")) as f64 / 1e9
}

/// Whether they differ by less than a millisecond.
fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-3
}

#[test]
fn a_killed_request_says_where_its_time_went_and_for_whom_it_waited() {
    let peer = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = peer.local_addr().expect("is bound").port();
    let hang = format!("<?php\nusleep(50000);\n$peer = fsockopen('127.0.0.1', {port});\nfread($peer, 1);\n");
    let Some(mut watched) = Watched::start("request_terminate_timeout = 1s", &[("hang.php", &hang)]) else {
        return;
    };
    watched.stand.send("hang.php");
    let request = watched.request("/hang");
    assert_eq!(text(&request, "error.type"), Some("SIGTERM"), "{request:#}");
    let part = |name: &str| number(&request, name).unwrap_or_else(|| panic!("no {name} in {request:#}"));
    let whole = part("php.time.on_cpu") + part("php.time.runqueue") + part("php.time.blocked");
    assert!(same(whole, seconds(&request)), "{whole} s of {request:#}");
    assert!((0.05..0.2).contains(&part("php.blocked.sleep")), "{request:#}");
    let sleep = watched.wait_of(&request, "usleep");
    assert_eq!(sleep["kind"], "SPAN_KIND_INTERNAL", "{sleep:#}");
    assert!((0.05..0.2).contains(&seconds(&sleep)), "{sleep:#}");
    // The wait that the kill has ended.
    let read = watched.wait_of(&request, "fread");
    assert_eq!(read["kind"], "SPAN_KIND_CLIENT", "{read:#}");
    assert_eq!(text(&read, "network.peer.address"), Some("127.0.0.1"));
    assert!(
        seconds(&read) > 0.7 && seconds(&read) <= part("php.blocked.network") + 1e-3,
        "{read:#} in {request:#}"
    );
}

#[test]
fn a_slow_request_says_since_when_it_waits() {
    let nap = "<?php\n$began = hrtime(true);\nwhile (hrtime(true) - $began < 3e8);\nusleep(1200000);\n";
    let lines = "slowlog = ROOT/slow.log\nrequest_slowlog_timeout = 1s";
    let Some(watched) = Watched::start(lines, &[("nap.php", nap)]) else {
        return;
    };
    watched.stand.ask("nap.php").join().expect("ends");
    let request = watched.request("/nap");
    let event = each(&request, "events").find(|event| event["name"] == "php.request.slow");
    let event = event.unwrap_or_else(|| panic!("no event in {request:#}"));
    let [age, waited] = ["php.request.elapsed", "php.wait_elapsed"]
        .map(|name| number(event, name).unwrap_or_else(|| panic!("no {name} in {event:#}")));
    // Until it waited, it has computed or waited for a CPU.
    let before = age - waited;
    let sleep = watched.wait_of(&request, "usleep");
    let nanos = |span: &Value| -> u64 {
        let text = span["startTimeUnixNano"].as_str().expect("a number as text");
        text.parse().expect("a number")
    };
    let began = (nanos(&sleep) - nanos(&request)) as f64 / 1e9;
    assert!(
        before >= 0.3 && same(before, began),
        "it waited after {before} s, and {began} s by its span: {event:#}"
    );
}

#[test]
fn a_new_observer_goes_on_with_the_waits() {
    let nap = "<?php\nusleep(50000);\nfile_put_contents(__DIR__ . '/napping', '');\nusleep(1000000);\n";
    let Some(watched) = Watched::start("", &[("nap.php", nap)]) else {
        return;
    };
    let asked = watched.stand.ask("nap.php");
    watched.wait_for("nap", |watched| {
        watched.stand.path("napping").exists().then_some(())
    });
    let observer = watched.stand.supervised.children(Some("observer"));
    assert_eq!(observer.len(), 1);
    kill(observer[0], Signal::KILL);
    asked.join().expect("ends");
    let request = watched.request("/nap");
    let slept = number(&request, "php.blocked.sleep").expect("is known");
    assert!((1.05..1.5).contains(&slept), "{request:#}");
    // The shorter one may have been told to the first.
    let sleep = watched.wait_for("long usleep", |watched| {
        let spans = watched.collector.spans();
        let is_meant = |span: &Value| span["parentSpanId"] == request["spanId"] && seconds(span) > 0.5;
        spans.into_iter().find(is_meant)
    });
    assert!((1.0..1.4).contains(&seconds(&sleep)), "{sleep:#}");
    assert_eq!(sleep["name"], "usleep", "{sleep:#}");
    assert_eq!(
        text(&sleep, "code.file.path"),
        watched.stand.path("nap.php").to_str()
    );
}
