//! The clock of the day is set while a request is under way: what the worker read when it began is an hour
//! off what the observer reads.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glasspool_abi::control::ObserverStart;
use glasspool_waits::Record;
use serde_json::Value;

use super::protocol::Input;
use super::testing::{Bench, LIMIT, start};
use super::waits::tests::{FakeRing, FakeSight, query, told, waits, watched};

const HOUR_NS: u64 = 3_600_000_000_000;
/// A machine may stand still, but not for so long.
const MORE_NS: u64 = 120_000_000_000;

/// All objects below that have these keys.
fn all<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            if keys.iter().all(|key| object.contains_key(*key)) {
                found.push(value);
            }
            object.values().for_each(|value| all(value, keys, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, keys, found)),
        _ => {}
    }
}

fn number(value: &Value, key: &str) -> u64 {
    let text = value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"));
    text.parse().expect("a number")
}

/// A slow request with a wait in it, which began at that time; all that is exported of it.
async fn exported(began_unix_ns: u64) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("telemetry");
    let variables = ["TRACES", "LOGS", "METRICS"];
    let to_file = |signal| (format!("OTEL_{signal}_EXPORTER"), "otlp_file".to_owned());
    let start = ObserverStart {
        otel_env: variables.map(to_file).into(),
        ..start()
    };
    let ring = FakeRing::default();
    let mut bench = Bench::of(
        &super::testing::cursors(),
        start,
        waits(FakeSight::default(), &ring),
    );
    let file = File::create(&path).expect("creates");
    bench.observer.on(Input::TelemetryFile(file.into()));

    let mut worker = watched();
    worker.unix_ns = began_unix_ns;
    bench.introduce(1, &worker);
    worker.begin(true, LIMIT);
    bench.tick();
    bench.answer().await;
    ring.put([vec![Record::Wait(query(1, 1, 70))]]);
    bench.tick();
    worker.end(&told(1), b"");
    bench.tick();
    bench.finish().await;
    let text = std::fs::read_to_string(&path).expect("was written");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

async fn is_told_as_it_was(began_unix_ns: u64) {
    let exports = exported(began_unix_ns).await;
    let limit_ns = u64::try_from(LIMIT.as_nanos()).expect("is short");
    let ends = began_unix_ns + limit_ns..=began_unix_ns + limit_ns + MORE_NS;
    let within = began_unix_ns..=*ends.end();

    let mut spans = Vec::new();
    let mut points = Vec::new();
    let mut records = Vec::new();
    for export in &exports {
        all(export, &["startTimeUnixNano", "endTimeUnixNano"], &mut spans);
        all(export, &["startTimeUnixNano", "timeUnixNano"], &mut points);
        all(export, &["timeUnixNano", "severityText"], &mut records);
    }
    // The request, that it still runs, and what it waited for.
    assert_eq!(spans.len(), 3, "{spans:?}");
    let times = |span| (number(span, "startTimeUnixNano"), number(span, "endTimeUnixNano"));
    for span in &spans {
        let (from, to) = times(span);
        assert!(
            within.contains(&from) && within.contains(&to) && from < to,
            "{span}"
        );
        for event in span["events"].as_array().into_iter().flatten() {
            assert!(within.contains(&number(event, "timeUnixNano")), "{event}");
        }
    }
    let request = spans
        .iter()
        .map(|span| times(span))
        .find(|(from, to)| *from == began_unix_ns && ends.contains(to));
    assert!(request.is_some(), "{spans:?}");
    // What is told while it runs has the times of its span.
    assert!(!records.is_empty());
    for record in records {
        assert!(within.contains(&number(record, "timeUnixNano")), "{record}");
    }
    let mut durations = 0;
    for point in points {
        assert!(
            number(point, "startTimeUnixNano") <= number(point, "timeUnixNano"),
            "{point}"
        );
        if let Some(seconds) = point["sum"].as_f64() {
            let most = Duration::from_nanos(limit_ns + MORE_NS).as_secs_f64();
            assert!((LIMIT.as_secs_f64()..most).contains(&seconds), "{point}");
            durations += 1;
        }
    }
    assert_eq!(durations, 1);
}

fn now_unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

#[tokio::test]
async fn a_clock_that_is_set_forward_in_a_request_changes_nothing_of_it() {
    is_told_as_it_was(now_unix_ns() - HOUR_NS).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_in_a_request_changes_nothing_of_it() {
    is_told_as_it_was(now_unix_ns() + HOUR_NS).await;
}
