//! What the kernel tells, from a ring that a test fills, to what the observer tells.

use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use glasspool_abi::control::Ended;
use glasspool_abi::record::EndScalars;
use glasspool_waits::record::{Kind, Tcp};
use glasspool_waits::{Address, Cause, Descriptor, Frame, SlotIndex};

use super::programs::Told;
use super::*;
use crate::observer::monotonic_ns;
use crate::observer::testing::{Bench, FakeWorker, LIMIT};

pub(super) const MS: u64 = 1_000_000;

/// A ring with what each turn at it gives.
#[derive(Debug, Default, Clone)]
pub(in crate::observer) struct FakeRing(Arc<Mutex<VecDeque<Vec<Record>>>>);

impl FakeRing {
    fn fill(&self, turns: impl IntoIterator<Item = Vec<Wait>>) {
        let records = |turn: Vec<Wait>| turn.into_iter().map(Record::Wait).collect();
        self.put(turns.into_iter().map(records));
    }

    pub(in crate::observer) fn put(&self, turns: impl IntoIterator<Item = Vec<Record>>) {
        self.0.lock().expect("nobody panics").extend(turns);
    }
}

impl Told for FakeRing {
    fn drain(&mut self, _: usize, tell: &mut dyn FnMut(Record)) {
        let turn = self.0.lock().expect("nobody panics").pop_front();
        turn.into_iter().flatten().for_each(tell);
    }
}

#[derive(Debug, Default)]
pub(in crate::observer) struct FakeSight {
    going_on: Mutex<Option<Wait>>,
    times: Option<Times>,
    pub(super) runs: Arc<AtomicBool>,
    ring_full: Arc<AtomicU64>,
}

impl Sight for FakeSight {
    fn going_on(&self, _: BorrowedFd<'_>) -> Option<Wait> {
        self.going_on.lock().expect("nobody panics").clone()
    }

    fn times(&self, page: u32, _: u64) -> Option<Times> {
        self.times.filter(|_| page == 3)
    }

    fn runs(&self, page: u32) -> bool {
        page == 3 && self.runs.load(Ordering::Relaxed)
    }

    fn losses(&self) -> Losses {
        Losses {
            ring_full: self.ring_full.load(Ordering::Relaxed),
            ..Losses::default()
        }
    }
}

pub(super) fn bench(sight: FakeSight) -> (Bench, FakeRing) {
    let ring = FakeRing::default();
    (Bench::with_waits(waits(sight, &ring)), ring)
}

/// What is told by that ring.
pub(in crate::observer) fn waits(sight: FakeSight, ring: &FakeRing) -> Waits {
    let programs = Programs::of(Box::new(ring.clone()), Arc::new(sight));
    Waits::with(programs, Duration::from_millis(10))
}

pub(in crate::observer) fn watched() -> FakeWorker {
    let mut worker = FakeWorker::new();
    worker.page = Some(3);
    worker
}

pub(super) fn frame(function: &str, line: Option<u32>) -> Frame {
    Frame {
        class: None,
        function: function.to_owned(),
        file: line.map(|_| "/srv/db.php".to_owned()),
        line,
        line_exact: line.is_some(),
        internal: line.is_none(),
    }
}

/// A query of that request of that worker.
pub(in crate::observer) fn query(worker: u64, request: u64, blocked_ms: u64) -> Wait {
    Wait {
        worker: glasspool_waits::WorkerId(worker),
        slot: SlotIndex(3),
        request,
        began_ns: monotonic_ns().saturating_sub(blocked_ms * MS),
        blocked: Some(Duration::from_millis(blocked_ms)),
        runqueue: Duration::ZERO,
        cause: Cause::Network,
        call: Some(poll()),
        descriptor: Some(Descriptor {
            number: 4,
            kind: Kind::Socket {
                peer: Some(Address::Ip("127.0.0.1:3306".parse().expect("an address"))),
                protocol: 6,
                tcp: Some(Tcp {
                    state: 1,
                    receive_queue: 0,
                    send_queue: 0,
                }),
            },
        }),
        futex: None,
        own_connection: false,
        io_wait: false,
        frames: vec![
            frame("mysqli_query", None),
            frame("find", Some(42)),
            frame("{main}", Some(7)),
        ],
        cut: false,
        fault: false,
    }
}

