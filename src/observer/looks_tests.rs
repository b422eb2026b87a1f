//! Looks that are ordered, and those who wait for them: the whole observer against slots
//! that a test writes.

use std::time::{Duration, Instant};

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Doom, Ended, FromObserver, LookBudget, ToObserver};
use glasspool_abi::record::EndScalars;

use super::monotonic_ns;
use super::testing::{Bench, FakeWorker, LIMIT, POOL, cursors};

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

fn last_look(id: u64) -> ToObserver {
    ToObserver::LastLook {
        worker: WorkerId(id),
        doom: Doom::Timeout,
    }
}

fn looked(id: u64, crashed: bool) -> FromObserver {
    FromObserver::Looked {
        worker: WorkerId(id),
        crashed,
    }
}

/// Workers that are introduced as 1, 2, …, each `age` into a request.
fn busy(bench: &mut Bench, count: u64, age: Duration) -> Vec<FakeWorker> {
    let busy = (1..=count).map(|id| {
        let mut worker = FakeWorker::new();
        worker.begin(true, age);
        bench.introduce(id, &worker);
        worker
    });
    busy.collect()
}

#[tokio::test]
async fn a_last_look_is_answered_when_it_is_over_and_the_killed_request_keeps_it() {
    let mut bench = Bench::new(&cursors());
    let _workers = busy(&mut bench, 1, Duration::ZERO);
    bench.say(last_look(1));
    assert_eq!(bench.told(), [], "it is under way");
    bench.answer().await;
    assert_eq!(bench.told(), [looked(1, false)]);
    bench.gone(
        1,
        Ended::Killed {
            signal: 15,
            core: false,
        },
    );
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "error SIGTERM"), 1, "{console}");
    // Once as a record at once, and once on the span.
    assert!(count(&console, "GET /page1") >= 2, "{console}");
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_answered_at_once() {
    let mut bench = Bench::new(&cursors());
    let mut workers = busy(&mut bench, 1, Duration::ZERO);
    workers[0].end(&EndScalars::default(), b"");
    bench.say(last_look(1));
    bench.say(last_look(9));
    assert_eq!(bench.told(), [looked(1, false), looked(9, false)]);
    bench.gone(1, Ended::Exited(0));
    assert_eq!(bench.told(), [FromObserver::Buried { worker: WorkerId(1) }]);
}

#[tokio::test]
async fn many_last_looks_are_had_one_after_the_other() {
    let mut bench = Bench::new(&cursors());
    let _workers = busy(&mut bench, 200, Duration::ZERO);
    for id in 1..=200 {
        bench.say(last_look(id));
    }
    let mut told = Vec::new();
    while told.len() < 200 {
        bench.answer().await;
        told.extend(bench.told());
    }
    let expected: Vec<_> = (1..=200).map(|id| looked(id, false)).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_last_look_at_a_slow_request_is_one_more() {
    let mut bench = Bench::new(&cursors());
    let _workers = busy(&mut bench, 1, LIMIT);
    bench.tick();
    bench.say(last_look(1));
    bench.answer().await;
    assert_eq!(bench.told(), [FromObserver::Slow { worker: WorkerId(1) }]);
    bench.answer().await;
    assert_eq!(bench.told(), [looked(1, false)]);
}

#[tokio::test]
async fn a_worker_that_crashes_is_looked_at_once_and_told_to_go_on() {
    let mut bench = Bench::new(&cursors());
    let workers = busy(&mut bench, 1, Duration::ZERO);
    workers[0].crash(11);
    bench.tick();
    bench.tick();
    bench.answer().await;
    assert_eq!(bench.told(), [looked(1, true)]);
    // It goes on pretending.
    for signal in [0, 6, 0, 11] {
        workers[0].crash(signal);
        bench.tick();
    }
    assert_eq!(bench.told(), []);
    bench.gone(
        1,
        Ended::Killed {
            signal: 11,
            core: true,
        },
    );
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "error SIGSEGV"), 1, "{console}");
    assert!(count(&console, "GET /page1") >= 2, "{console}");
}

