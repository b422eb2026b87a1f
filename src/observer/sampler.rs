//! The thread that looks into workers. A look may stop its target, wait for it, and
//! write to a slow log that is a pipe nobody reads: nothing for the observer's loop.
//!
//! Orders and answers go over bounded channels; every order is answered, unless the
//! observer is ending.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use glasspool_abi::control::Doom;
use glasspool_abi::record::{Begin, Text};
use glasspool_abi::slot::{Crash, SlotReader};
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{Pid, WorkerId};
use glasspool_otel::slow::SlowEvent;
use glasspool_probes::sample::{Options, SampleError, Stop, Target, sample};
use glasspool_probes::{Arguments, Frame, Sample};
use jiff::Zoned;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::monotonic_ns;
use super::sighting::{self, Look};
use super::slowlog;
use super::text::Plain;
use super::throttle::Throttle;
use crate::logs::ErrorLog;

/// Orders waiting at most. More are put off by whoever wants them.
pub(super) const WAITING: usize = 64;
/// Frames read beyond those shown, to find the caller of the last one.
const CALLER_FRAMES: usize = 4;
/// One complaint about a slow log per minute.
const COMPLAINT_NS: u64 = 60_000_000_000;

/// A worker's process, as far as it can be looked into.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Its `/proc/PID/mem`, if it could hand it over.
    pub(super) memory: Option<OwnedFd>,
    /// Its `/proc/PID/syscall`, likewise.
    pub(super) calls: Option<OwnedFd>,
    pub(super) php: Arc<PhpBuild>,
}

/// What a pool wants to know of slow requests.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) pool: String,
    pub(super) after: Option<Duration>,
    pub(super) depth: usize,
    pub(super) stop: Stop,
    pub(super) log: Option<Arc<File>>,
}

/// Why a worker is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its request is past its limit; the first look is also told in the logs.
    Slow {
        /// Whether this is the first look at the request.
        first: bool,
    },
    /// The supervisor is about to kill it.
    Doomed(Doom),
    /// It waits in its crash handler.
    Crashed(Crash),
    /// Its pool is saturated: all workers are looked at once.
    Saturated,
}

/// Look into this request.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) worker: WorkerId,
    pub(super) number: u64,
    pub(super) why: Why,
    pub(super) slot: Arc<SlotReader>,
    pub(super) process: Arc<Process>,
    pub(super) rules: Arc<Rules>,
}

/// What came of an order.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) worker: WorkerId,
    pub(super) number: u64,
    pub(super) why: Why,
    /// `None` if the request was over before the look was.
    pub(super) seen: Option<Seen>,
}

/// What was seen of a request that still runs.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) begin: Begin,
    pub(super) event: SlowEvent,
    pub(super) look: Look,
}

/// The observer's handle on the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sampler(SyncSender<Box<Order>>);

