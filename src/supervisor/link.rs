//! A control socket as a task: everything received becomes an event of the run loop,
//! everything sent waits in a bounded queue, and nothing here ever makes the loop wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use glasspool_abi::control::{Channel, ChannelError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::readiness;

/// What comes from the other side.
#[derive(Debug)]
pub(super) enum Delivery<In> {
    /// A message with its descriptors.
    Message(In, Vec<OwnedFd>),
    /// The last one: the other side has closed, or speaks nonsense.
    Closed(ChannelError),
}

/// A message to send; descriptors are shared because some are sent again to a
/// successor.
#[derive(Debug)]
pub(super) struct Parcel<Out> {
    pub(super) message: Out,
    pub(super) fds: Vec<Arc<OwnedFd>>,
}

#[derive(Debug)]
enum Order<Out> {
    Send(Parcel<Out>),
    /// Receive all that is there, then answer.
    CatchUp(oneshot::Sender<()>),
}

/// Our side of a conversation. When it is dropped, what is queued is still sent and the
/// socket is closed.
#[derive(Debug)]
pub(super) struct Link<Out>(mpsc::Sender<Order<Out>>);

/// The queue is full: the other side does not read.
#[derive(Debug, thiserror::Error)]
#[error("it has not read its last {0} messages")]
pub(super) struct NotReading(usize);

impl<Out: Serialize + Send + Sync + 'static> Link<Out> {
    /// Starts the task. `queue` bounds the messages that wait to be sent.
    pub(super) fn start<In, Event>(
        channel: Channel,
        queue: usize,
        events: mpsc::Sender<Event>,
        event: impl Fn(Delivery<In>) -> Event + Send + 'static,
    ) -> io::Result<Self>
    where
        In: DeserializeOwned + Send + 'static,
        Event: Send + 'static,
    {
        channel.set_nonblocking()?;
        let socket = readiness::ready(channel, Interest::READABLE | Interest::WRITABLE)?;
        let (sender, orders) = mpsc::channel(queue);
        tokio::spawn(converse(socket, orders, events, event));
        Ok(Link(sender))
    }

    /// Queues a message. One for a side that is already gone vanishes: its end is told
    /// by its process.
    pub(super) fn send(&self, message: Out, fds: Vec<Arc<OwnedFd>>) -> Result<(), NotReading> {
        match self.0.try_send(Order::Send(Parcel { message, fds })) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotReading(self.0.max_capacity())),
        }
    }

    /// Messages that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    /// A handle that does not keep the socket open.
    pub(super) fn downgrade(&self) -> WeakLink<Out> {
        WeakLink(self.0.downgrade())
    }
}

/// See [`Link::downgrade`].
#[derive(Debug)]
pub(super) struct WeakLink<Out>(mpsc::WeakSender<Order<Out>>);

impl<Out> WeakLink<Out> {
    /// Queues a message that may be left out, unless more than so many wait already; false
    /// if it was not queued.
    pub(super) fn send_if_idle(&self, message: Out, most_waiting: usize) -> bool {
        self.0.upgrade().is_some_and(|sender| {
            let waiting = sender.max_capacity() - sender.capacity();
            let fds = Vec::new();
            waiting < most_waiting && sender.try_send(Order::Send(Parcel { message, fds })).is_ok()
        })
    }

    /// Returns when all that the other side had sent before this call is an event.
    pub(super) async fn catch_up(&self) {
        let Some(sender) = self.0.upgrade() else { return };
        let (done, caught_up) = oneshot::channel();
        let asked = sender.send(Order::CatchUp(done)).await;
        drop(sender);
        if asked.is_ok() {
            // An error says that the task has ended, having received everything.
            caught_up.await.unwrap_or_default();
        }
    }
}

