//! What the observer knows, and what it does on each event. No waiting here: the loop
//! in `run` calls in.

use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{FromObserver, ObserverStart, PoolView, ToObserver, WorkerView};
use glasspool_abi::slot::CursorTable;

use super::desk::{Desk, Taken};
use super::drain::{Turn, drain};
use super::lines::{Lines, Own, say_dropped};
use super::looks::{LastLooks, watch};
use super::readers::Readers;
use super::report::{OpenTerminal, Report};
use super::sampler::{Answer, Sampler, Seen, Why};
use super::saturation::Surveys;
use super::scoreboard::Scoreboard;
use super::slow::{Next, RETRY_NS};
use super::waits::Waits;
use super::{monotonic_ns, protocol::Input};
use crate::logs::ErrorLog;

/// Slow requests that the supervisor could not be told of yet; more than that while it
/// does not read are not counted.
const UNTOLD_SLOW: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) board: Scoreboard,
    pub(super) report: Report,
    pub(super) waits: Waits,
    pub(super) desk: Desk,
    pub(super) last_looks: LastLooks,
    pub(super) surveys: Surveys,
    pub(super) log: ErrorLog,
    pub(super) lines: Lines,
    /// What `log` was told.
    own: Own,
    pub(super) readers: Readers,
    pub(super) buffer: Vec<u8>,
    /// Answers to those who wait for a look.
    pub(super) looked: Vec<FromObserver>,
    /// Workers that are gone and read to the end; the supervisor is to be told.
    pub(super) buried: Vec<WorkerId>,
    /// Workers whose slow requests were first looked into, likewise.
    slow: Vec<WorkerId>,
    /// Whether the CPUs' clocks are to run, likewise.
    clocks: Option<bool>,
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
        waits: Waits,
        terminal: OpenTerminal,
        log: ErrorLog,
    ) -> Observer {
        let own = Own::of(&log);
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
            waits,
            desk: Desk::new(sampler, &start.budget),
            last_looks: LastLooks::default(),
            surveys: Surveys::default(),
            log,
            lines: Lines::default(),
            own,
            readers: Readers::default(),
            buffer: Vec::new(),
            looked: Vec::new(),
            buried: Vec::new(),
            slow: Vec::new(),
            clocks: None,
        }
    }

    /// Tells the supervisor of looks that it waits for, of slow requests, which it counts,
    /// of workers that it may forget, and what the CPUs' clocks are to do; as far as `tell` can
    /// be told of now.
    pub(super) fn tell_supervisor(&mut self, mut tell: impl FnMut(&FromObserver) -> bool) {
        tell_all(&mut self.looked, &mut tell);
        tell_all(&mut self.slow, |worker| {
            tell(&FromObserver::Slow { worker: *worker })
        });
        tell_all(&mut self.buried, |worker| {
            tell(&FromObserver::Buried { worker: *worker })
        });
        self.clocks
            .take_if(|run| tell(&FromObserver::Clocks { run: *run }));
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
                let (worker, page) = (view.worker, view.times_page);
                match self
                    .board
                    .add_worker(&view, &slot, process, (memory, calls), host)
                {
                    Ok(first_of_pool) => {
                        if page.is_some() {
                            self.waits.watch(worker);
                        }
                        if let Some(first_of_pool) = first_of_pool {
                            self.desk.meet(first_of_pool);
                        }
                    }
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
            Input::Plain(ToObserver::Logged(line)) => self.on_logged(*line),
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
        self.report.routes.follow(&view);
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
            waits,
            desk,
            log,
            buffer,
            slow,
            clocks,
            ..
        } = self;
        waits.drain();
        for (id, worker) in &mut board.workers {
            let Some(pool) = board.pools.get_mut(&worker.pool) else {
                continue;
            };
            if worker.gone.is_some() {
                continue; // Read to its end; waits for the answer to its last look.
            }
            let mut turn = Turn {
                report,
                waits,
                log,
                cursors: &board.cursors,
                now,
            };
            let found = drain(worker, pool, &mut turn, buffer);
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
            if let Some(past) = watched.past {
                waits.past(*id, worker.page, past, now);
            }
            let samples = &mut report.counters.samples;
            samples.postponed += u64::from(watched.taken == Some(Taken::Later));
            samples.skipped += u64::from(watched.taken == Some(Taken::Skipped));
            if watched.is_first && slow.len() < UNTOLD_SLOW {
                slow.push(*id);
            }
        }
        *clocks = waits.keep_clocks(now).or(*clocks);
        waits.say_full(now, log);
        for pool in board.pools.values_mut() {
            if let Some(lost) = pool.lost.due(now) {
                say_lost(log, &pool.rules.pool, lost);
            }
            if let Some(lines) = pool.lines_dropped.due(now) {
                say_dropped(log, &pool.rules.pool, lines);
            }
        }
        board.cursors.store_in_flight(report.in_flight());
        report.tell_metrics(board, waits, now);
        for (worker, crash) in crashed {
            self.on_crash(worker, crash, now);
        }
        self.order_last_looks();
        self.order_survey();
        self.flush_lines(now);
        self.own.keep(&self.log, &mut self.report);
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
            self.report.request(&held, &worker.requests.facts, &samples);
        }
        if worker.gone.is_some() && !worker.requests.cases.is_asked() {
            self.bury(id);
        }
    }
}

/// Tells as many of them as can be told of now, and forgets those.
fn tell_all<T>(all: &mut Vec<T>, mut tell: impl FnMut(&T) -> bool) {
    let told = all.iter().take_while(|one| tell(one)).count();
    all.drain(..told);
}

pub(super) fn say_lost(log: &ErrorLog, pool: &str, lost: u64) {
    log.warning(format_args!("observer lost {lost} records of pool {pool}"));
}