impl Sampler {
    /// Starts the thread.
    pub(super) fn start(log: ErrorLog) -> io::Result<(Sampler, mpsc::Receiver<Answer>)> {
        let (orders, waiting) = sync_channel(WAITING);
        let (answers, answered) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || run(&waiting, &answers, &log))?;
        Ok((Sampler(orders), answered))
    }

    /// Hands over an order; false if too many wait already.
    pub(super) fn order(&self, order: Order) -> bool {
        match self.0.try_send(Box::new(order)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

fn run(orders: &Receiver<Box<Order>>, answers: &mpsc::Sender<Answer>, log: &ErrorLog) {
    let mut complaints = Throttle::new(1, COMPLAINT_NS);
    while let Ok(order) = orders.recv() {
        let (worker, number, why) = (order.worker, order.number, order.why);
        let Some((seen, frames)) = look(&order) else {
            if answers
                .blocking_send(Answer {
                    worker,
                    number,
                    why,
                    seen: None,
                })
                .is_err()
            {
                return;
            }
            continue;
        };
        let told = (why == Why::Slow { first: true }).then(|| {
            let frames = frames.as_deref();
            let Order { rules, process, .. } = &*order;
            let now = Zoned::now();
            let entry = slowlog::entry(&now, &rules.pool, process.pid, &seen.begin, frames, rules.depth);
            (warning(&order, &seen), entry)
        });
        if answers
            .blocking_send(Answer {
                worker,
                number,
                why,
                seen: Some(seen),
            })
            .is_err()
        {
            return;
        }
        // Last, as both may block for as long as nobody reads a pipe.
        if let Some((warning, entry)) = told {
            log.warning(warning);
            append(&order.rules, &entry, &mut complaints, log);
        }
    }
}

/// One look; `None` if the request is over.
fn look(order: &Order) -> Option<(Seen, Option<Vec<Frame>>)> {
    let same = |begin: &Begin| begin.number == order.number;
    let is_under_way = || {
        order
            .slot
            .in_progress()
            .is_some_and(|now| now.number == order.number)
    };
    let begin = order.slot.read_begin().filter(same).filter(|_| is_under_way())?;
    let age = Duration::from_nanos(monotonic_ns().saturating_sub(begin.start_mono_ns));
    let taken = take(order);
    // What was read belongs to this request only if it has been under way all the time.
    order.slot.read_begin().filter(same).filter(|_| is_under_way())?;
    let depth = order.rules.depth;
    match taken {
        Ok(sample) => {
            let (event, look) = sighting::event(&begin, age, &sample, depth);
            Some((Seen { begin, event, look }, Some(sample.stack.frames)))
        }
        Err(NoSample::Gone) => None,
        Err(NoSample::Because(reason)) => {
            let event = sighting::failed(&begin, age, &reason);
            Some((
                Seen {
                    begin,
                    event,
                    look: Look::Failed,
                },
                None,
            ))
        }
    }
}

enum NoSample {
    /// The worker is gone; its end will be told by the supervisor.
    Gone,
    Because(String),
}

fn take(order: &Order) -> Result<Sample, NoSample> {
    let Process {
        pid,
        pidfd,
        memory,
        calls: _,
        php,
    } = &*order.process;
    let Some(memory) = memory else {
        return Err(NoSample::Because(
            "the worker could not hand over its memory".to_owned(),
        ));
    };
    // Stopping goes by pid, and the pid of a worker that was reaped may be another's.
    if has_ended(pidfd) {
        return Err(NoSample::Gone);
    }
    let target = Target {
        pid: *pid,
        mem: memory.as_fd(),
        build: php,
    };
    let max_frames = order.rules.depth + CALLER_FRAMES;
    let options = Options {
        max_frames,
        stop: order.rules.stop,
        // Neither the slow log nor an event shows them, and they make each look longer.
        arguments: Arguments::Off,
        ..Options::default()
    };
    sample(&target, &options).map_err(|e| match e {
        SampleError::Gone { .. } => NoSample::Gone,
        SampleError::Read { source, .. } => NoSample::Because(source.to_string()),
    })
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// php-fpm's line (`sapi/fpm/fpm/fpm_request.c`, `fpm_request_check_timed_out`).
fn warning(order: &Order, seen: &Seen) -> String {
    let text = |text| seen.begin.texts.text(text).unwrap_or_default();
    let (query, age) = (text(Text::Query), seen.event.elapsed);
    format!(
        "[pool {}] child {}, script '{}' (request: \"{} {}{}{}\") executing too slow ({}.{:06} sec), logging",
        order.rules.pool,
        order.process.pid,
        Plain(text(Text::Script)),
        Plain(text(Text::Method)),
        Plain(text(Text::Path)),
        if query.is_empty() { "" } else { "?" },
        Plain(query),
        age.as_secs(),
        age.subsec_micros(),
    )
}

/// One write(2) for the whole entry, so that entries of several observers and php-fpm
/// masters do not mix.
fn append(rules: &Rules, entry: &str, complaints: &mut Throttle, log: &ErrorLog) {
    let Some(mut file) = rules.log.as_deref() else {
        return;
    };
    if let Err(e) = file.write_all(entry.as_bytes())
        && complaints.pass(monotonic_ns()).is_some()
    {
        log.warning(format_args!(
            "[pool {}] cannot write to the slow log: {e}",
            rules.pool
        ));
    }
}
