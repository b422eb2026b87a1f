//! What the observer knows, and what it does on each event. No waiting here: the loop
//! in `run` calls in.

use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Ended, FromObserver, ObserverStart, PoolView, ToObserver, WorkerView};
use glasspool_abi::slot::{CursorTable, InFlight};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::desk::{Desk, Taken};
use super::drain::drain;
use super::lines::{Lines, say_dropped};
use super::looks::{LastLooks, watch};
use super::readers::Readers;
use super::report::{OpenTerminal, Report};
use super::sampler::{Answer, Sampler, Seen, Why};
use super::saturation::Surveys;
use super::scoreboard::Scoreboard;
use super::slow::{Next, RETRY_NS};
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
    pub(super) board: Scoreboard,
    pub(super) report: Report,
    pub(super) desk: Desk,
    pub(super) last_looks: LastLooks,
    pub(super) surveys: Surveys,
    pub(super) log: ErrorLog,
    pub(super) lines: Lines,
    pub(super) readers: Readers,
    pub(super) buffer: Vec<u8>,
    /// Answers to those who wait for a look.
    pub(super) looked: Vec<FromObserver>,
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
            report: Report::new(start, terminal, sampler.ladder(), &log),
            desk: Desk::new(sampler, &start.budget),
            last_looks: LastLooks::default(),
            surveys: Surveys::default(),
            log,
            lines: Lines::default(),
            readers: Readers::default(),
            buffer: Vec::new(),
            looked: Vec::new(),
            buried: Vec::new(),
            slow: Vec::new(),
        }
    }

    /// Tells the supervisor of looks that it waits for, of slow requests, which it counts,
    /// and of workers that it may forget; as far as `tell` can be told of now.
    pub(super) fn tell_supervisor(&mut self, mut tell: impl FnMut(&FromObserver) -> bool) {
        tell_all(&mut self.looked, &mut tell);
        tell_all(&mut self.slow, |worker| {
            tell(&FromObserver::Slow { worker: *worker })
        });
        tell_all(&mut self.buried, |worker| {
            tell(&FromObserver::Buried { worker: *worker })
        });
    }

    /// A message of the supervisor. Returns the time for the shutdown if it was the order
    /// to stop.
    pub(super) fn on(&mut self, input: Input) -> Option<Duration> {
        match input {
            Input::Pool { view, slow_log } => self.on_pool(view, slow_log),
            Input::SlowLog { pool, log } => self.board.replace_slow_log(pool, log),
            Input::TelemetryFile(file) => self.report.outputs.replace_file(file),
            Input::Plain(ToObserver::Figures(figures)) => self.report.metrics.supervised.take_in(figures),
            Input::Plain(ToObserver::PoolGone { pool }) => {
                self.report.metrics.supervised.forget(pool);
                self.board.remove_pool(pool);
                self.surveys.forget(pool);
            }
            Input::Plain(ToObserver::LastLook { worker, doom }) => self.on_last_look(worker, doom),
            Input::Plain(ToObserver::Saturated { pool }) => self.on_saturated(pool, monotonic_ns()),
            Input::Worker {
                view,
                slot,
                process,
                memory,
                calls,
            } => {
                let host = self.report.host_name();
                match self
                    .board
                    .add_worker(&view, &slot, process, (memory, calls), host)
                {
                    Ok(Some(first_of_pool)) => self.desk.meet(first_of_pool),
                    Ok(None) => {}
                    Err(e) => self.on_unwatched(&view, &e),
                }
            }
            Input::Plain(ToObserver::Engine { engine, php }) => {
                self.report.on_php(&php);
                self.board.add_engine(engine, *php);
            }
            Input::Plain(ToObserver::WorkerGone {
                worker,
                ended,
                mono_ns,
            }) => {
                self.on_gone(worker, ended, mono_ns);
            }
            Input::Plain(ToObserver::Line(line)) => self.on_line(*line),
            Input::Tail { question, connection } => {
                let now = monotonic_ns();
                self.readers.welcome(&question, connection, &self.report.history);
                self.readers.serve(&self.report.history, now);
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
        let mut crashed = Vec::new();
        let Observer {
            board,
            report,
            desk,
            log,
            buffer,
            slow,
            ..
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
            if let Some(crash) = worker.slot.crash()
                && worker.requests.cases.first_crash()
            {
                crashed.push((*id, crash));
            }
            let watched = watch(*id, worker, &pool.rules, desk, now);
            if let Next::At(due) = watched.next {
                tick.due = Some(tick.due.map_or(due, |earliest| earliest.min(due)));
            }
            let samples = &mut report.counters.samples;
            samples.postponed += u64::from(watched.taken == Some(Taken::Later));
            samples.skipped += u64::from(watched.taken == Some(Taken::Skipped));
            if watched.is_first && slow.len() < UNTOLD_SLOW {
                slow.push(*id);
            }
        }
        for pool in board.pools.values_mut() {
            if let Some(lost) = pool.lost.due(now) {
                say_lost(log, &pool.rules.pool, lost);
            }
            if let Some(lines) = pool.lines_dropped.due(now) {
                say_dropped(log, &pool.rules.pool, lines);
            }
        }
        board.cursors.store_in_flight(report.in_flight());
        report.tell_metrics(board, now);
        for (worker, crash) in crashed {
            self.on_crash(worker, crash, now);
        }
        self.order_last_looks();
        self.order_survey();
        self.flush_lines(now);
        self.readers.serve(&self.report.history, now);
        if !self.last_looks.is_empty() {
            let soon = now.saturating_add(RETRY_NS);
            tick.due = Some(tick.due.map_or(soon, |earliest| earliest.min(soon)));
        }
        tick
    }

    /// The sampler has looked.
    pub(super) fn on_answer(&mut self, answer: Answer) {
        let Answer {
            worker: id,
            number,
            why,
            seen,
        } = answer;
        let stop = seen.as_ref().map_or(Duration::ZERO, |seen| seen.event.cost);
        self.desk.answered(why, stop, monotonic_ns());
        self.report.metrics.stopped(stop);
        self.answer_last_look(id, why);
        if seen.is_none() {
            self.report.counters.samples.too_late += 1;
        }
        if why == Why::Saturated {
            if let Some(seen) = &seen {
                self.report.count_look(seen.look);
            }
            self.on_surveyed(id, seen.map(|seen| seen.event));
        } else {
            self.on_seen(id, number, why, seen);
        }
        self.order_last_looks();
        self.order_survey();
    }

    /// A request was looked at for its own sake.
    fn on_seen(&mut self, id: WorkerId, number: u64, why: Why, seen: Option<Seen>) {
        let Some(worker) = self.board.workers.get_mut(&id) else {
            return;
        };
        if let Some(seen) = &seen {
            self.report.seen(seen, &worker.requests.facts);
            if let Some(pool) = self.board.pools.get(&worker.pool) {
                self.report
                    .still_running(why, &pool.rules, seen, &worker.requests.facts);
            }
        }
        let event = seen.map(|Seen { event, .. }| event);
        if let Some((held, samples)) = worker.requests.cases.answered(number, event) {
            self.report
                .request(&held.end, &worker.requests.facts, &samples, held.priority);
        }
        if worker.gone.is_some() && !worker.requests.cases.is_asked() {
            self.bury(id);
        }
    }

    fn on_gone(&mut self, id: WorkerId, ended: Ended, mono_ns: u64) {
        let now = monotonic_ns();
        self.end_lines(id);
        self.flush_lines(now);
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
        report.metrics.worker_ended(&pool.rules.pool, ended);
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
        self.desk.close();
        let patience = Instant::now() + within / 4;
        while let Ok(Some(answer)) = timeout_at(patience, answers.recv()).await {
            self.on_answer(answer);
        }
        self.tick(monotonic_ns());
        self.flush_lines(u64::MAX);
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
            if let Some(lines) = pool.lines_dropped.rest() {
                say_dropped(&self.log, &pool.rules.pool, lines);
            }
        }
        self.board.cursors.store_in_flight(InFlight::default());
        self.report.tell_metrics(&self.board, u64::MAX);
        let (pipeline, counters) = self.report.into_parts();
        let delivery = pipeline
            .shutdown(deadline.saturating_duration_since(Instant::now()))
            .await;
        if let Some(line) = counters.losses(&delivery) {
            self.log.notice(line);
        }
    }
}

/// Tells as many of them as can be told of now, and forgets those.
fn tell_all<T>(all: &mut Vec<T>, mut tell: impl FnMut(&T) -> bool) {
    let told = all.iter().take_while(|one| tell(one)).count();
    all.drain(..told);
}

fn say_lost(log: &ErrorLog, pool: &str, lost: u64) {
    log.warning(format_args!("observer lost {lost} records of pool {pool}"));
}
