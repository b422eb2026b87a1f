//! Messages between the supervisor and its engines and observer, over
//! `SOCK_SEQPACKET` sockets, with file descriptors where a message needs some.
//!
//! One packet is one message in postcard's encoding. Packets are bounded by
//! [`MAX_MESSAGE_BYTES`] and carry at most [`MAX_FDS`] descriptors; what each message
//! expects is said beside it. Workers hold no end of these sockets while they run
//! the application.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::trace::Sampler;
use crate::zend::PhpBuild;
use crate::{EngineId, Pid, PoolId, WorkerId};

/// Longest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 4;

/// What the supervisor tells an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// The first message: start PHP.
    Start(EngineStart),
    /// After `Ready`: print this to the descriptor's file, then exit 0 without ever
    /// forking. Descriptor: where to.
    Describe(About),
    /// A pool that workers may be asked for. Descriptors: the listening socket; the
    /// observer's doorbell (an eventfd); where its workers send [`FromWorker`]; its
    /// access log, if it has one. Takes the place of a pool with the same number.
    AddPool(Box<PoolSpec>),
    /// The pool's access log was opened anew: workers forked from now on write there.
    /// Descriptor: the log.
    AccessLog {
        /// Whose.
        pool: PoolId,
    },
    /// Fork a worker. Descriptors: its slot; where its standard output goes; where
    /// its standard error goes.
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// Its pool.
        pool: PoolId,
        /// Length of its slot in bytes.
        slot_bytes: u64,
    },
}

/// What php-fpm prints and exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// `-v`: the versions.
    Version,
    /// `-m`: the names of the modules.
    Modules,
    /// `-i`: phpinfo() as text.
    Info,
}

/// How an engine starts PHP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStart {
    /// The supervisor's pid, which workers wait to be re-parented to.
    pub supervisor: Pid,
    /// Path of the PHP executable, what scripts see as `PHP_BINARY`.
    pub binary: String,
    /// `-c`: a php.ini or the folder of one; PHP's own search when absent.
    pub ini: Option<String>,
    /// `-n`: read no php.ini and no scan directory.
    pub no_ini: bool,
    /// `-e`: compile with information for debuggers and profilers.
    pub extended_info: bool,
    /// `-d`: entries that win over php.ini.
    pub define: Vec<(String, String)>,
    /// Names of the environment's variables in the order in which scripts are to see
    /// them; whoever starts a program may have sorted them.
    pub variables: Vec<String>,
}

/// What a worker of a pool has to become. The default is a pool without any setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The pool's number.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// The identity to take; `None` keeps the supervisor's (not root, or allowed).
    pub identity: Option<Identity>,
    /// chroot(2) to this first.
    pub chroot: Option<String>,
    /// Then chdir(2) to this.
    pub chdir: Option<String>,
    /// Start from an empty environment.
    pub clear_env: bool,
    /// Then set these, in order.
    pub env: Vec<(String, String)>,
    /// PHP settings of the pool, in the order to apply them.
    pub php_values: Vec<PhpSetting>,
    /// Requests after which a worker ends; 0 for never.
    pub max_requests: u64,
    /// Suffixes a script's path must have; empty allows all.
    pub limit_extensions: Vec<String>,
    /// How requests without a deciding caller are sampled.
    pub sampler: Sampler,
    /// Whether spans are made: only then PHP is told that our span is its parent.
    pub tracing: bool,
    /// Where the pool answers for itself.
    pub pages: Pages,
    /// `listen.allowed_clients` as written; `None` lets everybody in.
    pub allowed_clients: Option<String>,
    /// How access log lines look; `None` without an access log.
    pub access_log: Option<AccessLog>,
    /// Limits and rights of the worker's process.
    pub limits: Limits,
    /// Whether standard output and error are read by the supervisor: only then the end
    /// of each request is marked on standard error.
    pub catch_output: bool,
    /// Longest log line in bytes (`log_limit`).
    pub log_limit: u32,
    /// Least severity of a line that workers write to standard error (`log_level`).
    /// [`Severity::Debug`] also adds the place to each line.
    pub log_level: Severity,
}

/// php-fpm's severities, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Severity {
    /// Of use to whoever looks for a fault.
    Debug,
    /// Ordinary.
    #[default]
    Notice,
    /// Something is not as it should be.
    Warning,
    /// Something has failed.
    Error,
    /// Nothing works.
    Alert,
}

/// URIs that are answered by the pool itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// `pm.status_path`.
    pub status_path: Option<String>,
    /// `ping.path`.
    pub ping_path: Option<String>,
    /// `ping.response`.
    pub ping_response: String,
}

