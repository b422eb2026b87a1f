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
/// told otherwise, and the estimate is of our memory, which is the wire's for spans only.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Rest after a failed export, at least.
const REST: Duration = Duration::from_secs(1);
/// Losses are told in the log this often at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where batches go.
pub(crate) trait Sink<T>: Send + Sync + 'static {
    /// Sends one batch, with what retries are worth it. Cancelled by dropping the future.
    fn send(&self, batch: Vec<T>) -> impl Future<Output = Result<Sent, Failure>> + Send;
}

/// A batch that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sent {
    /// Items of it that the receiver did not take. They are not to be sent again (OTLP,
    /// "Partial Success").
    pub(crate) rejected: u64,
    /// What the receiver wants to be told to people.
    pub(crate) advice: Option<String>,
}

/// A batch that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) reason: String,
    /// How long the receiver wants to be left alone.
    pub(crate) rest: Duration,
    /// The receiver takes nothing of this kind: there is no use in sending more.
    pub(crate) unsupported: bool,
}

impl Failure {
    pub(crate) fn new(reason: String) -> Failure {
        Failure {
            reason,
            ..Failure::default()
        }
    }
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
    /// Not taken by the receiver, which took the rest of their export.
    pub rejected: u64,
    /// Thrown away because the receiver takes nothing of this kind.
    pub unsupported: u64,
    /// Given up when the time for the shutdown was over.
    pub abandoned: u64,
}

impl Delivery {
    /// All that will never arrive.
    pub fn lost(&self) -> u64 {
        self.dropped.total() + self.failed + self.rejected + self.unsupported + self.abandoned
    }
}

/// What a lane must know.
#[derive(Debug, Clone)]
pub(crate) struct LaneOptions {
    /// `traces`, `logs` or `metrics`, for messages.
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
    /// Something waits that is to go without the schedule delay.
    in_a_hurry: bool,
    /// Items in the export under way.
    in_flight: u64,
    /// All but what the queue counts.
    delivery: Delivery,
    /// Why the last failed export failed, or the last rejected item was rejected.
    last_error: Option<String>,
    /// What a receiver that took everything wants to be told.
    advice: Option<String>,
    /// The receiver takes nothing of this kind.
    unsupported: bool,
    closing: bool,
}

impl<T: Send + 'static> Lane<T> {
    pub(crate) fn start(options: LaneOptions, sink: impl Sink<T>, size: fn(&T) -> usize) -> Lane<T> {
        let queue = Queue::new(options.batch.max_queue_items, options.batch.max_queue_bytes);
        let state = State {
            queue,
            in_a_hurry: false,
            in_flight: 0,
            delivery: Delivery::default(),
            last_error: None,
            advice: None,
            unsupported: false,
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
        self.take_in(item, priority, false);
    }

    /// Adds an urgent item that does not wait for company.
    pub(crate) fn push_now(&self, item: T) {
        self.take_in(item, Priority::Urgent, true);
    }

    fn take_in(&self, item: T, priority: Priority, now: bool) {
        let bytes = (self.size)(&item);
        let mut state = self.shared.lock();
        if state.unsupported {
            state.delivery.unsupported += 1;
            return;
        }
        state.queue.push(item, bytes, priority);
        state.in_a_hurry |= now;
        let waiting = state.queue.len();
        drop(state);
        if now || waiting == 1 || waiting >= self.shared.options.batch.max_batch_items {
            self.shared.wake.notify_one();
        }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.shared.lock().delivery()
    }

    /// Estimated bytes that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.shared.lock().queue.bytes()
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
        state.delivery.abandoned += left;
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
            dropped: self.queue.drops(),
            ..self.delivery
        }
    }
}

