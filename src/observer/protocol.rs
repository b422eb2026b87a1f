//! The control socket: packets become [`Input`]s with the descriptors they need.
//!
//! The supervisor is trusted but may be another version one day, so a message that is
//! not understood, or lacks a descriptor, is an error to log and not a reason to stop
//! looking after the other workers.

use std::os::fd::OwnedFd;

use glasspool_abi::control::{
    Channel, ChannelError, FromObserver, ObserverStart, PoolView, ToObserver, WaitPrograms, WorkerView,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// A message with its descriptors in their places.
#[derive(Debug)]
pub(super) enum Input {
    Start(Box<Start>),
    Pool {
        view: PoolView,
        slow_log: Option<OwnedFd>,
    },
    SlowLog {
        pool: glasspool_abi::PoolId,
        log: OwnedFd,
    },
    TelemetryFile(OwnedFd),
    Worker {
        view: WorkerView,
        slot: OwnedFd,
        process: OwnedFd,
        memory: Option<OwnedFd>,
        calls: Option<OwnedFd>,
    },
    Tail {
        question: Vec<u8>,
        connection: OwnedFd,
    },
    /// Anything that carries no descriptor: an engine, a worker's end, the order to stop.
    Plain(ToObserver),
}

/// The first message.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) start: ObserverStart,
    pub(super) cursors: OwnedFd,
    pub(super) doorbell: OwnedFd,
    /// Where metrics are fetched.
    pub(super) scrapes: Option<OwnedFd>,
    /// If the kernel programs run.
    pub(super) waits: Option<Parts>,
}

/// What is needed of the kernel programs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) ring: OwnedFd,
    pub(super) workers: OwnedFd,
    pub(super) pages: OwnedFd,
    pub(super) counts: OwnedFd,
}

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtocolError {
    /// The supervisor is gone.
    #[error("the supervisor closed the control socket")]
    Closed,
    /// The socket cannot be read any more.
    #[error(transparent)]
    Channel(ChannelError),
    /// One message is of no use; the next may be.
    #[error("ignoring a message of the supervisor: {0}")]
    Useless(String),
}

/// The observer's end of the control socket.
#[derive(Debug)]
pub(super) struct Inbox(AsyncFd<Channel>);

impl Inbox {
    pub(super) fn new(channel: Channel) -> std::io::Result<Inbox> {
        channel.set_nonblocking()?;
        Ok(Inbox(readiness::ready(channel, Interest::READABLE)?))
    }

    /// The next message. Nothing is lost if the future is dropped.
    pub(super) async fn next(&self) -> Result<Input, ProtocolError> {
        loop {
            let mut ready = self.0.readable().await.map_err(|source| {
                ProtocolError::Channel(ChannelError::Os {
                    call: "epoll_wait",
                    source,
                })
            })?;
            match ready.get_inner().receive::<ToObserver>() {
                Ok((message, fds)) => return input(message, fds),
                Err(ChannelError::WouldBlock) => ready.clear_ready(),
                Err(ChannelError::Closed) => return Err(ProtocolError::Closed),
                Err(e @ ChannelError::NotAMessage { .. }) => {
                    return Err(ProtocolError::Useless(e.to_string()));
                }
                Err(e @ ChannelError::Os { .. }) => return Err(ProtocolError::Channel(e)),
            }
        }
    }

    /// Tells the supervisor, or fails at once if there is no room now.
    pub(super) fn tell(&self, message: &FromObserver) -> Result<(), ChannelError> {
        self.0.get_ref().send(message, &[])
    }
}

