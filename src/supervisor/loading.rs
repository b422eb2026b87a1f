//! Loading the programs in the kernel: a process that does it, hands over its parts one by
//! one, and ends. At the start workers wait for that, for as long as a patience lasts; in a
//! reload the new generation does.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::control::{Channel, Ended, FromLoader, LoadPrograms, ProgramPart};
use rustix::process::Signal;

use super::error::StartError;
use super::link::{Delivery, Link};
use super::observer::OWN_PROGRAM;
use super::process::{Child, describe};
use super::programs::{Programs, Waits, Wish};
use super::relay::Relay;
use super::run::{Event, Supervisor};

/// Ten times what it takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where nothing goes on without.
const PATIENCE_IF_REQUIRED: Duration = Duration::from_secs(10);
/// Parts that there can be: some maps and links, and one for each CPU.
const MOST_PARTS: usize = 16 * 1024;

/// What is wished of the programs, and the process that loads them.
#[derive(Debug, Default)]
pub(super) struct Loader {
    wish: Option<Wish>,
    running: Option<Loading>,
    generation: u32,
}

#[derive(Debug)]
struct Loading {
    generation: u32,
    /// `None` once nobody wants them any more.
    wish: Option<Wish>,
    child: Child,
    due: Option<Instant>,
    parts: Vec<(ProgramPart, OwnedFd)>,
    /// How it has gone, once that is known.
    outcome: Option<Result<(), Refusal>>,
    _link: Link<LoadPrograms>,
    /// Copies what it logs, the last of it when this is dropped.
    _relay: Relay,
}

/// See `FromLoader::Refused`.
#[derive(Debug)]
struct Refusal {
    name: String,
    reason: String,
}

impl Refusal {
    /// Of the loader, and not of the kernel.
    fn own(reason: String) -> Refusal {
        Refusal {
            name: "loader".to_owned(),
            reason,
        }
    }
}

impl Loader {
    /// To load what is wished, as soon as no other loader runs.
    pub(super) fn wish(&mut self, wish: Option<Wish>) {
        self.wish = wish;
    }

    /// Nobody wants any more what was wished.
    pub(super) fn give_up(&mut self) {
        self.wish = None;
        if let Some(loading) = &mut self.running {
            loading.wish = None;
        }
        self.kill();
    }

    pub(super) fn kill(&self) {
        if let Some(loading) = &self.running {
            loading.child.signal(Signal::KILL);
        }
    }

    /// Whether nothing is to be waited for.
    pub(super) fn is_done(&self) -> bool {
        self.wish.is_none() && self.running.as_ref().is_none_or(|loading| loading.wish.is_none())
    }

    /// Its process, until it is reaped.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|loading| loading.child.pid)
    }

    /// When it has taken too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.running.as_ref().and_then(|loading| loading.due)
    }
}

fn patience(wish: &Wish) -> Duration {
    if wish.required {
        PATIENCE_IF_REQUIRED
    } else {
        PATIENCE
    }
}

impl Supervisor {
    /// Starts a loader if one is wanted; kills one that takes too long.
    pub(super) fn keep_loader(&mut self, now: Instant) {
        if let Some(loading) = &mut self.loader.running {
            if loading.due.is_some_and(|due| due <= now) {
                loading.due = None;
                let patience = loading.wish.as_ref().map_or(PATIENCE, patience);
                let slow = Refusal::own(format!("loading them has taken more than {patience:?}"));
                loading.outcome.get_or_insert(Err(slow));
                loading.child.signal(Signal::KILL);
            }
            return;
        }
        let Some(wish) = self.loader.wish.take().filter(|_| self.phase.wants_workers()) else {
            return;
        };
        match self.start_loader(&wish, now) {
            Ok(loading) => self.loader.running = Some(loading),
            Err(e) => {
                let refusal = Refusal::own(format!("cannot start the process that loads them: {e}"));
                self.loaded(&wish, Err(refusal));
            }
        }
    }

