//! One signal's way out: a bounded queue and the task that empties it.
//!
//! The queue is behind a lock that is held for a few instructions and never across an
//! await. A failed batch is lost (the sink has done its retries) and counted; after a failure
//! the lane rests, so that a collector that restarts finds most of the queue still there.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    options::BatchOptions,
    queue::{Drops, Priority, Queue},
};

/// Estimated bytes in one export at most. Receivers refuse gRPC messages above 4 MiB unless
/// told otherwise, and the estimate is of our memory, not of the wire.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Rest after a failed export, at least.
const REST: Duration = Duration::from_secs(1);
/// Losses are told in the log this often at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where batches go.
pub(crate) trait Sink<T>: Send + Sync + 'static {
    /// Sends one batch, with what retries are worth it. Cancelled by dropping the future.
    fn send(&self, batch: Vec<T>) -> impl Future<Output = Result<(), String>> + Send;
}

/// What became of the items of one signal. All that was pushed is in here or waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Taken by the receiver.
    pub exported: u64,
    /// Dropped before they were sent, because the queue was full.
    pub dropped: Drops,
    /// Lost in an export that failed.
    pub failed: u64,
    /// Given up when the time for the shutdown was over.
    pub abandoned: u64,
}

impl Delivery {
    /// All that will never arrive.
    pub fn lost(&self) -> u64 {
        self.dropped.total() + self.failed + self.abandoned
    }
}

/// What a lane must know.
#[derive(Debug, Clone)]
pub(crate) struct LaneOptions {
    /// `traces` or `logs`, for messages.
    pub(crate) signal: &'static str,
    /// Where it sends to, for messages.
    pub(crate) target: String,
    /// How long an item may wait for company.
    pub(crate) delay: Duration,
    pub(crate) batch: BatchOptions,
}

#[derive(Debug)]
pub(crate) struct Lane<T> {
    shared: Arc<Shared<T>>,
    task: JoinHandle<()>,
    size: fn(&T) -> usize,
}

#[derive(Debug)]
struct Shared<T> {
    options: LaneOptions,
    state: Mutex<State<T>>,
    /// Wakes the task: the first item came, a batch is full, or it is time to close.
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    queue: Queue<T>,
    /// Items in the export under way.
    in_flight: u64,
    exported: u64,
    failed: u64,
    abandoned: u64,
    /// Why the last failed export failed.
    last_error: Option<String>,
    closing: bool,
}

impl<T: Send + 'static> Lane<T> {
    pub(crate) fn start(options: LaneOptions, sink: impl Sink<T>, size: fn(&T) -> usize) -> Lane<T> {
        let queue = Queue::new(options.batch.max_queue_items, options.batch.max_queue_bytes);
        let state = State {
            queue,
            in_flight: 0,
            exported: 0,
            failed: 0,
            abandoned: 0,
            last_error: None,
            closing: false,
        };
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(state),
            wake: Notify::new(),
        });
        let task = tokio::spawn(run(shared.clone(), sink));
        Lane { shared, task, size }
    }

    pub(crate) fn push(&self, item: T, priority: Priority) {
        let bytes = (self.size)(&item);
        let mut state = self.shared.lock();
        state.queue.push(item, bytes, priority);
        let waiting = state.queue.len();
        drop(state);
        if waiting == 1 || waiting >= self.shared.options.batch.max_batch_items {
            self.shared.wake.notify_one();
        }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.shared.lock().delivery()
    }

    /// Sends what waits; gives up at `deadline`.
    pub(crate) async fn finish(mut self, deadline: Instant) -> Delivery {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
        // Also after a task that ended by itself: one that panicked left items behind.
        let mut state = self.shared.lock();
        let left = state.in_flight + state.queue.len() as u64;
        state.abandoned += left;
        state.in_flight = 0;
        state.queue.take(usize::MAX, usize::MAX);
        let delivery = state.delivery();
        drop(state);
        if left > 0 {
            let LaneOptions { signal, target, .. } = &self.shared.options;
            tracing::warn!(
                signal,
                target_address = target,
                abandoned = left,
                "telemetry was given up at shutdown"
            );
        }
        delivery
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl<T> State<T> {
    fn delivery(&self) -> Delivery {
        Delivery {
            exported: self.exported,
            dropped: self.queue.drops(),
            failed: self.failed,
            abandoned: self.abandoned,
        }
    }
}

/// The task of a lane: ends when it is told to close and nothing waits.
async fn run<T: Send + 'static>(shared: Arc<Shared<T>>, sink: impl Sink<T>) {
    let options = &shared.options;
    let mut losses = Losses {
        told: 0,
        next: Instant::now(),
    };
    // When the oldest waiting item has waited long enough; when a rest is over.
    let mut due: Option<Instant> = None;
    let mut rest_until = Instant::now();
    loop {
        let (waiting, closing, delivery, error) = {
            let state = shared.lock();
            (
                state.queue.len(),
                state.closing,
                state.delivery(),
                state.last_error.clone(),
            )
        };
        let now = Instant::now();
        losses.tell(options, &delivery, error.as_deref(), now);
        if closing && waiting == 0 {
            return;
        }
        let ready = if waiting == 0 {
            due = None;
            None
        } else if waiting >= options.batch.max_batch_items {
            Some(rest_until)
        } else {
            Some(rest_until.max(*due.get_or_insert(now + options.delay)))
        };
        if !closing && ready.is_none_or(|ready| ready > now) {
            let until = [ready, losses.pending(&delivery)].into_iter().flatten().min();
            match until {
                Some(until) => drop(timeout_at(until, shared.wake.notified()).await),
                None => shared.wake.notified().await,
            }
            continue;
        }
        due = None;
        if !export(&shared, &sink).await {
            rest_until = Instant::now() + REST.max(options.delay);
        }
    }
}

