//! What only the supervisor counts, on its way to the observer, which makes metrics of it:
//! once a second, in messages of bounded size, and only if anybody wants metrics.

use glasspool_abi::control::{Figures, PoolFigures, ToObserver};

use super::pools::{Life, LivePool};
use super::run::Supervisor;
use super::sockets;
use crate::config::ListenAddress;

/// Bytes of pools in one message, about: far below what a message may have.
const PART_BYTES: usize = 48 * 1024;
/// Bytes of a pool beside its texts, at most.
const NUMBERS_BYTES: usize = 512;

impl Supervisor {
    /// Tells it all figures; `begin` if they are what it is to count from.
    pub(super) fn tell_figures(&self, begin: bool) {
        if !self.observer.wants_figures() {
            return;
        }
        let pools = self.pools.values().filter(|pool| pool.life != Life::Proving);
        let (mut part, mut bytes) = (Vec::new(), 0);
        for pool in pools.map(|pool| self.figures(pool)) {
            bytes += NUMBERS_BYTES + pool.status.pool.len() + pool.scrape_uri.len();
            part.push(pool);
            if bytes >= PART_BYTES {
                self.send_figures(begin, std::mem::take(&mut part));
                bytes = 0;
            }
        }
        if !part.is_empty() {
            self.send_figures(begin, part);
        }
    }

    /// The same of a pool that is about to be forgotten: what was counted since the last
    /// second would be lost.
    pub(super) fn tell_last_figures(&self, pool: &LivePool) {
        if self.observer.wants_figures() {
            self.send_figures(false, vec![self.figures(pool)]);
        }
    }

    fn send_figures(&self, begin: bool, pools: Vec<PoolFigures>) {
        let figures = Figures {
            begin,
            reloads: self.reloads,
            pools,
        };
        self.observer
            .tell(&self.log, ToObserver::Figures(figures), vec![]);
    }

    fn figures(&self, pool: &LivePool) -> PoolFigures {
        let config = &pool.config;
        PoolFigures {
            pool: pool.spec.pool,
            serving: pool.life == Life::Serving,
            scrape_uri: scrape_uri(&config.listen, pool.spec.pages.status_path.as_deref()),
            max_workers: config.max_children.get(),
            opcache: self.opcache_of(pool),
            ..pool.management.figures.told(&pool.name, config.manager.name())
        }
    }
}

/// As php-fpm_exporter is told where to ask; for a pool without a status page, where one
/// would be.
fn scrape_uri(listen: &ListenAddress, status_path: Option<&str>) -> String {
    let (address, path) = (sockets::name(listen), status_path.unwrap_or("/status"));
    match listen {
        ListenAddress::Unix(_) => format!("unix://{address};{path}"),
        ListenAddress::Tcp(_) => format!("tcp://{address}{path}"),
        ListenAddress::TcpPort(_) => format!("tcp://127.0.0.1:{address}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_an_exporter_would_be_given() {
        let tcp = ListenAddress::Tcp("127.0.0.1:9000".parse().expect("an address"));
        assert_eq!(scrape_uri(&tcp, None), "tcp://127.0.0.1:9000/status");
        let unix = ListenAddress::Unix("/run/php.sock".into());
        assert_eq!(scrape_uri(&unix, Some("/s")), "unix:///run/php.sock;/s");
        assert_eq!(
            scrape_uri(&ListenAddress::TcpPort(9000), None),
            "tcp://127.0.0.1:9000/status"
        );
    }
}
