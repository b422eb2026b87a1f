//! What opcache says of itself, for metrics. Only a process that shares its memory can ask
//! it, so now and then the engine forks one for that: it asks, answers and ends. It is the
//! supervisor's child, like a worker; one that takes long is killed. Nobody waits for it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Channel, Ended, OpcacheAnswer, OpcacheView, ToEngine};
use glasspool_abi::{EngineId, Pid};
use rustix::process::Signal;

use super::engine::State;
use super::engines::GroupId;
use super::pools::{Life, LivePool};
use super::process::{self, Child, describe};
use super::run::{Event, Supervisor};

/// An engine is asked so often.
const PERIOD: Duration = Duration::from_secs(10);
/// Longest life of a process that asks; it needs a few milliseconds.
const TIME: Duration = Duration::from_secs(5);

/// What is known of an engine's opcache, and how far the next answer is.
#[derive(Debug, Default)]
pub(super) struct Opcache {
    step: Step,
    due: Option<Instant>,
    last: Option<OpcacheAnswer>,
    /// As in [`OpcacheView::asks`].
    asks: [u64; 4],
    /// Whether it was told why there is no answer.
    explained: bool,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    /// The engine was told to; here the answer will be.
    Asked(Channel),
    /// Somebody asks.
    Asking(Pid),
}

impl Opcache {
    /// Whether a process may exist without our knowing its pid.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.step, Step::Asked(_))
    }

    /// The process that asks.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.step {
            Step::Asking(pid) => Some(pid),
            Step::Idle | Step::Asked(_) => None,
        }
    }

    fn view(&self, engine: EngineId) -> OpcacheView {
        let figures = match self.last {
            Some(OpcacheAnswer::Told(figures)) => Some(figures),
            Some(OpcacheAnswer::Off | OpcacheAnswer::Restricted) | None => None,
        };
        OpcacheView {
            engine,
            figures,
            asks: self.asks,
        }
    }

    fn take_in(&mut self, answer: Option<OpcacheAnswer>) {
        self.step = Step::Idle;
        self.last = answer;
        let outcome = match answer {
            Some(OpcacheAnswer::Told(_)) => 0,
            Some(OpcacheAnswer::Off) => 1,
            Some(OpcacheAnswer::Restricted) => 2,
            None => 3,
        };
        self.asks[outcome] += 1;
    }
}

impl Supervisor {
    /// Asks the engines of the pools in force, if it is time and anybody wants to know.
    pub(super) fn ask_opcaches(&mut self, now: Instant) {
        if !self.observer.wants_figures() {
            return;
        }
        let serving = self.pools.values().filter(|pool| pool.life == Life::Serving);
        let groups: BTreeSet<GroupId> = serving.map(|pool| pool.group).collect();
        for group in groups {
            let Some(engine) = self.engines.current_of(group) else {
                continue;
            };
            let opcache = &mut engine.opcache;
            let is_due = opcache.due.is_none_or(|due| due <= now);
            if engine.state != State::Up || !is_due || opcache.pid().is_some() {
                continue;
            }
            opcache.due = Some(now + PERIOD);
            if opcache.is_asked() {
                self.opcache_lost(group, "the engine has not answered");
                continue;
            }
            match pair() {
                Ok((ours, theirs)) => {
                    opcache.step = Step::Asked(ours);
                    self.tell_engine(group, ToEngine::AskOpcache, vec![Arc::new(theirs.into())]);
                }
                Err(e) => self.opcache_lost(group, &format!("a socket pair: {e}")),
            }
        }
    }

