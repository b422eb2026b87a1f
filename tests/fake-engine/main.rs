//! An engine without PHP for the supervisor's tests, with everything around it: one
//! program in several roles.
//!
//! - `fake-engine supervise FOLDER WORKERS` runs the supervisor in that folder, logging
//!   at debug level to standard error, with this program as engine and observer;
//! - `fake-engine reloads FOLDER` does so with the configuration in `FOLDER/config`;
//! - `fake-engine` speaks the control protocol as an engine, and does what the variable
//!   `FAKE_ENGINE` or the INI entry `fake` says: `mute`, `old`, `no-php`, `die`, or serve;
//! - `fake-engine intermediate` leaves a worker behind that becomes the supervisor's child;
//! - `fake-engine worker` is that worker; `FAKE_WORKER` says how it behaves: `unable`,
//!   `stubborn`, `chatty`, `hasty`, `early` (is ready before its engine says so), or well. With
//!   `serve` or `crash` it accepts, and does that with each request; with
//!   `report` or `deaf` it is busy as long as it has a connection, and says so in its slot;
//! - `FAKE_OPCACHE` says what the process does that an engine forks to ask opcache: `dies` or
//!   `hangs`; else there is none;
//! - `fake-engine observer` writes down what it is told; `FAKE_OBSERVER` says what it does
//!   when asked for a last look: `silent`, `wakes` (only says that the worker crashes), or
//!   answers. One that is `absent` ends at once;
//! - `fake-engine loader` loads no program; `FAKE_LOADER` says what it does instead: `hangs`,
//!   `dies`, `pretends` (hands over plain memory), or says why not;
//! - `fake-engine hand-over FOLDER PROGRAM …`, `activate` and `become` turn into another
//!   program, with sockets or without; called like php-fpm (`… -y FOLDER/php-fpm.conf`) it
//!   is the supervisor again.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test program speaks to its test"
)]

mod hand_over;
mod loads;
mod observes;
mod reloads;
mod reports;
mod serves;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use glasspool::config::{LogLevel, Settings};
use glasspool::logs::ErrorLog;
use glasspool::supervisor::{self, EngineSource, Launch};
use glasspool_abi::control::{Channel, FromEngine, PoolSpec, ToEngine};
use glasspool_abi::times::TimesPage;
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_abi::{ABI_VERSION, Pid, WorkerId};
use nix::sys::signal::{SigSet, Signal};
use rustix::io::FdFlags;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => engine(&channel()),
        ["supervise", folder, workers] => {
            return supervise(Path::new(folder), workers.parse().expect("a number"));
        }
        ["reloads", folder] => {
            return reloads::supervise(Path::new(folder), std::env::args_os().collect());
        }
        ["reloads", .., "-t"] => return ExitCode::SUCCESS,
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
        ["observer"] => observes::observe(&channel()),
        ["loader"] => loads::load(&channel()),
        ["hand-over", folder, ref program @ ..] => {
            return hand_over::like_php_fpm(Path::new(folder), program);
        }
        ["activate", folder, ref program @ ..] => {
            return hand_over::like_a_service_manager(Path::new(folder), program);
        }
        ["become", ref program @ ..] => return hand_over::plainly(program),
        // As php-fpm's next image.
        [.., "-y", conf] => {
            let folder = Path::new(conf).parent().expect("a file in a folder");
            return supervise(folder, NonZeroU32::MIN);
        }
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
    let mut pool = hand_over::pool(folder, workers);
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
    let mut pools = HashMap::new();
    while let Ok((message, mut fds)) = channel.receive() {
        match message {
            ToEngine::Start(start) => {
                let entry = start.define.iter().find(|(name, _)| name == "fake");
                match entry.map_or(behaviour.as_str(), |(_, value)| value) {
                    "no-php" => {
                        return say(FromEngine::Failed {
                            reason: "there is none".into(),
                        });
                    }
                    "die" => std::process::abort(),
                    _ => say(FromEngine::Ready(Box::new(build()))),
                }
            }
            ToEngine::Spawn {
                worker,
                pool,
                times_page,
                ..
            } => {
                if let Some(page) = times_page {
                    TimesPage::map(fds.pop().expect("its map"), page).expect("is there");
                }
                let (spec, listener) = pools.get(&pool).expect("a pool that was added");
                spawn(worker, spec, listener, fds, say);
            }
            ToEngine::AddPool(spec) => {
                let expected = 3 + usize::from(spec.access_log.is_some());
                assert_eq!(
                    fds.len(),
                    expected,
                    "a listener, a doorbell, a socket, perhaps a log"
                );
                pools.insert(spec.pool, (*spec, fds.swap_remove(0)));
            }
            ToEngine::AskOpcache => say(FromEngine::OpcacheAsked {
                pid: ask(fds.pop().expect("where to answer")),
            }),
            ToEngine::Raised => assert_eq!(fds.len(), 1, "a page"),
            ToEngine::AccessLog { .. } => assert_eq!(fds.len(), 1, "a log"),
            ToEngine::Describe(about) => panic!("nobody asks a fake engine for {about:?}"),
        }
    }
}

