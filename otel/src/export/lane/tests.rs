use tokio::sync::mpsc;

use super::*;

/// Hands batches to the test; answers by rule.
struct Fake {
    seen: mpsc::Sender<(Instant, Vec<u32>)>,
    answer: fn(&[u32]) -> Option<Result<Sent, Failure>>,
}

impl Sink<u32> for Fake {
    async fn send(&self, batch: Vec<u32>) -> Result<Sent, Failure> {
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
    answer: fn(&[u32]) -> Option<Result<Sent, Failure>>,
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
    let (lane, mut seen) = lane(DELAY, small(), |_| Some(Ok(Sent::default())));
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
    let (lane, mut seen) = lane(Duration::ZERO, small(), |_| Some(Ok(Sent::default())));
    let start = Instant::now();
    lane.push(1, Priority::Urgent);
    assert_eq!(seen.recv().await, Some((start, vec![1])));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_a_hurry_goes_at_once_and_first_and_the_next_wait_again() {
    let (lane, mut seen) = lane(DELAY, small(), |_| Some(Ok(Sent::default())));
    let start = Instant::now();
    lane.push(1, Priority::Ordinary);
    tokio::time::sleep(Duration::from_secs(1)).await;
    lane.push_now(2);
    let second = start + Duration::from_secs(1);
    assert_eq!(seen.recv().await, Some((second, vec![2, 1])));
    lane.push(3, Priority::Urgent);
    assert_eq!(seen.recv().await, Some((second + DELAY, vec![3])));
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
        2 => Some(Err(Failure::new("no".into()))),
        _ => Some(Ok(Sent::default())),
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
    let (lane, mut seen) = lane(DELAY, small(), |_| Some(Ok(Sent::default())));
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

#[tokio::test(start_paused = true)]
async fn a_rejected_part_is_lost_and_not_sent_again() {
    let (lane, mut seen) = lane(Duration::ZERO, small(), |batch| {
        let rejected = if batch[0] == 1 { 2 } else { 1000 };
        Some(Ok(Sent {
            rejected,
            advice: Some("too old".into()),
        }))
    });
    for item in 1..=4 {
        lane.push(item, Priority::Ordinary);
    }
    assert_eq!(seen.recv().await.map(|(_, batch)| batch.len()), Some(4));
    lane.push(5, Priority::Ordinary);
    assert_eq!(seen.recv().await.map(|(_, batch)| batch), Some(vec![5]));
    let delivery = lane.finish(Instant::now() + DELAY).await;
    assert_eq!((delivery.exported, delivery.rejected, delivery.lost()), (2, 3, 3));
    assert_eq!(seen.recv().await, None, "nothing is sent twice");
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_does_not_know_is_sent_once_and_counted() {
    let (lane, mut seen) = lane(Duration::ZERO, small(), |_| {
        Some(Err(Failure {
            unsupported: true,
            ..Failure::new("404".into())
        }))
    });
    lane.push(1, Priority::Ordinary);
    seen.recv().await.expect("sent");
    // Until the answer is in, items still wait for the next export.
    while lane.delivery().unsupported == 0 {
        tokio::task::yield_now().await;
    }
    for item in 2..=10 {
        lane.push(item, Priority::Urgent);
    }
    let delivery = lane.finish(Instant::now() + DELAY).await;
    assert_eq!((delivery.unsupported, delivery.lost()), (10, 10));
    assert_eq!(seen.recv().await, None, "nothing more is sent");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_left_alone_for_as_long_as_it_asked() {
    let asked = Duration::from_secs(40);
    let (lane, mut seen) = lane(Duration::ZERO, small(), |_| {
        Some(Err(Failure {
            rest: Duration::from_secs(40),
            ..Failure::new("429".into())
        }))
    });
    lane.push(1, Priority::Ordinary);
    let (first, _) = seen.recv().await.expect("sent");
    lane.push(2, Priority::Ordinary);
    let (second, _) = seen.recv().await.expect("sent");
    assert_eq!(second - first, asked);
}
