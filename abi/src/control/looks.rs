//! When and how the observer looks into a worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::PoolId;
use crate::trace::sampling::Glob;

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

/// How long a kill waits for [`FromObserver::Looked`](super::FromObserver::Looked) at most:
/// 50 times what a look takes, and nothing that an operator notices.
pub const LAST_LOOK_PATIENCE: Duration = Duration::from_millis(100);

/// How long a worker that crashes waits for the observer's look at most, before it dies
/// by the signal that it got.
pub const CRASH_PATIENCE: Duration = Duration::from_millis(500);
