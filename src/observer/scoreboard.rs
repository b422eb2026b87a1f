//! The workers that serve, and what is needed to watch each: its slot, how far it was
//! read, its process, and what is known of its requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::control::{Ended, PoolView, SlowStop, WorkerView};
use glasspool_abi::slot::{CursorTable, ReadTo, SlotReader};
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{EngineId, MapError, PoolId, WorkerId};
use glasspool_otel::span::Facts;
use glasspool_probes::php::frames::MAX_FRAMES;
use glasspool_probes::sample::Stop;

use super::lines::Recent;
use super::sampler::{Newcomer, Process, Rules};
use super::slow::Cases;
use super::throttle::{Tally, Throttle};

const SECOND_NS: u64 = 1_000_000_000;

/// Everything that is watched.
#[derive(Debug)]
pub(super) struct Scoreboard {
    pub(super) pools: BTreeMap<PoolId, Pool>,
    engines: BTreeMap<EngineId, Arc<PhpBuild>>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) cursors: CursorTable,
}

/// A pool, and what of it is told in the log only so often.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) rules: Arc<Rules>,
    pub(super) incidents: Throttle,
    pub(super) lost: Tally,
    /// Its name, for what is kept of its requests.
    pub(super) name: Arc<str>,
    /// Lines of its workers that did not come.
    pub(super) lines_dropped: Tally,
    /// Whether it has had a worker since it was told of.
    met: bool,
}

/// A worker that serves, or is gone and has a last look under way.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pool: PoolId,
    pub(super) slot: Arc<SlotReader>,
    pub(super) read: ReadTo,
    /// Its entry in the cursor table.
    pub(super) entry: usize,
    /// Its page in the kernel programs' map, if they watch it.
    pub(super) page: Option<u32>,
    pub(super) process: Arc<Process>,
    pub(super) requests: Requests,
    pub(super) garbled: Throttle,
    /// How and when it ended, monotonic nanoseconds.
    pub(super) gone: Option<(Ended, u64)>,
}

/// What is known of a worker's requests beyond its slot.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) worker: WorkerId,
    pub(super) facts: Facts,
    pub(super) limit: Option<Duration>,
    pub(super) cases: Cases,
    /// Number of the last request whose end record was read.
    pub(super) ended: u64,
    /// The last of them, to find out which wrote a line.
    pub(super) recent: Recent,
}

/// Why a worker cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwatched {
    /// Its pool or engine was not announced, or its number was announced before.
    #[error("worker {pid} is not watched: {what}")]
    Unknown {
        /// The worker.
        pid: i32,
        /// What does not fit.
        what: String,
    },
    /// Its slot cannot be used.
    #[error("worker {pid} is not watched: {source}")]
    Slot {
        /// The worker.
        pid: i32,
        /// Why.
        source: MapError,
    },
}

/// Engines that are remembered without a worker.
const MOST_ENGINES: usize = 16;

impl Scoreboard {
    pub(super) fn new(cursors: CursorTable) -> Scoreboard {
        Scoreboard {
            pools: BTreeMap::new(),
            engines: BTreeMap::new(),
            workers: BTreeMap::new(),
            cursors,
        }
    }

    /// A pool; one that is told again changes for workers that start after.
    pub(super) fn add_pool(&mut self, view: PoolView, slow_log: Option<OwnedFd>) {
        let name = Arc::from(view.name.as_str());
        let rules = Rules {
            pool: view.name,
            after: view.slow_after,
            depth: usize::try_from(view.slow_depth)
                .unwrap_or(MAX_FRAMES)
                .clamp(1, MAX_FRAMES),
            looks: view.slow_samples,
            json: view.slow_json,
            stop: match view.slow_stop {
                SlowStop::IfNeeded => Stop::IfNeeded,
                SlowStop::Never => Stop::Never,
                SlowStop::Always => Stop::Always,
            },
            still_running: view.still_running,
            controllers: view.controllers.into(),
            log: slow_log.map(|log| Arc::new(File::from(log))),
        };
        let pool = Pool {
            rules: Arc::new(rules),
            incidents: Throttle::new(10, SECOND_NS),
            lost: Tally::new(10 * SECOND_NS),
            name,
            lines_dropped: Tally::new(10 * SECOND_NS),
            met: false,
        };
        self.pools.insert(view.pool, pool);
    }

