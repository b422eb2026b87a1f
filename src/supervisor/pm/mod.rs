//! How many workers a pool has, and when one of them is ended: the rules of php-fpm's
//! process managers as pure functions of what is seen and what is configured.
//!
//! Nothing here reads a clock, a slot or a socket, sends a signal or writes a log:
//! `crew` and `heartbeat` do that, before and after. Start reading at [`Scheduler`];
//! [`share`] divides what `process.max` leaves, [`deadline`], [`drain`] and [`crashes`]
//! decide about requests that run too long, about stopping, and about broken engines.

pub(super) mod crashes;
pub(super) mod deadline;
pub(super) mod drain;
mod dynamic;
mod on_demand;
pub(super) mod share;
#[cfg(test)]
mod simulation;

use std::time::Instant;

use glasspool_abi::WorkerId;
use glasspool_abi::control::Ended;
use rustix::process::Signal;

use crate::config::{LogLevel, Pool, ProcessManager};

/// What is configured for one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) manager: ProcessManager,
    /// Most workers, also counting those that were told to end and have not.
    pub(super) max_children: u32,
    /// The pool exists for a status page: being full is nothing to warn of.
    pub(super) quiet: bool,
}

impl Rules {
    /// Those of a configured pool.
    pub(super) fn of(pool: &Pool) -> Rules {
        Rules {
            manager: pool.manager,
            max_children: pool.max_children.get(),
            quiet: pool.status_of.is_some(),
        }
    }

    /// Whether every worker that there may be is busy, and connections wait all the same.
    pub(super) fn is_saturated(&self, crew: &[Member], waiting: u32) -> bool {
        let counts = Counts::of(crew);
        !self.quiet && waiting > 0 && counts.busy >= self.max_children
    }

    /// Workers at the start, before a share of `process.max` is cut from them.
    pub(super) fn first(&self) -> u32 {
        match self.manager {
            ProcessManager::Static => self.max_children,
            ProcessManager::Dynamic { start_servers, .. } => start_servers.get().min(self.max_children),
            ProcessManager::OnDemand { .. } => 0,
        }
    }
}

/// One worker of the pool as it looks now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: WorkerId,
    pub(super) activity: Activity,
    /// When it was asked for or, once it exists, started.
    pub(super) born: Instant,
    /// It was told to end because it was not needed.
    pub(super) retired: bool,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// It was asked for, or prepares itself: it will be idle soon.
    Coming,
    /// It waits for a connection.
    Idle {
        /// Since then at least.
        since: Instant,
    },
    /// It has a connection.
    Busy,
}

/// What makes a pool think about its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A second has passed.
    Tick,
    /// So many connections wait to be accepted.
    Demand { waiting: u32 },
}

/// What to do, in order. How many workers there should be is [`Scheduler::wanted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Tell this idle worker to end (SIGQUIT); it is not replaced.
    Retire(WorkerId),
    /// End it by force (SIGKILL): it was told before and has not listened.
    Kill(WorkerId),
    /// Count that all workers were busy and no more were allowed.
    CountReached,
    /// Write this, with the pool's name in front.
    Say(LogLevel, String),
}

/// What php-fpm's process manager remembers of a pool from one second to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduler {
    wanted: u32,
    spawn_rate: u32,
    warned: bool,
}

impl Scheduler {
    /// At the start of a pool.
    pub(super) fn new(rules: &Rules) -> Scheduler {
        Scheduler {
            wanted: rules.first(),
            spawn_rate: 1,
            warned: false,
        }
    }

    /// How many workers there should be, not counting those that were told to end. More
    /// are asked for when there are fewer, never beyond `max_children`; those that are
    /// too many are ended one by one by [`Action::Retire`] only.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Thinks about the pool's size. `crew` is every worker of the pool that exists or
    /// was asked for.
    pub(super) fn on(
        self,
        event: Event,
        rules: &Rules,
        crew: &[Member],
        now: Instant,
    ) -> (Scheduler, Vec<Action>) {
        let mut turn = Turn::new(self, rules, crew);
        match (event, rules.manager) {
            (
                Event::Tick,
                ProcessManager::Dynamic {
                    min_spare,
                    max_spare,
                    max_spawn_rate,
                    ..
                },
            ) => {
                let spare = dynamic::Spare {
                    least: min_spare.get(),
                    most: max_spare.get(),
                    rate: max_spawn_rate.get(),
                };
                dynamic::tick(&mut turn, &spare);
            }
            (Event::Tick, ProcessManager::OnDemand { idle_timeout }) => {
                on_demand::tick(&mut turn, idle_timeout, now);
            }
            (Event::Demand { waiting }, ProcessManager::OnDemand { .. }) => {
                on_demand::demand(&mut turn, waiting);
            }
            // A static pool is as large as it is, and a dynamic one looks at its idle
            // workers only.
            (Event::Tick | Event::Demand { .. }, ProcessManager::Static)
            | (Event::Demand { .. }, ProcessManager::Dynamic { .. }) => {}
        }
        (turn.scheduler, turn.actions)
    }

