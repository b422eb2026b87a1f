//! The supervisor's life as a table: which phase it is in, and what moves it on.
//!
//! Order of a stop: workers first (they may still need their engine's pages and the
//! observer's eyes), then the engines, then the observer, which exports what is left.

use super::pm::drain::Reason;

/// Where the supervisor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sockets exist, PHP comes up, first workers are asked for. Left when each of
    /// those serves or has failed once.
    Starting,
    /// Workers that die are replaced. Left by a signal.
    Running,
    /// Workers finish their requests; how long that may take is configured. Left when
    /// the last is gone, or by SIGTERM.
    Finishing,
    /// As `Finishing`, and then another program takes this one's place: the file behind
    /// our name is not ours any more, and a reload was asked for.
    HandingOver,
    /// Workers were told to end at once. Left when the last is gone; those that take
    /// their time are killed.
    Terminating,
    /// No worker is left and the engines' channels are closed. Left when they are gone.
    ClosingEngines,
    /// The observer exports what it has. Left when it is gone; killed when overdue.
    StoppingObserver,
    /// Nothing is left; the supervisor returns.
    Exited,
}

/// What can happen to a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// Every first worker serves or has failed.
    Settled,
    /// SIGTERM or SIGINT.
    AskedToTerminate,
    /// SIGQUIT.
    AskedToFinish,
    /// Another program is to take our place, and has accepted the configuration.
    AskedToHandOver,
    /// There is no worker, neither running nor asked for.
    WorkersGone,
    /// There is no engine process any more.
    EnginesGone,
    /// There is no observer process.
    ObserverGone,
    /// The time that the last action set is over.
    Overdue,
}

/// What to do about it, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Say that connections are handled.
    Announce,
    /// Write this notice.
    Say(&'static str),
    /// Tell every worker to end, and those that turn up later; be overdue when their
    /// time is over.
    StopWorkers(Reason),
    /// Send them the next stronger signal.
    Escalate,
    /// Be overdue in a second.
    GiveASecond,
    /// Stop asking for engines and close the channels of those there are.
    CloseEngines,
    /// SIGKILL to the engines.
    KillEngines,
    /// Ask the observer to export and stop; be overdue when its time is over.
    StopObserver,
    /// SIGKILL to the observer.
    KillObserver,
    /// Return from the run loop.
    Leave,
}

impl Phase {
    /// Whether workers that die are replaced, and engines that die too.
    pub(super) fn wants_workers(self) -> bool {
        match self {
            Phase::Starting | Phase::Running => true,
            Phase::Finishing
            | Phase::HandingOver
            | Phase::Terminating
            | Phase::ClosingEngines
            | Phase::StoppingObserver
            | Phase::Exited => false,
        }
    }

