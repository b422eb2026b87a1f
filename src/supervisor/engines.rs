//! The engines there are, one for each distinct PHP, and what is remembered of those that
//! are gone. What is done with them is in `hosting`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use glasspool_abi::control::ToEngine;
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{EngineId, Pid, WorkerId};
use rustix::process::Signal;

use super::backoff::Backoff;
use super::crew::Worker;
use super::engine::{Engine, State};
use super::link::WeakLink;
use super::recipe::Recipe;

/// Longest life of an engine that was told to end and has no workers to fork any more.
const ENDING_TIME: Duration = Duration::from_secs(5);

/// Pools that share an engine; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub(super) u32);

/// All engines, by the group of pools that each is for.
#[derive(Debug, Default)]
pub(super) struct Engines {
    pub(super) groups: BTreeMap<GroupId, Hosting>,
    /// What engines host, as long as a worker of theirs lives.
    pub(super) php: BTreeMap<EngineId, Box<PhpBuild>>,
    last_engine: u32,
}

/// One group's engine, those before it whose last words are still awaited, and how to
/// start one.
#[derive(Debug)]
pub(super) struct Hosting {
    pub(super) recipe: Recipe,
    pub(super) current: Option<Engine>,
    /// Reaped, but their sockets are still held open by workers that start.
    pub(super) retired: Vec<Engine>,
    /// Whether the current one's socket is closed.
    pub(super) closed: bool,
    pub(super) backoff: Backoff,
    /// Whether PHP has ever come up.
    pub(super) proven: bool,
    /// Whether there shall be an engine: not any more once its pools are replaced.
    pub(super) wanted: bool,
}

impl Engines {
    /// A new group; its engine is started by [`Supervisor::keep_engines`].
    pub(super) fn add(&mut self, group: GroupId, recipe: Recipe) {
        let hosting = Hosting {
            recipe,
            current: None,
            retired: Vec::new(),
            closed: false,
            backoff: Backoff::default(),
            proven: false,
            wanted: true,
        };
        self.groups.insert(group, hosting);
    }

    /// A number that no engine has had.
    pub(super) fn next_id(&mut self) -> EngineId {
        self.last_engine += 1;
        EngineId(self.last_engine)
    }

    /// The engine that can be asked for the group's workers now.
    pub(super) fn up(&self, group: GroupId) -> Option<EngineId> {
        let engine = self.groups.get(&group)?.current.as_ref()?;
        (engine.state == State::Up).then_some(engine.id)
    }

    /// Whether PHP has come up in every group at least once.
    pub(super) fn are_proven(&self) -> bool {
        self.groups.values().all(|hosting| hosting.proven)
    }

    /// What the group's engines are started with.
    pub(super) fn recipe(&self, group: GroupId) -> Option<&Recipe> {
        self.groups.get(&group).map(|hosting| &hosting.recipe)
    }

    /// What an engine hosts, or hosted.
    pub(super) fn php_of(&self, engine: EngineId) -> Option<&PhpBuild> {
        self.php.get(&engine).map(Box::as_ref)
    }

    /// What all of them host, those included that are gone and have workers left.
    pub(super) fn php(&self) -> impl Iterator<Item = (EngineId, &PhpBuild)> {
        self.php.iter().map(|(engine, php)| (*engine, php.as_ref()))
    }

    /// A way to wait for what an engine's socket still holds.
    pub(super) fn link_of(&self, id: EngineId) -> Option<WeakLink<ToEngine>> {
        let all = self.groups.values();
        let engine = all
            .flat_map(|hosting| hosting.current.iter().chain(&hosting.retired))
            .find(|engine| engine.id == id)?;
        engine.link.as_ref().map(|link| link.downgrade())
    }

    /// Drops what is known of an engine that nobody comes from any more.
    pub(super) fn forget_unused(&mut self, engine: EngineId, workers: &BTreeMap<WorkerId, Worker>) {
        if !self.current().any(|current| current.id == engine)
            && !workers.values().any(|worker| worker.engine() == engine)
        {
            self.php.remove(&engine);
        }
    }

    /// Processes of all engines, and those that ask their opcaches.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.current()
            .flat_map(|engine| [Some(engine.child.pid), engine.opcache.pid()])
            .flatten()
    }

    /// Whether a process that asks an opcache may exist without our knowing its pid.
    pub(super) fn are_asked(&self) -> bool {
        self.current().any(|engine| engine.opcache.is_asked())
    }

    /// The group's engine.
    pub(super) fn current_of(&mut self, group: GroupId) -> Option<&mut Engine> {
        self.groups.get_mut(&group)?.current.as_mut()
    }

    fn current(&self) -> impl Iterator<Item = &Engine> {
        self.groups
            .values()
            .filter_map(|hosting| hosting.current.as_ref())
    }

    /// Whether no engine process is left.
    pub(super) fn are_gone(&self) -> bool {
        self.groups.values().all(|hosting| hosting.current.is_none())
    }

    /// Closes all control sockets: the engines end.
    pub(super) fn close_all(&mut self) {
        for hosting in self.groups.values_mut() {
            hosting.close(None);
        }
    }

    /// The group's pools are replaced and none of its workers is being started: its
    /// engine ends, and is not replaced.
    pub(super) fn retire(&mut self, group: GroupId, now: Instant) {
        if let Some(hosting) = self.groups.get_mut(&group) {
            hosting.close(Some(now + ENDING_TIME));
        }
        self.drop_gone();
    }

    /// The group is of no use: its engine is killed, and not replaced.
    pub(super) fn discard(&mut self, group: GroupId) {
        if let Some(hosting) = self.groups.get_mut(&group) {
            hosting.close(None);
            if let Some(engine) = &hosting.current {
                engine.child.signal(Signal::KILL);
            }
        }
        self.drop_gone();
    }

    pub(super) fn kill_all(&self) {
        for engine in self.current() {
            engine.child.signal(Signal::KILL);
        }
    }

    /// Kills them and waits until they are reaped.
    pub(super) async fn abandon(&mut self) {
        self.kill_all();
        for hosting in self.groups.values_mut() {
            if let Some(engine) = hosting.current.take() {
                // Its own task may have reaped it first, which is as good.
                let _ended = engine.child.ended().await;
            }
        }
    }

    /// When something is to be done without a report.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let due = |hosting: &Hosting| match &hosting.current {
            Some(engine) => engine.due,
            None => hosting.backoff.due(now).filter(|_| hosting.wanted),
        };
        self.groups.values().filter_map(due).min()
    }

    /// Groups that need no more and have nothing left.
    pub(super) fn drop_gone(&mut self) {
        self.groups
            .retain(|_, hosting| hosting.wanted || hosting.current.is_some());
    }
}

impl Hosting {
    fn close(&mut self, due: Option<Instant>) {
        self.wanted = false;
        self.retired.clear();
        if let Some(engine) = &mut self.current {
            engine.link = None;
            engine.due = due.or(engine.due);
        }
    }
}
