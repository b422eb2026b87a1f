//! What workers write, line by line: from the supervisor's message to a log record with the
//! trace of the request that wrote it, and to whoever reads along.
//!
//! Start with [`Observer::on_line`]; `join` makes one message of a stack trace, `words` reads
//! what it says of itself, `owner` finds its request. What PHP logs elsewhere than to
//! standard error comes by the worker's ring: [`Requests::on_logged`]. What the supervisor
//! itself logs is in `supervisor`, what we log in `own`.

mod join;
mod own;
mod owner;
mod supervisor;
mod words;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use glasspool_abi::WorkerId;
use glasspool_abi::control::{OutputStream, WorkerLine};
use glasspool_abi::record::{End, Text};
use glasspool_otel::line::{Line, Owner, Weight};

use self::join::Joiner;
pub(super) use self::own::Own;
use self::owner::Found;
pub(super) use self::owner::Recent;
use self::words::{Follow, Words};
use super::drain::{Turn, drain};
use super::monotonic_ns;
use super::report::Report;
use super::scoreboard::{Pool, Requests};
use super::state::Observer;
use crate::logs::ErrorLog;

/// Longest way of a line to here that is believed.
const LONGEST_AGE: Duration = Duration::from_secs(60);

/// How long a line waits for its worker to be introduced: both come from the supervisor, and
/// a worker may speak before it has said that it is ready.
const HOLD_NS: u64 = 500_000_000;
/// Lines that wait for that at most; more are told without their request.
const MOST_EARLY: usize = 512;

/// Lines that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Those whose message is not complete.
    joiner: Joiner,
    /// Those whose worker is not known, and since when.
    early: VecDeque<(u64, WorkerLine)>,
}

impl Observer {
    /// A worker has written a line.
    pub(super) fn on_line(&mut self, line: WorkerLine) {
        let now = monotonic_ns();
        let mut complete = Vec::new();
        if let Some(pool) = self.board.pools.get_mut(&line.pool) {
            pool.lines_dropped.add(line.dropped);
            self.report.metrics.lines_dropped(&pool.rules.pool, line.dropped);
        }
        if line.text.is_empty() {
            self.lines.joiner.end(line.worker, |line| complete.push(line));
        } else {
            self.lines.joiner.push(line, now, &mut |line| complete.push(line));
        }
        self.tell_lines(complete, now);
    }

    /// Tells messages whose end did not come.
    pub(super) fn flush_lines(&mut self, now: u64) {
        let mut complete = Vec::new();
        self.lines.joiner.flush(now, |line| complete.push(line));
        self.tell_lines(complete, now);
        while let Some((since, line)) = self.lines.early.front()
            && (self.board.workers.contains_key(&line.worker) || now.saturating_sub(*since) >= HOLD_NS)
            && let Some((_, line)) = self.lines.early.pop_front()
        {
            self.tell_line(&line, now);
        }
    }

    /// The worker says nothing more.
    pub(super) fn end_lines(&mut self, worker: WorkerId) {
        let mut complete = Vec::new();
        self.lines.joiner.end(worker, |line| complete.push(line));
        self.tell_lines(complete, monotonic_ns());
    }

    fn tell_lines(&mut self, lines: Vec<WorkerLine>, now: u64) {
        for line in lines {
            let is_known = self.board.workers.contains_key(&line.worker);
            let early = &mut self.lines.early;
            // Those of a worker that is gone wait too, for nothing; the order stays.
            if !early.is_empty() || !is_known {
                early.push_back((now, line));
                if early.len() > MOST_EARLY
                    && let Some((_, first)) = early.pop_front()
                {
                    self.tell_line(&first, now);
                }
            } else {
                self.tell_line(&line, now);
            }
        }
    }

    fn tell_line(&mut self, line: &WorkerLine, now: u64) {
        let owner = self.owner_of(line, now);
        // The pool of a worker that was never introduced may be gone.
        let Some(pool) = self.board.pools.get(&line.pool) else {
            return;
        };
        let text = String::from_utf8_lossy(&line.text);
        let words = Words::of(&text, line.stream);
        let told = Line {
            time: wall(line.mono_ns, now),
            pool: pool.rules.pool.clone(),
            pid: u32::try_from(line.pid.0).unwrap_or(0),
            stream: Some(match line.stream {
                OutputStream::Stdout => "stdout",
                OutputStream::Stderr => "stderr",
            }),
            weight: words.weight,
            text: words.message.to_owned(),
            owner,
            cut: line.cut,
            dropped: line.dropped,
        };
        self.report.line(&told);
    }

    /// The request that wrote it. If it has just ended, its record is read first.
    fn owner_of(&mut self, line: &WorkerLine, now: u64) -> Option<Owner> {
        for may_drain in [true, false] {
            let worker = self.board.workers.get_mut(&line.worker)?;
            match worker.requests.recent.find(line, &worker.slot) {
                Found::Owner(owner) => return Some(owner).filter(|owner| owner.trace_id.0 != [0; 16]),
                Found::Nobody => return None,
                Found::NotYet if may_drain && worker.gone.is_none() => {
                    let pool = self.board.pools.get_mut(&worker.pool)?;
                    let mut turn = Turn {
                        report: &mut self.report,
                        waits: &mut self.waits,
                        log: &self.log,
                        cursors: &self.board.cursors,
                        now,
                    };
                    drain(worker, pool, &mut turn, &mut self.buffer);
                }
                Found::NotYet => return None,
            }
        }
        None
    }
}

impl Requests {
    /// PHP has logged something where the supervisor cannot read it; `None` if the record
    /// makes no sense.
    pub(super) fn on_logged(&self, record: &[u8], pool: &Pool, report: &mut Report, now: u64) -> Option<()> {
        let end = End::decode(record)?;
        let text = end.begin.texts.text(Text::Line)?;
        let words = Words::of(&text, OutputStream::Stderr);
        let has_ids = end.begin.trace_id.0 != [0; 16] && end.begin.span_id.0 != [0; 8];
        let length = end.begin.texts.get(Text::Line).map_or(0, <[u8]>::len) as u64;
        report.line(&Line {
            time: wall(end.end_mono_ns, now),
            pool: pool.rules.pool.clone(),
            pid: self.facts.pid,
            stream: None,
            weight: match words.follow {
                // What the application itself has logged, as at standard error.
                Follow::None => Weight::Info,
                Follow::Trace | Follow::All => words.weight,
            },
            text: words.message.to_owned(),
            owner: has_ids.then_some(Owner {
                trace_id: end.begin.trace_id,
                span_id: end.begin.span_id,
                sampled: end.begin.sampled,
                random: end.begin.random,
            }),
            cut: end.bytes_out.saturating_sub(length),
            dropped: end.bytes_in,
        });
        Some(())
    }
}

/// The wall clock's time of a monotonic one; `now` is the monotonic time of now. A worker
/// can name any time: what is to come, or long past, counts as now.
fn wall(mono_ns: u64, now: u64) -> SystemTime {
    let age = Duration::from_nanos(now.saturating_sub(mono_ns));
    let time = SystemTime::now();
    time.checked_sub(age)
        .filter(|_| age <= LONGEST_AGE)
        .unwrap_or(time)
}

/// How many lines of a pool's workers were left out.
pub(super) fn say_dropped(log: &ErrorLog, pool: &str, lines: u64) {
    log.warning(format_args!(
        "[pool {pool}] {lines} lines of its workers are in the error log only: more than one worker may tell in a second, or \
         than the observer could take"
    ));
}

#[cfg(test)]
mod tests;
