//! The canary: one worker of a pool, forked by a new engine before anybody depends on
//! either. It becomes all that its pool asks, serves one request over a socket of its
//! own, and ends; so PHP's start, the fork, the change of identity, a request's start-up
//! and shutdown and the worker's end have all been seen to work.
//!
//! It is in no scoreboard, no observer hears of it, and nothing of it is logged but why
//! it failed.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Ended, PoolSpec, ToEngine};
use glasspool_abi::{PoolId, WorkerId, create_slot_memory};
use glasspool_fastcgi::client::{Event as Answer, RequestEncoder, ResponseReader};
use glasspool_fastcgi::{ProtocolStatus, Role};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::process::{self, Child, describe};
use super::run::{Event, Supervisor};
use super::worker;

/// Longest time from the order to fork it to its end.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// Canaries at a time; the engine forks one after the other.
pub(super) const MOST: usize = 16;
/// Nothing can lie below a file, whatever the pool's chroot holds.
const SCRIPT: &str = "/dev/null/canary";
const REQUEST_ID: u16 = 1;

/// A canary that was asked for.
#[derive(Debug)]
pub(super) struct Canary {
    pub(super) pool: PoolId,
    /// Once the engine has forked it.
    child: Option<Child>,
    /// How its request was answered.
    answer: Option<Result<(), String>>,
    ended: Option<Ended>,
    /// When it has failed.
    due: Instant,
    /// Its reload is over: only its end is awaited.
    condemned: bool,
}

impl Canary {
    /// Its process, until it is reaped.
    pub(super) fn pid(&self) -> Option<glasspool_abi::Pid> {
        let child = self.child.as_ref().filter(|_| self.ended.is_none());
        child.map(|child| child.pid)
    }

    /// Whether it may exist without our knowing its pid.
    pub(super) fn is_requested(&self) -> bool {
        self.child.is_none()
    }

    /// When it has failed, unless its reload is over.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.due).filter(|_| !self.condemned)
    }

    fn verdict(&self) -> Option<Verdict> {
        let died = |why| Some(Verdict::Died(self.pool, why));
        let ended = self.ended?;
        let how = describe(ended);
        match (&self.answer, ended) {
            (Some(Ok(())), Ended::Exited(0)) => Some(Verdict::Sang(self.pool)),
            // What it said before its end may still have to be read.
            (None, Ended::Exited(0)) => None,
            (Some(Ok(())), Ended::Exited(_) | Ended::Killed { .. }) => {
                died(format!("it answered, and exited {how}"))
            }
            (Some(Err(why)), Ended::Exited(_)) => died(format!("{why}; it exited {how}")),
            (None, Ended::Exited(_)) | (Some(Err(_)) | None, Ended::Killed { .. }) => {
                died(format!("it exited {how} before it had answered"))
            }
        }
    }

    /// What there is to say when its time is over.
    fn overdue(&self) -> Verdict {
        let why = match &self.answer {
            Some(Err(why)) => why.clone(),
            Some(Ok(())) => format!("it answered, and has not ended within {TIME:?}"),
            None => format!("it has not answered within {TIME:?}"),
        };
        Verdict::Died(self.pool, why)
    }
}

/// What a report about a canary comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has done all of it.
    Sang(PoolId),
    /// It has not, and why.
    Died(PoolId, String),
}

