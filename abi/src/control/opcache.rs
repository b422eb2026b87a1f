//! What opcache says of itself, and what the supervisor makes of it.

use serde::{Deserialize, Serialize};

use crate::EngineId;

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
