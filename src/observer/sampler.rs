//! The thread that looks into workers. A look may stop its target, wait for it, and
//! write to a slow log that is a pipe nobody reads: nothing for the observer's loop.
//!
//! Orders and answers go over bounded channels; every order is answered, unless the
//! observer is ending.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use glasspool_abi::control::{ControllerPattern, Doom};
use glasspool_abi::record::Begin;
use glasspool_abi::slot::{Crash, SlotReader};
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{Pid, WorkerId};
use glasspool_otel::slow::SlowEvent;
use glasspool_probes::Frame;
use glasspool_probes::rights::Handed;
use glasspool_probes::sample::Stop;
use tokio::sync::mpsc;

use super::announce::Announcer;
use super::eyes::{Eyes, NoSample};
use super::ladder::Ladder;
use super::monotonic_ns;
use super::routes;
use super::sighting::{self, Look};
use super::waits::{Sight, words};
use crate::logs::ErrorLog;

/// Orders waiting at most. More are put off by whoever wants them.
pub(super) const WAITING: usize = 64;

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
    /// Whether the slow log is JSON.
    pub(super) json: bool,
    /// Looks into one request at most, the last before a kill not counted.
    pub(super) looks: u32,
    pub(super) stop: Stop,
    /// Whether the first look at a request is also sent as a span at once.
    pub(super) still_running: bool,
    /// Whose methods name requests.
    pub(super) controllers: Arc<[ControllerPattern]>,
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
    /// Whether the rules may be followed where they say to stop it; else it is not stopped.
    pub(super) may_stop: bool,
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

/// A worker to try what can be seen of its pool's workers.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) worker: WorkerId,
    pub(super) process: Arc<Process>,
    pub(super) rules: Arc<Rules>,
}

#[derive(Debug)]
enum Task {
    Look(Box<Order>),
    Meet(Box<Newcomer>),
}

/// The observer's handle on the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sampler {
    tasks: SyncSender<Task>,
    ladder: Ladder,
}

impl Sampler {
    /// Starts the thread.
    /// `sight` is that of the kernel programs.
    pub(super) fn start(
        log: ErrorLog,
        sight: Option<Arc<dyn Sight>>,
    ) -> io::Result<(Sampler, mpsc::Receiver<Answer>)> {
        let (tasks, waiting) = sync_channel(WAITING);
        let (answers, answered) = mpsc::channel(WAITING);
        let ladder = Ladder::default();
        let views = ladder.clone();
        std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || run(&waiting, &answers, &log, Eyes::new(views, sight)))?;
        Ok((Sampler { tasks, ladder }, answered))
    }

    /// Hands over an order; false if too many wait already.
    pub(super) fn order(&self, order: Order) -> bool {
        match self.tasks.try_send(Task::Look(Box::new(order))) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Hands over the first worker of a pool, to find out what can be seen of it. If too
    /// many orders wait, the first look at one of the pool finds it out.
    pub(super) fn meet(&self, newcomer: Newcomer) {
        // An error is the case just told, or the observer's end.
        let _put_off = self.tasks.try_send(Task::Meet(Box::new(newcomer))).is_err();
    }

    /// What looks can show of each pool.
    pub(super) fn ladder(&self) -> Ladder {
        self.ladder.clone()
    }
}

impl Process {
    /// What it has handed over.
    pub(super) fn handed(&self) -> Handed<'_> {
        Handed {
            memory: self.memory.as_ref().map(AsFd::as_fd),
            calls: self.calls.as_ref().map(AsFd::as_fd),
        }
    }
}

fn run(tasks: &Receiver<Task>, answers: &mpsc::Sender<Answer>, log: &ErrorLog, mut eyes: Eyes) {
    let mut announcer = Announcer::new(log.clone());
    while let Some(task) = next(tasks, &mut announcer) {
        let order = match task {
            Task::Look(order) => order,
            Task::Meet(newcomer) => {
                eyes.meet(&newcomer, log);
                continue;
            }
        };
        let (worker, number, why) = (order.worker, order.number, order.why);
        let looked = look(&order, &mut eyes);
        let (seen, announcement) = match looked {
            Some((seen, frames)) => {
                let announcement = announcer.prepare(&order, &seen, frames.as_deref());
                (Some(seen), announcement)
            }
            None => (None, None),
        };
        let answer = Answer {
            worker,
            number,
            why,
            seen,
        };
        if answers.blocking_send(answer).is_err() {
            break;
        }
        // Last, as it may block for as long as nobody reads a pipe.
        if let Some(announcement) = announcement {
            announcer.announce(&announcement, &order.rules, monotonic_ns());
        }
        let Order { process, rules, .. } = *order;
        eyes.keep_ladder(worker, &process, &rules.pool, log);
    }
    announcer.catch_up();
}

/// The next task, once there is one; `None` when there will be none. Meanwhile what the
/// logs are still to be told is told.
fn next(tasks: &Receiver<Task>, announcer: &mut Announcer) -> Option<Task> {
    while let Some(due) = announcer.due() {
        let wait = Duration::from_nanos(due.saturating_sub(monotonic_ns()));
        if wait.is_zero() {
            announcer.catch_up();
            break;
        }
        match tasks.recv_timeout(wait) {
            Ok(task) => return Some(task),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    tasks.recv().ok()
}

/// One look, and the frames that it saw; `None` if the request is over.
fn look(order: &Order, eyes: &mut Eyes) -> Option<(Seen, Option<Vec<Frame>>)> {
    let same = |begin: &Begin| begin.number == order.number;
    let is_under_way = || {
        order
            .slot
            .in_progress()
            .is_some_and(|now| now.number == order.number)
    };
    let begin = order.slot.read_begin().filter(same).filter(|_| is_under_way())?;
    let looked_ns = monotonic_ns();
    let age = Duration::from_nanos(looked_ns.saturating_sub(begin.start_mono_ns));
    let mut taken = eyes.take(order);
    let noted = eyes.noted(order, looked_ns);
    // What was read belongs to this request only if it has been under way all the time.
    order.slot.read_begin().filter(same).filter(|_| is_under_way())?;
    if let (Ok(sample), Some(_)) = (&mut taken, &noted)
        && let Some(wait) = &mut sample.wait
    {
        // It is known now.
        wait.missing.clear();
    }
    let (mut event, mut look, mut frames) = match taken {
        Ok(sample) => {
            let (event, look) = sighting::event(&begin, age, order.why, &sample, order.rules.depth);
            (event, look, Some(sample.stack.frames))
        }
        Err(NoSample::Gone) => return None,
        Err(NoSample::Because(reason)) => {
            let event = SlowEvent {
                cause: sighting::cause(order.why),
                ..sighting::failed(&begin, age, &reason)
            };
            (event, Look::Failed, None)
        }
    };
    if let Some(wait) = noted {
        words::complete(&mut event, &wait, looked_ns, age);
        if event.stacktrace.is_empty()
            && let Some(known) = words::complete_stack(&mut event, &wait, order.rules.depth)
        {
            (look, frames) = (Look::Noted, Some(known));
        }
    }
    let controllers = &order.rules.controllers;
    event.controller = frames
        .as_deref()
        .and_then(|frames| routes::of_frames(controllers, frames));
    Some((Seen { begin, event, look }, frames))
}