#[tokio::test]
async fn an_idle_worker_that_crashes_does_not_wait() {
    let mut bench = Bench::new(&cursors());
    let worker = FakeWorker::new();
    bench.introduce(1, &worker);
    worker.crash(6);
    bench.tick();
    assert_eq!(bench.told(), [looked(1, true)]);
    let nonsense = FakeWorker::new();
    bench.introduce(2, &nonsense);
    nonsense.crash(65);
    bench.tick();
    assert_eq!(bench.told(), [], "that is no signal");
}

#[tokio::test]
async fn of_a_storm_of_crashes_some_are_looked_at_and_nobody_waits_longer_for_it() {
    let mut bench = Bench::new(&cursors());
    let workers = busy(&mut bench, 100, Duration::ZERO);
    workers.iter().for_each(|worker| worker.crash(11));
    bench.tick();
    assert_eq!(bench.told().len(), 80, "at once");
    for _ in 0..20 {
        bench.answer().await;
    }
    assert_eq!(bench.told().len(), 20);
    let (_, log, _) = bench.finish().await;
    assert!(log.contains("80 looks beyond the budget"), "{log}");
}

#[tokio::test]
async fn looks_at_slow_requests_beyond_the_budget_are_skipped_and_counted() {
    let budget = LookBudget {
        samples_per_second: 3,
        stop_per_second: Duration::ZERO,
    };
    let mut bench = Bench::with(&cursors(), budget);
    let _workers = busy(&mut bench, 5, LIMIT);
    bench.tick();
    for _ in 0..3 {
        bench.answer().await;
    }
    assert_eq!(bench.told().len(), 3);
    // A last look is not asked what it costs.
    bench.say(last_look(5));
    bench.answer().await;
    assert_eq!(bench.told(), [looked(5, false)]);
    let (_, log, _) = bench.finish().await;
    assert!(log.contains("2 looks beyond the budget"), "{log}");
}

#[tokio::test]
async fn a_full_pool_is_one_line_and_one_record_a_minute() {
    let mut bench = Bench::new(&cursors());
    let mut workers = busy(&mut bench, 40, Duration::ZERO);
    workers[7].end(&EndScalars::default(), b"");
    bench.say(ToObserver::Saturated { pool: POOL });
    bench.say(ToObserver::Saturated { pool: POOL });
    for _ in 0..39 {
        bench.answer().await;
    }
    bench.say(ToObserver::Saturated { pool: POOL });
    workers[3].end(&EndScalars::default(), b"");
    assert_eq!(bench.told(), [], "nobody asked");
    let (console, log, slow_log) = bench.finish().await;
    let line = "WARNING: pool www saturated: 39/40 busy, 39 in an unreadable stack\n";
    assert_eq!((count(&log, line), count(&log, "saturated")), (1, 1), "{log}");
    assert_eq!(count(&console, "pool www saturated: 39/40 busy"), 1, "{console}");
    // It is about the pool, not about one of its requests.
    assert!(
        slow_log.is_empty() && !console.contains("slow after"),
        "{console}"
    );
}

/// `docs/specification.md`: a thousand idle workers cost the observer at most half of 1 %
/// of a core, at twenty turns a second. This build is not optimised, and the machine may
/// be busy: the best of many turns counts, against ten times that.
#[tokio::test]
async fn a_thousand_idle_workers_cost_next_to_nothing() {
    let mut bench = Bench::new(&cursors());
    let mut workers: Vec<FakeWorker> = (0..1000).map(|_| FakeWorker::new()).collect();
    for (id, worker) in (1..).zip(&mut workers) {
        worker.serve(false, 200);
        bench.introduce(id, worker);
    }
    assert_eq!(bench.tick(), 1000);
    let turns = (0..50).map(|_| {
        let before = Instant::now();
        let tick = bench.observer.tick(monotonic_ns());
        assert_eq!((tick.records, tick.due), (0, None));
        before.elapsed()
    });
    let best = turns.min().expect("there were some");
    eprintln!("a turn over 1,000 idle workers: {best:?}");
    assert!(best < Duration::from_micros(2500), "{best:?}");
}
