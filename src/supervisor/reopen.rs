//! SIGUSR1: every log file is opened anew, so that the old ones can be moved away.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::PoolId;
use glasspool_abi::control::{ToEngine, ToObserver};
use rustix::process::Signal;

use super::pools::{Life, open_access_log, open_slow_log};
use super::run::Supervisor;

/// What was opened for one pool.
#[derive(Debug, Default)]
struct Opened {
    access_log: Option<Arc<OwnedFd>>,
    slow_log: Option<Arc<OwnedFd>>,
}

impl Supervisor {
    /// Opens the error log, the access logs, the slow logs and the file for telemetry anew. Workers that write an
    /// access log have the old one, so they end with their request and are replaced.
    pub(super) fn reopen_logs(&mut self) {
        let mut opened = Vec::new();
        self.log.reopen(|| opened = self.open_pool_logs());
        self.observer.open_telemetry_file(&self.log);
        let mut renewed = Vec::new();
        for (id, Opened { access_log, slow_log }) in opened {
            let Some(pool) = self.pools.get_mut(&id) else {
                continue;
            };
            let group = pool.group;
            if let Some(log) = slow_log {
                pool.slow_log = Some(Arc::clone(&log));
                self.observer
                    .tell(&self.log, ToObserver::SlowLog { pool: id }, vec![log]);
            }
            if let Some(log) = access_log {
                pool.access_log = Some(Arc::clone(&log));
                self.tell_engine(group, ToEngine::AccessLog { pool: id }, vec![log]);
                renewed.push(id);
            }
        }
        for worker in self.workers.values_mut() {
            if renewed.contains(&worker.pool()) {
                worker.signal(Signal::QUIT);
            }
        }
    }

    /// Those of the pools that serve; what cannot be opened stays as it is.
    fn open_pool_logs(&self) -> Vec<(PoolId, Opened)> {
        let mut all = Vec::new();
        let (mut reopened, mut failed) = (false, false);
        for (id, pool) in self.pools.iter().filter(|(_, pool)| pool.life == Life::Serving) {
            let mut opened = Opened::default();
            if let Some(path) = &pool.config.access_log {
                match open_access_log(path) {
                    Ok(log) => {
                        opened.access_log = Some(log);
                        reopened = true;
                    }
                    Err(e) => {
                        self.log.error(e);
                        failed = true;
                    }
                }
            }
            if let (Some(path), Some(_)) = (&pool.config.slowlog, &pool.slow_log) {
                match open_slow_log(&pool.name, path) {
                    Ok(log) => opened.slow_log = Some(log),
                    Err(e) => self.log.error(e),
                }
            }
            all.push((*id, opened));
        }
        // php-fpm's words, and nothing where no pool has one.
        if failed {
            self.log.error("unable to re-opened access log file");
        } else if reopened {
            self.log.notice("access log file re-opened");
        }
        all
    }
}
