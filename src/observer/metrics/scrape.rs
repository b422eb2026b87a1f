//! One moment's figures for whoever fetches them, written as a page once for each format.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use glasspool_otel::metrics::Snapshot;
use glasspool_otel::metrics::prometheus::{Foreign, Format, Resource, render};

use super::{Metrics, phpfpm};

/// Figures are not collected more often, whoever asks.
const FRESH: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(in crate::observer) struct Scrape {
    snapshot: Snapshot,
    resource: Resource,
    foreign: Vec<Foreign>,
    pages: Mutex<[Option<Bytes>; 2]>,
}

/// The latest, and when it was made.
pub(super) type LastScrape = Option<(Instant, Arc<Scrape>)>;

impl Scrape {
    /// All figures in that format.
    pub(super) fn page(&self, format: Format) -> Bytes {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = match format {
            Format::Text => &mut pages[0],
            Format::OpenMetrics => &mut pages[1],
        };
        let write = || Bytes::from(render(&self.snapshot, &self.resource, &self.foreign, format));
        page.get_or_insert_with(write).clone()
    }
}

impl Metrics {
    /// The last one, if it will do.
    pub(in crate::observer) fn recent_scrape(&self) -> Option<Arc<Scrape>> {
        let (made, scrape) = self.last_scrape.as_ref()?;
        (made.elapsed() < FRESH).then(|| Arc::clone(scrape))
    }

    /// A new one.
    pub(in crate::observer) fn new_scrape(&mut self, snapshot: Snapshot, resource: Resource) -> Arc<Scrape> {
        let now = Duration::from_nanos(snapshot.time_unix_ns).as_secs();
        let foreign = if self.phpfpm_names {
            phpfpm::names(self.supervised.serving(), now)
        } else {
            Vec::new()
        };
        let scrape = Arc::new(Scrape {
            snapshot,
            resource,
            foreign,
            pages: Mutex::default(),
        });
        self.last_scrape = Some((Instant::now(), Arc::clone(&scrape)));
        scrape
    }
}