impl Supervisor {
    /// Asks the engine of a pool for its canary.
    ///
    /// # Errors
    /// When its socket or slot cannot be made.
    pub(super) fn send_canary(&mut self, pool: PoolId, now: Instant) -> io::Result<()> {
        let Some(live) = self.pools.get(&pool) else {
            return Ok(());
        };
        let (listener, stream) = private_connection()?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let slot = Arc::new(create_slot_memory(live.slot_bytes).map_err(io::Error::other)?);
        let spec = PoolSpec {
            max_requests: 1,
            access_log: None,
            allowed_clients: None,
            tracing: false,
            ..live.spec.clone()
        };
        let (group, slot_bytes) = (live.group, live.slot_bytes as u64);
        let suffix = spec.limit_extensions.first().map_or(".php", String::as_str);
        let request = request(suffix);
        let fds = vec![
            Arc::new(listener),
            Arc::clone(&self.observer.doorbell),
            Arc::clone(&live.ask),
        ];
        self.tell_engine(group, ToEngine::AddPool(Box::new(spec)), fds);
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let message = ToEngine::Spawn {
            worker,
            pool,
            slot_bytes,
            times_page: None,
        };
        let fds = vec![slot, Arc::clone(&self.null), Arc::clone(&self.null)];
        self.tell_engine(group, message, fds);
        let canary = Canary {
            pool,
            child: None,
            answer: None,
            ended: None,
            due: now + TIME,
            condemned: false,
        };
        self.canaries.insert(worker, canary);
        let events = self.events.clone();
        tokio::spawn(async move {
            let answer = ask(stream, request).await;
            let event = Event::CanaryAnswered(worker, answer);
            events.send(event).await.unwrap_or_default();
        });
        Ok(())
    }

    /// What engine or worker say of a canary.
    pub(super) fn canary_report(&mut self, id: WorkerId, event: worker::Event) -> Option<Verdict> {
        let canary = self.canaries.get_mut(&id).filter(|canary| !canary.condemned)?;
        let pool = canary.pool;
        match event {
            worker::Event::Spawned(pid) => match Child::adopt(pid) {
                Ok(child) => {
                    let (events, ending) = (self.events.clone(), child.clone());
                    canary.child = Some(child);
                    tokio::spawn(async move {
                        let ended = ending.ended().await.unwrap_or(Ended::Exited(-1));
                        let event = Event::CanaryEnded(id, ended);
                        events.send(event).await.unwrap_or_default();
                    });
                    None
                }
                Err(e) => {
                    process::kill_unheld(pid);
                    self.sweep = true;
                    self.canaries.remove(&id);
                    Some(Verdict::Died(pool, format!("it cannot be watched: {e}")))
                }
            },
            worker::Event::SpawnFailed(reason) => {
                self.canaries.remove(&id);
                Some(Verdict::Died(pool, reason))
            }
            worker::Event::Failed(reason) => Some(Verdict::Died(pool, reason)),
            worker::Event::Ready | worker::Event::Exited(_) | worker::Event::EngineLost => None,
        }
    }

    /// Its request was answered, or not.
    pub(super) fn canary_answered(&mut self, id: WorkerId, answer: Result<(), String>) -> Option<Verdict> {
        self.canaries.get_mut(&id)?.answer = Some(answer);
        self.judge_canary(id)
    }

    /// It has ended and was reaped.
    pub(super) fn canary_ended(&mut self, id: WorkerId, ended: Ended) -> Option<Verdict> {
        self.canaries.get_mut(&id)?.ended = Some(ended);
        self.judge_canary(id)
    }

    fn judge_canary(&mut self, id: WorkerId) -> Option<Verdict> {
        let canary = self.canaries.get(&id)?;
        let verdict = canary.verdict().filter(|_| !canary.condemned);
        if canary.ended.is_some() && (verdict.is_some() || canary.condemned) {
            self.canaries.remove(&id);
        }
        verdict
    }

    /// The first one whose time is over.
    pub(super) fn overdue_canary(&self, now: Instant) -> Option<Verdict> {
        let mut canaries = self.canaries.values();
        let overdue = canaries.find(|canary| canary.due().is_some_and(|due| due <= now))?;
        Some(overdue.overdue())
    }

    /// The reload is over: canaries that are left are killed.
    pub(super) fn condemn_canaries(&mut self) {
        // Those that have no process yet are killed when they turn up.
        self.canaries.retain(|_, canary| canary.pid().is_some());
        for canary in self.canaries.values_mut() {
            canary.condemned = true;
            if let Some(child) = &canary.child {
                child.signal(Signal::KILL);
            }
        }
    }
}

