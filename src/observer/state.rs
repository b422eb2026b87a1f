//! What the observer knows, and what it does on each event. No waiting here: the loop
//! in `run` calls in.

use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Ended, FromObserver, ObserverStart, PoolView, ToObserver, WorkerView};
use glasspool_abi::slot::{CursorTable, InFlight};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::drain::drain;
use super::report::{OpenTerminal, Report};
use super::sampler::{Answer, Order, Sampler, Seen, Why};
use super::scoreboard::{Scoreboard, Worker};
use super::slow::{self, Budget, Next};
use super::{monotonic_ns, protocol::Input};
use crate::logs::ErrorLog;

/// A dead worker's ring is read at most so often; once is enough unless it lies.
const LAST_READS: usize = 4;
/// Slow requests that the supervisor could not be told of yet; more than that while it
/// does not read are not counted.
const UNTOLD_SLOW: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Observer {
    board: Scoreboard,
    report: Report,
    sampler: Option<Sampler>,
    budget: Budget,
    log: ErrorLog,
    buffer: Vec<u8>,
    /// Workers that are gone and read to the end; the supervisor is to be told.
    buried: Vec<WorkerId>,
    /// Workers whose slow requests were first looked into, likewise.
    slow: Vec<WorkerId>,
}

/// What one look at all slots found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick {
    /// End records read.
    pub(super) records: u64,
    /// The next deadline of a request under way, monotonic nanoseconds.
    pub(super) due: Option<u64>,
}

impl Observer {
    pub(super) fn new(
        start: &ObserverStart,
        cursors: CursorTable,
        sampler: Sampler,
        terminal: OpenTerminal,
        log: ErrorLog,
    ) -> Observer {
        let before = cursors.in_flight();
        let unsettled = before.taken.saturating_sub(before.settled);
        if unsettled > 0 {
            log.warning(format_args!(
                "the observer before this one ended with spans on their way; lost: {unsettled} spans not delivered"
            ));
        }
        Observer {
            board: Scoreboard::new(cursors),
            report: Report::new(start, terminal, &log),
            sampler: Some(sampler),
            budget: Budget::new(),
            log,
            buffer: Vec::new(),
            buried: Vec::new(),
            slow: Vec::new(),
        }
    }

    /// Tells the supervisor of slow requests, which it counts, and of workers that it may
    /// forget; as far as `tell` can be told of now.
    pub(super) fn tell_supervisor(&mut self, mut tell: impl FnMut(&FromObserver) -> bool) {
        let slow = self.slow.iter();
        let told = slow.take_while(|worker| tell(&FromObserver::Slow { worker: **worker }));
        let told = told.count();
        self.slow.drain(..told);
        let buried = self.buried.iter();
        let told = buried.take_while(|worker| tell(&FromObserver::Buried { worker: **worker }));
        let told = told.count();
        self.buried.drain(..told);
    }

    /// A message of the supervisor. Returns the time for the shutdown if it was the order
    /// to stop.
    pub(super) fn on(&mut self, input: Input) -> Option<Duration> {
        match input {
            Input::Pool { view, slow_log } => self.on_pool(view, slow_log),
            Input::SlowLog { pool, log } => self.board.replace_slow_log(pool, log),
            Input::Plain(ToObserver::PoolGone { pool }) => self.board.remove_pool(pool),
            Input::Worker {
                view,
                slot,
                process,
                memory,
                calls,
            } => {
                let host = self.report.host_name();
                if let Err(e) = self
                    .board
                    .add_worker(&view, &slot, process, (memory, calls), host)
                {
                    self.on_unwatched(&view, &e);
                }
            }
            Input::Plain(ToObserver::Engine { engine, php }) => {
                self.report.on_php(&php.version);
                self.board.add_engine(engine, *php);
            }
            Input::Plain(ToObserver::WorkerGone {
                worker,
                ended,
                mono_ns,
            }) => {
                self.on_gone(worker, ended, mono_ns);
            }
            Input::Plain(ToObserver::Stop { within }) => return Some(within),
            Input::Start(_) | Input::Plain(_) => {
                self.log
                    .warning("ignoring a message of the supervisor: the observer has started already");
            }
        }
        None
    }

