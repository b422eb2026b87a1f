//! What the supervisor counts for the observer, and how its metrics are fetched.

use serde::{Deserialize, Serialize};

use super::opcache::OpcacheView;
use super::worker::PoolStatus;
use crate::PoolId;

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

/// How an observer's metrics are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scraped {
    /// Where, for messages.
    pub address: String,
    /// Whether pools are told under the names of php-fpm's exporters too.
    pub phpfpm_names: bool,
}