/// A listening socket, and a connection to it that already waits to be accepted. Nobody
/// else can connect: its folder is ours alone, and gone before this returns.
fn private_connection() -> io::Result<(OwnedFd, UnixStream)> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("glasspool-canary-")
        .permissions(Permissions::from_mode(0o700));
    // A hardened service may have no writable /tmp.
    let folders = [
        std::env::temp_dir(),
        PathBuf::from("/dev/shm"),
        PathBuf::from("/run"),
    ];
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for folder in folders {
        let tried = builder.tempdir_in(&folder).and_then(|folder| {
            let path = folder.path().join("socket");
            let listener = UnixListener::bind(&path)?;
            Ok((OwnedFd::from(listener), UnixStream::connect(&path)?))
        });
        match tried {
            Ok(made) => return Ok(made),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn request(suffix: &str) -> Vec<u8> {
    let script = format!("{SCRIPT}{suffix}");
    let params = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "glasspool"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", script.as_str()),
        ("SCRIPT_NAME", script.as_str()),
        ("SCRIPT_FILENAME", script.as_str()),
        ("QUERY_STRING", ""),
    ];
    let mut buf = Vec::with_capacity(512);
    RequestEncoder::begin(&mut buf, REQUEST_ID, Role::Responder, false);
    RequestEncoder::params(&mut buf, REQUEST_ID, params);
    RequestEncoder::stdin_end(&mut buf, REQUEST_ID);
    buf
}

/// Sends the request and waits for its end. What PHP answers does not matter: that the
/// script is not found is the expected answer.
async fn ask(mut stream: tokio::net::UnixStream, request: Vec<u8>) -> Result<(), String> {
    let broken = |e: io::Error| format!("its connection broke: {e}");
    stream.write_all(&request).await.map_err(broken)?;
    let (mut reader, mut buf) = (ResponseReader::new(), vec![0; 4096]);
    loop {
        let count = stream.read(&mut buf).await.map_err(broken)?;
        if count == 0 {
            return Err("it closed the connection before the end of its answer".to_owned());
        }
        let mut rest = &buf[..count];
        loop {
            let fed = reader
                .feed(rest)
                .map_err(|e| format!("its answer is garbled: {e}"))?;
            rest = &rest[fed.consumed..];
            match fed.event {
                None => break,
                Some(Answer::End(end)) if end.protocol_status == ProtocolStatus::RequestComplete => {
                    return Ok(());
                }
                Some(Answer::End(end)) => {
                    return Err(format!("it refused its request ({:?})", end.protocol_status));
                }
                Some(Answer::Stdout(_) | Answer::Stderr(_) | Answer::Values(_) | Answer::UnknownType(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use glasspool_fastcgi::ResponseWriter;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(future)
    }

    /// What the canary's end of the connection says, and what comes of it.
    fn answered(say: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<(), String> {
        let (listener, stream) = private_connection().expect("connects");
        let listener = UnixListener::from(listener);
        let canary = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection waits");
            let mut buf = [0; 4096];
            assert!(connection.read(&mut buf).expect("reads") > 0);
            say(&mut connection);
        });
        stream.set_nonblocking(true).expect("sets");
        let answer = block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream).expect("registers");
            ask(stream, request(".php")).await
        });
        canary.join().expect("says all");
        answer
    }

    #[test]
    fn only_a_complete_answer_counts() {
        let end = |status| {
            let mut writer = ResponseWriter::new();
            writer.begin(REQUEST_ID);
            writer.stdout(b"Status: 404 Not Found\r\n\r\n");
            writer.end(0, status);
            writer.pending().to_vec()
        };
        let whole = end(ProtocolStatus::RequestComplete);
        let half = whole[..whole.len() - 4].to_vec();
        assert_eq!(answered(move |c| c.write_all(&whole).expect("writes")), Ok(()));
        let refused = end(ProtocolStatus::Overloaded);
        for (bytes, reason) in [
            (half, "closed the connection"),
            (vec![], "closed the connection"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), "garbled"),
            (refused, "refused"),
        ] {
            let error = answered(move |c| c.write_all(&bytes).expect("writes")).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn nobody_else_can_connect() {
        let (listener, _stream) = private_connection().expect("connects");
        let address = UnixListener::from(listener).local_addr().expect("has one");
        let path = address.as_pathname().expect("a path");
        assert!(!path.exists() && !path.parent().expect("a folder").exists());
    }
}
