//! Messages between the supervisor and its engines and observer. They travel over a
//! [`Channel`], with file descriptors where a message needs some: which, is said beside
//! it. Workers hold no end of these sockets while they run the application.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE_BYTES};
use crate::trace::Sampler;
use crate::trace::policy::Policy;
use crate::trace::sampling::{Glob, Route};
use crate::zend::PhpBuild;
use crate::{EngineId, Pid, PoolId, WorkerId};

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
    /// Where workers forked from now on read the rules that are raised for a time
    /// ([`crate::trace::raised`]). Descriptor: the page.
    Raised,
    /// The pool's access log was opened anew: workers forked from now on write there.
    /// Descriptor: the log.
    AccessLog {
        /// Whose.
        pool: PoolId,
    },
    /// Fork a worker. Descriptors: its slot; where its standard output goes; where
    /// its standard error goes; with `times_page`, the kernel programs' map of pages.
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// Its pool.
        pool: PoolId,
        /// Length of its slot in bytes.
        slot_bytes: u64,
        /// Its page in that map, which no other worker may reach through it: it maps its
        /// own and closes the descriptor before it runs the application.
        times_page: Option<u32>,
    },
    /// Fork a process that asks opcache and ends; [`FromEngine::OpcacheAsked`] says which.
    /// Descriptor: one end of a socket pair, which gets its [`OpcacheAnswer`] and is closed.
    AskOpcache,
}

/// What opcache says of itself. It reads memory that workers can write: numbers, and no
/// more than numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpcacheAnswer {
    /// PHP has no opcache, or it is off, or keeps nothing in memory.
    Off,
    /// `opcache.restrict_api` is set.
    Restricted,
    /// It runs.
    Told(OpcacheFigures),
}

/// State of an opcache; counts since it was made or restarted, restarts since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpcacheFigures {
    /// Memory used, free, and wasted on scripts that have changed since; bytes.
    pub memory: [u64; 3],
    /// Of that, the buffer for interned strings: used and free, bytes.
    pub strings: [u64; 2],
    /// Memory for machine code, used and free, bytes; both 0 without JIT.
    pub jit: [u64; 2],
    /// Scripts in it.
    pub scripts: u64,
    /// Paths by which these are found.
    pub keys: u64,
    /// Most of those.
    pub key_limit: u64,
    /// Scripts that were asked for and there.
    pub hits: u64,
    /// Scripts that were asked for and not there.
    pub misses: u64,
    /// Restarts because memory was full, because keys were, and by `opcache_reset()`.
    pub restarts: [u64; 3],
    /// A script did not fit, and none is added until a restart.
    pub full: bool,
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
    /// Whose traces are gone on with, and what else is sampled.
    pub trace: Policy,
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
    /// Whether somebody wants to know what PHP logs. What comes by standard error is not
    /// told again.
    pub tell_lines: bool,
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
    /// Each line is a JSON object, whatever the format says.
    pub json: bool,
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
    /// From the worker itself: about to serve. Descriptors: its `/proc/self/mem`, then
    /// its `/proc/self/syscall`, opened before it dropped its privileges; only the first
    /// or none if that was not possible.
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
    /// To [`ToEngine::AskOpcache`]: a process that asks is the supervisor's child.
    OpcacheAsked {
        /// Its pid, or why there is none.
        pid: Result<Pid, String>,
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
    /// [`LAST_LOOK_PATIENCE`].
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
    /// After the first message, with [`WaitPrograms::Running`]: the CPUs' clocks, which are
    /// the observer's to run or to stop; in as many of these messages as it takes.
    /// Descriptors: clocks, at least one.
    Clocks,
}

/// Longest question of a reader in bytes.
pub const MAX_QUESTION_BYTES: usize = 4096;

/// Longest text of a [`WorkerLine`] in bytes.
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

/// One of the two streams of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the supervisor counts, for metrics: all of it, or so many pools as fit into a
/// message. Counts since the supervisor, or the pool, started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Whether this is what the observer is to count from: the first it is told.
    pub begin: bool,
    /// Reloads of the whole configuration that succeeded, and that failed.
    pub reloads: [u64; 2],
    /// Pools that have workers or will have some.
    pub pools: Vec<PoolFigures>,
}

/// What the supervisor counts of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolFigures {
    /// Its number.
    pub pool: PoolId,
    /// Whether it is of the configuration in force.
    pub serving: bool,
    /// What its status page says.
    pub status: PoolStatus,
    /// Where its status page is, as exporters for php-fpm write it.
    pub scrape_uri: String,
    /// `pm.max_children`.
    pub max_workers: u32,
    /// Workers that were started: those that it begins with, those that it grew by, those
    /// that took another one's place.
    pub started: [u64; 3],
    /// Time that connections have waited, all together, nanoseconds.
    pub queue_ns: u64,
    /// Of the engine that this pool shares with others, if it is the first of them.
    pub opcache: Option<OpcacheView>,
}

