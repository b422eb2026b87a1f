//! The HTTP front of `glasspool serve DIR`: HTTP/1.1 in, files and FastCGI out, for development.
//!
//! It serves one document root the way the usual nginx block does (`try_files $uri $uri/ /index.php?$args`):
//! static files, `.php` scripts, and the front controller for the rest. Files that begin with a dot and PHP
//! source are never sent. Start reading at [`run`]; `route` decides what a path means, `params` makes the CGI
//! variables, `upstream` speaks to PHP, `head` reads PHP's response head.
//!
//! Deliberately not here: TLS, HTTP/2, virtual hosts, rewriting, compression, caching, access logs. Put a web
//! server in front of the pool for those.
//!
//! What a client can take is bounded: [`MAX_CONNECTIONS`] at a time, heads of [`MAX_HEAD_BYTES`] that must
//! arrive in [`HEAD_TIME`], bodies streamed (or, when their length is not known, spooled to a file of at most
//! [`request_body::MAX_SPOOL_BYTES`]) with at most [`BODY_PAUSE`] of silence. Two things are not: how long PHP
//! may take, because a request that hangs is what Glasspool is there to show; and how slowly a client may read
//! its answer, which holds a worker meanwhile (a web server in front buffers).

mod head;
mod params;
mod reply;
mod request_body;
mod route;
mod service;
mod stderr_lines;
mod upstream;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use service::Site;

/// Connections served at the same time; more wait in the listen backlog.
const MAX_CONNECTIONS: usize = 256;
/// Most bytes of a request head. It must fit into FastCGI parameters as well.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most header lines in a request head.
const MAX_HEADERS: usize = 128;
/// How long a request head may take to arrive, counted also while a kept-alive connection is idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Longest silence inside a request body.
const BODY_PAUSE: Duration = Duration::from_secs(60);
/// How long requests in flight may go on after shutdown was asked for.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// Pause after accept(2) failed for want of descriptors or memory: trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What to serve, and who runs the PHP.
#[derive(Debug, Clone)]
pub struct FrontOptions {
    /// Document root: an existing directory, made absolute by [`run`].
    pub root: PathBuf,
    /// Unix socket of the FastCGI pool. It need not exist yet; a request that cannot connect gets 502.
    pub fastcgi: PathBuf,
}

/// The front could not start.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The document root does not exist, or is not readable for us.
    #[error("cannot serve {}: realpath failed (does the directory exist?)", path.display())]
    Root {
        /// As it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The document root is something else, a file perhaps.
    #[error("cannot serve {}: it is not a directory (name the directory that has the index.php)", path.display())]
    NotADirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// The listening socket could not be handed to the event loop.
    #[error("cannot listen with the socket that was handed over")]
    Listener {
        /// Why.
        source: io::Error,
    },
}

/// Serves until `shutdown` is ready; then stops accepting, gives requests in flight a few seconds, closes what
/// is left, and returns. Needs a tokio runtime with time and I/O; one thread suffices.
///
/// # Errors
/// [`FrontError`], before the first connection is accepted. After that, trouble with one connection is logged
/// and costs that connection only.
pub async fn run(
    listener: std::net::TcpListener,
    options: FrontOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), FrontError> {
    let site = Arc::new(open_site(options)?);
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .map_err(|source| FrontError::Listener { source })?;

    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    // Owns the connections: dropped at the end, it cuts those that have outlived the drain.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, permit) = accept(&listener, &permits) => {
                connections.spawn(serve(stream, permit, Arc::clone(&site), graceful.watcher()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    if timeout(DRAIN_TIME, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests in flight were cut at shutdown"
        );
    }
    connections.shutdown().await;
    Ok(())
}

fn open_site(options: FrontOptions) -> Result<Site, FrontError> {
    let FrontOptions { root: path, fastcgi } = options;
    match path.canonicalize() {
        Ok(root) if root.is_dir() => Ok(Site { root, fastcgi }),
        Ok(_) => Err(FrontError::NotADirectory { path }),
        Err(source) => Err(FrontError::Root { path, source }),
    }
}

/// Waits for a free place, then for a connection.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves the requests of one connection, one after the other.
async fn serve(stream: TcpStream, permit: OwnedSemaphorePermit, site: Arc<Site>, watcher: Watcher) {
    let _permit = permit;
    let addresses = stream
        .local_addr()
        .and_then(|server| Ok((server, stream.peer_addr()?)));
    let Ok((server, client)) = addresses else { return }; // The client has gone again.
    // Small responses leave at once; without this the last part of one waits for a delayed ACK.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let connection = params::Connection { server, client };
    let service = hyper::service::service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, std::convert::Infallible>(site.answer(request, connection).await) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(http).await {
        tracing::debug!(%client, %error, "connection ended early");
    }
}