    /// A pool's slow log was opened anew; looks that are under way still write to the old one.
    pub(super) fn replace_slow_log(&mut self, pool: PoolId, log: OwnedFd) {
        if let Some(pool) = self.pools.get_mut(&pool) {
            Arc::make_mut(&mut pool.rules).log = Some(Arc::new(File::from(log)));
        }
    }

    /// No worker serves the pool any more.
    pub(super) fn remove_pool(&mut self, pool: PoolId) {
        self.pools.remove(&pool);
    }

    /// An engine is up. Old ones are forgotten when no worker of theirs is left, but for
    /// the last few: a worker of theirs may still be on its way.
    pub(super) fn add_engine(&mut self, engine: EngineId, php: PhpBuild) {
        self.engines.entry(engine).or_insert_with(|| Arc::new(php));
        while self.engines.len() > MOST_ENGINES {
            let unused = self.engines.iter().find(|(_, php)| Arc::strong_count(php) == 1);
            let Some(unused) = unused.map(|(id, _)| *id) else {
                break;
            };
            self.engines.remove(&unused);
        }
    }

    /// A worker serves. Returned if it is the first of its pool.
    pub(super) fn add_worker(
        &mut self,
        view: &WorkerView,
        slot: &OwnedFd,
        pidfd: OwnedFd,
        (memory, calls): (Option<OwnedFd>, Option<OwnedFd>),
        host_name: Option<String>,
    ) -> Result<Option<Newcomer>, Unwatched> {
        let pid = view.pid.0;
        let unknown = |what: String| Unwatched::Unknown { pid, what };
        let pool = self
            .pools
            .get_mut(&view.pool)
            .ok_or_else(|| unknown(format!("pool {} is unknown", view.pool)))?;
        let php = self.engines.get(&view.engine);
        let php = php.ok_or_else(|| unknown(format!("engine {} is unknown", view.engine)))?;
        if self.workers.contains_key(&view.worker) {
            return Err(unknown(format!("number {} is in use", view.worker)));
        }
        let bytes = usize::try_from(view.slot_bytes).unwrap_or(usize::MAX);
        let slot = SlotReader::map(slot, bytes).map_err(|source| Unwatched::Slot { pid, source })?;
        let entry = usize::try_from(view.cursor).unwrap_or(usize::MAX);
        let facts = Facts {
            pid: u32::try_from(pid).unwrap_or(0),
            pool: pool.rules.pool.clone(),
            worker: u32::try_from(view.worker.0).unwrap_or(u32::MAX),
            born_mono_ns: view.born_mono_ns,
            server_name: host_name,
        };
        let worker = Worker {
            pool: view.pool,
            read: self.cursors.load(entry),
            entry,
            page: view.times_page,
            process: Arc::new(Process {
                pid: view.pid,
                pidfd,
                memory,
                calls,
                php: Arc::clone(php),
            }),
            requests: Requests {
                worker: view.worker,
                facts,
                limit: pool.rules.after,
                cases: Cases::default(),
                ended: 0,
                recent: Recent::default(),
            },
            slot: Arc::new(slot),
            garbled: Throttle::new(1, 60 * SECOND_NS),
            gone: None,
        };
        let newcomer = (!std::mem::replace(&mut pool.met, true)).then(|| Newcomer {
            worker: view.worker,
            process: Arc::clone(&worker.process),
            rules: Arc::clone(&pool.rules),
        });
        self.workers.insert(view.worker, worker);
        Ok(newcomer)
    }
}
