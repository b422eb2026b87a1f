//! The engine as the supervisor sees it: a child that greets, starts PHP, and then
//! forks workers on request. [`State`] is its life as a table; [`Engine`] holds one.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::control::{Channel, Ended, FromEngine, ToEngine};
use glasspool_abi::{ABI_VERSION, EngineId};
use tokio::sync::mpsc;

use super::error::StartError;
use super::host::{self, Host};
use super::link::{Delivery, Link};
use super::opcache::Opcache;
use super::process::{Child, describe};
use super::relay::Relay;
use super::{notify, sockets};
use crate::logs::ErrorLog;

/// Longest wait for the engine object's greeting, which it sends before PHP starts.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(10);
/// Longest wait for PHP; opcache.preload may compile a whole application.
pub(super) const PHP_TIME: Duration = Duration::from_secs(120);
/// Longest life after closing the control socket.
const CLOSED_TIME: Duration = Duration::from_secs(1);
/// Bytes of arguments that an engine's and its workers' titles may fill.
const TITLE_ROOM: usize = 160;
/// Messages that wait for the engine: its pools, of which there may be thousands, and the
/// workers asked for, which the run loop bounds far below this.
const QUEUE: usize = 65_536;

/// Where engines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineSource {
    /// An engine object hosted by a PHP executable: this one, or the first that fits.
    Php {
        /// The executable.
        binary: Option<PathBuf>,
    },
    /// A program that speaks the control protocol by itself, for tests.
    Program(PathBuf),
}

/// How far an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Started; has not said a word.
    Greeting,
    /// Asked to start PHP.
    Warming,
    /// PHP is up: it forks workers.
    Up,
    /// Of no use and killed; its end is awaited.
    Condemned,
    /// Reaped. The last state.
    Gone,
}

/// What can happen to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It speaks this version.
    Hello(u32),
    /// PHP is up.
    Ready,
    /// PHP is not, and will not be.
    Failed(String),
    /// It has closed its socket, or sends what is no message.
    Closed,
    /// Its process ended.
    Exited(Ended),
    /// The time for the next step is over.
    Overdue,
}

/// Why an engine never came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It speaks another version.
    Version(u32),
    /// PHP did not start.
    Php(String),
    /// It ended by itself before it greeted.
    DiedUngreeted(Ended),
    /// It ended by itself while PHP started.
    DiedStarting(Ended),
    /// It has not greeted in this time.
    Silent(Duration),
    /// PHP has not come up in this time.
    PhpSilent(Duration),
}

/// What to do about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Tell it to start PHP.
    StartPhp,
    /// Tell it the pools, then ask for workers.
    Employ,
    /// Be overdue after this time.
    Within(Duration),
    /// Never be overdue.
    WithoutLimit,
    /// SIGKILL.
    Kill,
    /// It did not come up.
    Fail(Failure),
    /// It had come up, and is lost.
    Lose(Ended),
    /// It speaks out of turn; worth a line in the log.
    Odd(&'static str),
}

impl State {
    /// The table.
    pub(super) fn on(self, event: Event) -> (State, Vec<Action>) {
        use Action::*;
        use State::*;
        match (self, event) {
            (Greeting, Event::Hello(ABI_VERSION)) => (Warming, vec![StartPhp, Within(PHP_TIME)]),
            (Greeting, Event::Hello(theirs)) => (Condemned, vec![Kill, Fail(Failure::Version(theirs))]),
            (Warming, Event::Ready) => (Up, vec![WithoutLimit, Employ]),
            (Greeting | Warming, Event::Failed(reason)) => {
                (Condemned, vec![Kill, Fail(Failure::Php(reason))])
            }
            (Greeting, Event::Exited(ended)) => (Gone, vec![Fail(Failure::DiedUngreeted(ended))]),
            (Warming, Event::Exited(ended)) => (Gone, vec![Fail(Failure::DiedStarting(ended))]),
            (Greeting, Event::Overdue) => (Condemned, vec![Kill, Fail(Failure::Silent(GREETING_TIME))]),
            (Warming, Event::Overdue) => (Condemned, vec![Kill, Fail(Failure::PhpSilent(PHP_TIME))]),
            (Up, Event::Exited(ended)) => (Gone, vec![Lose(ended)]),
            // Its process normally ends right after; what it is good for is decided then.
            (Greeting | Warming | Up, Event::Closed) => (self, vec![Within(CLOSED_TIME)]),
            (Up, Event::Overdue) => (Up, vec![WithoutLimit, Kill]),
            (Condemned, Event::Exited(_)) => (Gone, vec![]),

            (Warming | Up, Event::Hello(_)) => (self, vec![Odd("greets again")]),
            (Greeting | Up, Event::Ready) => (self, vec![Odd("says that PHP is up, unasked")]),
            (Up, Event::Failed(_)) => (self, vec![Odd("says that PHP did not start, after it had")]),
            (
                Condemned,
                Event::Hello(_) | Event::Ready | Event::Failed(_) | Event::Closed | Event::Overdue,
            ) => (self, vec![]),
            // The socket may be held open by a worker that still starts.
            (Gone, Event::Closed | Event::Overdue) => (self, vec![]),
            (Gone, Event::Hello(_) | Event::Ready | Event::Failed(_) | Event::Exited(_)) => (self, vec![]),
        }
    }
}

