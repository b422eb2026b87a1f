//! `-v`, `-m` and `-i`: PHP is started once, says something of itself, and ends. No
//! supervisor runs for that, so this is a short conversation that blocks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::ABI_VERSION;
use glasspool_abi::control::{About, Channel, ChannelError, Ended, FromEngine, ToEngine};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::engine::{self, GREETING_TIME, PHP_TIME};
use super::error::StartError;
use super::host;
use super::process::describe as describe_end;
use super::recipe::{PhpOptions, start_message};

/// PHP as it is started to be asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedPhp {
    /// The executable; else the first that fits.
    pub binary: Option<std::path::PathBuf>,
    /// php.ini or its folder.
    pub ini: Option<std::path::PathBuf>,
    /// Read no php.ini and no scan directory.
    pub no_ini: bool,
    /// Compile with information for debuggers and profilers.
    pub extended_info: bool,
    /// INI entries `name=value`.
    pub define: Vec<String>,
}

/// Has PHP print something about itself to the descriptor.
///
/// # Errors
/// When there is no PHP, or it does not start, or ends before it is done.
pub fn describe(php: AskedPhp, about: About, to: BorrowedFd<'_>) -> Result<(), StartError> {
    let host = host::choose(php.binary.as_deref())?;
    let options = PhpOptions {
        ini: php.ini,
        no_ini: php.no_ini,
        extended_info: php.extended_info,
        define: php.define,
    };
    let binary = host.binary.clone();
    let spawn_error = |source| StartError::Spawn {
        binary: binary.clone(),
        source,
    };
    let (ours, theirs) = Channel::pair().map_err(spawn_error)?;
    let stderr = rustix::stdio::stderr()
        .try_clone_to_owned()
        .map_err(spawn_error)?;
    let mut command = engine::hosting(&host);
    // What PHP says before it is asked, such as warnings of its start, is no answer.
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(stderr));
    let mut process = Ending(command.spawn().map_err(spawn_error)?);
    drop(command);

    let start = start_message(&binary, &options);
    let asked = converse(&ours, start, about, to);
    if let Err(Trouble::Version(theirs)) = asked {
        return Err(StartError::Version {
            binary,
            theirs,
            ours: ABI_VERSION,
        });
    }
    let not_hosting = |reason| StartError::NotHosting {
        binary: binary.clone(),
        reason,
    };
    let failed = |reason| StartError::Php {
        binary: binary.clone(),
        reason,
    };
    match asked {
        Ok(()) => {}
        Err(Trouble::Silent(time)) => return Err(failed(format!("nothing was heard of it within {time:?}"))),
        Err(Trouble::Php(reason)) => return Err(failed(reason)),
        Err(Trouble::Channel { greeted, error }) => {
            let end = process
                .0
                .wait()
                .map_err(StartError::system("wait for the engine"))?;
            let reason = match error {
                ChannelError::Closed => format!("its process exited {}", describe_end(ended(end))),
                other => other.to_string(),
            };
            return Err(if greeted {
                failed(reason)
            } else {
                not_hosting(reason)
            });
        }
        Err(Trouble::Version(_)) => {}
    }
    let end = process
        .0
        .wait()
        .map_err(StartError::system("wait for the engine"))?;
    match ended(end) {
        Ended::Exited(0) => Ok(()),
        other => Err(failed(format!("its process exited {}", describe_end(other)))),
    }
}

/// What can go wrong in the conversation.
#[derive(Debug)]
enum Trouble {
    Version(u32),
    Silent(Duration),
    Php(String),
    Channel { greeted: bool, error: ChannelError },
}

fn converse(engine: &Channel, start: ToEngine, about: About, to: BorrowedFd<'_>) -> Result<(), Trouble> {
    let broken = |greeted| move |error| Trouble::Channel { greeted, error };
    let mut greeted = false;
    let mut start = Some(start);
    let mut until = Instant::now() + GREETING_TIME;
    loop {
        let time = if greeted { PHP_TIME } else { GREETING_TIME };
        if !wait(engine, until).map_err(|error| Trouble::Channel { greeted, error })? {
            return Err(Trouble::Silent(time));
        }
        let (message, _fds) = engine.receive::<FromEngine>().map_err(broken(greeted))?;
        match message {
            FromEngine::Hello { abi: ABI_VERSION } => {
                greeted = true;
                until = Instant::now() + PHP_TIME;
                if let Some(start) = start.take() {
                    engine.send(&start, &[]).map_err(broken(greeted))?;
                }
            }
            FromEngine::Hello { abi } => return Err(Trouble::Version(abi)),
            FromEngine::Ready(_) => {
                return engine
                    .send(&ToEngine::Describe(about), &[to])
                    .map_err(broken(greeted));
            }
            FromEngine::Failed { reason } => return Err(Trouble::Php(reason)),
            // It was not asked for workers.
            FromEngine::Spawned { .. }
            | FromEngine::SpawnFailed { .. }
            | FromEngine::WorkerReady { .. }
            | FromEngine::WorkerFailed { .. }
            | FromEngine::OpcacheAsked { .. } => {}
        }
    }
}

/// Whether something can be received before that time.
fn wait(engine: &Channel, until: Instant) -> Result<bool, ChannelError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut ready = [PollFd::from_borrowed_fd(engine.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                let source = e.into();
                return Err(ChannelError::Os { call: "poll", source });
            }
        }
    }
}

fn ended(status: std::process::ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed {
            signal: signal.unwrap_or_default(),
            core: status.core_dumped(),
        },
    }
}

/// A process that is not left behind.
#[derive(Debug)]
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // One that cannot be killed has just ended by itself.
            self.0.kill().unwrap_or_default();
            self.0.wait().map(drop).unwrap_or_default();
        }
    }
}
