use proptest::prelude::*;

use super::*;
use crate::span::tests::{begin, facts};

pub(crate) fn slow() -> SlowEvent {
    SlowEvent {
        time_unix_ns: 1_700_000_001_500_000_001,
        elapsed: Duration::from_millis(1500),
        stacktrace: "#0 sleep()\n#1 /srv/a.php(3): wait()\n#2 {main}".into(),
        function: Some("sleep".into()),
        file: Some("/srv/a.php".into()),
        line: Some(3),
        line_exact: true,
        how: "exact".into(),
        wait: Some("clock_nanosleep".into()),
        waiting: Waiting {
            class: Some("sleep"),
            so_far: Some(Duration::from_millis(1400)),
            syscall: Some("clock_nanosleep".into()),
            ..Waiting::default()
        },
        cost: Duration::from_micros(20),
        ..SlowEvent::default()
    }
}

/// A query that a database does not answer.
pub(crate) fn query() -> SlowEvent {
    SlowEvent {
        function: Some("PDO::query".into()),
        file: Some("/srv/Repo.php".into()),
        line: Some(42),
        wait: Some("poll on fd 4 -> tcp 10.0.3.7:3306".into()),
        waiting: Waiting {
            alike: Some("poll on tcp 10.0.3.7:3306".into()),
            class: Some("network"),
            so_far: Some(Duration::from_millis(1200)),
            syscall: Some("poll".into()),
            peer: Some(Peer {
                address: "10.0.3.7".into(),
                port: Some(3306),
                transport: Some("tcp".into()),
            }),
            tcp: Some(TcpState {
                state: "established",
                receive_queue: 7,
                send_queue: 0,
            }),
            file: None,
        },
        native_stacktrace: "poll+0x10 [libc.so.6]\nzif:query [pdo.so]".into(),
        missing: Some("holding it while it runs: give CAP_SYS_PTRACE".into()),
        ..slow()
    }
}

pub(crate) fn attribute(event: &Event, key: &str) -> Option<opentelemetry::Value> {
    let found = event.attributes.iter().find(|kv| kv.key.as_str() == key);
    found.map(|kv| kv.value.clone())
}

#[test]
fn a_wait_is_told_in_words_and_in_facts() {
    let event = query().to_span_event();
    assert_eq!(event.name, "php.request.slow");
    for (key, value) in [
        (
            "php.wait",
            opentelemetry::Value::from("poll on fd 4 -> tcp 10.0.3.7:3306"),
        ),
        ("php.wait_class", "network".into()),
        ("php.wait_elapsed", 1.2.into()),
        ("php.wait_syscall", "poll".into()),
        ("network.connection.state", "established".into()),
        ("php.wait_receive_queue", 7.into()),
        ("php.wait_send_queue", 0.into()),
        ("network.peer.address", "10.0.3.7".into()),
        ("network.peer.port", 3306.into()),
        ("network.transport", "tcp".into()),
        (
            "php.native_stacktrace",
            "poll+0x10 [libc.so.6]\nzif:query [pdo.so]".into(),
        ),
        (
            "php.sample.missing",
            "holding it while it runs: give CAP_SYS_PTRACE".into(),
        ),
    ] {
        assert_eq!(attribute(&event, key), Some(value), "{key}");
    }
    for absent in ["file.path", "php.termination.reason", "php.worker.exit_signal"] {
        assert_eq!(attribute(&event, absent), None, "{absent}");
    }
    let locked = SlowEvent {
        waiting: Waiting {
            file: Some("/srv/lock".into()),
            ..Waiting::default()
        },
        ..slow()
    };
    let event = locked.to_span_event();
    assert_eq!(attribute(&event, "file.path"), Some("/srv/lock".into()));
    assert_eq!(attribute(&event, "php.wait_elapsed"), None);
}

#[test]
fn a_kill_and_a_crash_are_events_of_their_own() {
    for (cause, name, key, value, severity, begins) in [
        (
            Cause::Terminated("request_terminate_timeout".into()),
            "php.request.terminated",
            "php.termination.reason",
            "request_terminate_timeout",
            Severity::Warn,
            "GET /index.php is killed after 1.5 s (request_terminate_timeout), in sleep",
        ),
        (
            Cause::Crashed("SIGSEGV".into()),
            "php.request.crashed",
            "php.worker.exit_signal",
            "SIGSEGV",
            Severity::Error,
            "GET /index.php crashed with SIGSEGV after 1.5 s, in sleep",
        ),
    ] {
        let event = SlowEvent { cause, ..slow() };
        assert_eq!(event.to_span_event().name, name);
        assert_eq!(attribute(&event.to_span_event(), key), Some(value.into()));
        let record = event.to_log_record(&begin(), &facts(), &Conventions::default());
        assert_eq!(
            (record.event_name(), record.severity_number()),
            (Some(name), Some(severity))
        );
        let Some(AnyValue::String(body)) = record.body() else {
            panic!("no body")
        };
        assert!(body.as_str().starts_with(begins), "{body:?}");
    }
}

#[test]
fn the_log_record_stands_alone() {
    let begin = begin();
    let record = slow().to_log_record(&begin, &facts(), &Conventions::default());
    assert_eq!(record.event_name(), Some("php.request.slow"));
    assert_eq!(record.severity_number(), Some(Severity::Warn));
    assert_eq!(record.timestamp(), Some(time(1_700_000_001_500_000_001)));
    let context = record.trace_context().expect("has a context");
    assert_eq!(context.trace_id.to_bytes(), begin.trace_id.0);
    assert_eq!(context.span_id.to_bytes(), begin.span_id.0);
    assert_eq!(context.trace_flags.map(|f| f.to_u8()), Some(3));
    let Some(AnyValue::String(body)) = record.body() else {
        panic!("no body")
    };
    assert_eq!(
        body.as_str(),
        "GET /index.php still running after 1.5 s, in sleep (/srv/a.php:3), waiting: clock_nanosleep, \
         1.4 s so far"
    );
    let keys: Vec<_> = record.attributes_iter().map(|(key, _)| key.as_str()).collect();
    for key in [
        "code.stacktrace",
        "php.request.elapsed",
        "php.wait_class",
        "url.path",
        "process.pid",
        "php.pool",
    ] {
        assert_eq!(keys.iter().filter(|k| **k == key).count(), 1, "{key} in {keys:?}");
    }
}

#[test]
fn a_long_stack_is_cut_between_frames() {
    let frames: Vec<_> = (0..100)
        .map(|n| format!("#{n} /srv/app/src/File.php({n}): function_{n}()"))
        .collect();
    let cut = cut_stacktrace(&frames.join("\n"));
    assert!(cut.len() <= MAX_STACKTRACE_BYTES);
    let lines: Vec<_> = cut.lines().collect();
    let (note, kept) = lines.split_last().expect("has lines");
    assert_eq!(kept, &frames[..kept.len()]);
    assert_eq!(*note, format!("… {} more", 100 - kept.len()));
    assert!(kept.len() > 40, "{}", kept.len());
}

proptest! {
    #[test]
    fn any_stack_is_cut_to_size(stack in "[aé\n€]{0,3000}") {
        let cut = cut_stacktrace(&stack);
        prop_assert!(cut.len() <= MAX_STACKTRACE_BYTES);
        if stack.len() <= MAX_STACKTRACE_BYTES {
            prop_assert_eq!(cut, stack);
        }
    }
}
