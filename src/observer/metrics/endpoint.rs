//! `GET /metrics`, for Prometheus and whoever reads its formats.
//!
//! Whoever can connect is a stranger. All of it is bounded: connections and their pace, the
//! request's head, the time for everything. When all places are taken the oldest connection
//! makes room, so that those who keep theirs without asking keep nobody out. Each connection
//! is for one request.
//!
//! Figures are not read here: the observer's loop answers a [`Question`] with them when it
//! comes to it, and a page is written once for all who ask at about the same time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use glasspool_otel::metrics::prometheus::Format;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::AddressFamily;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::scrape::Scrape;

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// Time for a connection, from its first byte to its last.
const TIME: Duration = Duration::from_secs(10);
/// Time for the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Longest head; hyper wants no less.
const HEAD_BYTES: usize = 8 * 1024;
const HEADERS: usize = 64;
/// Between two connections, so that a flood of them is 200 a second.
const PACE: Duration = Duration::from_millis(5);
/// When no connection can be taken, as without a free descriptor.
const PAUSE: Duration = Duration::from_secs(1);

/// Somebody who wants the figures of now.
pub(in crate::observer) type Question = oneshot::Sender<Arc<Scrape>>;
type Reply = Response<Full<Bytes>>;

/// Serves until it is dropped; who connects after that waits for another.
#[derive(Debug)]
pub(in crate::observer) struct Endpoint(AbortHandle);

impl Endpoint {
    /// On a socket that listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be waited on.
    pub(in crate::observer) fn start(socket: OwnedFd) -> io::Result<(Endpoint, mpsc::Receiver<Question>)> {
        let (ask, questions) = mpsc::channel(CONNECTIONS);
        let listener = Listener::new(socket)?;
        let task = tokio::spawn(listen(listener, ask));
        Ok((Endpoint(task.abort_handle()), questions))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: OwnedFd) -> io::Result<Listener> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let address = rustix::net::getsockname(&socket)?;
        Ok(if address.address_family() == AddressFamily::UNIX {
            Listener::Unix(UnixListener::from_std(socket.into())?)
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into())?)
        })
    }

    /// Takes a connection and gives it to a task of its own.
    async fn accept(
        &self,
        connections: &mut JoinSet<()>,
        ask: &mpsc::Sender<Question>,
    ) -> io::Result<AbortHandle> {
        let ask = ask.clone();
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, _peer) = listener.accept().await?;
                connections.spawn(serve(stream, ask))
            }
            Listener::Unix(listener) => {
                let (stream, _peer) = listener.accept().await?;
                connections.spawn(serve(stream, ask))
            }
        })
    }
}

async fn listen(listener: Listener, ask: mpsc::Sender<Question>) {
    // Owns the connections: they end with this task.
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept(&mut connections, &ask).await {
            Ok(connection) => {
                while connections.try_join_next().is_some() {}
                open.retain(|connection| !connection.is_finished());
                open.push_back(connection);
                if open.len() > CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                sleep(PACE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection for metrics; trying again");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, ask: mpsc::Sender<Question>) {
    let service = service_fn(|request| {
        let ask = ask.clone();
        async move { Ok::<_, Infallible>(answer(&request, &ask).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(TIME, http).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics ended early"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

async fn answer(request: &Request<Incoming>, ask: &mpsc::Sender<Question>) -> Reply {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let accept = request.headers().get_all(ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(&accept.join(","));
    let (question, answer) = oneshot::channel();
    let scrape = match ask.try_send(question) {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    let Some(scrape) = scrape else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the observer is busy or ends\n");
    };
    let mut reply = Response::new(Full::new(scrape.page(format)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    reply
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::from(text));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, plain);
    reply
}

#[cfg(test)]
mod tests;
