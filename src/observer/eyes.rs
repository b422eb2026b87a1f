//! What the sampler's thread looks with, and keeps from one look to the next: the object
//! files of native frames, and what of each pool can be seen at all.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use glasspool_abi::WorkerId;
use glasspool_probes::native::{Modules, Natives, Unwinder};
use glasspool_probes::process::has_exited;
use glasspool_probes::rights::Rights;
use glasspool_probes::sample::{Options, SampleError, Stop, Target};
use glasspool_probes::{Arguments, Sample, sample, sample_with_native};
use glasspool_waits::Wait;

use super::ladder::Ladder;
use super::monotonic_ns;
use super::sampler::{Newcomer, Order, Process, Why};
use super::waits::Sight;
use crate::logs::ErrorLog;

/// Frames read beyond those shown, to find the caller of the last one.
const CALLER_FRAMES: usize = 4;
/// Workers whose mapped files are remembered, 50 KiB each; beyond it all are forgotten,
/// which costs the next look at each a millisecond.
const MOST_UNWINDERS: usize = 16;
/// Rights of a pool's workers are tried again after so long, if one is looked at.
const LADDER_NS: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Eyes {
    modules: Modules,
    unwinders: HashMap<WorkerId, Unwinder>,
    ladder: Ladder,
    /// What the kernel programs know, which run or do not.
    sight: Option<Arc<dyn Sight>>,
    /// When the rights of each pool's workers were tried, monotonic nanoseconds.
    tried: HashMap<String, u64>,
}

/// Why there is no sample.
#[derive(Debug)]
pub(super) enum NoSample {
    /// The worker is gone; its end will be told by the supervisor.
    Gone,
    /// Something that the event says.
    Because(String),
}

impl Eyes {
    pub(super) fn new(ladder: Ladder, sight: Option<Arc<dyn Sight>>) -> Eyes {
        Eyes {
            modules: Modules::new(),
            unwinders: HashMap::new(),
            ladder,
            sight,
            tried: HashMap::new(),
        }
    }

    /// One sample of the worker.
    pub(super) fn take(&mut self, order: &Order) -> Result<Sample, NoSample> {
        let options = Options {
            max_frames: order.rules.depth + CALLER_FRAMES,
            stop: if order.may_stop {
                order.rules.stop
            } else {
                Stop::Never
            },
            // Neither the slow log nor an event shows them, and they make each look longer.
            arguments: Arguments::Off,
            ..Options::default()
        };
        let (saved, with_native) = match order.why {
            Why::Slow { .. } | Why::Doomed(_) => (None, true),
            // All workers of a pool at once: what they have in common is their PHP stack.
            Why::Saturated => (None, false),
            // Its native stack is that of its handler.
            Why::Crashed(crash) => (Some(crash.registers), false),
        };
        self.sample(order.worker, &order.process, &options, saved, with_native)
    }

    /// The wait of the request that has gone on since before `since_ns` of the monotonic
    /// clock, as the kernel programs know it. Needs no right, and touches no process.
    pub(super) fn noted(&self, order: &Order, since_ns: u64) -> Option<Wait> {
        // What a worker in its crash handler waits for is us.
        if matches!(order.why, Why::Crashed(_)) {
            return None;
        }
        let wait = self.sight.as_ref()?.going_on(order.process.pidfd.as_fd())?;
        (wait.request == order.number && wait.began_ns <= since_ns).then_some(wait)
    }

    fn sample(
        &mut self,
        worker: WorkerId,
        process: &Process,
        options: &Options,
        saved_registers: Option<[u64; 2]>,
        with_native: bool,
    ) -> Result<Sample, NoSample> {
        let handed = process.handed();
        let Some(mem) = handed.memory else {
            return Err(NoSample::Because(
                "the worker could not hand over its memory".to_owned(),
            ));
        };
        // Stopping goes by pid, and the pid of a worker that was reaped may be another's.
        if has_exited(process.pidfd.as_fd()) {
            return Err(NoSample::Gone);
        }
        let target = Target {
            pid: process.pid,
            mem,
            calls: handed.calls,
            build: &process.php,
            saved_registers,
        };
        let taken = if with_native {
            if self.unwinders.len() >= MOST_UNWINDERS && !self.unwinders.contains_key(&worker) {
                self.unwinders.clear();
            }
            let unwinder = self.unwinders.entry(worker);
            let natives = Natives {
                unwinder: unwinder.or_insert_with(|| Unwinder::new(process.pid)),
                modules: &mut self.modules,
            };
            sample_with_native(&target, options, natives)
        } else {
            sample(&target, options)
        };
        let taken = taken.map_err(|e| match e {
            SampleError::Gone { .. } => NoSample::Gone,
            SampleError::Read { source, .. } => NoSample::Because(source.to_string()),
        })?;
        // What `/proc` said by pid was this worker's if it is there still.
        if has_exited(process.pidfd.as_fd()) {
            return Err(NoSample::Gone);
        }
        Ok(taken)
    }

    /// The first worker of a pool: finds out what looks can show, and reads the object files
    /// that most native stacks need. That takes up to 0.1 s, which a last look before a
    /// kill would not have.
    pub(super) fn meet(&mut self, newcomer: &Newcomer, log: &ErrorLog) {
        let Newcomer {
            worker,
            process,
            rules,
        } = newcomer;
        self.tried.remove(&rules.pool);
        self.keep_ladder(*worker, process, &rules.pool, log);
        let options = Options {
            stop: Stop::Never,
            arguments: Arguments::Off,
            ..Options::default()
        };
        // It serves nothing yet: its frames are of no interest.
        let _warm = self.sample(*worker, process, &options, None, true).is_ok();
    }

    /// Tries the rights on this worker if its pool's were not tried of late, and tells of
    /// what has changed.
    pub(super) fn keep_ladder(&mut self, worker: WorkerId, process: &Process, pool: &str, log: &ErrorLog) {
        let now = monotonic_ns();
        let is_recent = |at: &u64| now.saturating_sub(*at) < LADDER_NS;
        // Nobody can hold itself: an observer that watches itself, in a test, learns nothing.
        let is_own = u32::try_from(process.pid.0) == Ok(std::process::id());
        if is_own || self.tried.get(pool).is_some_and(is_recent) {
            return;
        }
        let rights = Rights::try_all(process.pid, process.handed());
        if has_exited(process.pidfd.as_fd()) {
            self.unwinders.remove(&worker);
            return;
        }
        self.tried.insert(pool.to_owned(), now);
        self.ladder.tell(pool, &rights, log);
    }
}
