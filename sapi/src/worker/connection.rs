//! One accepted connection: bytes in, FastCGI events out, with time limits.
//!
//! The fast path is one `recv` for a whole small request. A peer that stops half-way
//! costs its connection after a time limit, not the worker for ever.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use glasspool_fastcgi::{Event, Limits, ProtocolError, RequestReader};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// One read takes a whole request with its parameters and a form.
const INPUT_BYTES: usize = 64 * 1024;
/// Memory for parameters that is kept for the next connection.
const KEPT_BYTES: usize = 64 * 1024;
/// How long a connection may stay silent before its first byte, as in php-fpm.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(5);
/// How long a peer may pause within the head of a request.
pub(crate) const HEAD_PAUSE: Duration = Duration::from_secs(30);
/// How long a peer may pause within a body: twice nginx's own limit for its client.
const BODY_PAUSE: Duration = Duration::from_secs(120);
/// How long is waited, at the end, for a peer to send what nobody read.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away at most while lingering.
const LINGER_BYTES: usize = 64 << 20;

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The peer closed it, or the socket broke.
    Closed,
    /// The peer sent nothing for too long.
    Silent(Duration),
    /// A signal came while waiting.
    Interrupted,
    /// The peer does not speak FastCGI.
    Protocol(ProtocolError),
}

/// A connection and what has been read from it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Option<OwnedFd>,
    pub(crate) reader: RequestReader,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// Body bytes in `input` that PHP has not taken yet.
    body: std::ops::Range<usize>,
    replies: Vec<u8>,
}

impl Connection {
    pub(crate) fn new() -> Connection {
        Connection {
            socket: None,
            reader: RequestReader::new(Limits::default()),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            body: 0..0,
            replies: Vec::new(),
        }
    }

    /// Begins anew with an accepted socket; buffers are kept.
    pub(crate) fn open(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        if self.reader.capacity_bytes() > KEPT_BYTES {
            self.reader = RequestReader::new(Limits::default());
        }
        self.reader.restart();
        (self.start, self.end, self.body) = (0, 0, 0..0);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn raw_socket(&self) -> Option<i32> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Whether nothing of a next request has arrived yet.
    pub(crate) fn is_quiet(&self) -> bool {
        self.start == self.end && self.reader.is_idle()
    }

    /// Gets ready for the next request on a kept connection.
    pub(crate) fn next_request(&mut self) {
        self.body = 0..0;
        self.reader.next_request();
    }

    /// The next event of what has been read so far; `None` if more must be read.
    /// Answers to management records are sent on the way.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Event>, Failure> {
        while self.start < self.end {
            let base = self.start;
            let fed = self
                .reader
                .feed(&self.input[self.start..self.end], &mut self.replies)
                .map_err(Failure::Protocol)?;
            self.start += fed.consumed;
            if !self.replies.is_empty() {
                let replies = std::mem::take(&mut self.replies);
                let sent = self.send(&replies);
                self.replies = replies;
                self.replies.clear();
                sent?;
            }
            match fed.event {
                Some(Event::Stdin(range)) => {
                    return Ok(Some(Event::Stdin(base + range.start..base + range.end)));
                }
                Some(event) => return Ok(Some(event)),
                None if fed.consumed == 0 => break,
                None => {}
            }
        }
        if self.reader.close_after_replies() && self.reader.is_idle() {
            return Err(Failure::Closed);
        }
        Ok(None)
    }

    /// Reads more, waiting at most `pause` (or for ever). Must not be called while
    /// body bytes are still in the buffer.
    pub(crate) fn fill(&mut self, pause: Option<Duration>) -> Result<(), Failure> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let socket = self.socket.as_ref().ok_or(Failure::Closed)?;
        loop {
            match rustix::net::recv(socket, &mut self.input[self.end..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Failure::Closed),
                Ok((count, _)) => {
                    self.end += count;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !wait_readable(socket.as_fd(), pause)? {
                        return Err(Failure::Silent(pause.unwrap_or_default()));
                    }
                }
                Err(_) => return Err(Failure::Closed),
            }
        }
    }

    /// Copies body bytes into `buffer`, reading as needed; 0 at the end of the body.
    pub(crate) fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            if !self.body.is_empty() {
                let count = buffer.len().min(self.body.len());
                let from = self.body.start;
                buffer[..count].copy_from_slice(&self.input[from..from + count]);
                self.body.start += count;
                return Ok(count);
            }
            match self.next_buffered()? {
                Some(Event::Stdin(range)) => self.body = range,
                Some(Event::StdinEnd) => return Ok(0),
                Some(Event::Aborted) => return Err(Failure::Closed),
                Some(Event::Request) => return Ok(0),
                None if self.reader.stdin_done() => return Ok(0),
                None => match self.fill(Some(BODY_PAUSE)) {
                    Err(Failure::Interrupted) => {}
                    other => other?,
                },
            }
        }
    }

    /// Sends everything, waiting for the peer as long as it takes.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let socket = self.socket.as_ref().ok_or(Failure::Closed)?;
        while !bytes.is_empty() {
            match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(_) => {
                    return Err(Failure::Closed);
                }
            }
        }
        Ok(())
    }

    /// Closes the connection. What the peer sent and nobody read would make TCP
    /// answer with a reset, which can overtake the response: then it is read first.
    pub(crate) fn close(&mut self) {
        if self.socket.is_some() && !self.has_read_everything() {
            self.drain();
        }
        self.socket = None;
    }

    /// Whether the peer has said all it had to say, as far as can be told without a
    /// system call: usually the end of the body came in the same read as its head.
    fn has_read_everything(&mut self) -> bool {
        while let Ok(Some(_)) = self.next_buffered() {}
        self.start == self.end && (self.reader.stdin_done() || self.reader.is_idle())
    }

    fn drain(&mut self) {
        let Some(socket) = &self.socket else { return };
        if rustix::net::shutdown(socket, Shutdown::Write).is_err() {
            return;
        }
        let mut thrown_away = 0;
        self.start = 0;
        while thrown_away < LINGER_BYTES {
            match rustix::net::recv(socket, &mut self.input[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return,
                Ok((count, _)) => thrown_away += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match wait_readable(socket.as_fd(), Some(LINGER)) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return,
                },
                Err(_) => return,
            }
        }
    }
}

/// Waits until the socket can be read; false when `pause` has passed first.
fn wait_readable(socket: BorrowedFd<'_>, pause: Option<Duration>) -> Result<bool, Failure> {
    let pause = pause.and_then(|p| Timespec::try_from(p).ok());
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    match rustix::event::poll(&mut fds, pause.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Err(Failure::Interrupted),
        Err(_) => Err(Failure::Closed),
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Closed => f.write_str("the peer closed the connection within a request"),
            Failure::Silent(pause) => {
                write!(
                    f,
                    "the peer sent nothing for {} s within a request",
                    pause.as_secs()
                )
            }
            Failure::Interrupted => f.write_str("interrupted by a signal"),
            Failure::Protocol(e) => e.fmt(f),
        }
    }
}

/// Waits a little, or until a signal comes.
pub(crate) fn pause_after_error() {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    // Interrupted is as good as over.
    let _over = rustix::event::poll(&mut [], Some(&pause));
}
