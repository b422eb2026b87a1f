//! The front as a whole: real sockets, with stock PHP behind it (`php`), or with a scripted FastCGI peer that
//! does what PHP never would (`exchange`).

mod backend;
mod exchange;
mod php;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{FrontError, FrontOptions, run};

/// Far more than anything here takes; it turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running front.
struct Front {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), FrontError>>,
}

impl Front {
    fn start(root: &Path, fastcgi: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let options = FrontOptions {
            root: root.to_owned(),
            fastcgi,
        };
        let running = tokio::spawn(run(listener, options, async {
            stopped.await.unwrap_or_default()
        }));
        Self {
            address,
            stop,
            running,
        }
    }

    /// Sends one request on a connection of its own, and receives the whole response.
    async fn send<B>(&self, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.try_send(request).await.expect("the response is whole")
    }

    /// As [`Front::send`]; fails if the response is cut.
    async fn try_send<B>(&self, mut request: Request<B>) -> Result<Response<Bytes>, hyper::Error>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", "site.test".parse().unwrap());
        }
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            connection.abort();
            Ok(Response::from_parts(parts, body))
        };
        timeout(PATIENCE, exchange).await.expect("the front answers")
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.send(Request::get(path).body(empty()).unwrap()).await
    }

    /// Asks the front to stop, and waits until it has.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.running)
            .await
            .expect("the front stops")
            .unwrap()
            .unwrap();
    }
}

fn empty() -> Full<Bytes> {
    Full::default()
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).expect("the body is UTF-8")
}