fn spawn(worker: WorkerId, spec: &PoolSpec, listener: &OwnedFd, fds: Vec<OwnedFd>, say: impl Fn(FromEngine)) {
    let [slot, _stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).expect("a slot and two streams");
    // Both of them inherit it, under the same number.
    rustix::io::fcntl_setfd(&slot, FdFlags::empty()).expect("is open");
    let mut intermediate = Command::new(own_program());
    let intermediate = intermediate
        .args(["intermediate"])
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env("FAKE_REQUESTS", spec.max_requests.to_string())
        .env("FAKE_POOL", &spec.name)
        .env("FAKE_SLOT", format!("/proc/self/fd/{}", slot.as_raw_fd()))
        .stdin(listener.try_clone().expect("has room for it"))
        .stderr(stderr);
    let said = intermediate.output().expect("starts").stdout;
    let pid = Pid(String::from_utf8_lossy(&said).trim().parse().expect("a pid"));
    let own = spec.env.iter().find(|(name, _)| name == "FAKE_WORKER");
    let behaviour = own.map_or_else(|| behaviour("FAKE_WORKER"), |(_, value)| value.clone());
    match behaviour.as_str() {
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

/// Leaves a process behind that was to ask opcache and never says anything.
fn ask(to: OwnedFd) -> Result<Pid, String> {
    let as_worker = match behaviour("FAKE_OPCACHE").as_str() {
        "dies" => "unable",
        "hangs" => "well",
        _ => return Err("it has none".to_owned()),
    };
    let mut intermediate = Command::new(own_program());
    let intermediate = intermediate
        .arg("intermediate")
        .env("FAKE_WORKER", as_worker)
        .stdin(to)
        .stderr(Stdio::inherit());
    let said = intermediate.output().expect("starts").stdout;
    Ok(Pid(String::from_utf8_lossy(&said).trim().parse().expect("a pid")))
}

fn worker() {
    let behaviour = behaviour("FAKE_WORKER");
    if behaviour == "unable" {
        return;
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGQUIT);
    // What one that waits in its crash handler is woken with.
    signals.add(Signal::SIGCONT);
    if ["stubborn", "deaf"].contains(&behaviour.as_str()) {
        signals.add(Signal::SIGTERM);
    }
    signals.thread_block().expect("blocks");
    eprintln!("worker {} speaks", std::process::id());
    // Many times what a pipe holds, or nearly as much; then the test is told that it is said.
    let lines = match behaviour.as_str() {
        "chatty" => 20_000,
        "hasty" => 300,
        _ => 0,
    };
    if lines > 0 {
        (0..lines).for_each(|number| eprintln!("line {number} of a worker that says a lot"));
        let told = UnixStream::connect(std::env::var_os("FAKE_LISTENER").expect("names a socket"));
        drop(told.expect("the test listens"));
    }
    if ["report", "deaf"].contains(&behaviour.as_str()) {
        reports::start();
    }
    let most_requests = self::behaviour("FAKE_REQUESTS").parse().unwrap_or(0);
    let serves = ["serve", "crash"].contains(&behaviour.as_str()) || most_requests == 1;
    let serving = serves.then(|| serves::start(&behaviour, most_requests, self::behaviour("FAKE_POOL")));
    loop {
        match signals.wait().expect("waits") {
            Signal::SIGCONT => eprintln!("worker {} goes on", std::process::id()),
            Signal::SIGQUIT if behaviour != "deaf" => break,
            _ => {}
        }
    }
    // As a worker of PHP: ends with the request that it has, and accepts no other.
    if let Some(serving) = &serving {
        std::mem::forget(serving.lock());
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
