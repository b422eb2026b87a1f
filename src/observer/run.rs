//! The observer's loop: messages, the doorbell, the clock, and the sampler's answers.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::time::Duration;

use glasspool_abi::control::{Channel, FromObserver};
use glasspool_abi::slot::CursorTable;
use glasspool_otel::export::Terminal;
use rustix::io::ReadWriteFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::metrics::endpoint::{Endpoint, Question};
use super::protocol::{Inbox, Input, ProtocolError, Start};
use super::sampler::{Answer, Sampler};
use super::state::{Observer, Tick};
use super::waits::Waits;
use super::{monotonic_ns, privileges};
use crate::logs::ErrorLog;
use crate::readiness;

/// Time for the last export when the supervisor is gone.
const ORPHAN_TIME: Duration = Duration::from_secs(2);
/// Rings are read this often while records come, and seldomer while none do.
const BUSY_PACE: Duration = Duration::from_millis(5);
const IDLE_PACE: Duration = Duration::from_millis(50);
/// However often a worker rings, and however many deadlines there are.
const LEAST_PACE: Duration = Duration::from_millis(1);

/// Why an observer could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    #[error("cannot use the cursor table: {0}")]
    Cursors(#[from] glasspool_abi::MapError),
}

/// Serves one supervisor to the end.
pub(super) async fn run(channel: Channel, log: &ErrorLog) -> Result<(), StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let inbox = Inbox::new(channel).map_err(system("wait on the control socket"))?;
    let start = first(&inbox, log).await?;
    match set_up(*start, log) {
        Ok(parts) => {
            if inbox.tell(&FromObserver::Ready).is_err() {
                log.debug("the supervisor was gone before the observer was ready");
            }
            let Parts {
                mut observer,
                mut answers,
                bells,
                scrapes,
            } = parts;
            // Ends with it: whoever fetches metrics from then on waits for a successor.
            let within = watch(&inbox, &mut observer, &mut answers, &bells, scrapes, log).await;
            observer.finish(answers, within).await;
            Ok(())
        }
        Err(e) => {
            let reason = e.to_string();
            if inbox.tell(&FromObserver::Failed { reason }).is_err() {
                log.error(format_args!("the observer cannot start: {e}"));
            }
            Err(e)
        }
    }
}

/// Waits for the first message; others before it are ignored.
async fn first(inbox: &Inbox, log: &ErrorLog) -> Result<Box<Start>, ProtocolError> {
    loop {
        match inbox.next().await {
            Ok(Input::Start(start)) => return Ok(start),
            Ok(_) => log.warning("ignoring a message of the supervisor: the first has to start the observer"),
            Err(e @ ProtocolError::Useless(_)) => log.warning(e),
            Err(e) => return Err(e),
        }
    }
}

struct Parts {
    observer: Observer,
    answers: mpsc::Receiver<Answer>,
    bells: Bells,
    scrapes: Option<Scrapes>,
}

/// Where metrics are fetched, and what is asked there.
type Scrapes = (Endpoint, mpsc::Receiver<Question>);

fn set_up(start: Start, log: &ErrorLog) -> Result<Parts, StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let Start {
        start,
        cursors,
        doorbell,
        scrapes,
        waits,
    } = start;
    // First of all, while there is but one thread.
    let rights = privileges::give_up(start.identity.as_ref())?;
    if rights.may_stop {
        log.debug(rights);
    } else {
        log.notice(rights);
    }
    let entries = usize::try_from(start.cursors).unwrap_or(0);
    let cursors = CursorTable::map(cursors, entries)?;
    let doorbell = Doorbell::new(doorbell).map_err(system("wait on the doorbell"))?;
    let scrapes = scrapes.map(Endpoint::start).transpose();
    let scrapes = scrapes.map_err(system("wait on the socket for metrics"))?;
    let waits = Waits::new(&start, waits, log);
    let ring = waits.ring().and_then(|ring| ring.map(Ring::new).transpose());
    let ring = ring.map_err(system("wait on the ring of waits"))?;
    let (sampler, answers) =
        Sampler::start(log.clone(), waits.sight()).map_err(system("start the sampler's thread"))?;
    let colours = start.colour;
    let terminal = Box::new(move || Terminal {
        out: Box::new(std::io::stdout()),
        colours,
    });
    let observer = Observer::new(&start, cursors, sampler, waits, terminal, log.clone());
    Ok(Parts {
        observer,
        answers,
        bells: Bells { doorbell, ring },
        scrapes,
    })
}