    fn on_pool(&mut self, view: PoolView, slow_log: Option<std::os::fd::OwnedFd>) {
        self.board.add_pool(view, slow_log);
    }

    fn on_unwatched(&self, view: &WorkerView, why: &super::scoreboard::Unwatched) {
        let pool = self
            .board
            .pools
            .get(&view.pool)
            .map_or("?", |pool| pool.rules.pool.as_str());
        self.log
            .warning(format_args!("[pool {pool}] {why}; its requests are not traced"));
    }

    /// Reads all rings and looks after all deadlines.
    pub(super) fn tick(&mut self, now: u64) -> Tick {
        let mut tick = Tick {
            records: 0,
            due: None,
        };
        let Observer {
            board,
            report,
            sampler,
            budget,
            log,
            buffer,
            buried: _,
            slow,
        } = self;
        for (id, worker) in &mut board.workers {
            let Some(pool) = board.pools.get_mut(&worker.pool) else {
                continue;
            };
            if worker.gone.is_some() {
                continue; // Read to its end; waits for the answer to its last look.
            }
            let before = worker.cursor;
            let found = drain(worker, pool, report, log, buffer, now);
            if worker.cursor != before {
                board.cursors.store(worker.entry, worker.cursor);
            }
            tick.records += found.records;
            let order = |order: Order| {
                let first = order.why == Why::Slow { first: true };
                let taken = sampler.as_ref().is_some_and(|sampler| sampler.order(order));
                if taken && first && slow.len() < UNTOLD_SLOW {
                    slow.push(*id);
                }
                taken
            };
            match watch(*id, worker, &pool.rules, budget, order, now) {
                Watched {
                    next: Next::At(due),
                    postponed,
                } => {
                    tick.due = Some(tick.due.map_or(due, |earliest| earliest.min(due)));
                    report.counters.samples.postponed += u64::from(postponed);
                }
                Watched {
                    next: Next::Never | Next::Now { .. },
                    ..
                } => {}
            }
        }
        for pool in board.pools.values_mut() {
            if let Some(lost) = pool.lost.due(now) {
                say_lost(log, &pool.rules.pool, lost);
            }
        }
        board.cursors.store_in_flight(report.in_flight());
        tick
    }

    /// The sampler has looked.
    pub(super) fn on_answer(&mut self, answer: Answer) {
        let Answer {
            worker: id,
            number,
            why: _,
            seen,
        } = answer;
        let Some(worker) = self.board.workers.get_mut(&id) else {
            return;
        };
        match &seen {
            Some(seen) => self.report.seen(seen, &worker.requests.facts),
            None => self.report.counters.samples.too_late += 1,
        }
        let event = seen.map(|Seen { event, .. }| event);
        if let Some((held, samples)) = worker.requests.cases.answered(number, event) {
            self.report
                .request(&held.end, &worker.requests.facts, &samples, held.priority);
        }
        if worker.gone.is_some() {
            self.bury(id);
        }
    }

    fn on_gone(&mut self, id: WorkerId, ended: Ended, mono_ns: u64) {
        let now = monotonic_ns();
        let Observer {
            board,
            report,
            log,
            buffer,
            ..
        } = self;
        // One that cannot be watched is not known here.
        let worker = board.workers.get_mut(&id);
        let Some((worker, pool)) = worker.and_then(|w| board.pools.get_mut(&w.pool).map(|p| (w, p))) else {
            self.buried.push(id);
            return;
        };
        for _ in 0..LAST_READS {
            if drain(worker, pool, report, log, buffer, now).records == 0 {
                break;
            }
        }
        board.cursors.store(worker.entry, worker.cursor);
        worker.gone = Some((ended, mono_ns));
        if !worker.requests.cases.is_asked() {
            self.bury(id);
        }
    }

