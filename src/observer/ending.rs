//! How it ends: a worker, with the request that it could not end, and the observer.

use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::Ended;
use glasspool_abi::slot::InFlight;
use glasspool_otel::wait_span::Account;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::drain::{Turn, drain};
use super::lines::say_dropped;
use super::monotonic_ns;
use super::sampler::Answer;
use super::scoreboard::Worker;
use super::state::{Observer, say_lost};

/// A dead worker's ring is read at most so often; once is enough unless it lies.
const LAST_READS: usize = 4;

impl Observer {
    /// A worker is gone; what it has left is read.
    pub(super) fn on_gone(&mut self, id: WorkerId, ended: Ended, mono_ns: u64) {
        let now = monotonic_ns();
        self.end_lines(id);
        self.flush_lines(now);
        let Observer {
            board,
            report,
            waits,
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
        let mut turn = Turn {
            report,
            waits,
            log,
            cursors: &board.cursors,
            now,
        };
        for _ in 0..LAST_READS {
            if drain(worker, pool, &mut turn, buffer).records == 0 {
                break;
            }
        }
        worker.gone = Some((ended, mono_ns));
        report.metrics.worker_ended(&pool.rules.pool, ended);
        if !worker.requests.cases.is_asked() {
            self.bury(id);
        }
    }

    /// Tells of the request that a worker could not end, if there is one, and forgets it.
    pub(super) fn bury(&mut self, id: WorkerId) {
        let Some(mut worker) = self.board.workers.remove(&id) else {
            return;
        };
        self.buried.push(id);
        self.tell_rest(id, &mut worker);
        self.waits.forget(id);
    }

    fn tell_rest(&mut self, id: WorkerId, worker: &mut Worker) {
        let Some((ended, mono_ns)) = worker.gone else {
            return;
        };
        let requests = &mut worker.requests;
        if let Some((held, samples)) = requests.cases.give_up_look() {
            self.report.request(&held, &requests.facts, &samples);
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
        let begun = worker.slot.read_begin_times();
        let times = self.waits.at_death(worker.page, begun, mono_ns);
        let account = Account {
            times: &times,
            end_mono_ns: mono_ns,
            cpu_ns: 0,
            waits: &self.waits.take(id, progress.number, &times),
        };
        self.report
            .killed(&begin, &requests.facts, ended, &account, &samples);
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
                self.report.request(&held, &requests.facts, &samples);
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
        self.waits.say_full(u64::MAX, &self.log);
        self.board.cursors.store_in_flight(InFlight::default());
        self.report.tell_metrics(&self.board, &self.waits, u64::MAX);
        let (pipeline, counters) = self.report.into_parts();
        let delivery = pipeline
            .shutdown(deadline.saturating_duration_since(Instant::now()))
            .await;
        if let Some(line) = counters.losses(&delivery) {
            self.log.notice(line);
        }
    }
}