    /// php-fpm's word for it, where it has one.
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Starting | Phase::Running => "normal",
            Phase::HandingOver => "reloading",
            Phase::Finishing => "finishing",
            Phase::Terminating | Phase::ClosingEngines | Phase::StoppingObserver | Phase::Exited => {
                "terminating"
            }
        }
    }

    /// The table.
    pub(super) fn on(self, happening: Happening) -> (Phase, &'static [Action]) {
        use Action::*;
        use Happening::*;
        use Phase::*;
        const TERMINATE: &[Action] = &[Say("Terminating ..."), StopWorkers(Reason::AtOnce)];
        const FINISH: &[Action] = &[Say("Finishing ..."), StopWorkers(Reason::Graceful)];
        const HAND_OVER: &[Action] = &[StopWorkers(Reason::Graceful)];
        const CLOSE: &[Action] = &[CloseEngines, GiveASecond];
        match (self, happening) {
            (Starting, Settled) => (Running, &[Announce]),
            (Starting | Running | Finishing | HandingOver, AskedToTerminate) => (Terminating, TERMINATE),
            (Starting | Running | HandingOver, AskedToFinish) => (Finishing, FINISH),
            (Starting | Running, AskedToHandOver) => (HandingOver, HAND_OVER),
            (Finishing | HandingOver | Terminating, WorkersGone) => (ClosingEngines, CLOSE),
            (Finishing | HandingOver | Terminating, Overdue) => (self, &[Escalate]),
            (ClosingEngines, EnginesGone) => (StoppingObserver, &[StopObserver]),
            (ClosingEngines, Overdue) => (ClosingEngines, &[KillEngines, GiveASecond]),
            (StoppingObserver, ObserverGone) => (Exited, &[Leave]),
            (StoppingObserver, Overdue) => (StoppingObserver, &[KillObserver, GiveASecond]),

            // A pool may be without workers for a moment while all are being replaced,
            // and engine and observer are restarted by their keepers.
            (Starting | Running, WorkersGone | EnginesGone | ObserverGone) => (self, &[]),
            // Workers that are to end do not need their engine any more.
            (Finishing | HandingOver | Terminating, EnginesGone | ObserverGone) => (self, &[]),
            (ClosingEngines, ObserverGone) => (self, &[]),
            // php-fpm ignores the same signal twice, and nothing leaves terminating.
            (Finishing, AskedToFinish | AskedToHandOver) => (self, &[]),
            (HandingOver, AskedToHandOver) => (self, &[]),
            (
                Terminating | ClosingEngines | StoppingObserver,
                AskedToTerminate | AskedToFinish | AskedToHandOver,
            ) => (self, &[]),
            // Left over from what has already been moved on from.
            (
                Running | Finishing | HandingOver | Terminating | ClosingEngines | StoppingObserver,
                Settled,
            ) => (self, &[]),
            (Starting | Running, Overdue) => (self, &[]),
            (ClosingEngines, WorkersGone) | (StoppingObserver, WorkersGone | EnginesGone) => (self, &[]),
            (
                Exited,
                Settled | AskedToTerminate | AskedToFinish | AskedToHandOver | WorkersGone | EnginesGone
                | ObserverGone | Overdue,
            ) => (self, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The phases that these happenings lead through, and the actions on the way.
    fn walk(happenings: &[Happening]) -> (Vec<Phase>, Vec<Action>) {
        let mut phases = vec![Phase::Starting];
        let mut actions = Vec::new();
        for happening in happenings {
            let (next, then) = phases.last().expect("not empty").on(*happening);
            phases.push(next);
            actions.extend(then);
        }
        (phases, actions)
    }

    #[test]
    fn a_stop_goes_workers_engines_observer() {
        use Happening::*;
        let (phases, actions) = walk(&[Settled, AskedToTerminate, WorkersGone, EnginesGone, ObserverGone]);
        let expected = [
            Phase::Starting,
            Phase::Running,
            Phase::Terminating,
            Phase::ClosingEngines,
            Phase::StoppingObserver,
            Phase::Exited,
        ];
        assert_eq!(phases, expected);
        use Action::*;
        let expected = [
            Announce,
            Say("Terminating ..."),
            StopWorkers(Reason::AtOnce),
            CloseEngines,
            GiveASecond,
            StopObserver,
            Leave,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_graceful_stop_can_be_cut_short_and_pushed() {
        use Happening::*;
        for graceful in [AskedToFinish, AskedToHandOver] {
            let (phases, actions) = walk(&[Settled, graceful, Overdue, AskedToTerminate, Overdue]);
            assert_eq!(phases.last(), Some(&Phase::Terminating));
            let pushes: Vec<Action> = actions
                .into_iter()
                .filter(|action| matches!(action, Action::StopWorkers(_) | Action::Escalate))
                .collect();
            let expected = [
                Action::StopWorkers(Reason::Graceful),
                Action::Escalate,
                Action::StopWorkers(Reason::AtOnce),
                Action::Escalate,
            ];
            assert_eq!(pushes, expected);
        }
    }

    #[test]
    fn nothing_leads_back_and_nothing_leaves_the_end() {
        use Happening::*;
        let all = [
            Settled,
            AskedToTerminate,
            AskedToFinish,
            AskedToHandOver,
            WorkersGone,
            EnginesGone,
            ObserverGone,
            Overdue,
        ];
        // php-fpm goes from reloading to finishing, never the other way.
        let phases = [
            Phase::Starting,
            Phase::Running,
            Phase::HandingOver,
            Phase::Finishing,
            Phase::Terminating,
            Phase::ClosingEngines,
            Phase::StoppingObserver,
            Phase::Exited,
        ];
        let order = |phase| phases.iter().position(|known| *known == phase);
        for phase in phases {
            for happening in all {
                let (next, actions) = phase.on(happening);
                assert!(order(next) >= order(phase), "{phase:?} {happening:?}");
                if phase == Phase::Exited {
                    assert!(actions.is_empty());
                }
            }
        }
    }
}