/// What is known of an engine's opcache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpcacheView {
    /// Whose: another engine's begins anew.
    pub engine: EngineId,
    /// What it said last, unless it did not when it was asked last.
    pub figures: Option<OpcacheFigures>,
    /// How often it was asked and told, was off, was restricted, and has not answered.
    pub asks: [u64; 4],
}

/// How an observer's metrics are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scraped {
    /// Where, for messages.
    pub address: String,
    /// Whether pools are told under the names of php-fpm's exporters too.
    pub phpfpm_names: bool,
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

/// The kernel programs that account for workers' time (`glasspool-waits`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WaitPrograms {
    /// Nobody has asked for what they tell.
    #[default]
    NotWanted,
    /// They cannot run here.
    Refused {
        /// Why, in one word for metrics.
        name: String,
        /// Why, and what would help: a line for the log.
        reason: String,
    },
    /// They run until the supervisor ends.
    Running {
        /// Pages, of which each watched worker has one.
        pages: u32,
    },
}

/// The only message to the process that loads the kernel programs and then exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPrograms {
    /// Workers that can be watched at a time.
    pub pages: u32,
    /// Shorter waits are accounted for but not told.
    pub wait_threshold: Duration,
    /// PHP calls that are told of a wait, innermost first.
    pub frames: u32,
    /// Length of the ring of records.
    pub ring_bytes: u32,
    /// Whether system calls are counted, too.
    pub system_calls: bool,
}

/// What that process answers: all parts, then that it has loaded them; or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLoader {
    /// A part of what runs in the kernel, which lives as long as its descriptor.
    Part(ProgramPart),
    /// These were all.
    Loaded,
    /// They cannot run here.
    Refused {
        /// See [`WaitPrograms::Refused`].
        name: String,
        /// See [`WaitPrograms::Refused`].
        reason: String,
    },
}

/// What a descriptor of the kernel programs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProgramPart {
    /// Keeps a program attached.
    Link,
    /// The workers, by pidfd.
    Workers,
    /// Where builds of PHP keep what is read.
    Layouts,
    /// What went wrong, counted.
    Counts,
    /// The ring of records.
    Ring,
    /// A page of times for each worker.
    Pages,
    /// Of one CPU, the clock that looks who runs there. It stands still until its holder
    /// has it run (`glasspool_waits::Eye::clock`); a machine may have none.
    Clock,
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
    /// Its slow log is JSON, an object a line.
    pub slow_json: bool,
    /// Looks into one request at most: at 1, 2, 4 … times `slow_after`.
    pub slow_samples: u32,
    /// Whether a running worker may be stopped for a look.
    pub slow_stop: SlowStop,
    /// Whether the first look at a request is a span of its own, sent while it still runs.
    pub still_running: bool,
    /// Which classes name requests that nobody else names; none if there are none.
    pub controllers: Vec<ControllerPattern>,
}

/// Which classes handle requests, so that their methods can stand for routes. Of several,
/// the first that matches counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerPattern {
    /// Names of classes, with their namespace.
    pub class: Glob,
    /// They do not.
    pub excluded: bool,
}

/// Whether a worker may be stopped for a look. One that is blocked in a system call
/// never is: that would make timed socket calls fail with EINTR (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SlowStop {
    /// When reading it unstopped gave nothing consistent.
    #[default]
    IfNeeded,
    /// Never; a stack that cannot be read unstopped is told in part.
    Never,
    /// Whenever it runs: each line is exact.
    Always,
}

/// What looks into all workers together may cost; those above are skipped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookBudget {
    /// Looks per second.
    pub samples_per_second: u32,
    /// Time per second for which workers are stopped, all together.
    pub stop_per_second: Duration,
}

/// Why a worker is about to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Doom {
    /// Its request has run longer than `request_terminate_timeout`.
    Timeout,
    /// Its generation is over, or the supervisor finishes, and its request has had its
    /// time (`process_control_timeout`).
    Drain,
    /// The supervisor terminates at once.
    Stop,
    /// It did not heed a signal to end.
    Deaf,
}

/// How long a kill waits for [`FromObserver::Looked`] at most: 50 times what a look
/// takes, and nothing that an operator notices.
pub const LAST_LOOK_PATIENCE: Duration = Duration::from_millis(100);

/// How long a worker that crashes waits for the observer's look at most, before it dies
/// by the signal that it got.
pub const CRASH_PATIENCE: Duration = Duration::from_millis(500);

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
    /// It cannot start.
    Failed {
        /// Why.
        reason: String,
    },
}
