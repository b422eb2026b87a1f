use std::time::Instant;

use glasspool_abi::control::{Ended, ObserverStart, WaitPrograms};
use glasspool_abi::record::{ABORTED, Encoder, EndScalars};
use glasspool_abi::times::Times;
use glasspool_otel::export;
use glasspool_otel::metrics::{Figure, Snapshot};
use glasspool_probes::rights::Rung;

use super::*;
use crate::config::LogLevel;
use crate::logs::ErrorLog;
use crate::observer::counters::Counters;
use crate::observer::ladder::LadderView;
use crate::observer::testing::{Bench, FakeWorker, begin_bytes, cursors, scalars, start};
use crate::observer::waits::Waits;

const SIGSEGV: Ended = Ended::Killed {
    signal: 11,
    core: true,
};

fn metrics() -> Metrics {
    let variables = HashMap::new();
    let (options, _) = Options::from_env(&variables, glasspool_otel::options::FileDefaults::default());
    Metrics::new(&options, None)
}

fn around(counters: &Counters) -> Surroundings<'_> {
    Surroundings {
        ladder: Vec::new(),
        counters,
        delivery: export::Counters::default(),
        waiting: [("traces", 5), ("logs", 0), ("metrics", 0)],
    }
}

fn record(method: &str, status: u32, flags: u64, took_ns: u64) -> Vec<u8> {
    let mut begin = Encoder::default();
    begin.begin(&scalars(1, 1_000, false));
    begin.text(Text::Method, method.as_bytes());
    begin.text(Text::Path, b"/a");
    begin.text(Text::Scheme, b"https");
    let mut end = Encoder::default();
    let times = EndScalars {
        responded_mono_ns: 1_000 + took_ns,
        end_mono_ns: 1_000 + 2 * took_ns,
        status,
        flags,
        ..EndScalars::default()
    };
    end.end(&times, begin.bytes());
    end.bytes().to_vec()
}

fn serve(metrics: &mut Metrics, record: &[u8]) {
    metrics.request("www", record, &End::peek(record).expect("peeks"), true);
}

/// `name{key=value,…} figure`, sorted; a histogram's figures are its count and sum.
fn lines(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for metric in &snapshot.metrics {
        for point in &metric.points {
            let pairs: Vec<_> = point
                .attributes
                .iter()
                .map(|pair| format!("{}={}", pair.key, pair.value))
                .collect();
            let value = match &point.value {
                Figure::Int(value) => value.to_string(),
                Figure::Float(value) => value.to_string(),
                Figure::Histogram(histogram) => {
                    format!("{} {}", histogram.count(), histogram.sum().as_secs_f64())
                }
            };
            lines.push(format!(
                "{}{{{}}} {value}",
                metric.instrument.name,
                pairs.join(",")
            ));
        }
    }
    lines.sort();
    lines
}

