//! The supervisor's handle on the observer, a process of its own that serving must not
//! depend on: it may fail to start, crash or hang, and is then started again and told
//! everything anew.
//!
//! `departures` is what it is told of pools, and of workers that are gone.

mod departures;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::{Channel, Ended, FromObserver, ObserverStart, ToObserver};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Signal;
use tokio::sync::mpsc;

use self::departures::Fading;
use super::backoff::Backoff;
use super::clocks::Clocks;
use super::cursors::Cursors;
use super::departed::Departed;
use super::error::seconds;
use super::link::{Delivery, Link};
use super::output::{Wire, wants_lines};
use super::process::{Child, describe};
use super::programs::Waits;
use super::relay::Relay;
use super::sockets::Listener;
use crate::logs::{ErrorLog, open_log};

/// The program itself; `/proc/self/exe` stays the same file when a package is upgraded.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";
/// An observer that lived so long had no trouble starting.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// Messages that wait for it: more than a new one is told of all pools and workers.
const QUEUE: usize = 262_144;
/// Messages that may wait for it at most when a reader is passed on.
const READERS: usize = 4096;
/// Time to export what it has before it is replaced by one with other settings.
const REPLACE_TIME: Duration = Duration::from_secs(5);

/// The observer, whether it runs or not.
#[derive(Debug)]
pub(super) struct Observer {
    start: ObserverStart,
    /// The kernel programs that it reads.
    waits: Waits,
    pub(super) cursors: Cursors,
    departed: Departed,
    /// Pools that are gone and have departed workers left.
    fading: BTreeMap<PoolId, Fading>,
    pub(super) doorbell: Arc<OwnedFd>,
    running: Option<Running>,
    generation: u32,
    backoff: Backoff,
    /// What workers say and what we log goes to it this way.
    wire: Wire,
    /// Where its metrics are fetched; whoever connects while there is none waits for it.
    scrapes: Option<Arc<Listener>>,
    /// Not started any more.
    stopping: bool,
}

#[derive(Debug)]
struct Running {
    generation: u32,
    child: Child,
    link: Link<ToObserver>,
    /// Of the programs that it was told of.
    clocks: Clocks,
    since: Instant,
    /// It was told to make room for a successor; when it is killed instead.
    replaced_by: Option<Instant>,
    /// Copies what it logs, the last of it when this is dropped.
    _relay: Relay,
}

