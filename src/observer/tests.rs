//! The whole observer against slots that a test writes: no PHP, no process.

use std::os::fd::AsFd;
use std::time::Duration;

use glasspool_abi::control::{Channel, Ended, FromObserver, ToObserver};
use glasspool_abi::record::{EndScalars, FATAL, INCIDENT};
use rustix::event::{EventfdFlags, eventfd};

use super::run;
use super::testing::{Bench, FakeWorker, LIMIT, cursors, start};
use crate::config::LogLevel;
use crate::logs::ErrorLog;

const SIGKILL: Ended = Ended::Killed {
    signal: 9,
    core: false,
};

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[tokio::test]
async fn a_request_is_one_span_and_an_unsampled_one_is_none() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.serve(true, 200);
    worker.serve(false, 200);
    worker.serve(false, 503);
    assert_eq!(bench.tick(), 3);
    assert_eq!(bench.tick(), 0);
    bench.gone(1, Ended::Exited(0));
    let (console, log, _) = bench.finish().await;
    assert_eq!(count(&console, "GET /page"), 2, "{console}");
    assert!(
        console.contains("200  GET /page1") && console.contains("503  GET /page3"),
        "{console}"
    );
    assert_eq!(log, "");
}

#[tokio::test]
async fn a_killed_worker_leaves_one_error_span_for_the_request_it_was_at() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.serve(true, 200);
    // Unsampled: it is told because it failed.
    worker.begin(false, Duration::ZERO);
    bench.gone(1, SIGKILL);
    bench.gone(1, SIGKILL);
    bench.tick();
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "GET /page1"), 1, "{console}");
    assert_eq!(count(&console, "GET /page2"), 1, "{console}");
    assert_eq!(count(&console, "error SIGKILL"), 1, "{console}");
}

#[tokio::test]
async fn a_worker_that_exits_between_requests_leaves_nothing() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    bench.gone(1, Ended::Exited(0));
    bench.introduce(2, &worker);
    worker.serve(true, 200);
    bench.gone(2, SIGKILL);
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "GET /page"), 1, "{console}");
    assert_eq!(count(&console, "SIGKILL"), 0, "{console}");
}

#[tokio::test]
async fn what_the_ring_lost_is_counted_exactly() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    for _ in 0..500 {
        worker.serve(true, 200);
    }
    let read = bench.tick();
    assert!(read > 10 && read < 500, "{read}");
    let (console, log, _) = bench.finish().await;
    assert_eq!(count(&console, "GET /page") as u64, read);
    let lost = format!("WARNING: observer lost {} records of pool www\n", 500 - read);
    assert!(log.contains(&lost), "{log}");
    assert!(
        log.contains(&format!("lost: {} records overwritten", 500 - read)),
        "{log}"
    );
}

#[tokio::test]
async fn lines_that_a_killed_worker_left_out_are_counted() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.begin(true, Duration::ZERO);
    worker.writer.count_dropped_line();
    bench.tick();
    (0..2).for_each(|_| worker.writer.count_dropped_line());
    bench.gone(1, SIGKILL);
    bench.tick();
    let (_, log, _) = bench.finish().await;
    let told = log.lines().filter_map(|line| {
        line.split_once("[pool www] ")?
            .1
            .split_once(" lines of its workers")
    });
    let told: Vec<_> = told.map(|(lines, _)| lines).collect();
    assert_eq!(told, ["1", "2"], "{log}");
}

#[tokio::test]
async fn lines_that_are_left_out_between_two_observers_are_counted_once() {
    let (cursors, mut worker) = (cursors(), FakeWorker::new());
    let mut first = Bench::new(&cursors);
    first.introduce(1, &worker);
    worker.begin(true, Duration::ZERO);
    worker.writer.count_dropped_line();
    first.tick();
    // Killed.
    drop(first);
    (0..3).for_each(|_| worker.writer.count_dropped_line());
    let mut second = Bench::new(&cursors);
    second.introduce(1, &worker);
    second.gone(1, SIGKILL);
    second.tick();
    let (_, log, _) = second.finish().await;
    let told = log.matches("[pool www] 3 lines of its workers are in the error log only");
    assert_eq!(told.count(), 1, "{log}");
}

#[tokio::test]
async fn a_restarted_observer_repeats_nothing() {
    let (cursors, mut worker) = (cursors(), FakeWorker::new());
    let mut first = Bench::new(&cursors);
    first.introduce(1, &worker);
    worker.serve(true, 200);
    assert_eq!(first.tick(), 1);
    // Killed: it never gets to finish.
    drop(first);
    worker.serve(true, 200);
    let mut second = Bench::new(&cursors);
    second.introduce(1, &worker);
    assert_eq!(second.tick(), 1);
    let (console, _, _) = second.finish().await;
    assert!(
        console.contains("GET /page2") && !console.contains("GET /page1"),
        "{console}"
    );
}

#[tokio::test]
async fn a_slow_request_is_told_at_once_and_on_its_span() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.begin(false, LIMIT);
    bench.tick();
    // It ends while the look is under way or after; either way its event is on the span.
    bench.answer().await;
    bench.console_has("still running").await;
    worker.end(
        &EndScalars {
            status: 200,
            ..EndScalars::default()
        },
        b"",
    );
    bench.tick();
    let (console, log, slow_log) = bench.finish().await;
    assert_eq!(
        count(&console, "GET /page1 still running after 2"),
        1,
        "{console}"
    );
    assert_eq!(count(&console, "200  GET /page1"), 1, "{console}");
    assert_eq!(count(&console, "slow after 2"), 1, "{console}");
    let warning = format!(
        "WARNING: [pool www] child {}, script '/srv/index.php' (request: \"GET /page1?q=\\x1b\") executing too slow (2",
        std::process::id()
    );
    assert_eq!(count(&log, &warning), 1, "{log}");
    // The fake PHP has no executor globals, as if the layout were wrong.
    let entry =
        "\nscript_filename = /srv/index.php\ntrace_id = 01010101010101010101010101010101\n+++ dump failed\n";
    assert!(
        slow_log.starts_with("\n[") && slow_log.ends_with(entry),
        "{slow_log}"
    );
}