/// `access.format` and `access.suppress_path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The format, already checked.
    pub format: String,
    /// URIs whose harmless requests are left out.
    pub suppress: Vec<String>,
}

/// Limits and rights of a worker's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// RLIMIT_NOFILE, soft and hard; `None` leaves it.
    pub files: Option<u64>,
    /// RLIMIT_CORE in bytes, soft and hard, `u64::MAX` for no limit; `None` leaves it.
    pub core: Option<u64>,
    /// Nice value; `None` leaves it.
    pub priority: Option<i32>,
    /// PR_SET_DUMPABLE after the change of identity.
    pub dumpable: bool,
    /// AppArmor hat below the current profile.
    pub apparmor_hat: Option<String>,
}

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// One `php_value` or `php_admin_value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhpSetting {
    /// Name of the INI entry.
    pub name: String,
    /// Its value as text.
    pub value: String,
    /// Not to be changed by the application.
    pub admin: bool,
}

/// What an engine, or a worker before it serves, tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromEngine {
    /// The engine object is loaded and speaks [`crate::ABI_VERSION`]; sent unasked.
    Hello {
        /// Its version of this crate.
        abi: u32,
    },
    /// PHP is up.
    Ready(Box<PhpBuild>),
    /// PHP did not start; the engine exits after this.
    Failed {
        /// Why.
        reason: String,
    },
    /// A worker exists and is the supervisor's child.
    Spawned {
        /// Its number.
        worker: WorkerId,
        /// Its pid.
        pid: Pid,
    },
    /// A worker could not be forked.
    SpawnFailed {
        /// Its number.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// From the worker itself: about to serve. Descriptor: its `/proc/self/mem`,
    /// opened before it dropped its privileges; none if that was not possible.
    WorkerReady {
        /// Its number.
        worker: WorkerId,
    },
    /// From the worker itself: it cannot become what its pool asks, and exits.
    WorkerFailed {
        /// Its number.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
}

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

/// What the supervisor tells the observer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToObserver {
    /// The first message. Descriptors: the cursor table; the doorbell.
    Start(Box<ObserverStart>),
    /// A pool. Descriptor: its slow log, if it has one.
    Pool(PoolView),
    /// An engine is up.
    Engine {
        /// Its number.
        engine: EngineId,
        /// What it hosts.
        php: Box<PhpBuild>,
    },
    /// A worker serves. Descriptors: its slot; its pidfd; its `/proc/PID/mem` if it
    /// could hand it over.
    WorkerStarted(WorkerView),
    /// A worker is gone and reaped: the last message about it.
    WorkerGone {
        /// Its number.
        worker: WorkerId,
        /// How it ended.
        ended: Ended,
        /// When it was seen, `CLOCK_MONOTONIC`, nanoseconds.
        mono_ns: u64,
    },
    /// A pool that no worker serves any more and none will: the last message about it.
    PoolGone {
        /// Its number.
        pool: PoolId,
    },
    /// The pool's slow log was opened anew. Descriptor: the log.
    SlowLog {
        /// Whose.
        pool: PoolId,
    },
    /// Export what is there and exit within this time.
    Stop {
        /// At most so long.
        within: Duration,
    },
}

/// How an observer starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObserverStart {
    /// Entries of the cursor table.
    pub cursors: u64,
    /// The user to become when started as root; `CAP_SYS_PTRACE` is kept.
    pub identity: Option<Identity>,
    /// `OTEL_*` variables of the supervisor's environment.
    pub otel_env: Vec<(String, String)>,
    /// What `glasspool.toml` says of telemetry, as `OTEL_*` variables: the
    /// environment above wins over these.
    pub otel_file: Vec<(String, String)>,
    /// Longest queue of unsent telemetry, bytes.
    pub queue_bytes: u64,
    /// Whether standard output is a terminal with colours.
    pub colour: bool,
}

/// What the observer has to know of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its number.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// Look into a request that has run so long; `None` for never.
    pub slow_after: Option<Duration>,
    /// Frames at most in a backtrace.
    pub slow_depth: u32,
    /// Whether a running worker may be stopped when reading it unstopped fails.
    pub slow_stop: bool,
}

/// What the observer has to know of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number.
    pub worker: WorkerId,
    /// Its pid.
    pub pid: Pid,
    /// Its pool.
    pub pool: PoolId,
    /// The engine it was forked from.
    pub engine: EngineId,
    /// Length of its slot in bytes.
    pub slot_bytes: u64,
    /// Its entry in the cursor table.
    pub cursor: u64,
}

/// How a process ended (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed {
        /// Its number.
        signal: i32,
        /// Whether it left a core.
        core: bool,
    },
}

