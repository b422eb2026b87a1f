//! The supervisor and the observer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::{Figures, Scraped};
use super::loader::WaitPrograms;
use super::looks::{Doom, LookBudget, PoolView};
use super::pool::{Identity, Severity};
use crate::trace::sampling::Route;
use crate::zend::PhpBuild;
use crate::{EngineId, Pid, PoolId, WorkerId};

/// What the supervisor tells the observer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToObserver {
    /// The first message. Descriptors: the cursor table; the doorbell; the listening socket
    /// of [`ObserverStart::scraped`], if there is one; with [`WaitPrograms::Running`] also
    /// the programs' ring of records, and their maps of workers, pages and counts, in this
    /// order.
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
    /// A worker serves. Descriptors: its slot; its pidfd; its `/proc/PID/mem` and then
    /// its `/proc/PID/syscall`, as far as it could hand them over.
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
    /// Look into this worker at once, because it is about to be killed. Answered with
    /// [`FromObserver::Looked`]; nobody waits for the answer longer than
    /// [`LAST_LOOK_PATIENCE`](super::LAST_LOOK_PATIENCE).
    LastLook {
        /// Its number.
        worker: WorkerId,
        /// Why it will be killed.
        doom: Doom,
    },
    /// All workers of the pool are busy and there may be no more of them: take all
    /// stacks once.
    Saturated {
        /// Which pool.
        pool: PoolId,
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
    /// The file of [`ObserverStart::telemetry_file`] was opened, or opened anew.
    /// Descriptor: the file.
    TelemetryFile,
    /// A line that a worker has written.
    Line(Box<WorkerLine>),
    /// A line that the supervisor itself has logged.
    Logged(Box<LoggedLine>),
    /// Somebody wants to read what happens (`glasspool tail`): what, as it was asked.
    /// Descriptor: the connection, which may be closed when it has been answered.
    Tail {
        /// The question, at most [`MAX_QUESTION_BYTES`] long and of anybody.
        question: Vec<u8>,
    },
    /// What only the supervisor can count, once a second, if [`ObserverStart::figures`]
    /// says so.
    Figures(Figures),
    /// Export what is there and exit within this time.
    Stop {
        /// At most so long.
        within: Duration,
    },
}

/// How long the CPUs' clocks run on for an observer that does not say
/// [`FromObserver::Clocks`] again. It does so three times in that time, as a machine may stand
/// still for a second.
pub const CLOCK_LEASE: Duration = Duration::from_secs(3);

/// Longest question of a reader in bytes.
pub const MAX_QUESTION_BYTES: usize = 4096;

/// Longest text of a [`WorkerLine`] and of a [`LoggedLine`] in bytes.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// A line that a worker has written to its standard output or error, as the supervisor
/// read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLine {
    /// Who wrote it.
    pub worker: WorkerId,
    /// Its pool.
    pub pool: PoolId,
    /// Its pid.
    pub pid: Pid,
    /// Where to.
    pub stream: OutputStream,
    /// When it was read, `CLOCK_MONOTONIC`, nanoseconds; it was written before.
    pub mono_ns: u64,
    /// Requests of the worker whose end was marked on its standard error before this
    /// line. Wrong if a script writes such marks itself.
    pub ended: u64,
    /// Its bytes without the newline, at most [`MAX_LINE_BYTES`]. Empty if only `dropped`
    /// is to be told.
    pub text: Vec<u8>,
    /// Bytes at its end that are left out.
    pub cut: u64,
    /// Lines of this worker before it that are left out, since the last that came.
    pub dropped: u64,
}

/// A line of the error log that the supervisor itself has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedLine {
    /// When, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Its level.
    pub severity: Severity,
    /// What it says, without time and level, at most [`MAX_LINE_BYTES`].
    pub text: Vec<u8>,
    /// Bytes at its end that are left out.
    pub cut: u64,
    /// Such lines before it that are left out, since the last that came.
    pub dropped: u64,
}

/// One of the two streams of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
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
    /// `[trace] redact_query`; `None` for the list of the conventions.
    pub redact_query: Option<Vec<String>>,
    /// `[[trace.route]]`, the first that matches counts.
    pub routes: Vec<Route>,
    /// The file for telemetry, if some goes there.
    pub telemetry_file: Option<String>,
    /// Longest queue of unsent telemetry, bytes.
    pub queue_bytes: u64,
    /// What looks into all workers together may cost.
    pub budget: LookBudget,
    /// Whether standard output is a terminal with colours.
    pub colour: bool,
    /// Whether it wants [`ToObserver::Figures`].
    pub figures: bool,
    /// How its metrics are fetched, if they are.
    pub scraped: Option<Scraped>,
    /// Memory for what `glasspool tail` shows, bytes; 0 for none.
    pub history_bytes: u64,
    /// What is told of where workers' time goes.
    pub waits: WaitPrograms,
    /// A wait of this length becomes a span of its own.
    pub wait_span_after: Duration,
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
    /// When it was seen to exist, `CLOCK_MONOTONIC`, nanoseconds.
    pub born_mono_ns: u64,
    /// Length of its slot in bytes.
    pub slot_bytes: u64,
    /// Its entry in the cursor table.
    pub cursor: u64,
    /// Its page in the kernel programs' map, if they watch it.
    pub times_page: Option<u32>,
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
    /// It has looked into this worker, for [`ToObserver::LastLook`] or because its slot
    /// says that it crashes, or will not: nobody has to wait any longer.
    Looked {
        /// Its number.
        worker: WorkerId,
        /// It waits in its crash handler: SIGCONT lets it die at once.
        crashed: bool,
    },
    /// Has the CPUs' clocks run for [`CLOCK_LEASE`], which begins anew each time this is said;
    /// or stand still, as they do at first. With [`WaitPrograms::Running`].
    Clocks {
        /// Which of the two.
        run: bool,
    },
    /// It cannot start.
    Failed {
        /// Why.
        reason: String,
    },
}