#[tokio::test]
async fn a_worker_killed_in_a_slow_request_keeps_the_sample() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.begin(true, LIMIT);
    bench.tick();
    // The look is under way, or its answer unread: the end must wait for it.
    bench.gone(1, SIGKILL);
    bench.answer().await;
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "error SIGKILL"), 1, "{console}");
    assert_eq!(count(&console, "slow after 2"), 1, "{console}");
}

#[tokio::test]
async fn a_request_that_ended_before_the_look_is_not_told_as_slow() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.begin(true, LIMIT * 2);
    let due = bench.observer.tick(super::monotonic_ns()).due;
    assert!(due.is_some(), "twice the limit comes next");
    worker.end(
        &EndScalars {
            flags: FATAL,
            ..EndScalars::default()
        },
        b"gone",
    );
    worker.begin(true, Duration::ZERO);
    bench.tick();
    bench.answer().await;
    let (console, _, _) = bench.finish().await;
    assert_eq!(
        count(&console, "GET /page1"),
        1 + count(&console, "still running"),
        "{console}"
    );
}

#[tokio::test]
async fn incidents_are_logged_with_a_limit_and_all_counted() {
    let mut bench = Bench::new(&cursors());
    let mut worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.begin(false, Duration::ZERO);
    for _ in 0..25 {
        worker.end(
            &EndScalars {
                flags: INCIDENT,
                ..EndScalars::default()
            },
            b"not FastCGI\n\x1b[2J",
        );
    }
    bench.tick();
    let (console, log, _) = bench.finish().await;
    let line = format!(
        "NOTICE: [pool www] child {}: connection dropped: not FastCGI\\n\\x1b[2J\n",
        std::process::id()
    );
    assert_eq!(count(&log, &line), 10, "{log}");
    assert!(
        log.contains("25 dropped connections") && log.contains("15 dropped connections without a log line"),
        "{log}"
    );
    assert_eq!(console, "");
}

#[tokio::test]
async fn random_bytes_in_a_slot_cost_one_line_and_nobody_else() {
    let mut bench = Bench::new(&cursors());
    let (hostile, mut honest) = (FakeWorker::new(), FakeWorker::new());
    bench.introduce(1, &hostile);
    bench.introduce(2, &honest);
    let mut state = 0x1234_5678_9abc_def0u64;
    for _ in 0..100 {
        let junk: Vec<u8> = (0..hostile.bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_ne_bytes()[0] & if state & 0x100 == 0 { 0xff } else { 0x03 }
            })
            .collect();
        rustix::io::pwrite(&hostile.slot, &junk, 0).unwrap();
        bench.tick();
    }
    honest.serve(true, 200);
    bench.tick();
    bench.gone(1, SIGKILL);
    let (console, log, _) = bench.finish().await;
    assert_eq!(count(&console, "200  GET /page1"), 1, "{console}");
    assert_eq!(count(&log, "its slot makes no sense"), 1, "{log}");
}

#[tokio::test]
async fn unannounced_pools_and_engines_cost_a_warning() {
    let mut bench = Bench::new(&cursors());
    let worker = FakeWorker::new();
    bench.introduce(1, &worker);
    bench.introduce(1, &worker);
    let (_, log, _) = bench.finish().await;
    assert_eq!(
        count(&log, "number 1 is in use; its requests are not traced"),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn it_says_ready_and_ends_when_told_or_left_alone() {
    for stop in [true, false] {
        let (ours, theirs) = Channel::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = ErrorLog::file(&folder.path().join("log"), LogLevel::Warning).unwrap();
        let mut start = start();
        start.otel_env = vec![("OTEL_SDK_DISABLED".to_owned(), "true".to_owned())];
        let (cursors, doorbell) = (cursors(), eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        // Out of order: ignored.
        theirs
            .send(
                &ToObserver::Stop {
                    within: Duration::ZERO,
                },
                &[],
            )
            .unwrap();
        theirs
            .send(
                &ToObserver::Start(Box::new(start)),
                &[cursors.as_fd(), doorbell.as_fd()],
            )
            .unwrap();
        let supervisor = std::thread::spawn(move || {
            let (said, _) = theirs.receive::<FromObserver>().unwrap();
            if stop {
                theirs
                    .send(
                        &ToObserver::Stop {
                            within: Duration::from_secs(5),
                        },
                        &[],
                    )
                    .unwrap();
                // Open until the observer has ended.
                assert!(theirs.receive::<FromObserver>().is_err());
            }
            said
        });
        run::run(ours, &log).await.unwrap();
        assert_eq!(supervisor.join().unwrap(), FromObserver::Ready);
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(
            count(&text, "ignoring a message of the supervisor: the first has to"),
            1,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let (ours, theirs) = Channel::pair().unwrap();
    let log = ErrorLog::stderr(LogLevel::Alert);
    let not_sealed = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::empty()).unwrap();
    let message = ToObserver::Start(Box::new(start()));
    theirs
        .send(&message, &[not_sealed.as_fd(), not_sealed.as_fd()])
        .unwrap();
    assert!(run::run(ours, &log).await.is_err());
    let Ok((FromObserver::Failed { reason }, _)) = theirs.receive::<FromObserver>() else {
        panic!("it did not say that it failed")
    };
    assert!(reason.starts_with("cannot use the cursor table: "), "{reason}");
}