    /// The engine has forked the process that asks, or has not.
    pub(super) fn opcache_asked(&mut self, group: GroupId, id: EngineId, pid: Result<Pid, String>) {
        let pid = match pid {
            Ok(pid) => pid,
            Err(reason) => return self.opcache_lost(group, &reason),
        };
        let Some(engine) = self.engines.current_of(group) else {
            return;
        };
        let step = std::mem::replace(&mut engine.opcache.step, Step::Asking(pid));
        let Step::Asked(ours) = step else {
            // Nobody has asked: it ends as an orphan.
            engine.opcache.step = step;
            return;
        };
        match Child::adopt(pid) {
            Ok(child) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let answer = watch(child, &ours, TIME).await;
                    let event = Event::OpcacheAnswered(group, id, answer);
                    events.send(event).await.unwrap_or_default();
                });
            }
            Err(e) => {
                process::kill_unheld(pid);
                self.sweep = true;
                self.opcache_lost(group, &format!("its process cannot be watched: {e}"));
            }
        }
    }

    /// That process has ended and was reaped.
    pub(super) fn opcache_answered(
        &mut self,
        group: GroupId,
        id: EngineId,
        answer: Result<OpcacheAnswer, String>,
    ) {
        if !self.is_current(group, id) {
            return;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => return self.opcache_lost(group, &reason),
        };
        let Some(engine) = self.engines.current_of(group) else {
            return;
        };
        engine.opcache.take_in(Some(answer));
        if answer == OpcacheAnswer::Restricted && !std::mem::replace(&mut engine.opcache.explained, true) {
            self.log.notice(format_args!(
                "there are no metrics of opcache of the engine (pid {}): opcache.restrict_api is set",
                engine.child.pid
            ));
        }
    }

    fn opcache_lost(&mut self, group: GroupId, reason: &str) {
        let Some(engine) = self.engines.current_of(group) else {
            return;
        };
        engine.opcache.take_in(None);
        if !std::mem::replace(&mut engine.opcache.explained, true) {
            self.log.warning(format_args!(
                "opcache of the engine (pid {}) has not said how it is: {reason}; it is asked again every {PERIOD:?}, and no more is said of that",
                engine.child.pid
            ));
        }
    }

    /// What is known of the pool's engine, if this is the pool that speaks for it: the
    /// first of those that share it.
    pub(super) fn opcache_of(&self, pool: &LivePool) -> Option<OpcacheView> {
        let mut sharing = self.pools.values().filter(|other| other.group == pool.group);
        let first = sharing.find(|other| other.life == Life::Serving)?;
        let engine = self.engines.groups.get(&pool.group)?.current.as_ref()?;
        (first.spec.pool == pool.spec.pool).then(|| engine.opcache.view(engine.id))
    }
}

fn pair() -> io::Result<(Channel, Channel)> {
    let (ours, theirs) = Channel::pair()?;
    ours.set_nonblocking()?;
    Ok((ours, theirs))
}

/// Waits for its end, for so long at most; what it has said is there by then.
async fn watch(child: Child, ours: &Channel, time: Duration) -> Result<OpcacheAnswer, String> {
    let ended = match tokio::time::timeout(time, child.clone().ended()).await {
        Ok(ended) => ended,
        Err(_) => {
            child.signal(Signal::KILL);
            child.ended().await
        }
    };
    // Its own end and what is left of it are two things: a sweep may have reaped it.
    let how = ended.map_or_else(|e| e.to_string(), |ended: Ended| describe(ended));
    match ours.receive() {
        Ok((answer, _)) => Ok(answer),
        Err(_) => Err(format!("the process that asks it exited {how}")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use glasspool_abi::control::OpcacheFigures;

    use super::*;

    #[test]
    fn what_was_not_told_is_counted_and_leaves_no_figures() {
        let mut opcache = Opcache::default();
        let figures = OpcacheFigures {
            hits: 7,
            ..OpcacheFigures::default()
        };
        opcache.take_in(Some(OpcacheAnswer::Told(figures)));
        assert_eq!(opcache.view(EngineId(1)).figures, Some(figures));
        for answer in [
            Some(OpcacheAnswer::Off),
            Some(OpcacheAnswer::Restricted),
            None,
            None,
        ] {
            opcache.take_in(answer);
            assert_eq!(opcache.view(EngineId(1)).figures, None);
        }
        assert_eq!(opcache.view(EngineId(1)).asks, [1, 1, 1, 2]);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_and_one_that_dies_is_a_loss() {
        for (script, time, expected) in [
            ("exit 3", Duration::from_secs(100), "with code 3"),
            (
                "exec sleep 1000",
                Duration::from_millis(1),
                "on signal 9 (SIGKILL)",
            ),
        ] {
            let (ours, theirs) = pair().expect("a pair");
            drop(theirs);
            let child = Child::spawn(Command::new("sh").args(["-c", script])).expect("starts");
            let said = watch(child, &ours, time).await.expect_err("says nothing");
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_counts() {
        let (ours, theirs) = pair().expect("a pair");
        theirs.send(&OpcacheAnswer::Off, &[]).expect("sends");
        drop(theirs);
        let child = Child::spawn(&mut Command::new("true")).expect("starts");
        assert_eq!(
            watch(child, &ours, Duration::from_secs(100)).await,
            Ok(OpcacheAnswer::Off)
        );
    }
}