impl Observer {
    /// Makes what outlives an observer's process: cursor table and doorbell. `wire` is what
    /// lines come by.
    pub(super) fn new(
        start: ObserverStart,
        cursors: Cursors,
        scrapes: Option<Arc<Listener>>,
        wire: Wire,
    ) -> io::Result<Observer> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        wire.disconnect(wants_lines(&start));
        Ok(Observer {
            start: completed(start),
            waits: Waits::NotWanted,
            cursors,
            departed: Departed::default(),
            fading: BTreeMap::new(),
            doorbell: Arc::new(doorbell),
            running: None,
            generation: 0,
            backoff: Backoff::default(),
            wire,
            scrapes,
            stopping: false,
        })
    }

    /// What there is of kernel programs, before the first observer.
    pub(super) fn give(&mut self, waits: Waits) {
        self.start.waits = waits.told();
        self.waits = waits;
    }

    /// From now on it is started so, with these kernel programs; one that runs otherwise
    /// exports what it has and is replaced.
    pub(super) fn change(
        &mut self,
        start: ObserverStart,
        scrapes: Option<Arc<Listener>>,
        waits: Waits,
        log: &ErrorLog,
    ) {
        let start = ObserverStart {
            waits: waits.told(),
            ..completed(start)
        };
        self.scrapes = scrapes;
        let is_same = start == self.start && waits.are_those(&self.waits);
        (self.start, self.waits) = (start, waits);
        if is_same {
            return;
        }
        // The one that ends reads nothing after the order to.
        self.wire.disconnect(wants_lines(&self.start));
        let within = REPLACE_TIME;
        if let Some(running) = self.running.as_mut().filter(|_| !self.stopping) {
            running.replaced_by = Some(Instant::now() + within);
            heard(running.clocks.run(false, Instant::now()), log);
            self.tell(log, ToObserver::Stop { within }, vec![]);
        }
    }

    /// Starts it and queues its first message; false if it does not run now and the
    /// next attempt has to wait.
    pub(super) fn spawn<E: Send + 'static>(
        &mut self,
        log: &ErrorLog,
        events: &mpsc::Sender<E>,
        on_delivery: fn(u32, Delivery<FromObserver>) -> E,
        on_end: fn(u32, Ended) -> E,
    ) -> bool {
        self.generation += 1;
        let generation = self.generation;
        match self.try_spawn(log, events, generation, on_delivery, on_end) {
            Ok(running) => {
                let link = running.link.downgrade();
                self.running = Some(running);
                let mut shared = vec![Arc::clone(self.cursors.memory()), Arc::clone(&self.doorbell)];
                shared.extend(self.scrapes.as_ref().map(|listener| Arc::clone(&listener.socket)));
                shared.extend(self.waits.shared());
                self.tell(log, ToObserver::Start(Box::new(self.start.clone())), shared);
                self.open_telemetry_file(log);
                // Now that nothing comes before what it is started with.
                if wants_lines(&self.start) {
                    self.wire.connect(link);
                }
                true
            }
            Err(e) => {
                let wait = self.backoff.failed(Instant::now());
                log.warning(format_args!(
                    "cannot start the observer: {e}; serving goes on without it, next attempt in {wait:?}"
                ));
                false
            }
        }
    }

    fn try_spawn<E: Send + 'static>(
        &self,
        log: &ErrorLog,
        events: &mpsc::Sender<E>,
        generation: u32,
        on_delivery: fn(u32, Delivery<FromObserver>) -> E,
        on_end: fn(u32, Ended) -> E,
    ) -> io::Result<Running> {
        let (ours, theirs) = Channel::pair()?;
        // What it says itself does not come back to it.
        let (relay, output) = Relay::start(&log.untold())?;
        let mut command = Command::new(OWN_PROGRAM);
        command
            .arg0("glasspool")
            .arg("observer")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::from(output))
            // A terminal's Ctrl-C is for the supervisor.
            .process_group(0);
        let child = Child::spawn(&mut command)?;
        drop(command);
        let link = Link::start(ours, QUEUE, events.clone(), move |d| on_delivery(generation, d))?;
        let (weak, events, ending) = (link.downgrade(), events.clone(), child.clone());
        tokio::spawn(async move {
            let ended = ending.ended().await.unwrap_or(Ended::Exited(-1));
            weak.catch_up().await;
            events.send(on_end(generation, ended)).await.unwrap_or_default();
        });
        Ok(Running {
            generation,
            child,
            link,
            clocks: Clocks::new(self.waits.clocks()),
            since: Instant::now(),
            replaced_by: None,
            _relay: relay,
        })
    }

    /// Opens the file for telemetry, which an observer's user may not be allowed to, and
    /// hands it over. Without it what was meant for it is counted as lost.
    pub(super) fn open_telemetry_file(&self, log: &ErrorLog) {
        let Some(path) = &self.start.telemetry_file else {
            return;
        };
        match open_log(path.as_ref()) {
            Ok(file) => self.tell(log, ToObserver::TelemetryFile, vec![Arc::new(file.into())]),
            Err(e) => log.error(format_args!("cannot write telemetry to {path}: {e}")),
        }
    }

    /// Queues a message; without an observer it vanishes, as its successor is told the
    /// whole. One that does not read is killed, so it never makes anybody wait.
    pub(super) fn tell(&self, log: &ErrorLog, message: ToObserver, fds: Vec<Arc<OwnedFd>>) {
        let Some(running) = &self.running else { return };
        if let Err(e) = running.link.send(message, fds) {
            log.warning(format_args!(
                "the observer (pid {}) hangs: {e}; killing it",
                running.child.pid
            ));
            running.child.signal(Signal::KILL);
        }
    }

    /// What it says.
    pub(super) fn on_delivery(&mut self, generation: u32, delivery: Delivery<FromObserver>, log: &ErrorLog) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.generation == generation)
        else {
            return;
        };
        match delivery {
            Delivery::Message(FromObserver::Ready, _) => {
                log.debug(format_args!("the observer (pid {}) is ready", running.child.pid));
            }
            Delivery::Message(FromObserver::Buried { worker }, _) => {
                if let Some(departure) = self.departed.release(worker) {
                    self.release(&departure, log);
                }
            }
            Delivery::Message(FromObserver::Clocks { run }, _) => {
                // What they find would not be read any more.
                let run = run && !self.stopping && running.replaced_by.is_none();
                heard(running.clocks.run(run, Instant::now()), log);
            }
            // The run loop's own.
            Delivery::Message(FromObserver::Slow { .. } | FromObserver::Looked { .. }, _) => {}
            Delivery::Message(FromObserver::Failed { reason }, _) => {
                log.error(format_args!(
                    "the observer (pid {}) cannot start: {reason}",
                    running.child.pid
                ));
            }
            // One without its socket is of no use; while stopping, closing it is the last
            // thing it does.
            Delivery::Closed(_) if self.stopping || running.replaced_by.is_some() => {}
            Delivery::Closed(e) => {
                log.debug(format_args!("the observer (pid {}): {e}", running.child.pid));
                running.child.signal(Signal::KILL);
            }
        }
    }

    /// Its process has ended.
    pub(super) fn on_end(&mut self, generation: u32, ended: Ended, log: &ErrorLog) {
        let Some(mut running) = self.running.take_if(|running| running.generation == generation) else {
            return;
        };
        self.wire.disconnect(!self.stopping && wants_lines(&self.start));
        heard(running.clocks.run(false, Instant::now()), log);
        let life = running.since.elapsed();
        let how = format!(
            "the observer (pid {}) exited {} after {}",
            running.child.pid,
            describe(ended),
            seconds(life)
        );
        if self.stopping || running.replaced_by.is_some() {
            let expected = ended == Ended::Exited(0);
            return if expected {
                log.debug(how)
            } else {
                log.warning(how)
            };
        }
        if life >= LONG_LIFE {
            self.backoff.succeeded();
        }
        let wait = self.backoff.failed(Instant::now());
        log.warning(format_args!(
            "{how}; serving goes on, starting it again in {wait:?}"
        ));
    }

    /// Asks it to export what it has and to exit; it is not started again.
    pub(super) fn stop(&mut self, within: Duration, log: &ErrorLog) {
        self.stopping = true;
        if let Some(running) = &mut self.running {
            heard(running.clocks.run(false, Instant::now()), log);
        }
        // What is logged from now on nobody can be told any more.
        log.hand_on();
        self.tell(log, ToObserver::Stop { within }, vec![]);
        self.wire.disconnect(false);
    }

    pub(super) fn kill(&self) {
        if let Some(running) = &self.running {
            running.child.signal(Signal::KILL);
        }
    }

    /// The way to it for what workers say.
    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Passes on somebody who wants to read what happens; gives him back if no observer
    /// can take him now.
    pub(super) fn pass_reader(
        &self,
        question: Vec<u8>,
        connection: OwnedFd,
        log: &ErrorLog,
    ) -> Result<(), OwnedFd> {
        let listens = |running: &Running| running.replaced_by.is_none() && running.link.waiting() < READERS;
        if self.stopping || !self.running.as_ref().is_some_and(listens) {
            return Err(connection);
        }
        self.tell(log, ToObserver::Tail { question }, vec![Arc::new(connection)]);
        Ok(())
    }

    /// Where metrics are fetched now, if it is at that address.
    pub(super) fn scrapes_at(&self, address: &str) -> Option<Arc<Listener>> {
        let current = self.start.scraped.as_ref();
        let same = current.is_some_and(|scraped| scraped.address == address);
        self.scrapes.clone().filter(|_| same)
    }

    /// Whether it wants what only the supervisor counts.
    pub(super) fn wants_figures(&self) -> bool {
        self.start.figures && self.is_watching()
    }

    /// Its process, while it runs.
    pub(super) fn pid(&self) -> Option<glasspool_abi::Pid> {
        self.running.as_ref().map(|running| running.child.pid)
    }

    /// Whether it looks after the workers, or soon will.
    pub(super) fn is_watching(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.replaced_by.is_none()) && !self.stopping
    }

    /// Whether it should be started now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.running.is_none() && !self.stopping && self.backoff.is_over(now)
    }

    /// Kills one that should have made room for its successor by now, and stops clocks that it
    /// does not ask for any more.
    pub(super) fn keep(&mut self, now: Instant, log: &ErrorLog) {
        let Some(running) = &mut self.running else { return };
        if running.replaced_by.is_some_and(|due| due <= now) {
            running.child.signal(Signal::KILL);
            running.replaced_by = Some(now + REPLACE_TIME);
        }
        heard(running.clocks.keep(now), log);
    }

    /// When it should be looked at again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match &self.running {
            Some(running) => running.replaced_by.into_iter().chain(running.clocks.due()).min(),
            None if self.stopping => None,
            None => self.backoff.due(now),
        }
    }
}

fn heard(outcome: io::Result<()>, log: &ErrorLog) {
    if let Err(e) = outcome {
        log.warning(format_args!(
            "the CPUs' clocks can neither be run nor stopped: {e}; spans do not tell what requests past their limit \
             compute"
        ));
    }
}

/// What the supervisor itself adds to an observer's settings.
fn completed(start: ObserverStart) -> ObserverStart {
    ObserverStart {
        cursors: Cursors::entries(),
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ..start
    }
}
