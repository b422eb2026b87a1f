//! OTLP, with our own hands above HTTP/2 and HTTP/1.1: only so is it known what a collector
//! rejected in an answer that says success, which signals it does not take, and how long it
//! wants to be left alone.
//!
//! Encoding is `opentelemetry-proto`'s, but for spans (`encode.rs`), the calls are tonic's and hyper's, TLS is rustls'.
//! Ours is what to make of the answers (`answer.rs`) and when to try again (`retry.rs`).

mod answer;
mod client;
mod encode;
mod limits;
mod retry;
mod signals;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::encode::EncodedSpan;
pub(crate) use self::signals::{EncodedSpans, Logs, Metrics, Spans};
pub use self::tls::TlsError;
use self::{answer::Answer, client::Client, retry::Backoff};
use super::lane::{Failure, Sent, Sink};
use crate::options::OtlpTarget;

/// Longest rest that a collector can ask for.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Why a [`super::Pipeline`] cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// [`super::Pipeline::new`] was called outside a tokio runtime.
    #[error("cannot start the exporters outside a tokio runtime")]
    NoRuntime,
    /// An exporter writes to what is not there.
    #[error("cannot write to {target}: there is none (name it as [otel] file in glasspool.toml)")]
    NoOutput {
        /// Where to.
        target: &'static str,
    },
    /// TLS is wanted and cannot be had.
    #[error("cannot export to {endpoint}")]
    Tls {
        /// As configured.
        endpoint: String,
        /// Why.
        source: Box<TlsError>,
    },
    /// The endpoint is not an address.
    #[error(
        "cannot export to {endpoint:?}: not an http address (write it as http://HOST:PORT or https://HOST:PORT)"
    )]
    Endpoint {
        /// As configured.
        endpoint: String,
    },
    /// A header that cannot be sent.
    #[error("cannot export to {endpoint}: header {name:?} has a name or value that HTTP does not allow")]
    Header {
        /// As configured.
        endpoint: String,
        /// The header's name; its value may be a secret.
        name: String,
    },
}

/// What is different from signal to signal.
pub(crate) trait Signal: Send + Sync + 'static {
    /// What is sent.
    type Item: Send;

    /// What was in the last request has been taken.
    fn taken(&self) {}
}

/// A signal as messages, for who writes them otherwise than as protobuf.
pub(crate) trait Messages: Signal {
    /// The request that carries it.
    type Request: Message + serde::Serialize;

    /// The request for a batch.
    fn request(&self, batch: Vec<Self::Item>) -> Self::Request;
}

/// A signal as it is sent.
pub(crate) trait Protobuf: Signal {
    /// Path of the gRPC method.
    const GRPC_PATH: &'static str;
    /// Whether there are collectors that do without it.
    const OPTIONAL: bool;

    /// The request for a batch.
    fn encode(&self, batch: Vec<Self::Item>) -> Vec<u8>;
    /// What a collector that took a request says of it.
    fn read(&self, answer: Bytes) -> Sent;
}

/// Sends one signal to one collector.
pub(crate) struct Otlp<S> {
    signal: S,
    client: Client,
    timeout: Duration,
}

impl<S: Protobuf> Otlp<S> {
    pub(crate) fn new(signal: S, target: &OtlpTarget) -> Result<Otlp<S>, PipelineError> {
        Ok(Otlp {
            signal,
            client: Client::new(target, S::GRPC_PATH)?,
            timeout: target.timeout,
        })
    }
}

impl<S: Protobuf> Sink<S::Item> for Otlp<S> {
    async fn send(&self, batch: Vec<S::Item>) -> Result<Sent, Failure> {
        let body = self.client.pack(self.signal.encode(batch));
        match deliver(&self.client, body, self.timeout).await {
            Ok(answer) => {
                self.signal.taken();
                Ok(self.signal.read(answer))
            }
            Err(failure) => Err(Failure {
                unsupported: failure.unsupported && S::OPTIONAL,
                ..failure
            }),
        }
    }
}

/// Sends until the data are taken or refused, or the time is over.
async fn deliver(client: &Client, body: Bytes, within: Duration) -> Result<Bytes, Failure> {
    let deadline = Instant::now() + within;
    let mut backoff = Backoff::default();
    let mut last = None;
    loop {
        let answer = match timeout_at(deadline, client.send(body.clone())).await {
            Ok(answer) => answer,
            Err(_) => {
                let before = last.map_or_else(String::new, |reason| format!(" (before that: {reason})"));
                return Err(Failure::new(format!("no answer within {within:?}{before}")));
            }
        };
        let (after, reason) = match answer {
            Answer::Taken(answer) => return Ok(answer),
            Answer::Refused(reason) => return Err(Failure::new(reason)),
            Answer::Unsupported(reason) => {
                return Err(Failure {
                    unsupported: true,
                    ..Failure::new(reason)
                });
            }
            Answer::Later { after, reason } => (after, reason),
        };
        let wait = backoff.next(after, random());
        if Instant::now() + wait >= deadline {
            return Err(Failure {
                rest: after.unwrap_or_default().min(LONGEST_REST),
                ..Failure::new(format!("{reason} (tried {} times)", backoff.tries()))
            });
        }
        last = Some(reason);
        sleep(wait).await;
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without the kernel's random bytes the wait is the shortest one, which is no harm.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK).unwrap_or(0);
    u32::from_ne_bytes(bytes)
}