/// poll(2), or what this machine has instead.
pub(super) fn poll() -> u32 {
    let name = |number: &u32| glasspool_probes::process::syscall_name(u64::from(*number));
    let mut numbers = 0..500;
    numbers
        .find(|number| matches!(name(number), Some("poll" | "ppoll")))
        .expect("a known call")
}

pub(in crate::observer) fn told(written: u64) -> EndScalars {
    EndScalars {
        status: 200,
        times: Known::All(Times {
            blocked_ns: [70 * MS, 0, 0, 0, 0, 0],
            written,
            ..Times::default()
        }),
        ..EndScalars::default()
    }
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

const WAITED: &str = "in mysqli_query (/srv/db.php:42) for network 127.0.0.1:3306";

#[tokio::test]
async fn a_long_wait_is_a_span_and_a_short_one_is_in_the_sums() {
    let (mut bench, ring) = bench(FakeSight::default());
    let mut worker = watched();
    bench.introduce(1, &worker);
    worker.begin(true, Duration::from_millis(200));
    ring.fill([vec![query(1, 1, 50), query(1, 1, 9)]]);
    bench.tick();
    worker.end(&told(2), b"");
    bench.tick();
    assert_eq!(bench.observer.report.counters.wait_spans, 1);
    assert_eq!(bench.observer.report.counters.spans, 1);
    assert_eq!(bench.observer.waits.losses(), Losses::default());
    let (console, log, _) = bench.finish().await;
    assert_eq!(
        count(&console, &format!("waited 50.0 ms {WAITED}")),
        1,
        "{console}"
    );
    assert_eq!(count(&console, "waited"), 1, "{console}");
    assert_eq!(count(&console, "  blocked 70.0 ms"), 1, "{console}");
    assert_eq!(log, "");
}

#[tokio::test]
async fn a_wait_that_is_told_between_ring_and_slot_is_not_lost() {
    let (mut bench, ring) = bench(FakeSight::default());
    let mut worker = watched();
    bench.introduce(1, &worker);
    worker.begin(true, Duration::from_millis(200));
    // The turn's own look at the ring came too early.
    ring.fill([vec![], vec![query(1, 1, 50)]]);
    worker.end(&told(1), b"");
    bench.tick();
    assert_eq!(bench.observer.waits.losses().missing, 0);
    // Of another request the ring never tells; one that invents waits is not believed.
    for written in [3, u64::MAX] {
        worker.begin(true, Duration::ZERO);
        worker.end(&told(written), b"");
    }
    bench.tick();
    assert_eq!(bench.observer.waits.losses().missing, 3 + MOST_MISSING);
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, WAITED), 1, "{console}");
}

#[tokio::test]
async fn a_full_ring_is_told_once_in_a_while_and_to_the_last_record() {
    let sight = FakeSight::default();
    let full = Arc::clone(&sight.ring_full);
    // The observer before this one has told of those.
    full.store(5, Ordering::Relaxed);
    let (mut bench, _) = bench(sight);
    let began = monotonic_ns();
    let [look, told] = [FULL_LOOK, FULL_TOLD].map(nanoseconds);
    for (at, all) in [(0, 5), (look, 12), (2 * look, 20), (told, 21), (look + told, 21)] {
        full.store(all, Ordering::Relaxed);
        bench.observer.tick(began + at);
    }
    full.store(24, Ordering::Relaxed);
    let (_, log, _) = bench.finish().await;
    let lost = log.lines().filter_map(|line| line.split_once(" was full, "));
    let lost: Vec<_> = lost.map(|(_, rest)| rest.split(' ').next()).collect();
    assert_eq!(lost, [Some("7"), Some("9"), Some("3")], "{log}");
}

