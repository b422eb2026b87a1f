//! The observer against workers that a test writes, and clocks that count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::times::{Known, Times};
use glasspool_waits::{OnCpu as Look, Record, SlotIndex};

use super::super::tests::{FakeRing, FakeSight, bench, frame, query, told, watched};
use super::*;
use crate::observer::monotonic_ns;
use crate::observer::protocol::Input;
use crate::observer::testing::{Bench, FakeWorker, LIMIT};

/// What clocks were told to do.
#[derive(Debug, Default, Clone)]
struct FakeClocks {
    told: Arc<Mutex<Vec<bool>>>,
    deaf: bool,
}

impl FakeClocks {
    fn told(&self) -> Vec<bool> {
        self.told.lock().expect("nobody panics").clone()
    }
}

impl Clocks for FakeClocks {
    fn run(&self, run: bool) -> io::Result<()> {
        self.told.lock().expect("nobody panics").push(run);
        if self.deaf {
            return Err(io::Error::other("a test"));
        }
        Ok(())
    }

    fn add(&mut self, _: Vec<OwnedFd>) {}
}

/// An observer with one worker.
struct Stand {
    bench: Bench,
    ring: FakeRing,
    clocks: FakeClocks,
    worker: FakeWorker,
    /// Whether the worker runs, for all it says.
    runs: Arc<AtomicBool>,
}

fn stand() -> Stand {
    let sight = FakeSight::default();
    let runs = Arc::clone(&sight.runs);
    let (mut bench, ring) = bench(sight);
    let clocks = FakeClocks::default();
    bench.observer.waits.clocks = Keeper::of(Box::new(clocks.clone()));
    let worker = watched();
    bench.introduce(1, &worker);
    Stand {
        bench,
        ring,
        clocks,
        worker,
        runs,
    }
}

impl Stand {
    fn runs(&self, runs: bool) {
        self.runs.store(runs, Ordering::Relaxed);
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
    stand.bench.tick();
    assert_eq!(
        stand.clocks.told(),
        [false],
        "another observer may have left them running"
    );
    stand.runs(true);
    stand.worker.begin(true, Duration::ZERO);
    stand.bench.tick();
    stand.worker.end(&told(0), b"");
    stand.runs(false);
    stand.worker.begin(true, LIMIT);
    stand.bench.tick();
    assert_eq!(stand.clocks.told(), [false], "one is young, the other waits");
    stand.runs(true);
    stand.bench.tick();
    stand.bench.tick();
    assert_eq!(stand.clocks.told(), [false, true]);
    let ran = monotonic_ns();
    stand.bench.observer.tick(ran);
    stand.runs(false);
    stand.bench.observer.tick(ran + QUIET_NS - 1);
    assert_eq!(stand.clocks.told(), [false, true], "it may run again soon");
    stand.bench.observer.tick(ran + QUIET_NS);
    assert_eq!(stand.clocks.told(), [false, true, false]);
    stand.runs(true);
    stand.bench.tick();
    stand.worker.end(&told(0), b"");
    let later = monotonic_ns() + QUIET_NS;
    stand.bench.observer.tick(later);
    assert_eq!(stand.clocks.told(), [false, true, false, true, false]);
    stand.bench.observer.on(Input::Clocks(vec![]));
    stand.bench.observer.tick(later);
    assert_eq!(
        stand.clocks.told().last_chunk(),
        Some(&[false; 2]),
        "what new ones do is not known"
    );
}

#[tokio::test]
async fn an_observer_that_ends_leaves_them_standing_still() {
    let mut stand = stand();
    stand.runs(true);
    stand.worker.begin(true, LIMIT);
    stand.bench.tick();
    assert_eq!(stand.clocks.told(), [true]);
    stand.bench.finish().await;
    assert_eq!(stand.clocks.told(), [true, false]);
}

#[tokio::test]
async fn clocks_that_do_not_hear_are_told_of_once() {
    let mut stand = stand();
    let deaf = FakeClocks {
        deaf: true,
        ..FakeClocks::default()
    };
    stand.bench.observer.waits.clocks = Keeper::of(Box::new(deaf.clone()));
    stand.runs(true);
    for age in [Duration::ZERO, LIMIT] {
        stand.worker.begin(true, age);
        stand.bench.tick();
    }
    assert_eq!(deaf.told(), [false]);
    let (_, log, _) = stand.bench.finish().await;
    assert_eq!(
        log.matches("the CPUs' clocks do not hear: a test").count(),
        1,
        "{log}"
    );
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
