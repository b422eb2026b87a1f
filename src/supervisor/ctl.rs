//! The control socket: whoever may signal us may also ask for a reload here, and hears
//! how it goes, which a signal cannot tell.
//!
//! An abstract unix socket, `glasspool-ctl-PID`, of packets. The other side sends one
//! request; the answer to `reload` is any number of lines of progress and then `ok` or
//! `failed: …`, that to `status` is one line, that to `trace ORDER` the rules that are asked
//! for and then `ok` or `failed: …`; then the connection closes. `tail QUESTION`
//! is answered by the observer, which gets the connection and the question as they are.
//! Only root and our own user are answered. Nothing here makes the run loop wait.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::Pid;
use glasspool_abi::control::MAX_QUESTION_BYTES;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};

use super::own_pid;
use super::reload::{Caller, Order};
use super::run::{Event, Supervisor};
use super::scoreboard::Figures;
use crate::{raise, readiness};

/// Connections at a time; further ones wait.
const MOST: usize = 16;
/// Longest wait for a request, and for a reader to take a line.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines that wait for a reader; more are left out.
const LINES: usize = 64;
/// What stands before the question of a reader.
const TAIL: &[u8] = b"tail ";
/// Longest request in bytes.
const LONGEST: usize = TAIL.len() + MAX_QUESTION_BYTES;
/// After a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What somebody wants.
#[derive(Debug)]
pub(super) enum Request {
    /// A reload, and how it goes.
    Reload(Caller),
    /// One line about now.
    Status(Caller),
    /// Rules of sampling for a time.
    Raise(raise::Order, Caller),
    /// Everything that happens, from the observer.
    Tail { question: Vec<u8>, connection: OwnedFd },
}

/// Name of the socket of that supervisor.
fn address(pid: Pid) -> io::Result<SocketAddrUnix> {
    // Not the path of a file: the first byte of the address is zero.
    let name = format!("glasspool-ctl-{pid}");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let name = address.as_abstract_name().unwrap_or_default();
    Ok(SocketAddrUnix::new_abstract_name(name)?)
}

/// Starts to listen, for as long as the runtime lives.
///
/// # Errors
/// When the name is taken, which only somebody who wants to be in the way does.
pub(super) fn listen(events: mpsc::Sender<Event>) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &address(own_pid())?)?;
    rustix::net::listen(&socket, 16)?;
    let socket = readiness::ready(socket, Interest::READABLE)?;
    tokio::spawn(accept(socket, events));
    Ok(())
}

