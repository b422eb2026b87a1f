//! The supervisor's life as a table: which phase it is in, and what moves it on.
//!
//! Order of a stop: workers first (they may still need their engine's pages and the
//! observer's eyes), then the engine, then the observer, which exports what is left.

use rustix::process::Signal;

/// Where the supervisor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sockets exist, PHP comes up, first workers are asked for. Left when each of
    /// those serves or has failed once.
    Starting,
    /// Workers that die are replaced. Left by a signal.
    Running,
    /// Workers finish their requests, however long that takes. Left when the last is
    /// gone, or by SIGTERM.
    Finishing,
    /// Workers were told to end. Left when the last is gone; after a second of
    /// patience they are killed.
    Terminating,
    /// No worker is left and the engine's channel is closed. Left when it is gone.
    ClosingEngine,
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
    /// There is no worker, neither running nor asked for.
    WorkersGone,
    /// There is no engine process.
    EngineGone,
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
    /// Send this to every worker, and to those that turn up later.
    SignalWorkers(Signal),
    /// Be overdue in a second.
    GiveASecond,
    /// Stop asking for engines and close the channel of the one there is.
    CloseEngine,
    /// SIGKILL to the engine.
    KillEngine,
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
            | Phase::Terminating
            | Phase::ClosingEngine
            | Phase::StoppingObserver
            | Phase::Exited => false,
        }
    }

    /// The table.
    pub(super) fn on(self, happening: Happening) -> (Phase, &'static [Action]) {
        use Action::*;
        use Happening::*;
        use Phase::*;
        const TERMINATE: &[Action] = &[Say("Terminating ..."), SignalWorkers(Signal::TERM), GiveASecond];
        const FINISH: &[Action] = &[Say("Finishing ..."), SignalWorkers(Signal::QUIT)];
        const CLOSE: &[Action] = &[CloseEngine, GiveASecond];
        match (self, happening) {
            (Starting, Settled) => (Running, &[Announce]),
            (Starting | Running | Finishing, AskedToTerminate) => (Terminating, TERMINATE),
            (Starting | Running, AskedToFinish) => (Finishing, FINISH),
            (Finishing | Terminating, WorkersGone) => (ClosingEngine, CLOSE),
            (Terminating, Overdue) => (Terminating, &[SignalWorkers(Signal::KILL), GiveASecond]),
            (ClosingEngine, EngineGone) => (StoppingObserver, &[StopObserver]),
            (ClosingEngine, Overdue) => (ClosingEngine, &[KillEngine, GiveASecond]),
            (StoppingObserver, ObserverGone) => (Exited, &[Leave]),
            (StoppingObserver, Overdue) => (StoppingObserver, &[KillObserver, GiveASecond]),

            // A pool may be without workers for a moment while all are being replaced,
            // and engine and observer are restarted by their keepers.
            (Starting | Running, WorkersGone | EngineGone | ObserverGone) => (self, &[]),
            // Finishing and terminating workers do not need their engine any more.
            (Finishing | Terminating, EngineGone | ObserverGone) => (self, &[]),
            (ClosingEngine, ObserverGone) => (self, &[]),
            // php-fpm ignores the same signal twice, and nothing leaves terminating.
            (Finishing, AskedToFinish) => (self, &[]),
            (Terminating, AskedToTerminate | AskedToFinish) => (self, &[]),
            (ClosingEngine | StoppingObserver, AskedToTerminate | AskedToFinish) => (self, &[]),
            // Left over from what has already been moved on from.
            (Running | Finishing | Terminating | ClosingEngine | StoppingObserver, Settled) => (self, &[]),
            (Starting | Running | Finishing, Overdue) => (self, &[]),
            (ClosingEngine, WorkersGone) | (StoppingObserver, WorkersGone | EngineGone) => (self, &[]),
            (
                Exited,
                Settled | AskedToTerminate | AskedToFinish | WorkersGone | EngineGone | ObserverGone
                | Overdue,
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
    fn a_stop_goes_workers_engine_observer() {
        use Happening::*;
        let (phases, actions) = walk(&[Settled, AskedToTerminate, WorkersGone, EngineGone, ObserverGone]);
        let expected = [
            Phase::Starting,
            Phase::Running,
            Phase::Terminating,
            Phase::ClosingEngine,
            Phase::StoppingObserver,
            Phase::Exited,
        ];
        assert_eq!(phases, expected);
        use Action::*;
        let expected = [
            Announce,
            Say("Terminating ..."),
            SignalWorkers(Signal::TERM),
            GiveASecond,
            CloseEngine,
            GiveASecond,
            StopObserver,
            Leave,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn patience_ends_in_sigkill_only_when_terminating() {
        use Happening::*;
        let (phases, actions) = walk(&[Settled, AskedToFinish, Overdue, AskedToTerminate, Overdue]);
        assert_eq!(phases.last(), Some(&Phase::Terminating));
        let signals: Vec<Signal> = actions
            .iter()
            .filter_map(|action| match action {
                Action::SignalWorkers(signal) => Some(*signal),
                _ => None,
            })
            .collect();
        assert_eq!(signals, [Signal::QUIT, Signal::TERM, Signal::KILL]);
    }

    #[test]
    fn nothing_leads_back_and_nothing_leaves_the_end() {
        use Happening::*;
        let all = [
            Settled,
            AskedToTerminate,
            AskedToFinish,
            WorkersGone,
            EngineGone,
            ObserverGone,
            Overdue,
        ];
        let order = |phase| match phase {
            Phase::Starting => 0,
            Phase::Running => 1,
            Phase::Finishing => 2,
            Phase::Terminating => 3,
            Phase::ClosingEngine => 4,
            Phase::StoppingObserver => 5,
            Phase::Exited => 6,
        };
        let phases = [
            Phase::Starting,
            Phase::Running,
            Phase::Finishing,
            Phase::Terminating,
            Phase::ClosingEngine,
            Phase::StoppingObserver,
            Phase::Exited,
        ];
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
