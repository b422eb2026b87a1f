//! The load generator: FastCGI requests from one thread, each answer checked.
//!
//! It stands where nginx stands, without HTTP in front: N clients, each with one request under way, on
//! a connection per request or on kept ones. One epoll loop drives them, the protocol is
//! `glasspool_fastcgi::client`'s. It is closed-loop: a client asks again when it has its answer, so
//! requests per second and latency say the same thing twice, and a stalled server hides the requests
//! that would have come meanwhile ("coordinated omission"). That is right for comparing two servers
//! under the same clients, and wrong for promising latencies at a given rate.

mod client;
mod connect;
mod drive;
pub mod request;
#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use drive::{run, run_each};

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// An address in 127.0.0.0/8: sources are chosen from there, too.
    Tcp(SocketAddrV4),
}

/// When to stop asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// No request starts after this time.
    Time(Duration),
    /// So many requests are started.
    Count(u64),
}

/// What load to make.
#[derive(Debug, Clone)]
pub struct Load {
    /// To whom.
    pub address: Address,
    /// Whether connections are kept (FCGI_KEEP_CONN).
    pub keep: bool,
    /// Requests under way at a time.
    pub clients: NonZeroU32,
    /// For how long.
    pub bound: Bound,
    /// How long one request may take, connecting included.
    pub patience: Duration,
    /// Parameters of every request.
    pub params: Vec<(String, String)>,
    /// What an answer must contain, headers or body.
    pub expect: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests written to a connection, whatever became of them.
    pub sent: u64,
    /// Requests answered completely and with the expected text.
    pub answered: u64,
    /// Those that were not.
    pub errors: Errors,
    /// From the first connect to the last answer.
    pub elapsed: Duration,
    /// From connect (kept connections: from the write) to END_REQUEST, nanoseconds, of answered requests.
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// Answered requests per second.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.answered as f64 / seconds
        } else {
            0.0
        }
    }

    /// A percentile of the latency, microseconds; precise to three digits.
    #[expect(clippy::cast_precision_loss, reason = "latencies stay below 2^53 ns")]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.latency.value_at_percentile(percent) as f64 / 1000.0
    }
}

/// Requests that failed, by how.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Errors {
    /// No connection.
    pub connect: u64,
    /// The connection broke, or the peer broke the protocol.
    pub broken: u64,
    /// Complete, but not the expected answer.
    pub wrong: u64,
    /// No complete answer in time.
    pub late: u64,
    /// The first one in words.
    pub first: Option<String>,
}

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.connect + self.broken + self.wrong + self.late
    }

    fn count(&mut self, failure: client::Failure) {
        let (counter, text) = match failure {
            client::Failure::Connect(text) => (&mut self.connect, text),
            client::Failure::Broken(text) => (&mut self.broken, text),
            client::Failure::Wrong(text) => (&mut self.wrong, text),
            client::Failure::Late => (&mut self.late, "no complete answer in time".to_owned()),
        };
        *counter += 1;
        self.first.get_or_insert(text);
    }
}
