//! A reload as a table: how far it is, and what follows from what happens. What is done
//! about it is in `switch`, and for another program behind our name in `successor`.
//!
//! The generation that serves is not touched before the new one has proven itself, so
//! a step that fails costs nothing but the new one.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::ObserverStart;
use tokio::sync::mpsc;

use super::engines::GroupId;
use super::pid_file::PidFile;
use super::pools::Common;
use super::process::Child;
use super::programs::Waits;
use super::sockets::Listener;
use crate::config::Global;
use crate::logs::Prepared;

/// Whoever asked for a reload and waits for how it goes.
pub(super) type Caller = mpsc::Sender<String>;

/// How far a reload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Step {
    /// None is under way.
    #[default]
    Idle,
    /// Another program lies behind our name and checks the configuration.
    Checking,
    /// The new generation is set up; its engines start PHP.
    Warming,
    /// Its canaries serve.
    Proving,
    /// It has taken over; its first workers are being started. The old workers still
    /// serve.
    Settling,
    /// The old workers were told to end. Some may still take a connection.
    Retiring,
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// By a signal, a command, or too many crashes.
    Asked,
    /// As `Asked`, and the program behind our name is another one.
    AskedForSuccessor,
    /// The other program accepts the configuration.
    Accepted,
    /// PHP is up in every new engine, and the kernel programs are what they shall be.
    Warm,
    /// Every canary has served and ended.
    Proven,
    /// Every first worker of the new generation serves or has failed.
    Settled,
    /// No old worker takes a connection any more, or one does not obey.
    Retired,
    /// The configuration is refused, or an engine or a canary has failed.
    Failed,
    /// The supervisor is to stop.
    Stopping,
}

/// What to do about it, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Read the configuration and set up the new generation.
    Prepare,
    /// Have the other program check the configuration.
    Check,
    /// Send the canaries.
    Prove,
    /// Let the new generation serve.
    Switch,
    /// Let the old one end.
    Drain,
    /// Say that it is done: whoever connects now meets the new generation.
    Announce,
    /// Stop serving, and become the other program.
    HandOver,
    /// End what there is of the new generation.
    TearDown,
    /// Remember that it was asked for once more.
    Queue,
    /// Tell the callers how it went; then begin what was asked for meanwhile.
    Conclude,
}

impl Step {
    /// The table.
    pub(super) fn on(self, happening: Happening) -> (Step, &'static [Action]) {
        use Action::*;
        use Happening::*;
        use Step::*;
        match (self, happening) {
            (Idle, Asked) => (Warming, &[Prepare]),
            (Idle, AskedForSuccessor) => (Checking, &[Check]),
            (Checking, Accepted) => (Idle, &[HandOver]),
            (Warming, Warm) => (Proving, &[Prove]),
            (Proving, Proven) => (Settling, &[Switch]),
            (Settling, Settled) => (Retiring, &[Drain]),
            (Retiring, Retired) => (Idle, &[Announce, Conclude]),
            (Checking, Failed) => (Idle, &[Conclude]),
            (Warming | Proving, Failed) => (Idle, &[TearDown, Conclude]),
            (Warming | Proving, Stopping) => (Idle, &[TearDown, Conclude]),
            (Checking | Settling | Retiring, Stopping) => (Idle, &[Conclude]),
            (Checking | Warming | Proving | Settling | Retiring, Asked | AskedForSuccessor) => {
                (self, &[Queue])
            }

            // It serves already: what fails now is replaced like anything else that does.
            (Settling | Retiring, Failed) => (self, &[]),
            (Idle, Failed | Stopping) => (Idle, &[]),
            // Left over from what has already been moved on from.
            (Idle | Warming | Proving | Settling | Retiring, Accepted) => (self, &[]),
            (Idle | Checking | Proving | Settling | Retiring, Warm) => (self, &[]),
            (Idle | Checking | Warming | Settling | Retiring, Proven) => (self, &[]),
            (Idle | Checking | Warming | Proving | Retiring, Settled) => (self, &[]),
            (Idle | Checking | Warming | Proving | Settling, Retired) => (self, &[]),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The configuration anew.
    All,
    /// A group's engine anew, with the configuration as it is.
    Engine(GroupId),
}

/// What was asked for while a reload was under way.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Everything; so often that was asked, it is done once.
    all: bool,
    engines: BTreeSet<GroupId>,
    callers: Vec<Caller>,
}

impl Queued {
    pub(super) fn add(&mut self, order: Order, caller: Option<Caller>) {
        match order {
            Order::All => self.all = true,
            Order::Engine(group) => {
                self.engines.insert(group);
            }
        }
        self.callers.extend(caller);
    }

    /// The next one; a whole reload also replaces every engine.
    pub(super) fn take(&mut self) -> Option<(Order, Vec<Caller>)> {
        if std::mem::take(&mut self.all) {
            self.engines.clear();
            return Some((Order::All, std::mem::take(&mut self.callers)));
        }
        let group = self.engines.pop_first()?;
        Some((Order::Engine(group), Vec::new()))
    }
}

/// A generation that is to take over.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) pools: Vec<PoolId>,
    pub(super) groups: Vec<GroupId>,
    /// The pools that it is for.
    pub(super) replaces: BTreeSet<PoolId>,
    /// Those whose canary is still to be sent.
    pub(super) unproven: VecDeque<PoolId>,
    /// Canaries that have not come back.
    pub(super) out: usize,
    /// Time that the replaced workers have for their request: what they were started with.
    pub(super) patience: Option<Duration>,
    /// What else changes with it.
    pub(super) adoption: Option<Adoption>,
}