    fn start_loader(&mut self, wish: &Wish, now: Instant) -> io::Result<Loading> {
        self.loader.generation += 1;
        let generation = self.loader.generation;
        let (ours, theirs) = Channel::pair()?;
        let (relay, output) = Relay::start(&self.log)?;
        let mut command = Command::new(OWN_PROGRAM);
        command
            .arg0("glasspool")
            .arg("loader")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(output))
            // A terminal's Ctrl-C is for the supervisor.
            .process_group(0);
        let child = Child::spawn(&mut command)?;
        drop(command);
        // One message is ever sent.
        let on_delivery = move |delivery| Event::Loader(generation, delivery);
        let link = Link::start(ours, 1, self.events.clone(), on_delivery)?;
        link.send(wish.asked.clone(), vec![]).map_err(io::Error::other)?;
        let (weak, events, ending) = (link.downgrade(), self.events.clone(), child.clone());
        tokio::spawn(async move {
            let ended = ending.ended().await.unwrap_or(Ended::Exited(-1));
            weak.catch_up().await;
            let event = Event::LoaderEnded(generation, ended);
            events.send(event).await.unwrap_or_default();
        });
        Ok(Loading {
            generation,
            wish: Some(wish.clone()),
            child,
            due: Some(now + patience(wish)),
            parts: Vec::new(),
            outcome: None,
            _link: link,
            _relay: relay,
        })
    }

    /// What it says.
    pub(super) fn on_loader_delivery(&mut self, generation: u32, delivery: Delivery<FromLoader>) {
        let running = self.loader.running.as_mut();
        let Some(loading) = running.filter(|loading| loading.generation == generation) else {
            return;
        };
        let outcome = match delivery {
            Delivery::Message(FromLoader::Part(part), fds) => {
                let room = MOST_PARTS.saturating_sub(loading.parts.len());
                loading
                    .parts
                    .extend(fds.into_iter().take(room).map(|fd| (part, fd)));
                return;
            }
            Delivery::Message(FromLoader::Loaded, _) => Ok(()),
            Delivery::Message(FromLoader::Refused { name, reason }, _) => Err(Refusal { name, reason }),
            // Its end tells what there is to tell.
            Delivery::Closed(_) => return,
        };
        loading.outcome.get_or_insert(outcome);
    }

    /// Its process has ended and was reaped.
    pub(super) fn on_loader_end(&mut self, generation: u32, ended: Ended) {
        let running = &mut self.loader.running;
        let Some(loading) = running.take_if(|loading| loading.generation == generation) else {
            return;
        };
        let Some(wish) = loading.wish else { return };
        let outcome = loading.outcome.unwrap_or_else(|| {
            let how = describe(ended);
            Err(Refusal::own(format!("the process that loads them exited {how}")))
        });
        let loaded = outcome.and_then(|()| {
            let assembled = Programs::assemble(wish.asked.clone(), loading.parts);
            assembled.map_err(Refusal::own)
        });
        self.loaded(&wish, loaded);
    }

    /// How it went: what the start or a reload has waited for.
    fn loaded(&mut self, wish: &Wish, loaded: Result<Programs, Refusal>) {
        let waits = match loaded {
            Ok(programs) => Waits::Running(Rc::new(programs)),
            Err(Refusal { reason, .. }) if wish.required => {
                let error = StartError::Programs { reason };
                if self.is_up {
                    self.fail_reload(error.to_string());
                } else {
                    self.fatal.get_or_insert(error);
                }
                return;
            }
            Err(Refusal { name, reason }) => Waits::Refused { name, reason },
        };
        if !self.is_up {
            self.observer.give(waits.clone());
            self.put_in_force(waits);
            self.come_up();
        } else if let Some(candidate) = &mut self.reloading.candidate
            && let Some(adoption) = &mut candidate.adoption
        {
            adoption.waits = waits;
        }
    }

    /// From now on workers get pages of these programs, or none.
    pub(super) fn put_in_force(&mut self, waits: Waits) {
        waits.announce(&self.waits, &self.log);
        self.waits = waits;
    }

    /// What is in force once a new configuration is, as far as that is known now: what has
    /// to be loaded first is asked for.
    pub(super) fn prepare_waits(&mut self, wish: Option<Wish>) -> Waits {
        match wish {
            Some(wish) if !self.waits.fulfil(&wish) => {
                self.loader.wish(Some(wish));
                Waits::NotWanted
            }
            Some(_) => self.waits.clone(),
            None => Waits::NotWanted,
        }
    }
}
