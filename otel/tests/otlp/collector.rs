//! A collector that answers what the test says, over HTTP/1.1, HTTP/2 and TLS.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// What to answer, over the transport that was asked by.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// HTTP with that status, headers and body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A gRPC message.
    Message(Vec<u8>),
    /// A gRPC status that is no success.
    Status(tonic::Status),
    /// The connection is closed instead.
    Close,
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Without the gRPC frame; as it is for HTTP.
    pub(crate) body: Bytes,
}

/// Ends when it is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    seen: mpsc::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Collector {
    /// `answer` gets the number of the request, from 0, and its path.
    pub(crate) async fn start(
        tls: Option<ServerConfig>,
        answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
    ) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let (tell, seen) = mpsc::channel(1000);
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let shared = Arc::new((answer, AtomicUsize::new(0), tell));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(request, shared.clone()));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A connection that fails is the client's to tell.
                    let served = match acceptor {
                        None => server.serve_connection(TokioIo::new(stream), service).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => return,
                        },
                    };
                    drop(served);
                });
            }
        });
        Collector { address, seen, task }
    }

    /// Everything that has come so far.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) -> Seen {
        let patience = std::time::Duration::from_secs(20);
        let next = tokio::time::timeout(patience, self.seen.recv()).await;
        next.expect("a request comes").expect("the collector runs")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared<F> = Arc<(F, AtomicUsize, mpsc::Sender<Seen>)>;

/// An answer without a connection left to send it on.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

async fn serve<F: Fn(usize, &str) -> Answer>(
    request: Request<Incoming>,
    shared: Shared<F>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Closed> {
    let (answer, count, tell) = &*shared;
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let grpc = head
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/grpc");
    if grpc {
        drop(body.split_to(5.min(body.len())));
    }
    let path = head.uri.path().to_owned();
    let answer = answer(count.fetch_add(1, Ordering::Relaxed), &path);
    let seen = Seen {
        at: Instant::now(),
        path,
        headers: head.headers,
        body,
    };
    tell.try_send(seen).map_err(|_| Closed)?;
    let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes));
    let mut response = match answer {
        Answer::Close => return Err(Closed),
        Answer::Http(status, headers, body) => {
            let mut response = Response::new(whole(body).boxed());
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                let value = HeaderValue::from_str(&value).expect("a header");
                response.headers_mut().insert(name, value);
            }
            return Ok(response);
        }
        Answer::Message(message) => {
            let mut frame = vec![0];
            let length = u32::try_from(message.len()).expect("a short message");
            frame.extend_from_slice(&length.to_be_bytes());
            frame.extend_from_slice(&message);
            let trailers = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            Response::new(whole(frame).with_trailers(async { Some(Ok(trailers)) }).boxed())
        }
        Answer::Status(status) => {
            let mut response = Response::new(whole(Vec::new()).boxed());
            *response.headers_mut() = status.into_http::<String>().headers().clone();
            response
        }
    };
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}

/// An answer that takes everything.
pub(crate) fn taken(grpc: bool) -> Answer {
    message(grpc, &())
}

/// An answer with that message.
pub(crate) fn message(grpc: bool, message: &impl Message) -> Answer {
    let bytes = message.encode_to_vec();
    if grpc {
        Answer::Message(bytes)
    } else {
        Answer::Http(200, Vec::new(), bytes)
    }
}
