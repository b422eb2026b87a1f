//! The loop over all clients.

use std::time::{Duration, Instant};

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::RequestEncoder;
use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::client::{Client, Failure, Shared};
use super::{Bound, Errors, Load, Outcome};
use crate::BenchError;
use crate::stop::Stop;

/// What epoll calls the descriptor of [`Stop`]; clients are counted from 0.
const STOP: u64 = u64::MAX;
/// Longest sleep, so that late requests are noticed.
const TICK: Duration = Duration::from_millis(100);
/// Latencies above this are recorded as this: ten minutes, more than any patience.
const LONGEST_NS: u64 = 600_000_000_000;
/// After so many failures in a row nothing good comes any more, only a busy loop.
const MAX_FAILURES_IN_A_ROW: u32 = 100;

/// Makes the load. Returns when the bound is reached and every request has ended; at most `patience`
/// later than the bound.
///
/// # Errors
/// A signal to us, or epoll failed. Failed requests are counted, not errors; after a hundred in a row the
/// run ends early.
pub fn run(load: &Load, stop: &Stop) -> Result<Outcome, BenchError> {
    run_each(load, stop, &mut |_| {})
}

/// As [`run`], showing each right answer, headers and body.
///
/// # Errors
/// As [`run`].
pub fn run_each(load: &Load, stop: &Stop, on_answer: &mut dyn FnMut(&[u8])) -> Result<Outcome, BenchError> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(BenchError::system("epoll_create1"))?;
    epoll::add(&epoll, stop.as_fd(), EventData::new_u64(STOP), EventFlags::IN)
        .map_err(BenchError::system("epoll_ctl"))?;
    let request = encode(load);
    let shared = Shared {
        address: &load.address,
        keep: load.keep,
        request: &request,
        expect: Finder::new(&load.expect),
        epoll,
        input: vec![0; 64 * 1024],
        turn: 0,
        sent: 0,
    };
    let start = Instant::now();
    let run = Run {
        load,
        shared,
        start,
        last_answer_at: start,
        started: 0,
        failures_in_a_row: 0,
        latency: Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits are in their ranges"),
        answered: 0,
        errors: Errors::default(),
        on_answer,
        checked_at: start,
    };
    run.finish()
}

/// The records of one request.
fn encode(load: &Load) -> Vec<u8> {
    let mut request = Vec::new();
    RequestEncoder::begin(&mut request, 1, Role::Responder, load.keep);
    RequestEncoder::params(
        &mut request,
        1,
        load.params.iter().map(|(name, value)| (name, value)),
    );
    RequestEncoder::stdin_end(&mut request, 1);
    request
}

struct Run<'a> {
    load: &'a Load,
    shared: Shared<'a>,
    start: Instant,
    last_answer_at: Instant,
    /// Requests started, those that got no connection included.
    started: u64,
    failures_in_a_row: u32,
    latency: Histogram<u64>,
    answered: u64,
    errors: Errors,
    on_answer: &'a mut dyn FnMut(&[u8]),
    /// When late requests were last looked for.
    checked_at: Instant,
}

impl Run<'_> {
    fn finish(mut self) -> Result<Outcome, BenchError> {
        let mut clients: Vec<Client> = (0..self.load.clients.get())
            .map(|i| Client::new(i.into()))
            .collect();
        for client in &mut clients {
            self.ask(client);
        }
        let tick = Timespec::try_from(TICK).expect("a tenth of a second fits");
        let mut events = Vec::with_capacity(64);
        while clients.iter().any(|client| !client.is_idle()) {
            events.clear();
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut events), Some(&tick)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(BenchError::system("epoll_wait")(e)),
            }
            for event in &events {
                if event.data.u64() == STOP {
                    return Err(BenchError::Interrupted);
                }
                let index = usize::try_from(event.data.u64()).expect("an index of a client");
                self.on_ready(&mut clients[index]);
            }
            if self.checked_at.elapsed() >= TICK {
                self.checked_at = Instant::now();
                self.drop_late(&mut clients);
            }
        }
        Ok(Outcome {
            sent: self.shared.sent,
            answered: self.answered,
            errors: self.errors,
            elapsed: self.last_answer_at - self.start,
            latency: self.latency,
        })
    }

    fn on_ready(&mut self, client: &mut Client) {
        match client.on_ready(&mut self.shared) {
            // Still under way, or an idle client's kept connection was closed.
            Ok(None) => return,
            Ok(Some(elapsed)) => {
                self.answered += 1;
                self.failures_in_a_row = 0;
                self.last_answer_at = Instant::now();
                let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
                self.latency.saturating_record(ns);
                (self.on_answer)(client.answer());
            }
            Err(failure) => self.failed(failure),
        }
        self.ask(client);
    }

    /// Starts the client's next request unless the bound is reached.
    fn ask(&mut self, client: &mut Client) {
        while self.goes_on() {
            self.started += 1;
            match client.ask(&mut self.shared) {
                Ok(()) => return,
                Err(failure) => self.failed(failure),
            }
        }
    }

    fn goes_on(&self) -> bool {
        let within = match self.load.bound {
            Bound::Time(limit) => self.start.elapsed() < limit,
            Bound::Count(count) => self.started < count,
        };
        within && self.failures_in_a_row < MAX_FAILURES_IN_A_ROW
    }

    fn failed(&mut self, failure: Failure) {
        self.failures_in_a_row += 1;
        self.errors.count(failure);
    }

    fn drop_late(&mut self, clients: &mut [Client]) {
        for client in clients {
            if !client.is_idle() && client.started().elapsed() > self.load.patience {
                client.give_up();
                self.failed(Failure::Late);
                self.ask(client);
            }
        }
    }
}
