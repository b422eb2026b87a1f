//! From a worker's slot to what is reported: every end record once.
//!
//! The work per call is bounded by the size of the worker's ring, whatever is in it.

use glasspool_abi::record::{ABORTED, End, FATAL, INCIDENT, LINE, Peek, Text};
use glasspool_abi::slot::{CursorTable, Drained};
use glasspool_otel::queue::Priority;

use super::report::Report;
use super::scoreboard::{Pool, Requests, Worker};
use super::slow::Held;
use super::text::Plain;
use super::waits::Waits;
use crate::logs::ErrorLog;

/// Lines that a worker can leave out between two looks, at the most.
const MOST_DROPPED_LINES: u64 = 1 << 32;

/// What an end record is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No request, but a line in the log.
    Incident,
    /// Nobody asked for it.
    Count,
    Export(Priority),
}

fn fate(peek: &Peek, slow: bool) -> Fate {
    if peek.flags & INCIDENT != 0 {
        Fate::Incident
    } else if slow || peek.status >= 500 || peek.flags & FATAL != 0 {
        Fate::Export(Priority::Urgent)
    } else if peek.sampled || peek.flags & ABORTED != 0 {
        Fate::Export(Priority::Ordinary)
    } else {
        Fate::Count
    }
}

/// What reading slots needs and fills.
pub(super) struct Turn<'a> {
    pub(super) report: &'a mut Report,
    pub(super) waits: &'a mut Waits,
    pub(super) log: &'a ErrorLog,
    pub(super) cursors: &'a CursorTable,
    /// Monotonic, nanoseconds.
    pub(super) now: u64,
}

/// Reads all end records that are new in the worker's slot.
pub(super) fn drain(
    worker: &mut Worker,
    pool: &mut Pool,
    turn: &mut Turn<'_>,
    buffer: &mut Vec<u8>,
) -> Drained {
    let Worker {
        slot, read, requests, ..
    } = worker;
    let before = *read;
    let mut nonsense = 0;
    let found = slot.drain(&mut read.cursor, buffer, |record| {
        if requests.on_record(record, pool, turn).is_none() {
            nonsense += 1;
        }
    });
    nonsense += u64::from(found.garbled);
    let Turn {
        report,
        log,
        cursors,
        now,
        ..
    } = turn;
    if nonsense > 0 {
        report.counters.garbled += nonsense;
        if worker.garbled.pass(*now).is_some() {
            log.warning(format_args!(
                "[pool {}] child {}: its slot makes no sense; requests may be missing in traces",
                pool.rules.pool, worker.process.pid
            ));
        }
    }
    let dropped = slot.dropped_lines();
    let new = dropped.saturating_sub(read.dropped_lines).min(MOST_DROPPED_LINES);
    if new > 0 {
        read.dropped_lines = dropped;
        pool.lines_dropped.add(new);
        report.metrics.lines_dropped(&pool.rules.pool, new);
    }
    report.counters.lost = report.counters.lost.saturating_add(found.lost);
    pool.lost.add(found.lost);
    if *read != before {
        cursors.store(worker.entry, *read);
    }
    found
}

impl Requests {
    /// One end record; `None` if it is none.
    fn on_record(&mut self, record: &[u8], pool: &mut Pool, turn: &mut Turn<'_>) -> Option<()> {
        let Turn {
            report,
            waits,
            log,
            now,
            ..
        } = turn;
        let peek = End::peek(record)?;
        if peek.flags & LINE != 0 {
            return self.on_logged(record, pool, report, *now);
        }
        let over = self
            .limit
            .is_some_and(|limit| u128::from(peek.busy_ns) >= limit.as_nanos());
        let fate = fate(&peek, over || self.cases.is_slow(peek.number));
        if fate != Fate::Incident {
            let exported = matches!(fate, Fate::Export(_));
            report.metrics.request(&pool.rules.pool, record, &peek, exported);
            let is_slow = over || self.cases.is_slow(peek.number);
            report
                .history
                .request(&pool.name, self.facts.pid, record, is_slow);
            self.recent.extend(End::context(record));
        }
        match fate {
            Fate::Incident => {
                report.counters.incidents += 1;
                let end = End::decode(record)?;
                let Some(held_back) = pool.incidents.pass(*now) else {
                    report.counters.incidents_unlogged += 1;
                    return Some(());
                };
                let message = end.begin.texts.text(Text::ErrorMessage).unwrap_or_default();
                let (pool, pid) = (&pool.rules.pool, self.facts.pid);
                let before = if held_back > 0 {
                    format!(" ({held_back} more not logged)")
                } else {
                    String::new()
                };
                log.notice(format_args!(
                    "[pool {pool}] child {pid}: connection dropped: {}{before}",
                    Plain(message)
                ));
                return Some(());
            }
            Fate::Count => {
                report.counters.unsampled += 1;
                waits.skip(self.worker, peek.number);
            }
            Fate::Export(priority) => {
                let end = End::decode(record)?;
                let held = Held {
                    waits: waits.take(self.worker, peek.number, &end.times),
                    end,
                    priority,
                };
                if let Some((held, samples)) = self.cases.ended(held) {
                    report.request(&held, &self.facts, &samples);
                }
            }
        }
        self.ended = self.ended.max(peek.number);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_and_failed_requests_go_first_sampled_or_not() {
        let peek = |sampled, flags, status| Peek {
            number: 1,
            sampled,
            flags,
            status,
            busy_ns: 1,
            responded_ns: 1,
        };
        let (urgent, ordinary) = (Fate::Export(Priority::Urgent), Fate::Export(Priority::Ordinary));
        for (peek, slow, expected) in [
            (peek(true, 0, 200), false, ordinary),
            (peek(false, 0, 200), false, Fate::Count),
            (peek(false, 0, 499), false, Fate::Count),
            (peek(false, 0, 500), false, urgent),
            (peek(false, FATAL, 200), false, urgent),
            (peek(false, ABORTED, 200), false, ordinary),
            (peek(false, 0, 200), true, urgent),
            (peek(true, INCIDENT, 500), true, Fate::Incident),
        ] {
            assert_eq!(fate(&peek, slow), expected, "{peek:?} {slow}");
        }
    }
}
