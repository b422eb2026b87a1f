//! Answers what workers ask: the state of their pool, for its status page.
//!
//! Workers are hostile, and nothing they do here may make the run loop wait or work
//! without bound. Each pool's questions are read by a task of their own, one at a time,
//! and paced by what the answers cost; answers are sent by further tasks that are bounded
//! in number and time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::{Channel, ChannelError, FromWorker, ProcessStatus, StatusPart};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::monotonic_ns;
use super::pools::LivePool;
use super::run::{Event, Supervisor};
use crate::logs::ErrorLog;
use crate::readiness;

/// Answers of one pool that are on their way at a time; who asks then is not answered,
/// and its client gets an error.
const ANSWERS: usize = 16;
/// An answer that is not taken in this time is given up.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// After a question that is not answered.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// Between two questions of a pool there are so many times the time that the first took,
/// so that asking costs the run loop at most a tenth of its time per pool.
const PACE: u32 = 10;
/// Longest question in bytes.
const QUESTION_BYTES: usize = 64;
/// Bytes of processes in a part, about; one process is at most a few thousand more.
const PART_BYTES: usize = 64 * 1024;
/// Bytes of a process beside its texts, at most.
const NUMBERS_BYTES: usize = 128;

/// A pool's state, and what it cost the run loop to gather it.
#[derive(Debug)]
pub(super) struct Answer {
    parts: Vec<StatusPart>,
    cost: Duration,
}

/// Hears a pool's questions until it is dropped.
#[derive(Debug)]
pub(super) struct Hearing(AbortHandle);