#[tokio::test]
async fn waits_before_the_introduction_are_kept_and_those_of_strangers_are_counted() {
    let (mut bench, ring) = bench(FakeSight::default());
    let mut worker = watched();
    let strangers = (0..MOST_EARLY as u64 - 1).map(|n| query(100 + n, 1, 50));
    ring.fill([[query(1, 1, 50)].into_iter().chain(strangers).collect()]);
    bench.tick();
    bench.introduce(1, &worker);
    worker.begin(true, Duration::from_millis(200));
    worker.end(&told(1), b"");
    bench.tick();
    ring.fill([vec![query(200, 1, 1), query(201, 1, 1), query(1, 1, 50)]]);
    bench.tick();
    // One stranger too many, and one wait after its request.
    assert_eq!(bench.observer.waits.losses().late, 2);
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, WAITED), 1, "{console}");
}

#[tokio::test]
async fn a_killed_request_has_its_times_and_the_wait_that_the_kill_ended() {
    let now = Times {
        on_cpu_ns: 500 * MS,
        blocked_ns: [400 * MS, 0, 0, 0, 0, 0],
        written: 9,
        ..Times::default()
    };
    let then = Times {
        on_cpu_ns: 450 * MS,
        blocked_ns: [100 * MS, 0, 0, 0, 0, 0],
        written: 8,
        ..Times::default()
    };
    let (mut bench, ring) = bench(FakeSight {
        times: Some(now),
        ..FakeSight::default()
    });
    let mut worker = watched();
    bench.introduce(1, &worker);
    worker.begin_at(false, Duration::from_millis(350), Some(&then));
    ring.fill([vec![query(1, 1, 300)]]);
    let killed = Ended::Killed {
        signal: 9,
        core: false,
    };
    bench.gone(1, killed);
    assert_eq!(bench.observer.waits.losses(), Losses::default());
    let (console, _, _) = bench.finish().await;
    assert_eq!(count(&console, "  blocked 300.0 ms  pool www"), 1, "{console}");
    assert_eq!(count(&console, "error SIGKILL"), 1, "{console}");
    assert_eq!(count(&console, WAITED), 1, "{console}");
}

#[tokio::test]
async fn where_memory_cannot_be_read_the_kernels_stack_is_told() {
    let going_on = Wait {
        blocked: None,
        // So long that a busy machine does not change its first figure.
        began_ns: monotonic_ns().saturating_sub(20_000 * MS),
        ..query(1, 1, 0)
    };
    let (mut bench, _ring) = bench(FakeSight {
        going_on: Mutex::new(Some(going_on)),
        ..FakeSight::default()
    });
    let mut worker = watched();
    bench.introduce(1, &worker);
    worker.begin(true, LIMIT);
    bench.tick();
    bench.answer().await;
    worker.end(&told(0), b"");
    bench.tick();
    assert_eq!(bench.observer.report.counters.samples.noted, 1);
    assert_eq!(bench.observer.report.counters.samples.failed, 0);
    let (console, _, slow_log) = bench.finish().await;
    let event = "in mysqli_query (/srv/db.php:42), waiting: ";
    assert!(console.contains(event), "{console}");
    assert!(
        console.contains("poll on fd 4 -> tcp 127.0.0.1:3306, 2"),
        "{console}"
    );
    assert!(
        console.contains("#0 /srv/db.php(42): mysqli_query()\n        #1 /srv/db.php(7): find()"),
        "{console}"
    );
    assert!(
        slow_log.contains("poll on tcp 127.0.0.1:3306, 2")
            && slow_log.contains("mysqli_query() /srv/db.php:42"),
        "{slow_log}"
    );
}

#[tokio::test]
async fn a_wait_of_another_request_or_that_began_after_the_look_is_not_told() {
    for (request, began_ns) in [(2, 1), (1, u64::MAX)] {
        let going_on = Wait {
            began_ns,
            ..query(1, request, 0)
        };
        let (mut bench, _ring) = bench(FakeSight {
            going_on: Mutex::new(Some(going_on)),
            ..FakeSight::default()
        });
        let mut worker = watched();
        bench.introduce(1, &worker);
        worker.begin(true, LIMIT);
        bench.tick();
        bench.answer().await;
        assert_eq!(bench.observer.report.counters.samples.failed, 1);
    }
}

#[test]
fn causes_are_called_the_same_everywhere() {
    assert_eq!(Cause::ALL.map(Cause::name), glasspool_otel::times::CAUSE_NAMES);
}