    /// A worker has ended. php-fpm replaces every one that it did not tell to end, and
    /// one that had to be killed because it did not listen.
    pub(super) fn on_end(self, rules: &Rules, retired: bool, ended: Ended) -> (Scheduler, Burial) {
        let obeyed = match ended {
            Ended::Exited(_) => true,
            Ended::Killed { signal, .. } => signal == Signal::QUIT.as_raw(),
        };
        match (retired, obeyed) {
            (true, true) => (self, Burial::Retired),
            (true, false) => {
                let wanted = (self.wanted + 1).min(rules.max_children);
                (Scheduler { wanted, ..self }, Burial::Replaced)
            }
            (false, true | false) => (self, Burial::Replaced),
        }
    }
}

/// What follows from the end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burial {
    /// It was not needed: php-fpm says so at debug level.
    Retired,
    /// Another one takes its place.
    Replaced,
}

/// One turn of a scheduler: what is counted, and what comes of it.
#[derive(Debug)]
struct Turn<'a> {
    scheduler: Scheduler,
    rules: &'a Rules,
    crew: &'a [Member],
    counts: Counts,
    actions: Vec<Action>,
}

/// Workers of a pool, each counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    coming: u32,
    idle: u32,
    busy: u32,
    /// Told to end, and still there.
    retired: u32,
}

impl Counts {
    fn of(crew: &[Member]) -> Counts {
        let mut counts = Counts::default();
        for member in crew {
            let count = match member.activity {
                _ if member.retired => &mut counts.retired,
                Activity::Coming => &mut counts.coming,
                Activity::Idle { .. } => &mut counts.idle,
                Activity::Busy => &mut counts.busy,
            };
            *count += 1;
        }
        counts
    }

    /// Those that stay.
    fn staying(&self) -> u32 {
        self.coming + self.idle + self.busy
    }

    fn running(&self) -> u32 {
        self.staying() + self.retired
    }
}

impl<'a> Turn<'a> {
    fn new(scheduler: Scheduler, rules: &'a Rules, crew: &'a [Member]) -> Turn<'a> {
        Turn {
            scheduler,
            rules,
            crew,
            counts: Counts::of(crew),
            actions: Vec::new(),
        }
    }

    /// Workers that may be added.
    fn room(&self) -> u32 {
        self.rules.max_children.saturating_sub(self.counts.running())
    }

    fn say(&mut self, level: LogLevel, text: impl Into<String>) {
        self.actions.push(Action::Say(level, text.into()));
    }

    /// All workers are busy and no more are allowed: told once, until some can be added.
    fn reached(&mut self, text: String) {
        if self.rules.quiet || self.scheduler.warned {
            return;
        }
        self.scheduler.warned = true;
        self.actions.push(Action::CountReached);
        self.say(LogLevel::Warning, text);
    }

    /// Ends by force those that were told to end in an earlier turn and are idle all the
    /// same: they block SIGQUIT (php bug 77023).
    fn kill_the_deaf(&mut self) {
        let deaf = self.crew.iter().filter(|member| member.retired);
        let deaf = deaf.filter(|member| matches!(member.activity, Activity::Idle { .. }));
        self.actions.extend(deaf.map(|member| Action::Kill(member.id)));
    }

    /// Those that may be told to end, with the start of their idleness.
    fn idle(&self) -> impl Iterator<Item = (&'a Member, Instant)> {
        self.crew.iter().filter_map(|member| match member.activity {
            Activity::Idle { since } if !member.retired => Some((member, since)),
            Activity::Idle { .. } | Activity::Coming | Activity::Busy => None,
        })
    }
}

#[cfg(test)]
mod tests;