async fn converse<Out, In, Event>(
    socket: AsyncFd<Channel>,
    mut orders: mpsc::Receiver<Order<Out>>,
    events: mpsc::Sender<Event>,
    event: impl Fn(Delivery<In>) -> Event,
) where
    Out: Serialize,
    In: DeserializeOwned,
{
    let mut waiting: VecDeque<Parcel<Out>> = VecDeque::new();
    let mut orders_over = false;
    // The queue's bound is that of `orders`: at most one parcel waits here.
    while !(orders_over && waiting.is_empty()) {
        tokio::select! {
            received = receive::<In>(&socket) => {
                let last = matches!(received, Delivery::Closed(_));
                if events.send(event(received)).await.is_err() || last {
                    return;
                }
            }
            sent = send(&socket, waiting.front()), if !waiting.is_empty() => {
                waiting.pop_front();
                if let Err(e) = sent {
                    // The reader tells the end; a message that cannot be sent at all
                    // would leave the other side without what it needs.
                    if events.send(event(Delivery::Closed(e))).await.is_err() {
                        return;
                    }
                    return;
                }
            }
            order = orders.recv(), if waiting.is_empty() && !orders_over => match order {
                Some(Order::Send(parcel)) => waiting.push_back(parcel),
                Some(Order::CatchUp(done)) => {
                    loop {
                        let received = match socket.get_ref().receive() {
                            Ok((message, fds)) => Delivery::Message(message, fds),
                            Err(ChannelError::WouldBlock) => break,
                            Err(e) => Delivery::Closed(e),
                        };
                        let last = matches!(received, Delivery::Closed(_));
                        if events.send(event(received)).await.is_err() || last {
                            return;
                        }
                    }
                    // Whoever asked may have stopped waiting.
                    done.send(()).unwrap_or_default();
                }
                None => orders_over = true,
            },
        }
    }
}

async fn receive<In: DeserializeOwned>(socket: &AsyncFd<Channel>) -> Delivery<In> {
    loop {
        let mut guard = match socket.readable().await {
            Ok(guard) => guard,
            Err(source) => return Delivery::Closed(ChannelError::Os { call: "poll", source }),
        };
        match socket.get_ref().receive() {
            Ok((message, fds)) => return Delivery::Message(message, fds),
            Err(ChannelError::WouldBlock) => guard.clear_ready(),
            Err(e) => return Delivery::Closed(e),
        }
    }
}

async fn send<Out: Serialize>(
    socket: &AsyncFd<Channel>,
    parcel: Option<&Parcel<Out>>,
) -> Result<(), ChannelError> {
    let Some(parcel) = parcel else { return Ok(()) };
    let fds: Vec<_> = parcel.fds.iter().map(|fd| fd.as_fd()).collect();
    loop {
        let ready = socket.writable().await;
        let mut guard = ready.map_err(|source| ChannelError::Os { call: "poll", source })?;
        match socket.get_ref().send(&parcel.message, &fds) {
            Err(ChannelError::WouldBlock) => guard.clear_ready(),
            sent => return sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn a_side_that_does_not_read_fills_its_queue_and_blocks_nobody() {
        block_on(async {
            let (ours, _theirs) = Channel::pair().expect("a pair");
            let (events, _inbox) = mpsc::channel::<Delivery<u32>>(4);
            let link = Link::<Vec<u8>>::start(ours, 8, events, |delivery| delivery).expect("starts");
            let mut refused = false;
            for _ in 0..1000 {
                refused |= link.send(vec![0; 60_000], vec![]).is_err();
                tokio::task::yield_now().await;
            }
            assert!(refused);
        });
    }

    #[test]
    fn catching_up_comes_after_what_was_sent_before() {
        block_on(async {
            let (ours, theirs) = Channel::pair().expect("a pair");
            let (events, mut inbox) = mpsc::channel(64);
            let link =
                Link::<u32>::start(ours, 8, events, |delivery: Delivery<u32>| delivery).expect("starts");
            (0..40u32).for_each(|n| theirs.send(&n, &[]).expect("sends"));
            link.downgrade().catch_up().await;
            for expected in 0..40 {
                let delivery = inbox.try_recv().expect("is there already");
                assert!(matches!(delivery, Delivery::Message(n, _) if n == expected));
            }
            drop(theirs);
            assert!(matches!(
                inbox.recv().await,
                Some(Delivery::Closed(ChannelError::Closed))
            ));
        });
    }

    #[test]
    fn what_is_queued_is_sent_before_the_socket_closes() {
        block_on(async {
            let (ours, theirs) = Channel::pair().expect("a pair");
            let (events, mut inbox) = mpsc::channel::<Delivery<u32>>(4);
            let link = Link::<u32>::start(ours, 8, events, |delivery| delivery).expect("starts");
            (0..5).for_each(|n| link.send(n, vec![]).expect("has room"));
            drop(link);
            assert!(inbox.recv().await.is_none());
            (0..5u32).for_each(|n| assert_eq!(theirs.receive::<u32>().expect("is there").0, n));
            assert!(matches!(theirs.receive::<u32>(), Err(ChannelError::Closed)));
        });
    }
}