/// Sends one batch and accounts for it. Whether it arrived.
async fn export<T: Send + 'static>(shared: &Shared<T>, sink: &impl Sink<T>) -> bool {
    let LaneOptions {
        batch:
            BatchOptions {
                max_batch_items,
                export_timeout,
                ..
            },
        ..
    } = shared.options;
    let (batch, count) = {
        let mut state = shared.lock();
        let batch = state.queue.take(max_batch_items, MAX_BATCH_BYTES);
        state.in_flight = batch.len() as u64;
        let count = state.in_flight;
        (batch, count)
    };
    let result = match timeout(export_timeout, sink.send(batch)).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done within {export_timeout:?}")),
    };
    let mut state = shared.lock();
    state.in_flight = 0;
    match result {
        Ok(()) => {
            state.exported += count;
            true
        }
        Err(error) => {
            state.failed += count;
            state.last_error = Some(error);
            false
        }
    }
}

/// Tells of losses, not of each one.
struct Losses {
    told: u64,
    next: Instant,
}

impl Losses {
    fn tell(&mut self, options: &LaneOptions, delivery: &Delivery, error: Option<&str>, now: Instant) {
        if delivery.lost() == self.told || now < self.next {
            return;
        }
        tracing::warn!(
            signal = options.signal,
            target_address = options.target,
            lost = delivery.lost() - self.told,
            failed_in_all = delivery.failed,
            dropped_in_all = delivery.dropped.total(),
            exported_in_all = delivery.exported,
            last_error = error.unwrap_or("none"),
            "telemetry was lost"
        );
        self.told = delivery.lost();
        self.next = now + TELL_EVERY;
    }

