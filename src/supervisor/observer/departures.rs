//! What an observer is told of pools, and of workers that are gone; and what is kept of those
//! until one has read them to the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::control::{PoolView, ToObserver};

use super::Observer;
use crate::logs::ErrorLog;
use crate::supervisor::departed::Departure;

/// A pool that is gone, as an observer is told of it.
#[derive(Debug)]
pub(super) struct Fading {
    view: PoolView,
    slow_log: Option<Arc<OwnedFd>>,
}

impl Observer {
    /// A worker that it was told of is gone.
    pub(in crate::supervisor) fn depart(&mut self, log: &ErrorLog, departure: Departure) {
        self.tell(log, departure.gone(), vec![]);
        if let Some(oldest) = self.departed.keep(departure) {
            log.warning(format_args!(
                "no observer has read what child {} recorded; it is given up",
                oldest.view.pid
            ));
            self.release(&oldest, log);
        }
    }

    pub(super) fn release(&mut self, departure: &Departure, log: &ErrorLog) {
        self.cursors.give_back(departure.view.cursor);
        let pool = departure.view.pool;
        if self.fading.contains_key(&pool) && !self.departed.is_of(pool) {
            self.fading.remove(&pool);
            self.tell(log, ToObserver::PoolGone { pool }, vec![]);
        }
    }

    /// Tells it a pool, or a pool anew.
    pub(in crate::supervisor) fn introduce_pool(
        &self,
        view: &PoolView,
        slow_log: Option<&Arc<OwnedFd>>,
        log: &ErrorLog,
    ) {
        let slow_log = slow_log.into_iter().cloned().collect();
        self.tell(log, ToObserver::Pool(view.clone()), slow_log);
    }

    /// No worker serves the pool and none will. Observers forget it when they have read
    /// to the end what its last workers wrote.
    pub(in crate::supervisor) fn pool_gone(
        &mut self,
        view: PoolView,
        slow_log: Option<Arc<OwnedFd>>,
        log: &ErrorLog,
    ) {
        let pool = view.pool;
        if self.departed.is_of(pool) {
            self.fading.insert(pool, Fading { view, slow_log });
        } else {
            self.tell(log, ToObserver::PoolGone { pool }, vec![]);
        }
    }

    /// Tells a new one of workers that no observer before it has buried.
    pub(in crate::supervisor) fn introduce_departed(&self, log: &ErrorLog) {
        for pool in self.fading.values() {
            self.introduce_pool(&pool.view, pool.slow_log.as_ref(), log);
        }
        for departure in self.departed.iter() {
            let page = self.waits.number_of(departure.page.as_ref());
            for (message, fds) in departure.messages(page) {
                self.tell(log, message, fds);
            }
        }
    }
}