async fn accept(socket: AsyncFd<OwnedFd>, events: mpsc::Sender<Event>) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok(mut guard) = socket.readable().await else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(socket.get_ref(), flags) {
            Ok(connection) => {
                let events = events.clone();
                tokio::spawn(async move {
                    // Whoever leaves early, or never asks, has no answer to wait for.
                    let _ended = serve(connection, events).await;
                    drop(place);
                });
            }
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve(connection: OwnedFd, events: mpsc::Sender<Event>) -> io::Result<()> {
    let peer = sockopt::socket_peercred(&connection)?.uid;
    let is_allowed = peer.is_root() || peer == rustix::process::geteuid();
    let connection = readiness::ready(connection, Interest::READABLE | Interest::WRITABLE)?;
    if !is_allowed {
        return say(
            &connection,
            "failed: only root and the supervisor's own user may ask",
        )
        .await;
    }
    let request = tokio::time::timeout(PATIENCE, hear(&connection)).await??;
    if let Some(question) = request.strip_prefix(TAIL) {
        let (question, connection) = (question.to_vec(), connection.into_inner());
        let request = Request::Tail { question, connection };
        return events
            .send(Event::Control(request))
            .await
            .map_err(io::Error::other);
    }
    let (caller, mut lines) = mpsc::channel(LINES);
    let request = match request.as_slice() {
        b"reload" => Request::Reload(caller),
        b"status" => Request::Status(caller),
        other => match other.strip_prefix(raise::PREFIX).map(serde_json::from_slice) {
            Some(Ok(order)) => Request::Raise(order, caller),
            Some(Err(why)) => return say(&connection, &format!("failed: no order to trace: {why}")).await,
            None => {
                return say(
                    &connection,
                    "failed: known requests are reload, status, tail and trace",
                )
                .await;
            }
        },
    };
    events
        .send(Event::Control(request))
        .await
        .map_err(io::Error::other)?;
    while let Some(line) = lines.recv().await {
        say(&connection, &line).await?;
    }
    Ok(())
}

async fn hear(connection: &AsyncFd<OwnedFd>) -> io::Result<Vec<u8>> {
    // One byte more, so that a longer one is not taken for its beginning.
    let mut packet = vec![0; LONGEST + 1];
    loop {
        let mut guard = connection.readable().await?;
        match rustix::net::recv(connection.get_ref(), &mut packet[..], RecvFlags::empty()) {
            Ok((count, _)) => {
                packet.truncate(count);
                return Ok(packet);
            }
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(e) => return Err(e.into()),
        }
    }
}

async fn say(connection: &AsyncFd<OwnedFd>, line: &str) -> io::Result<()> {
    let said = async {
        loop {
            let mut guard = connection.writable().await?;
            match rustix::net::send(connection.get_ref(), line.as_bytes(), SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(e) => return Err(io::Error::from(e)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, said).await?
}

impl Supervisor {
    /// Somebody wants something over the control socket.
    pub(super) fn on_control(&mut self, request: Request) {
        match request {
            Request::Reload(caller) => {
                self.log.notice("a reload is asked for over the control socket");
                self.ask_reload(Order::All, Some(caller));
            }
            // Its queue is new and empty; if it has gone, there is nobody to tell.
            Request::Status(caller) => caller.try_send(self.status_line()).unwrap_or_default(),
            Request::Raise(order, caller) => self.on_raise(order, &caller),
            Request::Tail { question, connection } => {
                if let Err(connection) = self.observer.pass_reader(question, connection, &self.log) {
                    let answer = b"failed: no observer runs at the moment; try again in a second";
                    // The socket's buffer is empty; if the reader has gone, nobody is to be told.
                    let _gone =
                        rustix::net::send(&connection, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                }
            }
        }
    }

    fn status_line(&self) -> String {
        let sum = Figures::sum(self.pools.values().map(|pool| &pool.management.figures));
        let state = match self.phase.name() {
            "normal" if self.reloading.is_under_way() => "reloading",
            name => name,
        };
        format!(
            "{state}, pools: {}, workers: {}, active: {}, idle: {}, requests: {}, slow: {}",
            self.pools.len(),
            self.workers.len(),
            sum.active,
            sum.idle,
            sum.requests,
            sum.slow
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks like the command does, and returns everything that is answered.
    fn ask(request: &[u8]) -> Vec<String> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.expect("a socket");
        rustix::net::connect(&socket, &address(own_pid()).expect("short")).expect("connects");
        rustix::net::send(&socket, request, SendFlags::empty()).expect("sends");
        let mut answers = Vec::new();
        loop {
            let mut packet = [0; 4096];
            match rustix::net::recv(&socket, &mut packet, RecvFlags::empty()).expect("receives") {
                (0, _) => return answers,
                (count, _) => answers.push(String::from_utf8_lossy(&packet[..count]).into_owned()),
            }
        }
    }

    #[test]
    fn what_is_asked_is_answered_until_nothing_more_comes() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (events, mut inbox) = mpsc::channel(4);
            listen(events).expect("listens");
            let client = tokio::task::spawn_blocking(|| ask(b"reload"));
            let Some(Event::Control(Request::Reload(caller))) = inbox.recv().await else {
                panic!("no reload was asked for")
            };
            for line in ["starting PHP", "ok"] {
                caller.try_send(line.to_owned()).expect("has room");
            }
            drop(caller);
            assert_eq!(client.await.expect("answers"), ["starting PHP", "ok"]);
            let nonsense = [b"shutdown".to_vec(), vec![b'x'; 60_000], b"reload\n".to_vec()];
            for request in nonsense {
                let answer = tokio::task::spawn_blocking(move || ask(&request)).await;
                let answer = answer.expect("answers");
                assert!(answer[0].starts_with("failed: "), "{answer:?}");
            }
            assert!(inbox.try_recv().is_err());
        });
    }
}
