//! The figures of the pool, asked of the supervisor, which sees all slots.
//!
//! The worker sends [`FromWorker::Status`] with one end of a socket pair over the
//! socket that all workers of the pool share, and reads the answer from the other end.
//! It never waits longer than a limit: a supervisor that is busy or gone costs one
//! page, not the worker.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Channel, ChannelError, FromWorker, PoolStatus, ProcessStatus, StatusPart};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Time for question and answer together.
pub(crate) const WITHIN: Duration = Duration::from_secs(2);
/// Workers that are read at most.
const MOST_PROCESSES: usize = 100_000;
/// Bytes of their texts that are read at most.
const MOST_BYTES: usize = 64 << 20;

/// A pool as it was at one moment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) pool: PoolStatus,
    pub(crate) processes: Vec<ProcessStatus>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("cannot make a socket pair for the answer: {0}")]
    Pair(#[source] io::Error),
    #[error("cannot ask the supervisor: {0}")]
    Ask(#[source] ChannelError),
    #[error("cannot wait for the supervisor: {0}")]
    Wait(#[source] io::Error),
    #[error("the supervisor did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the supervisor gave no answer")]
    NoAnswer,
    #[error("cannot read the supervisor's answer: {0}")]
    Answer(#[source] ChannelError),
    #[error("the supervisor's answer does not begin with the pool, or has it twice")]
    Disorder,
    #[error("the supervisor's answer has more than {MOST_PROCESSES} processes or {MOST_BYTES} bytes")]
    TooLong,
}

/// Asks and reads. Waits for `within` at most.
pub(crate) fn fetch(supervisor: &Channel, within: Duration) -> Result<Figures, Unavailable> {
    let patience = Patience {
        within,
        until: Instant::now() + within,
    };
    let (ours, theirs) = Channel::pair().map_err(Unavailable::Pair)?;
    ours.set_nonblocking().map_err(Unavailable::Pair)?;
    while let Err(error) = supervisor.send_now(&FromWorker::Status, &[theirs.as_fd()]) {
        match error {
            ChannelError::WouldBlock => patience.wait(supervisor, PollFlags::OUT)?,
            other => return Err(Unavailable::Ask(other)),
        }
    }
    // The end of the answer is the moment when the supervisor has closed its copy.
    drop(theirs);
    let mut answer = Answer::default();
    loop {
        match ours.receive() {
            Ok((part, _)) => answer.add(part)?,
            Err(ChannelError::WouldBlock) => patience.wait(&ours, PollFlags::IN)?,
            Err(ChannelError::Closed) => return answer.complete(),
            Err(other) => return Err(Unavailable::Answer(other)),
        }
        patience.check()?;
    }
}

/// What has come so far.
#[derive(Default)]
struct Answer {
    pool: Option<PoolStatus>,
    processes: Vec<ProcessStatus>,
    bytes: usize,
}

impl Answer {
    fn add(&mut self, part: StatusPart) -> Result<(), Unavailable> {
        match (part, &self.pool) {
            (StatusPart::Pool(pool), None) => self.pool = Some(pool),
            (StatusPart::Processes(some), Some(_)) => {
                self.bytes += some.iter().map(text_bytes).sum::<usize>();
                if self.processes.len() + some.len() > MOST_PROCESSES || self.bytes > MOST_BYTES {
                    return Err(Unavailable::TooLong);
                }
                self.processes.extend(some);
            }
            (StatusPart::Pool(_), Some(_)) | (StatusPart::Processes(_), None) => {
                return Err(Unavailable::Disorder);
            }
        }
        Ok(())
    }

    fn complete(self) -> Result<Figures, Unavailable> {
        Ok(Figures {
            pool: self.pool.ok_or(Unavailable::NoAnswer)?,
            processes: self.processes,
        })
    }
}

fn text_bytes(process: &ProcessStatus) -> usize {
    let ProcessStatus {
        method,
        uri,
        query,
        user,
        script,
        ..
    } = process;
    [method, uri, query, user, script].into_iter().map(Vec::len).sum()
}

/// The time that is left.
struct Patience {
    within: Duration,
    until: Instant,
}

impl Patience {
    fn check(&self) -> Result<Duration, Unavailable> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(Unavailable::Late(self.within))
        } else {
            Ok(left)
        }
    }

    /// Waits until the socket is ready, a signal comes, or the time is over.
    fn wait(&self, socket: &Channel, ready: PollFlags) -> Result<(), Unavailable> {
        let left = Timespec::try_from(self.check()?).expect("no longer than the limit");
        let mut fds = [PollFd::new(socket, ready)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(0) => Err(Unavailable::Late(self.within)),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Unavailable::Wait(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::*;

    /// Asks a supervisor that does `answer` with the first question's socket.
    fn ask(within: Duration, answer: impl FnOnce(Channel) + Send + 'static) -> Result<Figures, Unavailable> {
        let (worker, supervisor) = Channel::pair().expect("a socket pair");
        let supervisor = thread::spawn(move || {
            let (question, mut fds): (FromWorker, Vec<OwnedFd>) = supervisor.receive().expect("a question");
            assert_eq!((question, fds.len()), (FromWorker::Status, 1));
            answer(Channel::from(fds.remove(0)));
        });
        let figures = fetch(&worker, within);
        supervisor.join().expect("answers as it should");
        figures
    }

    fn send(channel: &Channel, part: StatusPart) {
        channel.send(&part, &[]).expect("sends");
    }

    const LONG: Duration = Duration::from_secs(20);

    fn process(pid: i32) -> ProcessStatus {
        ProcessStatus {
            pid,
            uri: b"/a".to_vec(),
            ..ProcessStatus::default()
        }
    }

    #[test]
    fn parts_become_figures() {
        let pool = PoolStatus {
            pool: "www".to_owned(),
            ..PoolStatus::default()
        };
        let expected = Figures {
            pool: pool.clone(),
            processes: (0..12_800).map(process).collect(),
        };
        let figures = ask(LONG, move |channel| {
            send(&channel, StatusPart::Pool(pool));
            for first in (0..12_800).step_by(100) {
                let some = (first..first + 100).map(process).collect();
                send(&channel, StatusPart::Processes(some));
            }
        });
        assert_eq!(figures.expect("figures"), expected);
    }

    #[test]
    fn an_answer_that_is_none() {
        let pool = || StatusPart::Pool(PoolStatus::default());
        assert!(matches!(ask(LONG, drop), Err(Unavailable::NoAnswer)));
        let twice = ask(LONG, move |channel| {
            send(&channel, pool());
            send(&channel, pool());
        });
        assert!(matches!(twice, Err(Unavailable::Disorder)), "{twice:?}");
        let headless = ask(LONG, |channel| send(&channel, StatusPart::Processes(Vec::new())));
        assert!(matches!(headless, Err(Unavailable::Disorder)), "{headless:?}");
        let garbage = ask(LONG, |channel| {
            rustix::net::send(&channel, &[0xff; 40], rustix::net::SendFlags::empty()).expect("sends");
        });
        assert!(matches!(garbage, Err(Unavailable::Answer(_))), "{garbage:?}");
    }

    #[test]
    fn an_answer_without_end_ends() {
        let figures = ask(LONG, |channel| {
            send(&channel, StatusPart::Pool(PoolStatus::default()));
            let many: Vec<_> = (0..1000).map(process).collect();
            while channel.send(&StatusPart::Processes(many.clone()), &[]).is_ok() {}
        });
        assert!(matches!(figures, Err(Unavailable::TooLong)), "{figures:?}");
        let figures = ask(Duration::from_millis(100), |channel| {
            send(&channel, StatusPart::Pool(PoolStatus::default()));
            while channel.send(&StatusPart::Processes(Vec::new()), &[]).is_ok() {}
        });
        assert!(matches!(figures, Err(Unavailable::Late(_))), "{figures:?}");
    }

    #[test]
    fn nobody_is_waited_for_longer_than_the_limit() {
        let short = Duration::from_millis(50);
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let silent = ask(short, move |channel| {
            thread::spawn(move || {
                let _over = wait.recv();
                drop(channel);
            });
        });
        drop(done);
        assert!(matches!(silent, Err(Unavailable::Late(_))), "{silent:?}");
        // Nobody reads the questions: at first they queue up, then there is no room.
        let (worker, supervisor) = Channel::pair().expect("a socket pair");
        for _ in 0..400 {
            let late = fetch(&worker, Duration::from_millis(1));
            assert!(matches!(late, Err(Unavailable::Late(_))), "{late:?}");
        }
        drop(supervisor);
        let gone = fetch(&worker, LONG);
        assert!(
            matches!(gone, Err(Unavailable::Ask(ChannelError::Closed))),
            "{gone:?}"
        );
    }
}
