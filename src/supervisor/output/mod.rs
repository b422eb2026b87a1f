//! `catch_workers_output`: what a worker's scripts print to its standard streams goes to
//! the error log, line by line, in php-fpm's form.
//!
//! A worker must never wait for its pipes: they are drained whatever the log does, which
//! itself drops and counts lines that nobody takes. How text becomes lines is in `cut`, how
//! they look in `lines`; `owner` finds out whose they are, where the log has a place for that;
//! `teller` tells the observer the same, over `wire`.

mod cut;
mod lines;
mod owner;
mod teller;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::control::OutputStream;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub(super) use self::lines::Lines;
pub(super) use self::owner::Owner;
pub(super) use self::teller::Teller;
pub(super) use self::wire::{Wire, wants_lines};
use crate::logs::Errno;

/// Bytes that are read before everything else has its turn again.
const BYTES_PER_TURN: usize = 16 * 1024;
/// Turns after which a full pipe is empty: 64 KiB, pipe(7), and one to notice it.
const PIPE_TURNS: usize = 5;
/// Turns that a dead worker's pipes get at most until its end is told. Each holds four
/// turns' worth unless somebody it left behind goes on writing.
const LAST_TURNS: usize = 16;
/// How long output waits for the start to be told. A worker that fills its pipe before
/// it is ready would wait for us, and we for it.
const HOLD: Duration = Duration::from_secs(1);

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    fn output(self) -> OutputStream {
        match self {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        }
    }
}

/// Our ends of a worker's two pipes, to be drained from its start on.
#[derive(Debug)]
pub(super) struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    /// Two pipes: ours, and the worker's standard output and error.
    pub(super) fn create() -> io::Result<(Pipes, [OwnedFd; 2])> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
        Ok((Pipes { stdout, stderr }, [to_stdout, to_stderr]))
    }

    /// Copies both to the log until the last writer has closed them, which a program
    /// that the worker leaves behind may do long after it. Begins when the start is
    /// `told`, as php-fpm does, so that the log has first what happens first. That the worker
    /// `serves` is to be notified once.
    pub(super) fn drain_into(
        self,
        lines: Lines,
        owner: Owner,
        (told, serves): (watch::Receiver<bool>, Arc<Notify>),
        teller: Teller,
    ) -> io::Result<Drain> {
        let (asked, asks) = mpsc::channel(1);
        let drained = Drained {
            stdout: Some(pipe::Receiver::from_owned_fd(self.stdout)?),
            stderr: Some(pipe::Receiver::from_owned_fd(self.stderr)?),
            lines,
            owner,
            teller,
        };
        tokio::spawn(drained.run(asks, told, serves));
        Ok(Drain(asked))
    }
}

/// Lets everybody who drains pipes go first, so that what a worker had said before a
/// signal came is in the log before what the signal leads to. Yielding to tokio's
/// scheduler lets it look at the pipes, and run those whose pipe has something.
pub(super) async fn first() {
    for _turn in 0..PIPE_TURNS {
        tokio::task::yield_now().await;
    }
}

/// A hold on pipes that are being drained; dropping it changes nothing.
#[derive(Debug)]
pub(super) struct Drain(mpsc::Sender<oneshot::Sender<()>>);

impl Drain {
    /// Waits until everything that is in the pipes now is in the log: what a worker said
    /// last comes before its end.
    pub(super) async fn catch_up(self) {
        let (done, told) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            // It may have come to the pipes' end meanwhile.
            told.await.unwrap_or_default();
        }
    }
}

#[derive(Debug)]
struct Drained {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    lines: Lines,
    owner: Owner,
    teller: Teller,
}

impl Drained {
    async fn run(
        mut self,
        mut asks: mpsc::Receiver<oneshot::Sender<()>>,
        mut told: watch::Receiver<bool>,
        serves: Arc<Notify>,
    ) {
        tokio::select! {
            () = is_told(&mut told) => {}
            () = tokio::time::sleep(HOLD) => {}
            Some(done) = asks.recv() => self.answer(done).await,
        }
        while self.stdout.is_some() || self.stderr.is_some() {
            tokio::select! {
                biased;
                () = serves.notified() => {
                    self.owner.serves();
                    self.listen(Stream::Stdout);
                    self.listen(Stream::Stderr);
                }
                () = readable(self.stdout.as_ref()) => self.take_turn(Stream::Stdout),
                () = readable(self.stderr.as_ref()) => self.take_turn(Stream::Stderr),
                Some(done) = asks.recv() => self.answer(done).await,
            }
            tokio::task::yield_now().await;
        }
    }

    /// The worker has ended: what it has said comes first.
    async fn answer(&mut self, done: oneshot::Sender<()>) {
        self.empty().await;
        // Whoever asked may not be interested any more.
        done.send(()).unwrap_or_default();
    }

    fn take_turn(&mut self, stream: Stream) {
        // Without anything to read it was woken for nothing, which happens.
        let _was_there_anything = self.read(stream);
        self.listen(stream);
    }

    fn listen(&mut self, stream: Stream) {
        if !self.lines.log.names_requests() {
            return;
        }
        let pipe = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        if let Some(pipe) = pipe {
            self.owner.listen(stream, pipe);
        }
    }

    /// Reads until there is nothing more right now.
    async fn empty(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _turn in 0..LAST_TURNS {
                if !self.read(stream) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        self.lines.end();
        self.teller.end();
    }

    /// Reads once; false if there was nothing. The buffer does not live as long as the
    /// worker does.
    fn read(&mut self, stream: Stream) -> bool {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut buffer = [0; BYTES_PER_TURN];
        match pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer)) {
            None => false,
            Some(Ok(0)) => {
                *pipe = None;
                self.lines.close(stream);
                false
            }
            Some(Ok(count)) => {
                let bytes = &buffer[..count];
                let (before, matched) = self.teller.marks();
                self.teller.take(stream.output(), bytes);
                if self.lines.log.names_requests() {
                    let in_step = self.lines.is_in_step(matched).then_some(before);
                    let (marks, _) = self.teller.marks();
                    let mut writers = self.owner.writers(stream, pipe.as_ref(), in_step, marks);
                    self.lines.take(stream, bytes, |marks| writers.of(marks));
                } else {
                    self.lines.take(stream, bytes, |_| None);
                }
                true
            }
            Some(Err(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                false
            }
            Some(Err(e)) => {
                *pipe = None;
                self.lines.close(stream);
                self.lines.log.error(format_args!(
                    "unable to read what child {} said into {}: {}",
                    self.lines.pid,
                    stream.name(),
                    Errno(&e)
                ));
                false
            }
        }
    }
}

/// Waits until the start is told, or nobody is there to tell it.
async fn is_told(told: &mut watch::Receiver<bool>) {
    told.wait_for(|told| *told).await.map(drop).unwrap_or_default();
}

/// Waits until the pipe has something or is broken, which reading it tells.
async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        Some(pipe) => pipe.readable().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
