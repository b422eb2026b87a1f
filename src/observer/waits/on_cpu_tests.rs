//! The observer against workers that a test writes, and what it says of the clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::FromObserver;
use glasspool_abi::times::{Known, Times};
use glasspool_waits::{OnCpu as Look, Record, SlotIndex};

use super::super::tests::{FakeRing, FakeSight, bench, frame, query, told, watched};
use super::*;
use crate::observer::monotonic_ns;
use crate::observer::testing::{Bench, FakeWorker, LIMIT};

/// An observer with one worker.
struct Stand {
    bench: Bench,
    ring: FakeRing,
    worker: FakeWorker,
    /// Whether the worker runs, for all it says.
    runs: Arc<AtomicBool>,
}

fn stand() -> Stand {
    let sight = FakeSight::default();
    let runs = Arc::clone(&sight.runs);
    let (mut bench, ring) = bench(sight);
    let worker = watched();
    bench.introduce(1, &worker);
    Stand {
        bench,
        ring,
        worker,
        runs,
    }
}

impl Stand {
    fn runs(&self, runs: bool) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// What it says of the clocks after a turn at that time.
    fn said_at(&mut self, now: u64) -> Option<bool> {
        self.bench.observer.tick(now);
        let told = self.bench.told();
        told.into_iter().find_map(|message| match message {
            FromObserver::Clocks { run } => Some(run),
            _ => None,
        })
    }

    fn said(&mut self) -> Option<bool> {
        self.said_at(monotonic_ns())
    }

    /// What its clocks have found of that request when it ends.
    fn found(&mut self, request: u64) -> OnCpu {
        self.bench
            .observer
            .waits
            .take(WorkerId(1), request, &Known::Nothing)
            .on_cpu
    }
}

fn look(worker: u64, request: u64, line: u32) -> Look {
    Look {
        worker: glasspool_waits::WorkerId(worker),
        slot: SlotIndex(3),
        request,
        at_ns: monotonic_ns(),
        frames: vec![frame("md5", None), frame("hash", Some(line))],
        cut: false,
        fault: false,
    }
}

#[tokio::test]
async fn the_clocks_run_only_while_a_request_past_its_limit_runs() {
    let mut stand = stand();
    assert_eq!(stand.said(), None, "they stand still");
    stand.runs(true);
    stand.worker.begin(true, Duration::ZERO);
    assert_eq!(stand.said(), None, "it is young");
    stand.worker.end(&told(0), b"");
    stand.runs(false);
    stand.worker.begin(true, LIMIT);
    assert_eq!(stand.said(), None, "it waits");
    stand.runs(true);
    let ran = monotonic_ns();
    assert_eq!(stand.said_at(ran), Some(true));
    assert_eq!(stand.said_at(ran), None, "it was said");
    stand.runs(false);
    assert_eq!(stand.said_at(ran + QUIET_NS - 1), None, "it may run again soon");
    assert_eq!(stand.said_at(ran + QUIET_NS), Some(false));
    assert_eq!(stand.said_at(ran + QUIET_NS), None, "it was said");
    stand.runs(true);
    assert_eq!(stand.said(), Some(true));
    stand.worker.end(&told(0), b"");
    assert_eq!(stand.said_at(monotonic_ns() + QUIET_NS), Some(false));
}

#[tokio::test]
async fn that_they_run_is_said_again_and_nothing_of_it_is_lost() {
    let mut stand = stand();
    stand.runs(true);
    stand.worker.begin(true, LIMIT);
    let began = monotonic_ns();
    let renewed = crate::observer::waits::nanoseconds(RENEWED);
    assert_eq!(stand.said_at(began), Some(true));
    assert_eq!(stand.said_at(began + renewed - 1), None);
    // A supervisor that does not listen now is told later.
    stand.bench.observer.tick(began + renewed);
    stand.bench.observer.tell_supervisor(|_| false);
    assert_eq!(stand.said_at(began + renewed), Some(true));
    // And only what is true then.
    stand.bench.observer.tick(began + 2 * renewed);
    stand.bench.observer.tell_supervisor(|_| false);
    stand.runs(false);
    assert_eq!(stand.said_at(began + 2 * renewed + QUIET_NS), Some(false));
}

#[tokio::test]
async fn looks_count_from_the_limit_on_and_for_their_own_request() {
    let mut stand = stand();
    stand.runs(true);
    stand.worker.begin(true, LIMIT / 2);
    stand.ring.put([vec![Record::OnCpu(look(1, 1, 4))]]);
    stand.bench.tick();
    stand.worker.end(&told(0), b"");
    stand.bench.tick();
    stand.worker.begin(true, LIMIT);
    stand.bench.tick();
    let early = Look {
        at_ns: monotonic_ns() - u64::try_from(LIMIT.as_nanos()).expect("is short"),
        ..look(1, 2, 9)
    };
    let without_php = Look {
        frames: vec![],
        ..look(1, 2, 9)
    };
    let looks = [
        early,
        without_php,
        look(1, 1, 9),
        look(1, 3, 9),
        look(1, 0, 9),
        look(2, 2, 9),
        look(1, 2, 5),
    ];
    stand.ring.put([looks.map(Record::OnCpu).into()]);
    stand.bench.tick();
    // And what has come since then.
    stand.ring.put([vec![Record::OnCpu(look(1, 2, 5))]]);
    let found = OnCpu {
        samples: 3,
        places: vec![("md5 /srv/db.php:5".to_owned(), 2)],
    };
    assert_eq!(stand.found(2), found);
    assert_eq!(stand.found(2), OnCpu::default());
    stand.ring.put([vec![Record::OnCpu(look(1, 2, 5))]]);
    stand.bench.observer.waits.drain();
    assert_eq!(stand.found(2), OnCpu::default(), "it has ended");
    assert_eq!(
        stand.bench.observer.waits.losses(),
        super::super::Losses::default()
    );
}

#[tokio::test]
async fn looks_are_no_waits() {
    let mut stand = stand();
    stand.runs(true);
    stand.worker.begin(true, LIMIT);
    stand.bench.tick();
    let records = vec![
        Record::OnCpu(look(1, 1, 5)),
        Record::Wait(query(1, 1, 20)),
        Record::OnCpu(look(1, 1, 6)),
    ];
    stand.ring.put([records]);
    let times = Known::All(Times {
        written: 2,
        ..Times::default()
    });
    let waits = &mut stand.bench.observer.waits;
    let taken = waits.take(WorkerId(1), 1, &times);
    assert_eq!(
        (taken.missing, taken.spans.len(), taken.on_cpu.samples),
        (1, 1, 2)
    );
}

#[test]
fn little_is_kept_and_where_it_mostly_is_stays() {
    let mut looks = Looks::new(1, 0);
    for line in 0..5_000 {
        looks.add(&look(1, 1, line));
        if line % 20 < 2 {
            looks.add(&look(1, 1, 70_000));
        }
    }
    let found = looks.into_found();
    assert_eq!((found.samples, found.places.len()), (5_500, MOST_PLACES));
    let most = found.places.iter().max_by_key(|(_, count)| *count);
    assert_eq!(most, Some(&("md5 /srv/db.php:70000".to_owned(), 500)));
}
