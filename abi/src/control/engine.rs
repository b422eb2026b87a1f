//! The supervisor and an engine.

use serde::{Deserialize, Serialize};

use super::pool::PoolSpec;
use crate::zend::PhpBuild;
use crate::{Pid, PoolId, WorkerId};

/// What the supervisor tells an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// The first message: start PHP.
    Start(EngineStart),
    /// After `Ready`: print this to the descriptor's file, then exit 0 without ever
    /// forking. Descriptor: where to.
    Describe(About),
    /// A pool that workers may be asked for. Descriptors: the listening socket; the
    /// observer's doorbell (an eventfd); where its workers send
    /// [`FromWorker`](super::FromWorker); its access log, if it has one. Takes the place of
    /// a pool with the same number.
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
    /// Descriptor: one end of a socket pair, which gets its
    /// [`OpcacheAnswer`](super::OpcacheAnswer) and is closed.
    AskOpcache,
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