/// A running engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) id: EngineId,
    pub(super) binary: PathBuf,
    pub(super) state: State,
    pub(super) child: Child,
    /// Dropped to tell the engine to end.
    pub(super) link: Option<Link<ToEngine>>,
    pub(super) since: Instant,
    pub(super) due: Option<Instant>,
    pub(super) opcache: Opcache,
    /// Copies what it prints to the log, the last of it when this is dropped.
    _relay: Relay,
}

impl Engine {
    /// Starts a process and its tasks. Its messages and its end become events.
    pub(super) fn spawn<E: Send + 'static>(
        id: EngineId,
        source: &EngineSource,
        log: &ErrorLog,
        events: &mpsc::Sender<E>,
        on_delivery: impl Fn(Delivery<FromEngine>) -> E + Send + 'static,
        on_end: impl FnOnce(Ended) -> E + Send + 'static,
    ) -> Result<Engine, StartError> {
        let (binary, mut command) = match source {
            EngineSource::Program(program) => (program.clone(), Command::new(program)),
            EngineSource::Php { binary } => {
                let host = host::choose(binary.as_deref())?;
                (host.binary.clone(), hosting(&host))
            }
        };
        let spawn_error = |source| StartError::Spawn {
            binary: binary.clone(),
            source,
        };
        let (ours, theirs) = Channel::pair().map_err(spawn_error)?;
        let (relay, output) = Relay::start(log).map_err(spawn_error)?;
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(output.try_clone().map_err(spawn_error)?))
            .stderr(Stdio::from(output))
            // A terminal's Ctrl-C is for the supervisor, which then stops its children in order.
            .process_group(0);
        let child = Child::spawn(&mut command).map_err(spawn_error)?;
        // The command holds the engine's end of the channel, whose closing is a signal.
        drop(command);
        let link = Link::start(ours, QUEUE, events.clone(), on_delivery).map_err(spawn_error)?;
        let (weak, events, ending) = (link.downgrade(), events.clone(), child.clone());
        tokio::spawn(async move {
            let ended = ending.ended().await.unwrap_or(Ended::Exited(-1));
            weak.catch_up().await;
            // The run loop is gone only when everything is.
            events.send(on_end(ended)).await.unwrap_or_default();
        });
        let since = Instant::now();
        let due = Some(since + GREETING_TIME);
        Ok(Engine {
            id,
            binary,
            state: State::Greeting,
            child,
            link: Some(link),
            since,
            due,
            opcache: Opcache::default(),
            _relay: relay,
        })
    }

    /// Queues a message, unless it has been told to end.
    pub(super) fn send(&self, message: ToEngine, fds: Vec<std::sync::Arc<OwnedFd>>) -> io::Result<()> {
        match &self.link {
            Some(link) => link.send(message, fds).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// The command that starts a PHP executable with our object in front of it.
pub(super) fn hosting(host: &Host) -> Command {
    let mut command = Command::new(&host.binary);
    command
        .arg0(host.binary.file_name().unwrap_or(host.binary.as_os_str()))
        // Should the dynamic linker ignore the preload (file capabilities, set-user-id),
        // PHP's own main runs: then it prints its version and ends, and starts no daemon.
        .arg("-v")
        // Titles are written over the arguments; the environment behind them is not
        // always there to grow into.
        .arg(" ".repeat(TITLE_ROOM))
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
        .env("LD_PRELOAD", &host.object);
    command
}

/// Engines and workers see our environment, without what is between us and our parent.
fn is_passed_on(name: &OsString) -> bool {
    let is_private = sockets::is_private(name) || notify::is_private(name);
    !is_private && !name.as_encoded_bytes().starts_with(b"GLASSPOOL_")
}

/// What a failure is called when it ends a start or a reload.
pub(super) fn start_error(engine: &Engine, failure: Failure) -> StartError {
    let binary = engine.binary.clone();
    match failure {
        Failure::Version(theirs) => StartError::Version {
            binary,
            theirs,
            ours: ABI_VERSION,
        },
        Failure::Php(reason) => StartError::Php { binary, reason },
        Failure::DiedStarting(ended) => StartError::Php {
            binary,
            reason: format!("its process exited {}", describe(ended)),
        },
        Failure::DiedUngreeted(ended) => StartError::NotHosting {
            binary,
            reason: format!(
                "its process exited {} before the engine object spoke",
                describe(ended)
            ),
        },
        Failure::PhpSilent(time) => StartError::Php {
            binary,
            reason: format!("it has not come up within {time:?}"),
        },
        Failure::Silent(time) => StartError::NotHosting {
            binary,
            reason: format!("nothing was heard of it within {time:?}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ended = Ended::Killed {
        signal: 9,
        core: false,
    };

    fn walk(events: &[Event]) -> (State, Vec<Action>) {
        let mut state = State::Greeting;
        let mut actions = Vec::new();
        for event in events {
            let (next, then) = state.on(event.clone());
            state = next;
            actions.extend(then);
        }
        (state, actions)
    }

    #[test]
    fn a_good_start_and_a_loss() {
        let (state, actions) = walk(&[
            Event::Hello(ABI_VERSION),
            Event::Ready,
            Event::Closed,
            Event::Exited(KILLED),
        ]);
        assert_eq!(state, State::Gone);
        assert_eq!(actions[0], Action::StartPhp);
        assert!(actions.contains(&Action::Employ));
        assert_eq!(actions.last(), Some(&Action::Lose(KILLED)));
        assert!(!actions.iter().any(|action| matches!(action, Action::Fail(_))));
    }

    #[test]
    fn every_bad_start_fails_once_and_leaves_no_process() {
        let exited = Event::Exited(Ended::Exited(0));
        let cases: [(&[Event], Failure); 6] = [
            (
                &[Event::Hello(ABI_VERSION + 1)],
                Failure::Version(ABI_VERSION + 1),
            ),
            (
                &[Event::Hello(ABI_VERSION), Event::Failed("no".into())],
                Failure::Php("no".into()),
            ),
            (&[Event::Closed], Failure::DiedUngreeted(Ended::Exited(0))),
            (&[Event::Overdue], Failure::Silent(GREETING_TIME)),
            (
                &[Event::Hello(ABI_VERSION), Event::Overdue],
                Failure::PhpSilent(PHP_TIME),
            ),
            (
                &[Event::Hello(ABI_VERSION)],
                Failure::DiedStarting(Ended::Exited(0)),
            ),
        ];
        for (events, failure) in cases {
            let (state, actions) = walk(&[events, std::slice::from_ref(&exited)].concat());
            assert_eq!(state, State::Gone);
            let failures: Vec<_> = actions.iter().filter(|a| matches!(a, Action::Fail(_))).collect();
            assert_eq!(failures, [&Action::Fail(failure)]);
            assert!(
                !actions
                    .iter()
                    .any(|action| matches!(action, Action::Lose(_) | Action::Employ))
            );
        }
    }

    #[test]
    fn an_engine_that_closes_its_socket_and_lives_on_is_killed() {
        let (state, actions) = walk(&[
            Event::Hello(ABI_VERSION),
            Event::Ready,
            Event::Closed,
            Event::Overdue,
        ]);
        assert_eq!(state, State::Up);
        assert_eq!(actions[actions.len() - 2..], [Action::WithoutLimit, Action::Kill]);
    }

    #[test]
    fn own_variables_are_not_passed_on() {
        assert!(is_passed_on(&OsString::from("PATH")));
        for private in ["GLASSPOOL_X", "FPM_SOCKETS", "NOTIFY_SOCKET"] {
            assert!(!is_passed_on(&OsString::from(private)), "{private}");
        }
    }
}
