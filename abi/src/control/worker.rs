//! A worker and the supervisor: the state of a pool, for the worker's status page.

use serde::{Deserialize, Serialize};

/// What a worker may ask of the supervisor while it serves, over the socket that all
/// workers of a pool share. Hostile input: bounded in number, never a reason to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The state of its pool. Descriptor: one end of a socket pair (SEQPACKET) that
    /// gets the answer as [`StatusPart`]s and is then closed.
    Status,
}

/// The answer to [`FromWorker::Status`], one packet each: the pool, then processes in
/// any number of parts, then the end of file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatusPart {
    /// The pool as a whole; always the first.
    Pool(PoolStatus),
    /// Some of its workers.
    Processes(Vec<ProcessStatus>),
}

/// What php-fpm's status page says of a pool. Counters count since the pool's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name of the pool that is reported, which for a status listener is the main one.
    pub pool: String,
    /// `static`, `dynamic` or `ondemand`.
    pub process_manager: String,
    /// When the pool was started, seconds since the Unix epoch.
    pub start_unix_s: u64,
    /// Requests begun.
    pub accepted: u64,
    /// Connections that wait to be accepted.
    pub listen_queue: u32,
    /// Most of those seen.
    pub max_listen_queue: u32,
    /// Most of those possible.
    pub listen_queue_len: u32,
    /// Workers that wait for a connection.
    pub idle: u32,
    /// Workers that serve one.
    pub active: u32,
    /// Most of those seen.
    pub max_active: u32,
    /// How often all workers were busy and no more were allowed.
    pub max_children_reached: u32,
    /// Requests that were looked into because they were slow.
    pub slow_requests: u64,
    /// Highest memory peak of a request, bytes.
    pub memory_peak: u64,
}

/// What php-fpm's status page says of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its pid.
    pub pid: i32,
    /// Number of its [`crate::slot::Stage`]; 0 before the first.
    pub stage: u64,
    /// When it was started, seconds since the Unix epoch.
    pub start_unix_s: u64,
    /// Requests begun.
    pub requests: u64,
    /// Of the last request when idle, else of the one under way so far, microseconds.
    pub duration_us: u64,
    /// Request method, URI without the query, and query; bytes as received.
    pub method: Vec<u8>,
    /// See `method`.
    pub uri: Vec<u8>,
    /// See `method`.
    pub query: Vec<u8>,
    /// CONTENT_LENGTH.
    pub content_length: u64,
    /// User of HTTP authentication.
    pub user: Vec<u8>,
    /// The script.
    pub script: Vec<u8>,
    /// CPU time of the last request, nanoseconds.
    pub last_cpu_ns: u64,
    /// Wall time of the last request, nanoseconds.
    pub last_duration_ns: u64,
    /// Memory peak of the last request, bytes.
    pub last_memory: u64,
}
