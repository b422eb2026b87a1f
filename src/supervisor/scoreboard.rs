//! What the supervisor reads from the workers' slots, for scheduling and for the status
//! page, and what it counts of a pool beside that.
//!
//! Slots are mapped read-only and hostile: a worker can write there what it likes. So
//! nothing here is trusted beyond being a figure, sums saturate, counters only rise, and
//! one worker can never count for more than one.

use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use glasspool_abi::MapError;
use glasspool_abi::control::{PoolFigures, PoolStatus, ProcessStatus};
use glasspool_abi::record::Text;
use glasspool_abi::slot::{SLOT_HEAD_BYTES, SlotReader, Stage};

use super::notify;
use super::pm::Activity;
use super::pm::deadline::{Sight, Strike};
use super::sockets::Queue;

/// One worker's slot, and what was seen there last.
#[derive(Debug)]
pub(super) struct Gauge {
    slot: SlotReader,
    /// Requests begun when last looked; never falls.
    requests: u64,
    /// Whether a request was under way when last looked.
    busy: bool,
    /// Idle since then at least, as far as was seen.
    idle_since: Option<Instant>,
    /// When the worker was first seen, seconds since the Unix epoch.
    start_unix_s: u64,
    /// Signals for the request under way.
    pub(super) strike: Option<Strike>,
}

/// What one look at a worker shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) activity: Activity,
    /// Requests begun since the last look.
    begun: u64,
    /// When its current or latest request ran, if some of it was since the last look.
    ran: Option<(u64, u64)>,
    /// Highest memory peak of its requests so far, bytes.
    memory_peak: u64,
}

impl Gauge {
    /// Maps the head of a new worker's slot.
    pub(super) fn map(slot: &OwnedFd) -> Result<Gauge, MapError> {
        Ok(Gauge {
            slot: SlotReader::map(slot, SLOT_HEAD_BYTES)?,
            requests: 0,
            busy: false,
            idle_since: None,
            start_unix_s: unix_now_s(),
            strike: None,
        })
    }

    /// Looks, and remembers for the next look. Cost: a few loads. `now` and `now_ns` are
    /// the same moment, the latter as `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) fn look(&mut self, now: Instant, now_ns: u64) -> Look {
        let (stage, requests) = (self.slot.stage(), self.slot.requests().max(self.requests));
        let begun = requests - std::mem::replace(&mut self.requests, requests);
        let idle = stage == Some(Stage::Accepting);
        if !idle || begun > 0 {
            self.idle_since = None;
        }
        let activity = match stage {
            Some(Stage::Accepting) => Activity::Idle {
                since: *self.idle_since.get_or_insert(now),
            },
            None if requests == 0 => Activity::Coming,
            Some(_) | None => Activity::Busy,
        };
        let ran = if idle {
            let start = self.slot.begin_mono_ns();
            let end = start.saturating_add(self.slot.last().duration_ns);
            (begun > 0 || self.busy).then_some((start, end))
        } else {
            Some((self.slot.started().unwrap_or(now_ns).min(now_ns), now_ns))
        };
        self.busy = activity == Activity::Busy;
        Look {
            activity,
            begun,
            ran: ran.filter(|_| activity != Activity::Coming),
            memory_peak: self.slot.highest_memory(),
        }
    }

    /// The number of the request under way, as the slot has it.
    pub(super) fn request_under_way(&self) -> Option<u64> {
        let progress = self.slot.in_progress()?;
        (progress.stage != Stage::Accepting).then_some(progress.number)
    }

    /// What the time limit of a request depends on.
    pub(super) fn sight(&self) -> Sight {
        Sight {
            stage: self.slot.stage(),
            started: self.slot.started(),
        }
    }

    /// A text of the current or last request; empty if there is none or it is being
    /// written.
    pub(super) fn request(&self) -> Request {
        let begin = self.slot.read_begin();
        let text = |text| {
            begin
                .as_ref()
                .and_then(|begin| begin.texts.get(text))
                .unwrap_or_default()
                .to_vec()
        };
        let uri = match text(Text::ScriptUri) {
            uri if uri.is_empty() => text(Text::Path),
            uri => uri,
        };
        Request {
            method: text(Text::Method),
            uri,
            query: text(Text::Query),
            script: text(Text::Script),
            user: text(Text::User),
        }
    }

    /// What the status page says of the worker.
    pub(super) fn status(&self, pid: i32, now_ns: u64) -> ProcessStatus {
        let (stage, last) = (self.slot.stage(), self.slot.last());
        let under_way = self.slot.started().filter(|_| stage != Some(Stage::Accepting));
        let duration_ns = under_way.map_or(last.duration_ns, |started| now_ns.saturating_sub(started));
        // What stands there while a head is read is the request before.
        let request = match stage {
            Some(Stage::ReadingHeaders) => Request::default(),
            Some(_) | None => self.request(),
        };
        let has_request = stage != Some(Stage::ReadingHeaders);
        ProcessStatus {
            pid,
            stage: stage.map_or(0, |stage| stage as u64),
            start_unix_s: self.start_unix_s,
            requests: self.slot.requests().max(self.requests),
            duration_us: duration_ns / 1000,
            method: request.method,
            uri: request.uri,
            query: request.query,
            content_length: if has_request {
                self.slot.content_length()
            } else {
                0
            },
            user: request.user,
            script: request.script,
            last_cpu_ns: last.cpu_ns,
            last_duration_ns: last.duration_ns,
            last_memory: last.memory_peak,
        }
    }
}