/// What the observer tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromObserver {
    /// It looks after the workers from now on.
    Ready,
    /// It has read the slot of this worker, which is gone, to the end.
    Buried {
        /// Its number.
        worker: WorkerId,
    },
    /// It has begun to look into a slow request.
    Slow {
        /// Of this worker.
        worker: WorkerId,
    },
    /// It cannot start.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side closed the control socket")]
    Closed,
    /// Nothing to receive, or no room to send, right now.
    #[error("the control socket is not ready")]
    WouldBlock,
    /// A system call failed.
    #[error("cannot {call} on the control socket: {source}")]
    Os {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The packet is not a message of this type.
    #[error("a packet of {bytes} bytes on the control socket is not a message: {reason}")]
    NotAMessage {
        /// Its length.
        bytes: usize,
        /// Why.
        reason: String,
    },
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends, both close-on-exec; blocking until set otherwise.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(a), Channel(b)))
    }

    /// Makes [`Channel::send`] and [`Channel::receive`] return
    /// [`ChannelError::WouldBlock`] rather than wait.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, true)?)
    }

    /// Sends one message with its descriptors.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, fds, SendFlags::empty())
    }

    /// The same without ever waiting, whatever others who hold this socket have set.
    pub fn send_now<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, fds, SendFlags::DONTWAIT)
    }

    fn send_with<M: Serialize>(
        &self,
        message: &M,
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), ChannelError> {
        let not_a_message = |bytes, reason| ChannelError::NotAMessage { bytes, reason };
        let bytes = postcard::to_stdvec(message).map_err(|e| not_a_message(0, e.to_string()))?;
        if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_FDS {
            return Err(not_a_message(
                bytes.len(),
                format!("longer than {MAX_MESSAGE_BYTES} bytes"),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.0,
                &[io::IoSlice::new(&bytes)],
                &mut ancillary,
                flags | SendFlags::NOSIGNAL,
            )
        });
        match sent {
            Ok(_) => Ok(()),
            Err(e) => Err(os_error("sendmsg", e)),
        }
    }

    /// Receives one message with its descriptors, all close-on-exec.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let (message, fds) = self.receive_suspicious(MAX_MESSAGE_BYTES)?;
        Ok((message?, fds))
    }

    /// The same for a side that is not trusted: a message of at most so many bytes, and
    /// also the descriptors of one that is not understood, because closing a file may
    /// block and whoever receives it decides where.
    pub fn receive_suspicious<M: DeserializeOwned>(
        &self,
        most_bytes: usize,
    ) -> Result<(Result<M, ChannelError>, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; most_bytes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut parts = [io::IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(|e| os_error("recvmsg", e))?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 && fds.is_empty() {
            return Err(ChannelError::Closed);
        }
        let not_a_message = |reason| ChannelError::NotAMessage {
            bytes: received.bytes,
            reason,
        };
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Ok((Err(not_a_message("cut by the receiver's limits".to_owned())), fds));
        }
        let message = postcard::from_bytes(&bytes[..received.bytes]);
        Ok((message.map_err(|e| not_a_message(e.to_string())), fds))
    }
}

fn os_error(call: &'static str, errno: rustix::io::Errno) -> ChannelError {
    use rustix::io::Errno;
    match errno {
        Errno::AGAIN => ChannelError::WouldBlock,
        Errno::PIPE | Errno::CONNRESET => ChannelError::Closed,
        _ => ChannelError::Os {
            call,
            source: errno.into(),
        },
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Channel(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = Channel::pair().expect("a socket pair");
        let file = crate::create_slot_memory(4096).expect("a memory file");
        let sent = ToEngine::Spawn {
            worker: WorkerId(3),
            pool: PoolId(1),
            slot_bytes: 4096,
        };
        a.send(&sent, &[file.as_fd(), file.as_fd()]).expect("sends");
        let (received, fds): (ToEngine, _) = b.receive().expect("receives");
        assert_eq!(received, sent);
        assert_eq!(fds.len(), 2);
        drop(a);
        assert!(matches!(b.receive::<ToEngine>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_is_no_message_is_an_error_not_a_panic() {
        let (a, b) = Channel::pair().expect("a socket pair");
        rustix::net::send(&a, &[0xff; 64], SendFlags::empty()).expect("sends");
        assert!(matches!(
            b.receive::<ToEngine>(),
            Err(ChannelError::NotAMessage { bytes: 64, .. })
        ));
        b.set_nonblocking().expect("fionbio");
        assert!(matches!(b.receive::<ToEngine>(), Err(ChannelError::WouldBlock)));
        let long = FromEngine::Failed {
            reason: "x".repeat(MAX_MESSAGE_BYTES),
        };
        assert!(matches!(
            a.send(&long, &[]),
            Err(ChannelError::NotAMessage { .. })
        ));
    }
}
