//! Workers that are gone and whose slots no observer has read to the end yet. An observer
//! may die too, so what it needs is kept until it says that it is done: else a request
//! that ended with its worker, while no observer ran, would leave no span.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::control::{Ended, ToObserver, WorkerView};
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{PoolId, WorkerId};

use super::programs::Page;

/// Kept at a time; each holds its slot and two or three descriptors. Without an observer
/// for so long that more have died, the oldest are given up.
const MOST: usize = 256;

/// One of them: what an observer is told that does not know it yet.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) view: WorkerView,
    /// What `ToObserver::WorkerStarted` carries.
    pub(super) fds: Vec<Arc<OwnedFd>>,
    pub(super) php: Box<PhpBuild>,
    /// Where the kernel programs have accounted for it.
    pub(super) page: Option<Page>,
    pub(super) ended: Ended,
    /// When it was seen, `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) mono_ns: u64,
}

impl Departure {
    /// The message that it is gone.
    pub(super) fn gone(&self) -> ToObserver {
        ToObserver::WorkerGone {
            worker: self.view.worker,
            ended: self.ended,
            mono_ns: self.mono_ns,
        }
    }

    /// Everything, for an observer that has never heard of it, and to which the page has
    /// this number.
    pub(super) fn messages(&self, times_page: Option<u32>) -> [(ToObserver, Vec<Arc<OwnedFd>>); 3] {
        let engine = ToObserver::Engine {
            engine: self.view.engine,
            php: self.php.clone(),
        };
        let view = WorkerView {
            times_page,
            ..self.view.clone()
        };
        [
            (engine, vec![]),
            (ToObserver::WorkerStarted(view), self.fds.clone()),
            (self.gone(), vec![]),
        ]
    }
}

/// All of them, in the order in which they were born.
#[derive(Debug, Default)]
pub(super) struct Departed(BTreeMap<WorkerId, Departure>);

impl Departed {
    /// Keeps one; returns the one that had to make room.
    pub(super) fn keep(&mut self, departure: Departure) -> Option<Departure> {
        self.0.insert(departure.view.worker, departure);
        if self.0.len() > MOST {
            self.0.pop_first().map(|(_, oldest)| oldest)
        } else {
            None
        }
    }

    /// An observer has read its slot to the end.
    pub(super) fn release(&mut self, worker: WorkerId) -> Option<Departure> {
        self.0.remove(&worker)
    }

    /// Whether one of them was of that pool.
    pub(super) fn is_of(&self, pool: PoolId) -> bool {
        self.0.values().any(|departure| departure.view.pool == pool)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Departure> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::zend::Layout;
    use glasspool_abi::{EngineId, Pid};

    use super::*;

    fn departure(worker: u64) -> Departure {
        let layout = Layout::from_entries(Layout::NAMES.iter().map(|name| (*name, 8))).expect("complete");
        Departure {
            view: WorkerView {
                worker: WorkerId(worker),
                pid: Pid(1),
                pool: PoolId(0),
                engine: EngineId(1),
                born_mono_ns: 0,
                slot_bytes: 0,
                cursor: worker,
                times_page: None,
            },
            fds: vec![],
            php: Box::new(PhpBuild {
                version: "8.2.0".to_owned(),
                api: 20_220_829,
                zts: false,
                executor_globals: 0,
                layout,
            }),
            page: None,
            ended: Ended::Exited(0),
            mono_ns: 7,
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let mut departed = Departed::default();
        for worker in 0..MOST as u64 {
            assert!(departed.keep(departure(worker)).is_none());
        }
        let pushed_out = departed.keep(departure(1_000)).expect("there is no room");
        assert_eq!(pushed_out.view.worker, WorkerId(0));
        assert!(departed.release(WorkerId(1_000)).is_some());
        assert!(departed.release(WorkerId(1_000)).is_none());
        assert_eq!(departed.iter().count(), MOST - 1);
    }
}