/// The texts of a request, bytes as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Vec<u8>,
    pub(super) uri: Vec<u8>,
    pub(super) query: Vec<u8>,
    pub(super) script: Vec<u8>,
    pub(super) user: Vec<u8>,
}

/// What is counted of a pool since its start.
#[derive(Debug)]
pub(super) struct Figures {
    start_unix_s: u64,
    accepted: u64,
    idle: u32,
    active: u32,
    max_active: u32,
    queue: Queue,
    max_queue: u32,
    memory_peak: u64,
    /// Time that connections have waited, all together, nanoseconds.
    queue_ns: u64,
    /// When the queue was looked at last.
    queue_seen: Option<Instant>,
    pub(super) max_children_reached: u32,
    pub(super) slow_requests: u64,
    /// Workers that were started: first ones, additions, replacements.
    pub(super) started: [u64; 3],
}

impl Figures {
    /// Of a pool that starts now.
    pub(super) fn new() -> Figures {
        Figures {
            start_unix_s: unix_now_s(),
            accepted: 0,
            idle: 0,
            active: 0,
            max_active: 0,
            queue: Queue::default(),
            max_queue: 0,
            memory_peak: 0,
            queue_ns: 0,
            queue_seen: None,
            max_children_reached: 0,
            slow_requests: 0,
            started: [0; 3],
        }
    }

    /// Takes in the time since the last look at the queue, which is `queue` now: between
    /// two looks it counts as long as it was on average at both. By Little's law the mean
    /// wait of a request is this time divided by the requests.
    pub(super) fn wait(&mut self, queue: Queue, now: Instant) {
        let since = self.queue_seen.replace(now).unwrap_or(now);
        let nanos = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
        let twice = u64::from(self.queue.waiting) + u64::from(queue.waiting);
        self.queue_ns = self.queue_ns.saturating_add(nanos.saturating_mul(twice) / 2);
    }

    /// What metrics are made of, beside what is known of the pool elsewhere.
    pub(super) fn told(&self, pool: &str, process_manager: &str) -> PoolFigures {
        PoolFigures {
            status: self.status(pool, process_manager),
            started: self.started,
            queue_ns: self.queue_ns,
            ..PoolFigures::default()
        }
    }

    /// What a service manager is told of all pools together.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Figures>) -> notify::Figures {
        all.fold(notify::Figures::default(), |sum, pool| notify::Figures {
            active: sum.active + u64::from(pool.active),
            idle: sum.idle + u64::from(pool.idle),
            requests: sum.requests.saturating_add(pool.accepted),
            slow: sum.slow.saturating_add(pool.slow_requests),
        })
    }

    /// Takes in one look at every worker there is, and at the listening socket.
    pub(super) fn take_in(&mut self, looks: &[Look], queue: Queue) {
        let idle = looks
            .iter()
            .filter(|look| matches!(look.activity, Activity::Idle { .. }));
        let idle = idle.count();
        self.idle = to_u32(idle);
        self.active = to_u32(looks.len() - idle);
        let busy = looks
            .iter()
            .filter(|look| look.activity == Activity::Busy)
            .count();
        let at_once = busy.max(most_at_once(looks.iter().filter_map(|look| look.ran)));
        self.max_active = self.max_active.max(to_u32(at_once));
        self.queue = queue;
        self.max_queue = self.max_queue.max(queue.waiting);
        for look in looks {
            self.take_in_one(look);
        }
    }

    /// Takes in the last look at a worker that is gone.
    pub(super) fn take_in_one(&mut self, look: &Look) {
        self.accepted = self.accepted.saturating_add(look.begun);
        self.memory_peak = self.memory_peak.max(look.memory_peak);
    }

    /// What the status page says of the pool.
    pub(super) fn status(&self, pool: &str, process_manager: &str) -> PoolStatus {
        PoolStatus {
            pool: pool.to_owned(),
            process_manager: process_manager.to_owned(),
            start_unix_s: self.start_unix_s,
            accepted: self.accepted,
            listen_queue: self.queue.waiting,
            max_listen_queue: self.max_queue,
            listen_queue_len: self.queue.limit,
            idle: self.idle,
            active: self.active,
            max_active: self.max_active,
            max_children_reached: self.max_children_reached,
            slow_requests: self.slow_requests,
            memory_peak: self.memory_peak,
        }
    }
}

