//! One client: connects, asks, checks the answer.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use glasspool_fastcgi::ProtocolStatus;
use glasspool_fastcgi::client::{Event, ResponseReader};
use memchr::memmem::Finder;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::{Address, connect};

/// Largest answer that is kept to be checked; a longer one is wrong.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// How much of a wrong answer is quoted.
const QUOTED_BYTES: usize = 200;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    Connect(String),
    Broken(String),
    Wrong(String),
    Late,
}

/// What all clients share.
pub(super) struct Shared<'a> {
    pub(super) address: &'a Address,
    pub(super) keep: bool,
    /// The encoded request.
    pub(super) request: &'a [u8],
    pub(super) expect: Finder<'a>,
    pub(super) epoll: OwnedFd,
    /// Where reads go.
    pub(super) input: Vec<u8>,
    /// Connections so far.
    pub(super) turn: u64,
    /// Requests written so far.
    pub(super) sent: u64,
}

/// A client between, or in, requests.
#[derive(Debug)]
pub(super) struct Client {
    /// What epoll calls it.
    index: u64,
    connection: Option<Connection>,
    stage: Stage,
    started: Instant,
    answer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    reader: ResponseReader,
}

/// Where its request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None is under way.
    Idle,
    /// connect(2) is.
    Connecting,
    /// So many bytes are written.
    Sending(usize),
    /// The answer is awaited.
    Receiving,
}

impl Client {
    pub(super) fn new(index: u64) -> Self {
        Self {
            index,
            connection: None,
            stage: Stage::Idle,
            started: Instant::now(),
            answer: Vec::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// When its request was started.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The answer to the last request.
    pub(super) fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Starts a request.
    pub(super) fn ask(&mut self, shared: &mut Shared<'_>) -> Result<(), Failure> {
        self.answer.clear();
        self.started = Instant::now();
        let done = match &self.connection {
            Some(_) => self.send(shared, 0),
            None => self.connect(shared),
        };
        done.inspect_err(|_| self.give_up())
    }

    /// Something happened on its socket: `Some` time when the answer is complete and right.
    pub(super) fn on_ready(&mut self, shared: &mut Shared<'_>) -> Result<Option<Duration>, Failure> {
        let step = match self.stage {
            // A kept connection was closed while nobody used it; the next request makes a new one.
            Stage::Idle => {
                self.connection = None;
                Ok(None)
            }
            Stage::Connecting => self.connected(shared).map(|()| None),
            Stage::Sending(sent) => self.send(shared, sent).map(|()| None),
            Stage::Receiving => self.receive(shared),
        };
        step.inspect_err(|_| self.give_up())
    }

    /// Drops the request and its connection.
    pub(super) fn give_up(&mut self) {
        self.connection = None;
        self.stage = Stage::Idle;
    }

    fn connect(&mut self, shared: &mut Shared<'_>) -> Result<(), Failure> {
        let failed = |e: Errno| Failure::Connect(format!("connect: {e}"));
        let started = connect::start(shared.address, shared.turn).map_err(failed)?;
        shared.turn += 1;
        let wanted = if started.connected {
            EventFlags::IN
        } else {
            EventFlags::OUT
        };
        epoll::add(
            &shared.epoll,
            &started.socket,
            EventData::new_u64(self.index),
            wanted,
        )
        .map_err(failed)?;
        self.connection = Some(Connection {
            socket: started.socket,
            reader: ResponseReader::new(),
        });
        if started.connected {
            return self.send(shared, 0);
        }
        self.stage = Stage::Connecting;
        Ok(())
    }

    fn connected(&mut self, shared: &mut Shared<'_>) -> Result<(), Failure> {
        let connection = self.connection.as_ref().expect("this stage has a connection");
        let failed = |e: Errno| Failure::Connect(format!("connect: {e}"));
        sockopt::socket_error(&connection.socket)
            .and_then(|outcome| outcome)
            .map_err(failed)?;
        self.want(shared, EventFlags::IN)?;
        self.send(shared, 0)
    }

    fn send(&mut self, shared: &mut Shared<'_>, mut sent: usize) -> Result<(), Failure> {
        let connection = self.connection.as_ref().expect("this stage has a connection");
        if sent == 0 {
            shared.sent += 1;
        }
        while sent < shared.request.len() {
            match send(&connection.socket, &shared.request[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.stage = Stage::Sending(sent);
                    return self.want(shared, EventFlags::OUT);
                }
                Err(e) => return Err(Failure::Broken(format!("write: {e}"))),
            }
        }
        if let Stage::Sending(_) = self.stage {
            self.want(shared, EventFlags::IN)?;
        }
        self.stage = Stage::Receiving;
        Ok(())
    }

    fn receive(&mut self, shared: &mut Shared<'_>) -> Result<Option<Duration>, Failure> {
        let connection = self.connection.as_mut().expect("this stage has a connection");
        let broken = |text: String| Failure::Broken(text);
        let count = match recv(connection.socket.as_fd(), &mut *shared.input, RecvFlags::empty()) {
            Ok((0, _)) => return Err(broken("closed before the answer was complete".to_owned())),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(e) => return Err(broken(format!("read: {e}"))),
        };
        let mut rest = &shared.input[..count];
        loop {
            let fed = connection.reader.feed(rest).map_err(|e| broken(e.to_string()))?;
            match fed.event {
                None => return Ok(None),
                Some(Event::Stdout(range)) => {
                    if self.answer.len() + range.len() > MAX_ANSWER_BYTES {
                        return Err(Failure::Wrong(format!("answer above {MAX_ANSWER_BYTES} bytes")));
                    }
                    self.answer.extend_from_slice(&rest[range]);
                }
                // PHP's messages; the check of the text tells whether they matter.
                Some(Event::Stderr(_) | Event::Values(_) | Event::UnknownType(_)) => {}
                Some(Event::End(end)) => {
                    let elapsed = self.started.elapsed();
                    let surplus = rest.len() - fed.consumed;
                    let good = end.protocol_status == ProtocolStatus::RequestComplete
                        && surplus == 0
                        && shared.expect.find(&self.answer).is_some();
                    if !good {
                        let quoted = &self.answer[..self.answer.len().min(QUOTED_BYTES)];
                        let text = String::from_utf8_lossy(quoted);
                        return Err(Failure::Wrong(format!(
                            "{end:?}, {surplus} bytes behind it, answer {text:?}"
                        )));
                    }
                    self.stage = Stage::Idle;
                    if !shared.keep {
                        self.connection = None;
                    }
                    return Ok(Some(elapsed));
                }
            }
            rest = &rest[fed.consumed..];
        }
    }

    fn want(&self, shared: &Shared<'_>, flags: EventFlags) -> Result<(), Failure> {
        let connection = self.connection.as_ref().expect("this stage has a connection");
        epoll::modify(
            &shared.epoll,
            &connection.socket,
            EventData::new_u64(self.index),
            flags,
        )
        .map_err(|e| Failure::Broken(format!("epoll_ctl: {e}")))
    }
}