impl Hearing {
    /// `socket` is our end of what the pool's workers share.
    ///
    /// # Errors
    /// When the socket cannot be waited on.
    pub(super) fn start(
        pool: PoolId,
        name: &str,
        socket: Channel,
        events: mpsc::Sender<Event>,
        log: &ErrorLog,
    ) -> io::Result<Hearing> {
        socket.set_nonblocking()?;
        let socket = readiness::ready(socket, Interest::READABLE)?;
        let (name, log) = (name.to_owned(), log.clone());
        let task = tokio::spawn(async move {
            if let Err(e) = hear(pool, &socket, &events).await {
                log.warning(format_args!(
                    "[pool {name}] {e}; its status page is not answered any more (reload to have it again)"
                ));
            }
        });
        Ok(Hearing(task.abort_handle()))
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a pool is not heard any more.
#[derive(Debug, thiserror::Error)]
enum HearingError {
    #[error("a worker has sent a descriptor that is no socket to answer on")]
    Impostor,
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

async fn hear(
    pool: PoolId,
    socket: &AsyncFd<Channel>,
    events: &mpsc::Sender<Event>,
) -> Result<(), HearingError> {
    let answers = Arc::new(Semaphore::new(ANSWERS));
    loop {
        let (question, fds) = receive(socket).await?;
        if !fds.iter().all(can_be_answered) {
            close_elsewhere(fds);
            return Err(HearingError::Impostor);
        }
        let permit = Arc::clone(&answers).try_acquire_owned();
        let (Ok(FromWorker::Status), Ok(permit), Some(reply)) = (question, permit, fds.into_iter().next())
        else {
            tokio::time::sleep(REFUSED_PAUSE).await;
            continue;
        };
        let (answer, answered) = oneshot::channel();
        if events.send(Event::StatusAsked { pool, answer }).await.is_err() {
            return Ok(());
        }
        // Without an answer the pool is gone, and the reply is closed.
        let Ok(Answer { parts, cost }) = answered.await else {
            return Ok(());
        };
        tokio::spawn(tokio::time::timeout(ANSWER_TIME, deliver(reply, parts, permit)));
        tokio::time::sleep(cost * PACE).await;
    }
}

type Question = (Result<FromWorker, ChannelError>, Vec<OwnedFd>);

async fn receive(socket: &AsyncFd<Channel>) -> Result<Question, ChannelError> {
    loop {
        let ready = socket.readable().await;
        let mut guard = ready.map_err(|source| ChannelError::Os { call: "poll", source })?;
        match socket.get_ref().receive_suspicious(QUESTION_BYTES) {
            Err(ChannelError::WouldBlock) => guard.clear_ready(),
            received => return received,
        }
    }
}

/// Whether it is a socket of the kind that workers are to send. Asked in a way that no
/// file system hears of: any other call on a hostile file may block (FUSE).
fn can_be_answered(fd: &OwnedFd) -> bool {
    sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
        && sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
}

/// Closes descriptors that may block their closer, where nobody waits. The pool that they
/// came from is not heard again, so there is at most one such thread per pool.
fn close_elsewhere(fds: Vec<OwnedFd>) {
    let closer = std::thread::Builder::new().name("closer".to_owned());
    match closer.spawn(move || drop(fds)) {
        // It ends by itself, or hangs, or could not be started and they are closed here.
        Ok(_) | Err(_) => {}
    }
}

async fn deliver(reply: OwnedFd, parts: Vec<StatusPart>, _permit: OwnedSemaphorePermit) {
    let Ok(reply) = readiness::ready(Channel::from(reply), Interest::WRITABLE) else {
        return;
    };
    for part in parts {
        loop {
            let Ok(mut guard) = reply.writable().await else {
                return;
            };
            // Never waits, whatever the worker does to the flags of the file it shares.
            match reply.get_ref().send_now(&part, &[]) {
                Ok(()) => break,
                Err(ChannelError::WouldBlock) => guard.clear_ready(),
                // Who has asked is gone.
                Err(_) => return,
            }
        }
    }
}

impl Supervisor {
    /// A worker of that pool asks; the answer is dropped if the pool is gone.
    pub(super) fn status_asked(&mut self, pool: PoolId, answer: oneshot::Sender<Answer>) {
        let before = Instant::now();
        let Some(pool) = self.pools.get(&pool).map(|asking| self.reported(asking)) else {
            return;
        };
        self.observe(pool, before);
        let now_ns = monotonic_ns();
        let Some(pool) = self.pools.get(&pool) else {
            return;
        };
        let (name, manager) = (&pool.name, pool.config.manager.name());
        let status = pool.management.figures.status(name, manager);
        let workers = self
            .workers
            .values()
            .filter(|worker| worker.pool() == pool.spec.pool);
        let processes = workers.filter_map(|worker| worker.status(now_ns));
        let mut parts = vec![StatusPart::Pool(status)];
        parts.extend(cut(processes));
        let cost = before.elapsed();
        // Nobody waits for it if the pool has been dropped meanwhile.
        answer.send(Answer { parts, cost }).unwrap_or_default();
    }

    /// The pool whose state is reported to that one: itself, or for a status listener the
    /// one of the same configuration that it belongs to.
    fn reported(&self, asking: &LivePool) -> PoolId {
        let main = asking.config.status_of.as_ref().and_then(|main| {
            let mut pools = self.pools.values();
            pools.find(|pool| pool.name == *main && pool.life == asking.life)
        });
        main.unwrap_or(asking).spec.pool
    }
}

/// Puts processes into parts that fit into packets.
fn cut(processes: impl Iterator<Item = ProcessStatus>) -> Vec<StatusPart> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for process in processes {
        let ProcessStatus {
            method,
            uri,
            query,
            user,
            script,
            ..
        } = &process;
        let texts = [method, uri, query, user, script].map(Vec::len);
        bytes += NUMBERS_BYTES + texts.iter().sum::<usize>();
        part.push(process);
        if bytes >= PART_BYTES {
            parts.push(StatusPart::Processes(std::mem::take(&mut part)));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        parts.push(StatusPart::Processes(part));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn answer(processes: usize) -> Answer {
        let process = ProcessStatus {
            uri: vec![b'x'; 1000],
            ..ProcessStatus::default()
        };
        let mut parts = vec![StatusPart::Pool(glasspool_abi::control::PoolStatus::default())];
        parts.extend(cut(std::iter::repeat_n(process, processes)));
        Answer {
            parts,
            cost: Duration::ZERO,
        }
    }

    /// A pool that is heard, the workers' end of its socket, and the run loop's inbox.
    fn heard() -> (Hearing, Channel, mpsc::Receiver<Event>, tempfile::NamedTempFile) {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let (events, inbox) = mpsc::channel(16);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let log = ErrorLog::file(file.path(), crate::config::LogLevel::Debug).expect("opens");
        let hearing = Hearing::start(PoolId(3), "www", ours, events, &log).expect("starts");
        (hearing, theirs, inbox, file)
    }

    async fn next(inbox: &mut mpsc::Receiver<Event>) -> oneshot::Sender<Answer> {
        match inbox.recv().await {
            Some(Event::StatusAsked {
                pool: PoolId(3),
                answer,
            }) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn ask(worker: &Channel) -> Channel {
        let (mine, reply) = Channel::pair().expect("a pair");
        worker.send(&FromWorker::Status, &[reply.as_fd()]).expect("sends");
        mine
    }

    #[tokio::test]
    async fn a_question_is_answered_in_parts_and_then_the_socket_is_closed() {
        let (_hearing, worker, mut inbox, _file) = heard();
        for processes in [0, 500] {
            let mine = ask(&worker);
            let asked = next(&mut inbox).await;
            asked.send(answer(processes)).expect("is waited for");
            let mut seen = Vec::new();
            let reading = tokio::task::spawn_blocking(move || {
                loop {
                    match mine.receive::<StatusPart>() {
                        Ok((part, _)) => seen.push(part),
                        Err(ChannelError::Closed) => return seen,
                        Err(e) => panic!("{e}"),
                    }
                }
            });
            let parts = reading.await.expect("reads");
            assert_eq!(parts, answer(processes).parts);
        }
    }

    #[tokio::test]
    async fn who_does_not_read_holds_up_nobody() {
        let (_hearing, worker, mut inbox, _file) = heard();
        // More than the sockets take at once, and more of them than may be on their way.
        let mut silent: Vec<Channel> = (0..ANSWERS + 4).map(|_| ask(&worker)).collect();
        for _ in 0..ANSWERS {
            let asked = next(&mut inbox).await;
            asked.send(answer(2000)).expect("is waited for");
        }
        // The others are refused: nothing comes on them but the end.
        for refused in silent.split_off(ANSWERS) {
            refused.set_nonblocking().expect("is set");
            let refused = readiness::ready(refused, Interest::READABLE).expect("is waited for");
            assert!(matches!(receive(&refused).await, Err(ChannelError::Closed)));
        }
        // When they give up there is room again, though not at once.
        drop(silent);
        let mut tries = Vec::new();
        let answered = loop {
            tries.push(ask(&worker));
            tokio::select! {
                asked = next(&mut inbox) => break asked,
                () = tokio::time::sleep(REFUSED_PAUSE) => {}
            }
        };
        assert!(!answered.is_closed());
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_socket_ends_the_hearing() {
        let (_hearing, worker, mut inbox, file) = heard();
        let impostor = std::fs::File::open("/dev/null").expect("opens");
        worker
            .send(&FromWorker::Status, &[impostor.as_fd()])
            .expect("sends");
        assert!(inbox.recv().await.is_none());
        let log = std::fs::read_to_string(file.path()).expect("reads");
        assert!(
            log.contains("[pool www] a worker has sent a descriptor that is no socket"),
            "{log}"
        );
    }

    #[tokio::test]
    async fn what_is_no_question_is_ignored() {
        let (_hearing, worker, mut inbox, _file) = heard();
        worker.send(&FromWorker::Status, &[]).expect("sends");
        let (_mine, reply) = Channel::pair().expect("a pair");
        worker.send(&vec![9u8; 500], &[reply.as_fd()]).expect("sends");
        worker.send(&77u8, &[]).expect("sends");
        let _mine = ask(&worker);
        next(&mut inbox).await;
    }

    #[test]
    fn parts_fit_into_packets() {
        let long = ProcessStatus {
            uri: vec![b'x'; 1024],
            query: vec![b'x'; 768],
            script: vec![b'x'; 512],
            ..ProcessStatus::default()
        };
        let parts = cut(std::iter::repeat_n(long, 12_800));
        let count = |part: &StatusPart| match part {
            StatusPart::Processes(processes) => processes.len(),
            StatusPart::Pool(_) => 0,
        };
        assert_eq!(parts.iter().map(count).sum::<usize>(), 12_800);
        let (ours, _theirs) = Channel::pair().expect("a pair");
        ours.send_now(&parts[0], &[]).expect("fits");
    }
}