/// The task of a lane: ends when it is told to close and nothing waits.
async fn run<T: Send + 'static>(shared: Arc<Shared<T>>, sink: impl Sink<T>) {
    let options = &shared.options;
    let mut losses = Losses {
        told: 0,
        next: Instant::now(),
        next_advice: Instant::now(),
    };
    // When the oldest waiting item has waited long enough; when a rest is over.
    let mut due: Option<Instant> = None;
    let mut rest_until = Instant::now();
    loop {
        let (waiting, in_a_hurry, closing, delivery, error, advice) = {
            let mut state = shared.lock();
            (
                state.queue.len(),
                state.in_a_hurry,
                state.closing,
                state.delivery(),
                state.last_error.clone(),
                state.advice.take(),
            )
        };
        let now = Instant::now();
        losses.tell(options, &delivery, error.as_deref(), now);
        losses.advise(options, advice.as_deref(), now);
        if closing && waiting == 0 {
            return;
        }
        let ready = if waiting == 0 {
            due = None;
            None
        } else if in_a_hurry || waiting >= options.batch.max_batch_items {
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
        if let Err(asked) = export(&shared, &sink).await {
            rest_until = Instant::now() + REST.max(options.delay).max(asked);
        }
    }
}

/// Sends one batch and accounts for it. If it did not arrive: how long the receiver wants
/// to be left alone.
async fn export<T: Send + 'static>(shared: &Shared<T>, sink: &impl Sink<T>) -> Result<(), Duration> {
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
        // What goes now has what was in a hurry, unless more than a batch is as urgent; the
        // rest of that goes next, as the batch was full.
        state.in_a_hurry = false;
        state.in_flight = batch.len() as u64;
        let count = state.in_flight;
        (batch, count)
    };
    let result = match timeout(export_timeout, sink.send(batch)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(format!("not done within {export_timeout:?}"))),
    };
    let mut state = shared.lock();
    state.in_flight = 0;
    match result {
        Ok(Sent { rejected, advice }) => {
            // A receiver could say that it rejected more than it got.
            let rejected = rejected.min(count);
            state.delivery.exported += count - rejected;
            state.delivery.rejected += rejected;
            if rejected > 0 {
                state.last_error = Some(format!(
                    "rejected: {}",
                    advice.as_deref().unwrap_or("no reason given")
                ));
            } else {
                state.advice = advice;
            }
            Ok(())
        }
        Err(failure) if failure.unsupported => {
            state.unsupported = true;
            let waiting = state.queue.take(usize::MAX, usize::MAX).len() as u64;
            state.delivery.unsupported += count + waiting;
            drop(state);
            let LaneOptions { signal, target, .. } = &shared.options;
            tracing::warn!(
                signal,
                target_address = target,
                answer = failure.reason,
                "the collector does not take this kind of telemetry; no more of it is sent until the observer \
                 starts anew (OTEL_{}_EXPORTER=none says so for good)",
                signal.to_ascii_uppercase()
            );
            Ok(())
        }
        Err(failure) => {
            state.delivery.failed += count;
            state.last_error = Some(failure.reason);
            Err(failure.rest)
        }
    }
}

/// Tells of losses, not of each one.
struct Losses {
    told: u64,
    next: Instant,
    next_advice: Instant,
}

impl Losses {
    fn tell(&mut self, options: &LaneOptions, delivery: &Delivery, error: Option<&str>, now: Instant) {
        let lost = Losses::of(delivery);
        if lost == self.told || now < self.next {
            return;
        }
        tracing::warn!(
            signal = options.signal,
            target_address = options.target,
            lost = lost - self.told,
            failed_in_all = delivery.failed,
            rejected_in_all = delivery.rejected,
            dropped_in_all = delivery.dropped.total(),
            exported_in_all = delivery.exported,
            last_error = error.unwrap_or("none"),
            "telemetry was lost"
        );
        self.told = lost;
        self.next = now + TELL_EVERY;
    }

    /// What a receiver says that took everything: "the client SHOULD log it" (OTLP,
    /// "Partial Success").
    fn advise(&mut self, options: &LaneOptions, advice: Option<&str>, now: Instant) {
        let Some(advice) = advice.filter(|_| now >= self.next_advice) else {
            return;
        };
        tracing::warn!(
            signal = options.signal,
            target_address = options.target,
            advice,
            "the collector took the telemetry with a warning"
        );
        self.next_advice = now + TELL_EVERY;
    }

    /// What a receiver does not want was told when it said so.
    fn of(delivery: &Delivery) -> u64 {
        delivery.lost() - delivery.unsupported
    }

    /// When there is something to tell that had to wait.
    fn pending(&self, delivery: &Delivery) -> Option<Instant> {
        (Losses::of(delivery) != self.told).then_some(self.next)
    }
}

#[cfg(test)]
mod tests;