    /// Tells of the request that a worker could not end, if there is one, and forgets it.
    fn bury(&mut self, id: WorkerId) {
        let Some(mut worker) = self.board.workers.remove(&id) else {
            return;
        };
        self.buried.push(id);
        let Some((ended, mono_ns)) = worker.gone else {
            return;
        };
        let requests = &mut worker.requests;
        if let Some((held, samples)) = requests.cases.give_up_look() {
            self.report
                .request(&held.end, &requests.facts, &samples, held.priority);
        }
        // The slot says which request ended last, but the worker may have died between
        // the end record and that word.
        let Some(progress) = worker
            .slot
            .in_progress()
            .filter(|progress| progress.number > requests.ended)
        else {
            return;
        };
        let Some(begin) = worker
            .slot
            .read_begin()
            .filter(|begin| begin.number == progress.number)
        else {
            return;
        };
        let samples = requests.cases.take_events(progress.number);
        self.report
            .killed(&begin, &requests.facts, ended, mono_ns, &samples);
    }

    /// Reads what is left, waits for looks that are under way, exports, and says what was
    /// lost; all within that time.
    pub(super) async fn finish(mut self, mut answers: mpsc::Receiver<Answer>, within: Duration) {
        let deadline = Instant::now() + within;
        // The sampler ends when it has answered what it was asked.
        self.sampler = None;
        let patience = Instant::now() + within / 4;
        while let Ok(Some(answer)) = timeout_at(patience, answers.recv()).await {
            self.on_answer(answer);
        }
        self.tick(monotonic_ns());
        let gone: Vec<_> = self
            .board
            .workers
            .iter()
            .filter(|(_, worker)| worker.gone.is_some())
            .collect();
        for id in gone.into_iter().map(|(id, _)| *id).collect::<Vec<_>>() {
            self.bury(id);
        }
        for worker in self.board.workers.values_mut() {
            let requests = &mut worker.requests;
            if let Some((held, samples)) = requests.cases.give_up_look() {
                self.report
                    .request(&held.end, &requests.facts, &samples, held.priority);
            }
        }
        for pool in self.board.pools.values_mut() {
            if let Some(lost) = pool.lost.rest() {
                say_lost(&self.log, &pool.rules.pool, lost);
            }
        }
        self.board.cursors.store_in_flight(InFlight::default());
        let (pipeline, counters) = self.report.into_parts();
        let delivery = pipeline
            .shutdown(deadline.saturating_duration_since(Instant::now()))
            .await;
        if let Some(line) = counters.losses(&delivery) {
            self.log.notice(line);
        }
    }
}

struct Watched {
    next: Next,
    /// A look was due and could not be had.
    postponed: bool,
}

/// Looks after the deadline of a worker's request.
fn watch(
    id: WorkerId,
    worker: &mut Worker,
    rules: &std::sync::Arc<super::sampler::Rules>,
    budget: &mut Budget,
    order: impl FnOnce(Order) -> bool,
    now: u64,
) -> Watched {
    let on_time = |next| Watched {
        next,
        postponed: false,
    };
    let Some(limit) = worker.requests.limit else {
        return on_time(Next::Never);
    };
    let Some(progress) = worker.slot.in_progress() else {
        return on_time(Next::Never);
    };
    let cases = &mut worker.requests.cases;
    let first = match cases.next(&progress, limit, now) {
        Next::Now { first } => first,
        later => return on_time(later),
    };
    let wanted = Order {
        worker: id,
        number: progress.number,
        why: Why::Slow { first },
        slot: worker.slot.clone(),
        process: worker.process.clone(),
        rules: rules.clone(),
    };
    if !budget.take(now) || !order(wanted) {
        return Watched {
            next: slow::postponed(now),
            postponed: true,
        };
    }
    cases.asked(&progress, limit, now);
    on_time(cases.next(&progress, limit, now))
}

fn say_lost(log: &ErrorLog, pool: &str, lost: u64) {
    log.warning(format_args!("observer lost {lost} records of pool {pool}"));
}
