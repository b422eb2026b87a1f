//! What workers wait for, as the programs in the kernel tell it: the waits that have ended,
//! kept for the spans of their requests, and the one that goes on.
//!
//! The supervisor holds the programs; here are their ring of records, read at each turn,
//! and a view of workers' times. Without them this does nothing.
//!
//! A worker's wait is in the ring before the end of its request is in its slot, as the
//! kernel writes it before the worker goes on. So whoever finds an end reads the ring once
//! more if something is lacking, and then has all that there is.
//!
//! What a request past its limit does while it does not wait is told by the CPUs' clocks,
//! which are had to run for that only.
//!
//! - `programs`: the kernel's side, and what a test puts in its place;
//! - `collect`: a worker's waits, by request; `words`: one wait as telemetry tells it;
//! - `on_cpu`: the clocks, and what they find.

mod collect;
mod on_cpu;
mod programs;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod words;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{ObserverStart, WaitPrograms};
use glasspool_abi::times::{Known, Times};
use glasspool_otel::wait_span::RequestWaits;
use glasspool_waits::{OnCpu, Record, Wait};

use self::collect::{Added, Collector};
use self::on_cpu::Keeper;
pub(super) use self::programs::{Programs, Sight};
use super::protocol::Parts;
use crate::logs::ErrorLog;

/// Records of one turn at the ring, which holds some hundreds.
const MOST_RECORDS: usize = 1024;
/// Waits of workers that the supervisor has not introduced yet.
const MOST_EARLY: usize = 64;
/// A worker may say that the kernel has told thousands of waits of its request; more than
/// that of one request are not believed to be missing.
const MOST_MISSING: u64 = 1024;
/// How often it is looked whether the ring was full, and how often that is told at most.
const FULL_LOOK: Duration = Duration::from_secs(1);
const FULL_TOLD: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waits {
    programs: Option<Programs>,
    clocks: Keeper,
    kept: Kept,
    /// Why there are no programs, in one word; `None` if there are or nobody wants them.
    refused: Option<String>,
    /// Waits that a request should have had and that did not come.
    missing: u64,
    full: Full,
}

/// Records for which the ring had no room.
#[derive(Debug, Default)]
struct Full {
    told: u64,
    /// When it is looked again, monotonic nanoseconds.
    due: u64,
}

/// The waits of all workers.
#[derive(Debug, Default)]
struct Kept {
    span_after_ns: u64,
    collectors: HashMap<u64, Collector>,
    early: VecDeque<Wait>,
    /// Waits that came when nobody could tell any more whose they were.
    late: u64,
}

/// A request past its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) number: u64,
    /// Since when, monotonic nanoseconds.
    pub(super) since_ns: u64,
}

/// What the programs, or we, could not tell, since the observer began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Losses {
    /// Waits for which the ring had no room.
    pub(super) ring_full: u64,
    /// Records that made no sense.
    pub(super) malformed: u64,
    /// Waits of no known request.
    pub(super) late: u64,
    /// Waits that an ended request should have had.
    pub(super) missing: u64,
    /// Switches that the kernel did not tell, and that were made up for.
    pub(super) made_up: u64,
    /// Those for which nothing makes up.
    pub(super) odd: u64,
}

impl Waits {
    /// Of what the supervisor has handed over. Where it cannot be used, that is told, and
    /// the observer goes on without.
    pub(super) fn new(start: &ObserverStart, parts: Option<Parts>, log: &ErrorLog) -> Waits {
        let mut waits = Waits::default();
        waits.kept.span_after_ns = nanoseconds(start.wait_span_after);
        match (&start.waits, parts) {
            (WaitPrograms::Refused { name, .. }, _) => waits.refused = Some(name.clone()),
            (WaitPrograms::Running { pages }, Some(parts)) => match Programs::new(parts, *pages) {
                Ok(programs) => waits.programs = Some(programs),
                Err(e) => {
                    log.warning(format_args!(
                        "spans do not tell what requests waited for: cannot read what the kernel programs tell: {e}"
                    ));
                    waits.refused = Some("unreadable".to_owned());
                }
            },
            (WaitPrograms::Running { .. } | WaitPrograms::NotWanted, _) => {}
        }
        waits
    }

    #[cfg(test)]
    pub(super) fn with(programs: Programs, span_after: Duration) -> Waits {
        let kept = Kept {
            span_after_ns: nanoseconds(span_after),
            ..Kept::default()
        };
        Waits {
            programs: Some(programs),
            kept,
            ..Waits::default()
        }
    }

    /// A copy of the ring's descriptor, which is readable when much is waiting in there.
    pub(super) fn ring(&self) -> std::io::Result<Option<OwnedFd>> {
        self.programs.as_ref().map_or(Ok(None), Programs::ring)
    }

    /// For whoever looks at one worker.
    pub(super) fn sight(&self) -> Option<Arc<dyn Sight>> {
        self.programs.as_ref().map(|programs| Arc::clone(&programs.sight))
    }

    /// Whether the programs run, or else why not, in one word, if anybody wanted them.
    pub(super) fn state(&self) -> Result<(), Option<&str>> {
        match self.programs {
            Some(_) => Ok(()),
            None => Err(self.refused.as_deref()),
        }
    }

