//! Visitors that ask as fast as they are answered, for a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Client, short};
use super::site::Page;

/// Messages kept of requests that failed; the rest is counted.
const MOST_MESSAGES: usize = 5;

/// Load under way; ends by time or by [`Load::stop`], always between two requests.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    visitors: Vec<JoinHandle<()>>,
}

/// What the visitors saw.
#[derive(Debug)]
pub(super) struct Outcome {
    pub requests: u64,
    pub failed: u64,
    /// The first few failures.
    pub messages: Vec<String>,
    /// Answers per second.
    pub rate: f64,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    messages: Mutex<Vec<String>>,
    started: Instant,
    until: Instant,
}

impl Load {
    /// `visitors` ask for the pages in turn, each on a connection of its own.
    pub(super) fn start(base: &str, pages: &[Page], visitors: usize, time: Duration) -> Load {
        let started = Instant::now();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            messages: Mutex::new(Vec::new()),
            started,
            until: started + time,
        });
        let visit = |number: usize| {
            let (shared, base, mut pages) = (Arc::clone(&shared), base.to_owned(), pages.to_vec());
            let turn = number % pages.len();
            pages.rotate_left(turn);
            std::thread::spawn(move || shared.visit(&base, &pages))
        };
        Load {
            visitors: (0..visitors).map(visit).collect(),
            shared,
        }
    }

    /// Ends it early.
    pub(super) fn stop(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until its time is over.
    pub(super) fn finish(self) -> Outcome {
        for visitor in self.visitors {
            visitor.join().expect("a visitor does not panic");
        }
        let took = self.shared.started.elapsed();
        let requests = self.shared.requests.load(Ordering::Relaxed);
        Outcome {
            requests,
            failed: self.shared.failed.load(Ordering::Relaxed),
            messages: self.shared.messages.lock().expect("no visitor panicked").clone(),
            rate: f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / took.as_secs_f64(),
        }
    }
}

impl Shared {
    fn visit(&self, base: &str, pages: &[Page]) {
        let mut client = Client::new(base);
        for page in pages.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) || Instant::now() >= self.until {
                return;
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let wrong = match client.send("GET", &page.path, &[], Vec::new()) {
                Ok(reply) if reply.status == 200 && reply.text().contains(&page.text) => continue,
                Ok(reply) => format!("{}: status {}, {}", page.path, reply.status, short(&reply.text())),
                Err(e) => format!("{}: {e:#}", page.path),
            };
            self.failed.fetch_add(1, Ordering::Relaxed);
            let mut messages = self.messages.lock().expect("no visitor panicked");
            if messages.len() < MOST_MESSAGES {
                messages.push(wrong);
            }
        }
    }
}
