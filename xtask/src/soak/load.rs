//! The requests meanwhile: a thread for each socket, each request on a connection of its
//! own, every answer checked.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use glasspool_benches::load::{self, Bound, Load, request};
use glasspool_benches::stop::Stop;

use super::site::{Address, PATH, Site};
use crate::report::Report;

/// Requests under way on each socket: more than one pool's workers, so that some wait.
const CLIENTS: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
/// Requests between two looks at whether to go on.
const BATCH: u64 = 50;
/// Failures after which a thread gives up: more would say nothing new.
const MAX_FAILURES: u64 = 1000;
/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Running load on all sockets; ends when dropped.
#[derive(Debug)]
pub(super) struct Loads {
    go_on: Arc<AtomicBool>,
    /// Whether the promised number does not matter any more.
    given_up: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<Counts>>>,
}

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    answered: u64,
    failed: u64,
    /// The first failures in words.
    failures: Vec<String>,
}

impl Loads {
    /// Starts asking, and goes on for `requests` in all and until [`Loads::finish`].
    pub(super) fn start(site: &Site, requests: u64) -> Result<Self> {
        let go_on = Arc::new(AtomicBool::new(true));
        let given_up = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let addresses = site.addresses();
        let share = requests.div_ceil(addresses.len() as u64);
        let threads = addresses
            .iter()
            .map(|address| {
                let load = load_of(site, address, BATCH);
                let (go_on, given_up) = (Arc::clone(&go_on), Arc::clone(&given_up));
                let answered = Arc::clone(&answered);
                // A signal ends the trial, and that ends the load.
                let stop = Stop::never()?;
                Ok(std::thread::spawn(move || {
                    let mut counts = Counts::default();
                    while counts.failed < MAX_FAILURES
                        && !given_up.load(Ordering::Relaxed)
                        && (go_on.load(Ordering::Relaxed) || counts.answered < share)
                    {
                        let outcome = load::run(&load, &stop)?;
                        counts.answered += outcome.answered;
                        counts.failed += outcome.errors.total();
                        counts.failures.extend(outcome.errors.first);
                        answered.fetch_add(outcome.answered, Ordering::Relaxed);
                    }
                    Ok(counts)
                }))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            go_on,
            given_up,
            answered,
            threads,
        })
    }

    /// A few words for the progress line.
    pub(super) fn so_far(&self) -> String {
        format!("{} requests answered", self.answered.load(Ordering::Relaxed))
    }

    /// Waits until the promised number of requests is made (unless that `matters` no
    /// more), and adds up.
    pub(super) fn finish(mut self, matters: bool) -> Counts {
        self.given_up.store(!matters, Ordering::Relaxed);
        self.go_on.store(false, Ordering::Relaxed);
        let mut sum = Counts::default();
        for thread in self.threads.drain(..) {
            match thread.join().expect("the load generator does not panic") {
                Ok(counts) => {
                    sum.answered += counts.answered;
                    sum.failed += counts.failed;
                    sum.failures.extend(counts.failures);
                }
                Err(e) => {
                    sum.failed += 1;
                    sum.failures.push(format!("{e:#}"));
                }
            }
        }
        sum
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.go_on.store(false, Ordering::Relaxed);
    }
}

impl Counts {
    /// At least `wanted` were answered, and none failed.
    pub(super) fn judge(&self, what: impl Display, wanted: u64, report: &mut Report) {
        let Self {
            answered,
            failed,
            failures,
        } = self;
        report.check(
            format_args!("{what}: of {answered} requests meanwhile none failed"),
            *failed == 0 && *answered >= wanted,
            format_args!("at least {wanted} answers and no failure"),
            format_args!(
                "{failed} failures, such as {:?}",
                &failures[..failures.len().min(5)]
            ),
        );
    }
}

/// The whole answer to one request, headers and body.
pub(super) fn ask(site: &Site, address: &Address, stop: &Stop) -> Result<String> {
    let mut answer = String::new();
    let outcome = load::run_each(&load_of(site, address, 1), stop, &mut |bytes| {
        answer = String::from_utf8_lossy(bytes).into_owned();
    })
    .context("cannot ask")?;
    Ok(outcome.errors.first.unwrap_or(answer))
}

fn load_of(site: &Site, address: &Address, count: u64) -> Load {
    Load {
        address: match address {
            Address::Unix(path) => load::Address::Unix(path.clone()),
            Address::Tcp(address) => load::Address::Tcp(*address),
        },
        // Whoever keeps a connection must expect that it closes between two requests.
        keep: false,
        clients: CLIENTS,
        bound: Bound::Count(count),
        patience: PATIENCE,
        params: request::params(site.dir(), PATH, ""),
        expect: b"soak generation ".to_vec(),
    }
}
