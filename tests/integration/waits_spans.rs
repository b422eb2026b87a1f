//! Requests that do not end by themselves, or outlive an observer, and what their spans and
//! events say of their waits: with PHP and the kernel programs. The table of known loads is
//! about those that end well.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use glasspool_waits::Settings;
use rustix::process::Signal;
use serde_json::Value;

use crate::collector::{Collector, each, text};
use crate::harness::{PATIENCE, kill, skipped};
use crate::looks::stand::{Site, Stand};

/// Glasspool with the kernel programs, and what it tells.
pub(crate) struct Watched {
    pub(crate) stand: Stand,
    pub(crate) collector: Collector,
    _folder: tempfile::TempDir,
}

impl Watched {
    /// `None` if the programs or PHP are not to be had here, which is noted.
    fn start(lines: &str, scripts: &[(&str, &str)]) -> Option<Watched> {
        Watched::with("", lines, scripts)
    }

    /// The same with these lines in `glasspool.toml`, where they are the last of `[ebpf]`.
    pub(crate) fn with(toml: &str, lines: &str, scripts: &[(&str, &str)]) -> Option<Watched> {
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
        site.write("glasspool.toml", &format!("[ebpf]\nmode = \"required\"\n{toml}"));
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
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl Fn(&Watched) -> Option<T>) -> T {
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
    pub(crate) fn request(&self, path: &str) -> Value {
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

pub(crate) fn number(of: &Value, key: &str) -> Option<f64> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["doubleValue"].as_f64()
}

fn whole_number(of: &Value, key: &str) -> Option<i64> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["intValue"].as_str()?.parse().ok()
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

#[test]
fn a_wait_for_tcp_says_how_full_the_connection_is() {
    // Never reads, and never accepts: the kernel takes what fits. The write lasts until the
    // request is killed.
    let peer = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = peer.local_addr().expect("is bound").port();
    let full = format!(
        "<?php\n$peer = stream_socket_client('tcp://127.0.0.1:{port}');\n\
         stream_set_timeout($peer, 60);\nfwrite($peer, str_repeat('x', 1 << 25));\n"
    );
    let lines = "slowlog = ROOT/slow.log\nrequest_slowlog_timeout = 1s\nrequest_terminate_timeout = 3s";
    let Some(mut watched) = Watched::start(lines, &[("full.php", &full)]) else {
        return;
    };
    watched.stand.send("full.php");
    let request = watched.request("/full");
    let write = watched.wait_of(&request, "fwrite");
    let event = each(&request, "events").find(|event| event["name"] == "php.request.slow");
    for told in [&write, event.unwrap_or_else(|| panic!("no event in {request:#}"))] {
        assert_eq!(
            text(told, "network.connection.state"),
            Some("established"),
            "{told:#}"
        );
        let queued = whole_number(told, "php.wait_send_queue");
        assert!(queued.is_some_and(|bytes| bytes > 10_000), "{told:#}");
        assert_eq!(whole_number(told, "php.wait_receive_queue"), Some(0), "{told:#}");
    }
}

#[test]
fn a_wait_for_the_own_client_is_no_call_of_another_service() {
    // An address of its own: nobody else's connections take a port of it.
    let free = TcpListener::bind("127.77.0.1:0").expect("binds");
    let address = free.local_addr().expect("is bound");
    drop(free);
    let lines = format!("listen = {address}\nslowlog = ROOT/slow.log\nrequest_slowlog_timeout = 1s");
    let much = "<?php\nfunction tell() { print(str_repeat('x', 1 << 25)); }\ntell();\n";
    let Some(watched) = Watched::start(&lines, &[("much.php", much)]) else {
        return;
    };
    let mut client = TcpStream::connect(address).expect("connects");
    let request = watched.stand.request("much.php");
    client.write_all(&request).expect("sends");
    // Reads nothing until the request is slow.
    watched.stand.wait_for_text("slow.log", "much.php");
    let answered = std::io::copy(&mut client, &mut std::io::sink()).expect("is answered");
    assert!(answered > 1 << 25, "{answered} bytes");
    let request = watched.request("/much");
    let write = watched.wait_of(&request, "tell");
    assert_eq!(write["kind"], "SPAN_KIND_INTERNAL", "{write:#}");
    assert_eq!(text(&write, "php.wait_class"), Some("network"), "{write:#}");
    assert_eq!(text(&write, "network.peer.address"), None, "{write:#}");
    let queued = whole_number(&write, "php.wait_send_queue");
    assert!(queued.is_some_and(|bytes| bytes > 0), "{write:#}");
    // So it is for whoever has looked while it waited.
    let event = each(&request, "events").find(|event| event["name"] == "php.request.slow");
    let event = event.unwrap_or_else(|| panic!("no event in {request:#}"));
    assert_eq!(text(event, "php.wait_class"), Some("network"), "{event:#}");
    assert_eq!(text(event, "network.peer.address"), None, "{event:#}");
    let wait = text(event, "php.wait").expect("it waits");
    assert!(
        wait.starts_with("sendto on fd ") && wait.ends_with(" -> tcp web server"),
        "{wait}"
    );
}

#[test]
fn system_calls_are_counted_for_who_asks_for_it() {
    let scripts = [1000, 3000].map(|calls| {
        format!(
            "<?php\nfor ($i = 0; $i < {calls}; $i++) posix_getppid();\n\
             [$one, $other] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);\n\
             fwrite($one, str_repeat('x', {calls}));\nprint(fread($other, 8192));\n"
        )
    });
    let [few, many] = &scripts;
    let scripts = [("few.php", few.as_str()), ("many.php", many.as_str())];
    let Some(watched) = Watched::with("system_calls = true\n", "", &scripts) else {
        return;
    };
    // So that a script costs the same as another: both are compiled, and PHP has begun.
    let [few, many] = ["few", "many"].map(|name| {
        watched.stand.ask(&format!("{name}.php")).join().expect("ends");
        watched.request(&format!("/{name}"))
    });
    let calls = |span| whole_number(span, "php.system_calls.count").expect("is counted");
    let difference = calls(&many) - calls(&few);
    assert!(
        (1900..=2100).contains(&difference),
        "{difference}: {few:#} {many:#}"
    );
    for (span, bytes) in [(&few, 1000), (&many, 3000)] {
        // The response and the request are none of it.
        assert_eq!(whole_number(span, "php.network.sent"), Some(bytes), "{span:#}");
        assert_eq!(
            whole_number(span, "php.network.received"),
            Some(bytes),
            "{span:#}"
        );
        let time = number(span, "php.system_calls.time").expect("is counted");
        assert!(time > 0.0 && time < seconds(span) + 1e-3, "{span:#}");
    }
}