    /// A worker that has a page begins to serve.
    pub(super) fn watch(&mut self, worker: WorkerId) {
        if self.programs.is_none() {
            return;
        }
        self.kept.collectors.entry(worker.0).or_default();
        for wait in std::mem::take(&mut self.kept.early) {
            self.kept.add(wait);
        }
    }

    /// A worker is gone, and all its requests are told.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.kept.collectors.remove(&worker.0);
    }

    /// At `now`, a worker's request is past its limit, and has been since then; both monotonic
    /// nanoseconds. Reads memory only.
    pub(super) fn past(&mut self, worker: WorkerId, page: Option<u32>, past: Past, now: u64) {
        let Some((page, programs)) = page.zip(self.programs.as_ref()) else {
            return;
        };
        if let Some(collector) = self.kept.collectors.get_mut(&worker.0) {
            collector.past(past.number, past.since_ns);
            if programs.sight.runs(page) {
                self.clocks.want(now);
            }
        }
    }

    /// Whether the clocks are to run, where the supervisor has to be told at `now`: they do if
    /// a request past its limit was seen to run just now.
    pub(super) fn keep_clocks(&mut self, now: u64) -> Option<bool> {
        self.clocks.keep(now)
    }

    /// Reads what is new in the ring. Bounded; two loads if nothing is.
    pub(super) fn drain(&mut self) {
        let Waits { programs, kept, .. } = self;
        if let Some(programs) = programs {
            programs.told.drain(MOST_RECORDS, &mut |record| match record {
                Record::Wait(wait) => kept.add(wait),
                Record::OnCpu(look) => kept.look(&look),
            });
        }
    }

    /// The waits of a request that has ended, if its worker has told its times; and what it
    /// was found to do while it did not wait.
    pub(super) fn take(&mut self, worker: WorkerId, number: u64, times: &Known) -> RequestWaits {
        let written = match times {
            Known::All(times) => Some(times.written),
            Known::RunQueue(_) | Known::Nothing => None,
        };
        let lacks = |all: &Collector| all.came(number) < written.unwrap_or(0) || all.is_past(number);
        if self.kept.collectors.get(&worker.0).is_some_and(lacks) {
            self.drain();
        }
        let Some(collector) = self.kept.collectors.get_mut(&worker.0) else {
            return RequestWaits::default();
        };
        let came = collector.came(number);
        let taken = collector.take(number);
        let Some(written) = written else {
            return RequestWaits {
                on_cpu: taken.on_cpu,
                ..RequestWaits::default()
            };
        };
        let missing = written.saturating_sub(came).min(MOST_MISSING);
        self.missing = self.missing.saturating_add(missing);
        RequestWaits { missing, ..taken }
    }

    /// A request has ended, and nobody wants to know its waits.
    pub(super) fn skip(&mut self, worker: WorkerId, number: u64) {
        if let Some(collector) = self.kept.collectors.get_mut(&worker.0) {
            collector.end(number);
        }
    }

    /// Where a request's time went whose worker ended at `died_mono_ns`, from its totals when
    /// it began.
    pub(super) fn at_death(&self, page: Option<u32>, begun: Option<Times>, died_mono_ns: u64) -> Known {
        let now = page.zip(self.programs.as_ref());
        let now = now.and_then(|(page, programs)| programs.sight.times(page, died_mono_ns));
        match now.zip(begun) {
            Some((now, begun)) => Known::All(now.since(&begun)),
            None => Known::Nothing,
        }
    }

    /// Says how many records the ring had no room for since that was said. A few system calls
    /// a second.
    pub(super) fn say_full(&mut self, now: u64, log: &ErrorLog) {
        let Some(programs) = self.programs.as_ref().filter(|_| now >= self.full.due) else {
            return;
        };
        let lost = programs.losses().ring_full;
        let since = lost.saturating_sub(self.full.told);
        let pause = if since > 0 { FULL_TOLD } else { FULL_LOOK };
        self.full = Full {
            told: lost,
            due: now.saturating_add(nanoseconds(pause)),
        };
        if since > 0 {
            log.warning(format_args!(
                "the ring of the kernel programs was full, {since} records are lost: waits without a span, and looks at \
                 who computes (the observer was held up; or there are too many: [ebpf] wait_threshold leaves the \
                 shorter ones out). The times of requests are right all the same"
            ));
        }
    }

    /// What was lost so far. Three system calls.
    pub(super) fn losses(&self) -> Losses {
        let of_kernel = self.programs.as_ref().map(Programs::losses).unwrap_or_default();
        Losses {
            late: self.kept.late,
            missing: self.missing,
            ..of_kernel
        }
    }
}

impl Kept {
    fn add(&mut self, wait: Wait) {
        let Some(collector) = self.collectors.get_mut(&wait.worker.0) else {
            if self.early.len() >= MOST_EARLY {
                self.early.pop_front();
                self.late = self.late.saturating_add(1);
            }
            self.early.push_back(wait);
            return;
        };
        if collector.add(&wait, self.span_after_ns) == Added::Late {
            self.late = self.late.saturating_add(1);
        }
    }

    fn look(&mut self, look: &OnCpu) {
        if let Some(collector) = self.collectors.get_mut(&look.worker.0) {
            collector.look(look);
        }
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