/// How many of these spans of time, ends included, overlap at one moment. Between two
/// looks a worker may have served many requests of which only the last one shows, so
/// this is what is known to have been, and perhaps not all.
fn most_at_once(spans: impl Iterator<Item = (u64, u64)>) -> usize {
    let mut edges: Vec<(u64, bool)> = spans
        .filter(|(start, end)| start <= end)
        .flat_map(|(start, end)| [(start, false), (end, true)])
        .collect();
    edges.sort_unstable();
    let (mut open, mut most) = (0usize, 0);
    for (_, is_end) in edges {
        if is_end {
            open -= 1;
        } else {
            open += 1;
            most = most.max(open);
        }
    }
    most
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn unix_now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use glasspool_abi::create_slot_memory;
    use glasspool_abi::record::{BeginScalars, Encoder};
    use glasspool_abi::slot::{Last, SlotWriter, ring_bytes};
    use glasspool_abi::trace::{SpanId, TraceId};
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    struct Worker {
        slot: SlotWriter,
        gauge: Gauge,
        number: u64,
        epoch: Instant,
    }

    impl Worker {
        fn new() -> Worker {
            let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
            let memory = create_slot_memory(bytes).expect("a memory file");
            Worker {
                slot: SlotWriter::map(&memory, bytes).expect("maps"),
                gauge: Gauge::map(&memory).expect("maps"),
                number: 0,
                epoch: Instant::now(),
            }
        }

        fn look(&mut self, second: u64) -> Look {
            let now = self.epoch + Duration::from_secs(second);
            self.gauge.look(now, second * SECOND_NS)
        }

        fn begin(&mut self, second: u64) {
            self.number += 1;
            self.slot.set_started(second * SECOND_NS);
            self.slot.set_content_length(12);
            let mut record = Encoder::default();
            record.begin(&BeginScalars {
                number: self.number,
                start_unix_ns: 1,
                start_mono_ns: second * SECOND_NS,
                trace_id: TraceId([1; 16]),
                span_id: SpanId([1; 8]),
                parent: None,
                sampled: false,
                random: false,
            });
            record.text(Text::Method, b"POST");
            record.text(Text::Path, b"/pretty");
            record.text(Text::ScriptUri, b"/index.php");
            record.text(Text::Query, b"a=1");
            self.slot.publish_begin(record.bytes(), None);
            self.slot.set_stage(Stage::Executing);
        }

        fn end(&mut self, seconds: u64, memory_peak: u64) {
            self.slot.set_last(Last {
                cpu_ns: 7,
                duration_ns: seconds * SECOND_NS,
                memory_peak,
            });
            self.slot.set_started(0);
            self.slot.set_stage(Stage::Accepting);
        }
    }

    #[test]
    fn a_worker_is_coming_then_idle_or_busy() {
        let mut worker = Worker::new();
        let since = |worker: &Worker, second| Activity::Idle {
            since: worker.epoch + Duration::from_secs(second),
        };
        assert_eq!(worker.look(1).activity, Activity::Coming);
        worker.slot.set_stage(Stage::Accepting);
        assert_eq!(worker.look(2).activity, since(&worker, 2));
        assert_eq!(worker.look(9).activity, since(&worker, 2));
        worker.begin(10);
        assert_eq!(worker.look(11).activity, Activity::Busy);
        worker.end(1, 0);
        assert_eq!(worker.look(12).activity, since(&worker, 12));
        // A request that nobody saw shows in its number.
        worker.begin(13);
        worker.end(1, 0);
        assert_eq!(worker.look(20).activity, since(&worker, 20));
    }

    #[test]
    fn what_was_at_once_is_known_although_nobody_looked() {
        let (mut figures, mut crew) = (Figures::new(), [(); 3].map(|()| Worker::new()));
        for (worker, (start, length)) in crew.iter_mut().zip([(1, 4), (5, 2), (8, 1)]) {
            worker.begin(start);
            worker.end(length, start * 1000);
        }
        let looks = crew.each_mut().map(|worker| worker.look(10));
        figures.take_in(
            &looks,
            Queue {
                waiting: 3,
                limit: 128,
            },
        );
        let status = figures.status("www", "static");
        // The first two touch at second 5.
        assert_eq!((status.idle, status.active, status.max_active), (3, 0, 2));
        assert_eq!((status.accepted, status.memory_peak), (3, 8000));
        assert_eq!((status.listen_queue, status.listen_queue_len), (3, 128));
        crew.iter_mut().for_each(|worker| worker.begin(11));
        let looks = crew.each_mut().map(|worker| worker.look(12));
        figures.take_in(
            &looks,
            Queue {
                waiting: 1,
                limit: 128,
            },
        );
        let status = figures.status("www", "static");
        assert_eq!((status.idle, status.active, status.max_active), (0, 3, 3));
        assert_eq!((status.listen_queue, status.max_listen_queue), (1, 3));
        assert_eq!(status.accepted, 6);
    }

    #[test]
    fn the_queue_costs_time_for_everybody_in_it() {
        let (mut figures, start) = (Figures::new(), Instant::now());
        let told = |figures: &Figures| figures.told("www", "static").queue_ns;
        for (second, waiting, expected) in [(0, 0, 0), (1, 4, 2), (3, 4, 10), (4, 0, 12), (9, 0, 12)] {
            let queue = Queue { waiting, limit: 9 };
            figures.wait(queue, start + Duration::from_secs(second));
            figures.take_in(&[], queue);
            assert_eq!(told(&figures), expected * SECOND_NS, "{second}");
        }
    }

    #[test]
    fn a_request_that_was_seen_begin_still_counts_when_it_has_ended() {
        let (mut figures, mut crew) = (Figures::new(), [(); 2].map(|()| Worker::new()));
        crew[0].begin(1);
        let looks = crew.each_mut().map(|worker| worker.look(2));
        figures.take_in(&looks, Queue::default());
        assert_eq!(figures.status("www", "static").max_active, 1);
        crew[1].begin(3);
        crew.iter_mut().for_each(|worker| worker.end(3, 0));
        let looks = crew.each_mut().map(|worker| worker.look(10));
        figures.take_in(&looks, Queue::default());
        assert_eq!(figures.status("www", "static").max_active, 2);
    }

    #[test]
    fn a_worker_is_told_of_as_php_fpm_does() {
        let mut worker = Worker::new();
        worker.begin(10);
        let status = worker.gauge.status(77, 13 * SECOND_NS);
        assert_eq!(
            (status.pid, status.stage, status.requests),
            (77, Stage::Executing as u64, 1)
        );
        assert_eq!((status.duration_us, status.content_length), (3_000_000, 12));
        assert_eq!(
            (&status.uri[..], &status.query[..]),
            (&b"/index.php"[..], &b"a=1"[..])
        );
        worker.end(5, 4096);
        let status = worker.gauge.status(77, 20 * SECOND_NS);
        assert_eq!(
            (status.duration_us, status.last_duration_ns),
            (5_000_000, 5 * SECOND_NS)
        );
        assert_eq!((status.last_cpu_ns, status.last_memory), (7, 4096));
        assert_eq!(&status.method[..], b"POST");
        // The head of the next request is being read: nothing is known of it.
        worker.slot.set_stage(Stage::ReadingHeaders);
        let status = worker.gauge.status(77, 20 * SECOND_NS);
        assert_eq!((status.method.len(), status.content_length), (0, 0));
    }

    #[test]
    fn a_worker_that_lies_counts_once_and_makes_no_counter_fall() {
        let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
        let memory = create_slot_memory(bytes).expect("a memory file");
        let mut gauge = Gauge::map(&memory).expect("maps");
        let (mut figures, now) = (Figures::new(), Instant::now());
        let mut before = 0;
        for byte in [0x01, 0xff, 0x00, 0x7f, 0x05] {
            rustix::io::pwrite(&memory, &vec![byte; SLOT_HEAD_BYTES], 0).expect("writes");
            let looks = [gauge.look(now, 5)];
            figures.take_in(&looks, Queue::default());
            let status = figures.status("www", "static");
            assert!(status.accepted >= before);
            before = status.accepted;
            assert!(status.max_active <= 1 && status.idle + status.active == 1);
            let process = gauge.status(1, 5);
            assert!(process.uri.len() <= Text::Path.max_bytes());
        }
        assert_eq!(before, u64::MAX);
    }

    proptest! {
        #[test]
        fn no_span_is_too_odd(spans in proptest::collection::vec((0u64..50, 0u64..50), 0..30)) {
            let most = most_at_once(spans.iter().copied());
            let at = |moment: u64| spans.iter().filter(|(start, end)| (*start..=*end).contains(&moment)).count();
            prop_assert_eq!(most, (0..50).map(at).max().unwrap_or(0));
        }
    }
}