/// What a new configuration changes beside the pools.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) global: Global,
    pub(super) common: Common,
    pub(super) observer: ObserverStart,
    /// Where metrics are fetched.
    pub(super) scrapes: Option<Arc<Listener>>,
    /// As far as they need not be loaded first.
    pub(super) waits: Waits,
    pub(super) log: Prepared,
    /// Already written, if it is another file than before.
    pub(super) pid_file: Option<PidFile>,
}

/// The reload that is under way, if one is.
#[derive(Debug, Default)]
pub(super) struct Reloading {
    pub(super) step: Step,
    pub(super) candidate: Option<Candidate>,
    /// The other program, while it checks the configuration.
    pub(super) checker: Option<Child>,
    pub(super) callers: Vec<Caller>,
    pub(super) queued: Queued,
    /// What is under way.
    pub(super) order: Option<Order>,
    /// When old workers that do not obey are waited for no longer.
    pub(super) retire_by: Option<Instant>,
    /// The other program behind our name.
    pub(super) successor: Option<PathBuf>,
    /// Why it has failed.
    pub(super) failure: Option<String>,
}

impl Reloading {
    /// Says to the callers how far it is. One that does not read misses it.
    pub(super) fn tell(&mut self, text: &str) {
        self.callers.retain(|caller| {
            !matches!(
                caller.try_send(text.to_owned()),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
    }

    /// Whether the configuration is being changed.
    pub(super) fn is_under_way(&self) -> bool {
        self.order == Some(Order::All)
    }

    /// Whether the next one can begin.
    pub(super) fn can_begin(&self) -> bool {
        self.step == Step::Idle && (self.queued.all || !self.queued.engines.is_empty())
    }

    /// Whether the group is of a generation that has not taken over.
    pub(super) fn is_candidate(&self, group: GroupId) -> bool {
        let has_taken_over = matches!(self.step, Step::Settling | Step::Retiring);
        let candidate = self.candidate.as_ref().filter(|_| !has_taken_over);
        candidate.is_some_and(|candidate| candidate.groups.contains(&group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(happenings: &[Happening]) -> (Step, Vec<Action>) {
        let mut step = Step::Idle;
        let mut actions = Vec::new();
        for happening in happenings {
            let (next, then) = step.on(*happening);
            step = next;
            actions.extend(then);
        }
        (step, actions)
    }

    #[test]
    fn a_good_reload_proves_before_it_switches_and_switches_before_it_drains() {
        use Happening::*;
        let (step, actions) = walk(&[Asked, Warm, Proven, Settled, Retired]);
        assert_eq!(step, Step::Idle);
        use Action::*;
        assert_eq!(actions, [Prepare, Prove, Switch, Drain, Announce, Conclude]);
        assert_eq!(walk(&[AskedForSuccessor, Accepted]).1, [Check, HandOver]);
    }

    #[test]
    fn whatever_fails_before_the_switch_leaves_the_old_generation_alone() {
        use Happening::*;
        for start in [&[AskedForSuccessor][..], &[Asked], &[Asked, Warm]] {
            for end in [Failed, Stopping] {
                let (step, actions) = walk(&[start, &[end]].concat());
                assert_eq!(step, Step::Idle);
                assert_eq!(actions.last(), Some(&Action::Conclude));
                let touched = [Action::Switch, Action::Drain, Action::HandOver];
                assert!(!actions.iter().any(|action| touched.contains(action)));
            }
        }
        assert_eq!(walk(&[Asked, Warm, Proven, Failed]).0, Step::Settling);
    }

    #[test]
    fn every_reload_concludes_once_whatever_is_asked_meanwhile() {
        use Happening::*;
        let all = [
            Asked,
            AskedForSuccessor,
            Accepted,
            Warm,
            Proven,
            Settled,
            Retired,
            Failed,
            Stopping,
        ];
        // Every walk of six happenings.
        for number in 0..all.len().pow(6) {
            let walked: Vec<Happening> = (0..6)
                .map(|n| all[number / all.len().pow(n) % all.len()])
                .collect();
            let (step, actions) = walk(&walked);
            let count = |wanted: &[Action]| actions.iter().filter(|action| wanted.contains(action)).count();
            let begun = count(&[Action::Prepare, Action::Check]);
            let ended = count(&[Action::Conclude, Action::HandOver]);
            assert_eq!(begun, ended + usize::from(step != Step::Idle), "{walked:?}");
        }
    }

    #[test]
    fn what_is_queued_is_done_once_and_a_whole_reload_replaces_all_engines() {
        let mut queued = Queued::default();
        queued.add(Order::Engine(GroupId(1)), None);
        queued.add(Order::All, None);
        queued.add(Order::All, None);
        assert!(matches!(queued.take(), Some((Order::All, _))));
        assert!(queued.take().is_none());
        queued.add(Order::Engine(GroupId(2)), None);
        queued.add(Order::Engine(GroupId(2)), None);
        assert!(matches!(queued.take(), Some((Order::Engine(GroupId(2)), _))));
        assert!(queued.take().is_none());
    }
}
