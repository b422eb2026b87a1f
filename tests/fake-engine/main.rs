//! An engine without PHP for the supervisor's tests, with everything around it: one
//! program in five roles.
//!
//! - `fake-engine supervise FOLDER WORKERS` runs the supervisor in that folder, logging
//!   at debug level to standard error, with this program as engine and observer;
//! - `fake-engine` speaks the control protocol as an engine, and does what the variable
//!   `FAKE_ENGINE` says: `mute`, `old`, `no-php`, or serve;
//! - `fake-engine intermediate` leaves a worker behind that becomes the supervisor's child;
//! - `fake-engine worker` is that worker; `FAKE_WORKER` says how it behaves: `unable`,
//!   `stubborn`, `early` (is ready before its engine says so), or well;
//! - `fake-engine observer` writes down what it is told.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test program speaks to its test"
)]

use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use glasspool::config::{ListenAddress, LogLevel, Pool, Settings};
use glasspool::logs::ErrorLog;
use glasspool::supervisor::{self, EngineSource, Launch};
use glasspool_abi::control::{Channel, FromEngine, FromObserver, ToEngine, ToObserver};
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_abi::{ABI_VERSION, Pid, WorkerId};
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => engine(&channel()),
        ["supervise", folder, workers] => {
            return supervise(Path::new(folder), workers.parse().expect("a number"));
        }
        ["intermediate"] => {
            let mut worker = Command::new(own_program());
            #[expect(
                clippy::zombie_processes,
                reason = "this process ends, and the worker gets a new parent"
            )]
            let started = worker
                .arg("worker")
                .stdout(Stdio::null())
                .spawn()
                .expect("starts");
            println!("{}", started.id());
        }
        ["worker"] => worker(),
        ["observer"] => observer(&channel()),
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

fn own_program() -> PathBuf {
    std::env::current_exe().expect("has one")
}

fn behaviour(variable: &str) -> String {
    std::env::var(variable).unwrap_or_default()
}

fn channel() -> Channel {
    Channel::from(
        rustix::stdio::stdin()
            .try_clone_to_owned()
            .expect("has a standard input"),
    )
}

fn supervise(folder: &Path, workers: NonZeroU32) -> ExitCode {
    let mut pool = Pool::new("www", ListenAddress::Unix(folder.join("php.sock")), workers);
    pool.catch_workers_output = true;
    let mut settings = Settings::single(pool);
    settings.global.pid = Some(folder.join("pid"));
    let log = ErrorLog::stderr(LogLevel::Debug);
    let mut launch = Launch::new(settings, log.clone());
    launch.allow_root = true;
    launch.engine = EngineSource::Program(own_program());
    match supervisor::run(launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log.fatal(&e);
            ExitCode::from(e.exit_code())
        }
    }
}

fn engine(channel: &Channel) {
    let say = |message: FromEngine| channel.send(&message, &[]).expect("the supervisor listens");
    let behaviour = behaviour("FAKE_ENGINE");
    if behaviour == "mute" {
        return;
    }
    say(FromEngine::Hello {
        abi: ABI_VERSION + u32::from(behaviour == "old"),
    });
    while let Ok((message, fds)) = channel.receive() {
        match message {
            ToEngine::Start(_) if behaviour == "no-php" => {
                return say(FromEngine::Failed {
                    reason: "there is none".into(),
                });
            }
            ToEngine::Start(_) => say(FromEngine::Ready(Box::new(build()))),
            ToEngine::AddPool(_) => assert_eq!(fds.len(), 2, "a listener and a doorbell"),
            ToEngine::Spawn { worker, .. } => spawn(worker, fds, say),
        }
    }
}

fn spawn(worker: WorkerId, fds: Vec<OwnedFd>, say: impl Fn(FromEngine)) {
    let [slot, _stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).expect("a slot and two streams");
    let mut intermediate = Command::new(own_program());
    let intermediate = intermediate.arg("intermediate").stdin(slot).stderr(stderr);
    let said = intermediate.output().expect("starts").stdout;
    let pid = Pid(String::from_utf8_lossy(&said).trim().parse().expect("a pid"));
    match behaviour("FAKE_WORKER").as_str() {
        "early" => {
            say(FromEngine::WorkerReady { worker });
            say(FromEngine::Spawned { worker, pid });
        }
        "unable" => {
            say(FromEngine::Spawned { worker, pid });
            say(FromEngine::WorkerFailed {
                worker,
                reason: "no such folder".into(),
            });
        }
        _ => {
            say(FromEngine::Spawned { worker, pid });
            say(FromEngine::WorkerReady { worker });
        }
    }
}

fn worker() {
    let behaviour = behaviour("FAKE_WORKER");
    if behaviour == "unable" {
        return;
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGQUIT);
    if behaviour == "stubborn" {
        signals.add(Signal::SIGTERM);
    }
    signals.thread_block().expect("blocks");
    eprintln!("worker {} speaks", std::process::id());
    while signals.wait().expect("waits") != Signal::SIGQUIT {}
}

fn observer(channel: &Channel) {
    let name = format!("observer {}", std::process::id());
    let tell = |text: String| writeln!(std::io::stderr(), "{name}: {text}").unwrap_or_default();
    while let Ok((message, fds)) = channel.receive() {
        match message {
            ToObserver::Start(start) => {
                tell(format!("starts with {} descriptors", fds.len()));
                assert!(start.cursors > 0);
                channel
                    .send(&FromObserver::Ready, &[])
                    .expect("the supervisor listens");
            }
            ToObserver::Pool(pool) => tell(format!("pool {}", pool.name)),
            ToObserver::Engine { php, .. } => tell(format!("engine {}", php.version)),
            ToObserver::WorkerStarted(view) => {
                tell(format!("worker {} with {} descriptors", view.pid, fds.len()))
            }
            ToObserver::WorkerGone { worker, ended, .. } => tell(format!("worker {worker} gone {ended:?}")),
            ToObserver::Stop { .. } => return tell("stops".into()),
        }
    }
}

fn build() -> PhpBuild {
    let layout = Layout::from_entries(Layout::NAMES.iter().copied().zip(1..)).expect("complete");
    PhpBuild {
        version: "8.2.0".into(),
        api: 20_220_829,
        zts: false,
        executor_globals: 0,
        layout,
    }
}