    /// When there is something to tell that had to wait.
    fn pending(&self, delivery: &Delivery) -> Option<Instant> {
        (delivery.lost() != self.told).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Hands batches to the test; answers by rule.
    struct Fake {
        seen: mpsc::Sender<(Instant, Vec<u32>)>,
        answer: fn(&[u32]) -> Option<Result<(), String>>,
    }

    impl Sink<u32> for Fake {
        async fn send(&self, batch: Vec<u32>) -> Result<(), String> {
            let answer = (self.answer)(&batch);
            self.seen
                .send((Instant::now(), batch))
                .await
                .expect("the test listens");
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    type Seen = mpsc::Receiver<(Instant, Vec<u32>)>;

    fn lane(
        delay: Duration,
        batch: BatchOptions,
        answer: fn(&[u32]) -> Option<Result<(), String>>,
    ) -> (Lane<u32>, Seen) {
        let (seen, receiver) = mpsc::channel(100);
        let options = LaneOptions {
            signal: "traces",
            target: "test".into(),
            delay,
            batch,
        };
        (Lane::start(options, Fake { seen, answer }, |_| 10), receiver)
    }

    fn small() -> BatchOptions {
        BatchOptions {
            max_queue_items: 8,
            max_batch_items: 4,
            ..Default::default()
        }
    }

    const DELAY: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn items_wait_for_company_but_not_longer_than_the_delay() {
        let (lane, mut seen) = lane(DELAY, small(), |_| Some(Ok(())));
        let start = Instant::now();
        lane.push(1, Priority::Ordinary);
        tokio::time::sleep(Duration::from_secs(3)).await;
        lane.push(2, Priority::Ordinary);
        assert_eq!(seen.recv().await, Some((start + DELAY, vec![1, 2])));
        for item in 3..7 {
            lane.push(item, Priority::Ordinary);
        }
        let full = Instant::now();
        assert_eq!(seen.recv().await, Some((full, vec![3, 4, 5, 6])));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_they_go_at_once() {
        let (lane, mut seen) = lane(Duration::ZERO, small(), |_| Some(Ok(())));
        let start = Instant::now();
        lane.push(1, Priority::Urgent);
        assert_eq!(seen.recv().await, Some((start, vec![1])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_receiver_blocks_nobody_and_shutdown_keeps_its_deadline() {
        let (lane, mut seen) = lane(DELAY, small(), |_| None);
        for item in 0..100 {
            lane.push(item, Priority::Ordinary);
        }
        assert_eq!(seen.recv().await.map(|(_, batch)| batch.len()), Some(4));
        for item in 100..200 {
            lane.push(item, Priority::Ordinary);
        }
        let start = Instant::now();
        let delivery = lane.finish(start + Duration::from_secs(2)).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(2));
        assert_eq!(
            (delivery.exported, delivery.failed, delivery.abandoned),
            (0, 0, 12)
        );
        assert_eq!(delivery.lost(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn an_export_has_its_time_and_a_failed_one_is_counted() {
        let batch = BatchOptions {
            export_timeout: Duration::from_secs(3),
            ..small()
        };
        let (lane, mut seen) = lane(Duration::ZERO, batch, |batch| match batch[0] {
            1 => None,
            2 => Some(Err("no".into())),
            _ => Some(Ok(())),
        });
        let start = Instant::now();
        lane.push(1, Priority::Ordinary);
        seen.recv().await.expect("sent");
        lane.push(2, Priority::Ordinary);
        let (at, _) = seen.recv().await.expect("sent");
        assert_eq!(
            at - start,
            Duration::from_secs(3) + REST,
            "after the time limit and a rest"
        );
        lane.push(3, Priority::Ordinary);
        let (at, _) = seen.recv().await.expect("sent");
        assert_eq!(at - start, Duration::from_secs(3) + 2 * REST);
        let delivery = lane.finish(Instant::now() + DELAY).await;
        assert_eq!(
            (delivery.exported, delivery.failed, delivery.abandoned),
            (1, 2, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_sends_what_waits_without_delay() {
        let (lane, mut seen) = lane(DELAY, small(), |_| Some(Ok(())));
        for item in 0..6 {
            lane.push(item, Priority::Ordinary);
        }
        let start = Instant::now();
        let delivery = lane.finish(start + DELAY).await;
        assert_eq!(Instant::now(), start);
        assert_eq!((delivery.exported, delivery.lost()), (6, 0));
        assert_eq!(seen.recv().await.map(|(_, batch)| batch), Some(vec![0, 1, 2, 3]));
        assert_eq!(seen.recv().await.map(|(_, batch)| batch), Some(vec![4, 5]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_panics_loses_its_batch_and_nothing_hangs() {
        let (lane, _seen) = lane(Duration::ZERO, small(), |_| panic!("the sink is broken"));
        lane.push(1, Priority::Ordinary);
        let start = Instant::now();
        let delivery = lane.finish(start + DELAY).await;
        assert_eq!((delivery.abandoned, Instant::now()), (1, start));
    }
}