fn input(message: ToObserver, fds: Vec<OwnedFd>) -> Result<Input, ProtocolError> {
    let count = fds.len();
    let mut fds = fds.into_iter();
    let mut need = |what: &str| {
        fds.next().ok_or_else(|| {
            ProtocolError::Useless(format!(
                "it came with {count} descriptors and without that of {what}"
            ))
        })
    };
    Ok(match message {
        ToObserver::Start(start) => Input::Start(Box::new(Start {
            cursors: need("the cursor table")?,
            doorbell: need("the doorbell")?,
            scrapes: start
                .scraped
                .is_some()
                .then(|| need("the socket for metrics"))
                .transpose()?,
            waits: match start.waits {
                WaitPrograms::Running { .. } => Some(Parts {
                    ring: need("the ring of waits")?,
                    workers: need("the map of workers")?,
                    pages: need("the map of pages")?,
                    counts: need("the map of counts")?,
                }),
                WaitPrograms::NotWanted | WaitPrograms::Refused { .. } => None,
            },
            start: *start,
        })),
        ToObserver::Pool(view) => Input::Pool {
            view,
            slow_log: fds.next(),
        },
        ToObserver::WorkerStarted(view) => Input::Worker {
            slot: need(&format!("the slot of worker {}", view.pid))?,
            process: need(&format!("the process of worker {}", view.pid))?,
            memory: fds.next(),
            calls: fds.next(),
            view,
        },
        ToObserver::Tail { question } => Input::Tail {
            question,
            connection: need("a reader")?,
        },
        ToObserver::SlowLog { pool } => Input::SlowLog {
            pool,
            log: need("the slow log")?,
        },
        ToObserver::TelemetryFile => Input::TelemetryFile(need("the file for telemetry")?),
        plain @ (ToObserver::Engine { .. }
        | ToObserver::WorkerGone { .. }
        | ToObserver::PoolGone { .. }
        | ToObserver::LastLook { .. }
        | ToObserver::Saturated { .. }
        | ToObserver::Figures(_)
        | ToObserver::Line(_)
        | ToObserver::Logged(_)
        | ToObserver::Stop { .. }) => Input::Plain(plain),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use glasspool_abi::{EngineId, Pid, PoolId, WorkerId};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn worker() -> ToObserver {
        ToObserver::WorkerStarted(WorkerView {
            worker: WorkerId(1),
            pid: Pid(2),
            pool: PoolId(0),
            engine: EngineId(1),
            born_mono_ns: 0,
            slot_bytes: 3,
            cursor: 0,
            times_page: None,
        })
    }

    #[tokio::test]
    async fn an_observer_with_kernel_programs_needs_all_their_parts() {
        let (ours, theirs) = Channel::pair().unwrap();
        let inbox = Inbox::new(ours).unwrap();
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let start = |waits| {
            ToObserver::Start(Box::new(ObserverStart {
                waits,
                ..super::super::testing::start()
            }))
        };
        let running = || WaitPrograms::Running { pages: 1 };
        theirs.send(&start(running()), &[fd.as_fd(); 5]).unwrap();
        let useless = inbox.next().await.unwrap_err().to_string();
        assert!(
            useless.ends_with("without that of the map of counts"),
            "{useless}"
        );
        theirs.send(&start(running()), &[fd.as_fd(); 6]).unwrap();
        let Input::Start(whole) = inbox.next().await.unwrap() else {
            panic!("it is the start")
        };
        assert!(whole.waits.is_some());
        theirs
            .send(&start(WaitPrograms::NotWanted), &[fd.as_fd(); 2])
            .unwrap();
        let Input::Start(without) = inbox.next().await.unwrap() else {
            panic!("it is the start")
        };
        assert!(without.waits.is_none());
    }

    #[tokio::test]
    async fn a_message_without_its_descriptors_is_useless_but_not_the_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        let inbox = Inbox::new(ours).unwrap();
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        theirs.send(&worker(), &[fd.as_fd()]).unwrap();
        let useless = inbox.next().await.unwrap_err().to_string();
        assert!(
            useless.contains("came with 1 descriptors and without that of the process of worker 2"),
            "{useless}"
        );
        theirs.send(&worker(), &[fd.as_fd(), fd.as_fd()]).unwrap();
        assert!(matches!(
            inbox.next().await.unwrap(),
            Input::Worker { memory: None, .. }
        ));
        theirs
            .send(
                &ToObserver::Stop {
                    within: Duration::ZERO,
                },
                &[],
            )
            .unwrap();
        assert!(matches!(
            inbox.next().await.unwrap(),
            Input::Plain(ToObserver::Stop { .. })
        ));
        rustix::net::send(&theirs, &[0xff; 9], rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(inbox.next().await, Err(ProtocolError::Useless(_))));
        drop(theirs);
        assert!(matches!(inbox.next().await, Err(ProtocolError::Closed)));
    }
}