fn durations(metrics: &mut Metrics) -> Vec<String> {
    let bench = Bench::new(&cursors());
    let (board, waits) = (&bench.observer.board, &bench.observer.waits);
    let snapshot = metrics.snapshot(board, waits, &around(&Counters::default()));
    let name = "http.server.request.duration{php.pool=www,";
    lines(&snapshot)
        .iter()
        .filter_map(|line| line.strip_prefix(name).map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_request_is_counted_by_what_it_was_and_how_it_ended() {
    let mut metrics = metrics();
    serve(&mut metrics, &record("GET", 200, 0, 1_000_000_000));
    serve(&mut metrics, &record("GET", 200, ABORTED, 500_000_000));
    serve(&mut metrics, &record("POST", 503, FATAL, 0));
    serve(&mut metrics, &record("GET", 200, FATAL, 0));
    serve(&mut metrics, &record("BREW", 0, 0, 0));
    let begin = Begin::decode(begin_bytes(&scalars(2, 1_000, true)).bytes()).expect("decodes");
    metrics.killed("www", &begin, SIGSEGV, 2_000_001_000, &Known::Nothing);
    metrics.killed("www", &begin, Ended::Exited(255), 0, &Known::Nothing);
    assert_eq!(
        durations(&mut metrics),
        [
            "http.request.method=GET,url.scheme=http,error.type=SIGSEGV} 1 2",
            "http.request.method=GET,url.scheme=http,error.type=worker_exit} 1 0",
            "http.request.method=GET,url.scheme=https,http.response.status_code=200,error.type=fatal_error} 1 0",
            "http.request.method=GET,url.scheme=https,http.response.status_code=200} 2 1.5",
            "http.request.method=POST,url.scheme=https,http.response.status_code=503,error.type=503} 1 0",
            "http.request.method=_OTHER,url.scheme=https} 1 0",
        ]
    );
}

#[tokio::test]
async fn a_worker_that_invents_kinds_of_requests_fills_one_table() {
    let mut metrics = metrics();
    for method in ["GET", "POST", "PUT", "HEAD", "x"] {
        for status in 0..1_000 {
            serve(&mut metrics, &record(method, status, 0, 0));
        }
    }
    let durations = durations(&mut metrics);
    assert_eq!(durations.len(), MOST_SERIES + 1);
    let overflow: Vec<_> = durations
        .iter()
        .filter_map(|line| line.strip_prefix("otel.metric.overflow=true} "))
        .collect();
    assert_eq!(overflow.len(), 1);
    let counted = durations.iter().filter_map(|line| {
        let figures = line.rsplit_once("} ")?.1;
        figures.split_once(' ')?.0.parse::<u64>().ok()
    });
    assert_eq!(counted.sum::<u64>(), 5_000, "none is lost");
}

#[tokio::test]
async fn a_snapshot_tells_of_workers_requests_looks_rights_and_losses() {
    let mut bench = Bench::new(&cursors());
    let (mut busy, mut idle, mut dying) = (FakeWorker::new(), FakeWorker::new(), FakeWorker::new());
    for (id, worker) in [(1, &busy), (2, &idle), (3, &dying)] {
        bench.introduce(id, worker);
    }
    bench.observer.report.metrics.enabled = true;
    busy.begin(false, Duration::ZERO);
    idle.serve(false, 200);
    dying.begin(false, Duration::ZERO);
    bench.gone(3, SIGSEGV);
    bench.tick();
    let counters = Counters {
        lost: 2,
        garbled: 3,
        samples: crate::observer::counters::Samples {
            exact: 4,
            skipped: 5,
            ..Default::default()
        },
        ..Counters::default()
    };
    let mut delivery = export::Counters::default();
    delivery.spans.exported = 6;
    delivery.spans.rejected = 7;
    delivery.logs.dropped.full_bytes = 8;
    let ladder = LadderView {
        pool: "www".to_owned(),
        rung: Rung::Unstopped,
        missing: vec!["holding it while it runs"],
    };
    let mut around = around(&counters);
    around.ladder.push(ladder);
    around.delivery = delivery;
    let observer = &mut bench.observer;
    observer.report.metrics.saturated("www");
    observer.report.metrics.stopped(Duration::from_millis(2));
    let snapshot = observer
        .report
        .metrics
        .snapshot(&observer.board, &observer.waits, &around);
    let told = lines(&snapshot);
    for expected in [
        "http.server.active_requests{php.pool=www,http.request.method=GET,url.scheme=http} 1",
        "php.workers{php.pool=www,php.worker.state=busy} 1",
        "php.workers{php.pool=www,php.worker.state=idle} 1",
        "php.worker.deaths{php.pool=www,php.worker.exit_signal=SIGSEGV} 1",
        "php.request.killed{php.pool=www} 1",
        "php.pool.saturations{php.pool=www} 1",
        "php.observer.rung{php.pool=www} 3",
        "php.observer.right{php.pool=www,php.right=hold} 0",
        "php.observer.right{php.pool=www,php.right=memory} 1",
        "php.observer.right{php.pool=www,php.right=system_calls} 1",
        "php.observer.right{php.pool=www,php.right=peers} 1",
        "php.observer.right{php.pool=www,php.right=files} 1",
        "php.observer.looks{php.look.outcome=exact} 4",
        "php.observer.looks{php.look.outcome=skipped} 5",
        "php.observer.looks{php.look.outcome=postponed} 0",
        "php.observer.stop_time{} 0.002",
        "php.observer.queue{php.signal=traces} 5",
        "php.request.cpu.time{php.pool=www,cpu.mode=user} 0",
        "php.reloads{php.reload.outcome=failed} 0",
        "php.observer.records.lost{php.loss.reason=overwritten} 2",
        "php.observer.records.lost{php.loss.reason=garbled} 3",
        "otel.sdk.exporter.span.exported{} 6",
        "otel.sdk.exporter.span.exported{error.type=rejected} 7",
        "otel.sdk.processor.log.processed{error.type=queue_full} 8",
    ] {
        assert!(
            told.contains(&expected.to_owned()),
            "{expected} is not in {told:#?}"
        );
    }
    // What is over is told with zero, and the clock never stands still.
    busy.end(&EndScalars::default(), b"");
    bench.tick();
    let observer = &mut bench.observer;
    let later = observer
        .report
        .metrics
        .snapshot(&observer.board, &observer.waits, &around);
    let expected = "http.server.active_requests{php.pool=www,http.request.method=GET,url.scheme=http} 0";
    assert!(lines(&later).contains(&expected.to_owned()), "{later:?}");
    assert!(later.time_unix_ns > snapshot.time_unix_ns);
    assert_eq!(later.start_unix_ns, snapshot.start_unix_ns);
}

#[test]
fn requests_stand_for_others_only_where_their_trace_can_be_found() {
    let told = |variables: &[(&str, &str)], exported| {
        let variables = variables.iter();
        let variables = variables
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let (options, _) = Options::from_env(&variables, glasspool_otel::options::FileDefaults::default());
        let mut metrics = Metrics::new(&options, None);
        let record = record("GET", 200, 0, 30_000_000);
        metrics.request("www", &record, &End::peek(&record).expect("peeks"), exported);
        let histogram = metrics.pools["www"].durations.values().next().expect("one");
        histogram
            .exemplars()
            .iter()
            .flatten()
            .copied()
            .collect::<Vec<_>>()
    };
    let [exemplar] = told(&[], true)[..] else {
        panic!("its span is exported");
    };
    assert_eq!(exemplar.trace_id.0, [1; 16]);
    assert_eq!(exemplar.span_id.0, 1u64.to_be_bytes());
    assert_eq!(exemplar.ns, 30_000_000);
    assert_eq!(exemplar.unix_ns, 1_700_000_000_030_000_000);
    assert_eq!(told(&[], false), []);
    assert_eq!(told(&[("OTEL_TRACES_EXPORTER", "none")], true), []);
    let filter = |word| [("OTEL_METRICS_EXEMPLAR_FILTER", word)];
    assert_eq!(told(&filter("always_on"), false).len(), 1);
    assert_eq!(told(&filter("always_off"), true), []);
}

/// What the words in `Rights` are called in metrics must follow them.
#[test]
fn every_right_that_can_be_missing_has_its_series() {
    use glasspool_abi::Pid;
    use glasspool_probes::rights::{Obstacle, Rights};
    let no = || Err(Obstacle::Gone);
    let none = Rights {
        pid: Pid(1),
        handed_memory: None,
        memory: no(),
        vm_read: no(),
        calls: no(),
        descriptors: no(),
        maps: no(),
        files: no(),
        hold: no(),
    };
    let mut missing: Vec<_> = none.missing().into_iter().map(|(what, _)| what).collect();
    let mut known: Vec<_> = snapshot::RIGHTS.iter().map(|(_, words)| *words).collect();
    missing.sort_unstable();
    known.sort_unstable();
    assert_eq!(missing, known);
}

#[test]
fn snapshots_are_due_once_an_interval_and_at_the_end() {
    let mut metrics = metrics();
    let minute = 60_000_000_000;
    assert!(!metrics.is_due(5));
    assert!(!metrics.is_due(minute));
    assert!(metrics.is_due(5 + minute));
    assert!(!metrics.is_due(6 + minute));
    assert!(metrics.is_due(u64::MAX));
}

#[test]
fn a_clock_that_is_set_takes_the_start_along() {
    const S: u64 = 1_000_000_000;
    let mut metrics = metrics();
    (metrics.start_unix_ns, metrics.start_mono_ns) = (10_000 * S, 50 * S);
    let mut at = |unix_s: u64, mono_s: u64| {
        metrics.read_clocks(unix_s * S, mono_s * S);
        (metrics.start_unix_ns, metrics.last_unix_ns)
    };
    assert_eq!(at(10_060, 110), (10_000 * S, 10_060 * S));
    // Slewed by less than a second: time stands nearly still.
    assert_eq!(at(10_060, 110), (10_000 * S, 10_060 * S + 1));
    // Set forward, or the machine was suspended: what is counted began when it began.
    assert_eq!(at(17_320, 170), (10_000 * S, 17_320 * S));
    // Back to where it was, and then to before the start.
    assert_eq!(at(10_180, 230), (10_000 * S, 10_180 * S));
    assert_eq!(at(6_640, 290), (6_400 * S, 6_640 * S));
    assert_eq!(at(6_700, 350), (6_400 * S, 6_700 * S));
}

#[test]
fn a_clock_that_is_set_back_before_the_first_snapshot_takes_the_start_along() {
    let mut metrics = metrics();
    let (start, mono) = (metrics.start_unix_ns, metrics.start_mono_ns);
    metrics.read_clocks(start - 3_600_000_000_000, mono + 5);
    assert!(metrics.start_unix_ns < metrics.last_unix_ns);
    assert_eq!(metrics.last_unix_ns, start - 3_600_000_000_000);
}

/// `cargo test --release -p glasspool metrics_cost -- --ignored --nocapture`
#[test]
#[ignore = "prints a measurement"]
fn metrics_cost_less_than_200_ns_per_request() {
    const REQUESTS: u32 = 1_000_000;
    let mut metrics = metrics();
    let records: Vec<_> = [("GET", 200), ("POST", 302), ("GET", 404), ("HEAD", 200)]
        .map(|(method, status)| record(method, status, 0, 30_000_000))
        .into();
    let started = Instant::now();
    for record in records.iter().cycle().take(REQUESTS as usize) {
        let peek = End::peek(record).expect("peeks");
        metrics.request("www", record, &peek, true);
    }
    let each = started.elapsed() / REQUESTS;
    let message = format!("metrics cost {} ns per request\n", each.as_nanos());
    std::io::Write::write_all(&mut std::io::stdout(), message.as_bytes()).expect("writes");
    assert!(cfg!(debug_assertions) || each < Duration::from_nanos(200));
}

fn timed(times: Known) -> Vec<u8> {
    let mut begin = Encoder::default();
    begin.begin(&scalars(1, 0, false));
    let mut end = Encoder::default();
    let scalars = EndScalars {
        end_mono_ns: 4_000_000_000,
        cpu_user_ns: 1_000_000_000,
        times,
        ..EndScalars::default()
    };
    end.end(&scalars, begin.bytes());
    end.bytes().to_vec()
}

fn of(metrics: &mut Metrics, waits: &Waits, names: &[&str]) -> Vec<String> {
    let bench = Bench::new(&cursors());
    let ladder = [LadderView {
        pool: "www".to_owned(),
        rung: Rung::StateOnly,
        missing: Vec::new(),
    }];
    let counters = Counters::default();
    let around = Surroundings {
        ladder: ladder.into(),
        ..around(&counters)
    };
    let snapshot = metrics.snapshot(&bench.observer.board, waits, &around);
    let mut lines = lines(&snapshot);
    lines.retain(|line| names.iter().any(|name| line.starts_with(name)));
    lines
}

#[tokio::test]
async fn time_is_added_up_by_what_it_was_spent_on() {
    let mut metrics = metrics();
    let waits = Waits::default();
    let names = ["php.worker.time", "php.waits."];
    let rung = |number| {
        vec![format!(
            "php.waits.rung{{php.pool=www,php.waits.reason=off}} {number}"
        )]
    };
    assert_eq!(of(&mut metrics, &waits, &names), rung(0));
    serve(&mut metrics, &timed(Known::RunQueue(1_000_000_000)));
    let known = Times {
        on_cpu_ns: 500_000_000,
        blocked_ns: [0, 0, 0, 3_500_000_000, 0, 0],
        ..Times::default()
    };
    serve(&mut metrics, &timed(Known::All(known)));
    // Its request took four seconds.
    let liar = Times {
        on_cpu_ns: u64::MAX,
        ..Times::default()
    };
    serve(&mut metrics, &timed(Known::All(liar)));
    let begin = Begin::decode(begin_bytes(&scalars(2, 0, true)).bytes()).expect("decodes");
    metrics.killed("www", &begin, SIGSEGV, 9_000_000_000, &Known::All(known));
    assert_eq!(
        of(&mut metrics, &waits, &names),
        [
            &rung(1)[0],
            "php.worker.time{php.pool=www,php.time.state=blocked,php.wait_class=sleep} 7",
            "php.worker.time{php.pool=www,php.time.state=blocked} 2",
            "php.worker.time{php.pool=www,php.time.state=on_cpu} 6",
            "php.worker.time{php.pool=www,php.time.state=runqueue} 1",
        ]
    );
}

#[tokio::test]
async fn the_reason_why_programs_do_not_run_is_told() {
    let start = ObserverStart {
        waits: WaitPrograms::Refused {
            name: "no-btf".to_owned(),
            reason: "a test".to_owned(),
        },
        ..start()
    };
    let log = ErrorLog::stderr(LogLevel::Alert);
    let waits = Waits::new(&start, None, &log);
    assert_eq!(
        of(&mut metrics(), &waits, &["php.waits."]),
        ["php.waits.rung{php.pool=www,php.waits.reason=no-btf} 0"]
    );
}