/// Watches until told to stop, or until the supervisor is gone; returns the time left
/// for ending.
async fn watch(
    inbox: &Inbox,
    observer: &mut Observer,
    answers: &mut mpsc::Receiver<Answer>,
    bells: &Bells,
    scrapes: Option<Scrapes>,
    log: &ErrorLog,
) -> Duration {
    let (_endpoint, mut questions) = scrapes.unzip();
    let mut pace = Pace::default();
    let mut last = Instant::now();
    let mut next = last;
    loop {
        tokio::select! {
            message = inbox.next() => match message {
                Ok(input) => if let Some(within) = observer.on(input) { return within },
                Err(e @ ProtocolError::Useless(_)) => log.warning(e),
                Err(ProtocolError::Closed) => return ORPHAN_TIME,
                Err(e @ ProtocolError::Channel(_)) => {
                    log.error(e);
                    return ORPHAN_TIME;
                }
            },
            Some(answer) = answers.recv() => observer.on_answer(answer),
            Some(question) = asked(&mut questions) => {
                // An error is that nobody waits for it any more.
                drop(question.send(observer.report.scrape(&observer.board, &observer.waits)));
            }
            // Not listened to until the turn it asked for has come: a worker may ring on and on.
            () = bells.rung(), if next > last + LEAST_PACE => next = last + LEAST_PACE,
            () = sleep_until(next) => {
                let now = monotonic_ns();
                let tick = observer.tick(now);
                last = Instant::now();
                next = last + pace.after(&tick, now);
            }
        }
        // After each event: a kill may wait for what it was.
        observer.tell_supervisor(|message| inbox.tell(message).is_ok());
    }
}

async fn asked(questions: &mut Option<mpsc::Receiver<Question>>) -> Option<Question> {
    questions.as_mut()?.recv().await
}

/// How long to wait until the rings are read again.
#[derive(Debug)]
struct Pace(Duration);

impl Default for Pace {
    fn default() -> Pace {
        Pace(BUSY_PACE)
    }
}

impl Pace {
    fn after(&mut self, tick: &Tick, now: u64) -> Duration {
        self.0 = if tick.records > 0 {
            BUSY_PACE
        } else {
            (self.0 * 2).min(IDLE_PACE)
        };
        let to_deadline = tick.due.map(|due| Duration::from_nanos(due.saturating_sub(now)));
        to_deadline
            .map_or(self.0, |wait| wait.min(self.0))
            .max(LEAST_PACE)
    }
}

/// What asks for a turn before its time.
#[derive(Debug)]
struct Bells {
    doorbell: Doorbell,
    ring: Option<Ring>,
}

impl Bells {
    async fn rung(&self) {
        match &self.ring {
            Some(ring) => tokio::select! {
                () = self.doorbell.rung() => {},
                () = ring.filled() => {},
            },
            None => self.doorbell.rung().await,
        }
    }
}

/// The ring of waits, which the kernel says is readable when it is a quarter full.
#[derive(Debug)]
struct Ring(AsyncFd<OwnedFd>);

impl Ring {
    fn new(fd: OwnedFd) -> std::io::Result<Ring> {
        Ok(Ring(readiness::ready(fd, Interest::READABLE)?))
    }

    /// Returns when it has been said. The turn that follows reads the ring.
    async fn filled(&self) {
        match self.0.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // Only possible while the runtime ends.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The eventfd that workers ring when their rings fill up.
#[derive(Debug)]
struct Doorbell(AsyncFd<OwnedFd>);

impl Doorbell {
    fn new(fd: OwnedFd) -> std::io::Result<Doorbell> {
        Ok(Doorbell(readiness::ready(fd, Interest::READABLE)?))
    }

    /// Returns when it has been rung, and resets it.
    async fn rung(&self) {
        let Ok(mut ready) = self.0.readable().await else {
            // Only possible while the runtime ends.
            return std::future::pending().await;
        };
        ready.clear_ready();
        let mut count = [0; 8];
        // Workers hold the same open file: they may have read it first, and could have
        // made it blocking. If it cannot be reset, the next ring still wakes us: the
        // readiness is edge-triggered.
        rustix::io::preadv2(
            self.0.get_ref(),
            &mut [IoSliceMut::new(&mut count)],
            u64::MAX, // Not a position: like read(2).
            ReadWriteFlags::NOWAIT,
        )
        .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn the_pace_slows_down_and_keeps_deadlines() {
        let mut pace = Pace::default();
        let tick = |records, due| Tick { records, due };
        assert_eq!(pace.after(&tick(1, None), 0), BUSY_PACE);
        let idle: Vec<_> = (0..5)
            .map(|_| pace.after(&tick(0, None), 0).as_millis())
            .collect();
        assert_eq!(idle, [10, 20, 40, 50, 50]);
        assert_eq!(pace.after(&tick(0, Some(7_000_000)), 0), Duration::from_millis(7));
        assert_eq!(pace.after(&tick(0, Some(0)), 9), LEAST_PACE);
        assert_eq!(pace.after(&tick(0, Some(u64::MAX)), 9), IDLE_PACE);
        assert_eq!(pace.after(&tick(9, None), 9), BUSY_PACE);
    }

    #[tokio::test]
    async fn a_doorbell_that_somebody_made_blocking_wakes_and_does_not_hang() {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let workers = bell.try_clone().unwrap();
        let doorbell = Doorbell::new(bell).unwrap();
        rustix::io::ioctl_fionbio(&workers, false).unwrap();
        for _ in 0..3 {
            rustix::io::write(&workers, &1u64.to_ne_bytes()).unwrap();
            doorbell.rung().await;
        }
        let silent = tokio::time::timeout(Duration::from_millis(20), doorbell.rung()).await;
        assert!(silent.is_err(), "it was reset");
    }
}
