//! Scripts on PHP's command line that stand still or spin, to be looked at.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::{Access, Process as Target};
use rustix::process::Signal;

use crate::BenchError;
use crate::bench::Setup;
use crate::process::{Process, find_program};

/// Longest wait for a script.
const PATIENCE: Duration = Duration::from_secs(20);
/// The command line's PHP, by its usual names.
const PHP: [&str; 2] = ["php8.2", "php"];

/// A script that is looked at; killed when dropped.
pub(super) struct Script {
    pub(super) process: Process,
    pub(super) target: Target,
}

impl Script {
    /// `deep.php`: so many frames, asleep or spinning (`sleep`, `spin`).
    pub(super) fn deep(setup: &Setup<'_>, depth: usize, how: &str) -> Result<Script, BenchError> {
        let depth = depth.to_string();
        Script::start(setup, &[], "deep.php", &[&depth, how], how == "sleep")
    }

    /// Any script; `options` are PHP's. Waits until it says that it is ready.
    pub(super) fn start(
        setup: &Setup<'_>,
        options: &[&str],
        name: &str,
        arguments: &[&str],
        asleep: bool,
    ) -> Result<Script, BenchError> {
        let process = spawn(setup, options, name, arguments)?;
        wait_for(setup, &process, asleep)?;
        let pid = i32::try_from(process.pid()).map_or(Pid(0), Pid);
        let target =
            Target::open(pid, Access::default()).map_err(|error| process.fault(error.to_string()))?;
        Ok(Script { process, target })
    }
}

/// Starts a script and does not wait.
pub(super) fn spawn(
    setup: &Setup<'_>,
    options: &[&str],
    name: &str,
    arguments: &[&str],
) -> Result<Process, BenchError> {
    let php = PHP.iter().find_map(|name| find_program(name));
    let php = php.ok_or_else(|| BenchError::Spawn {
        program: PHP.join(" or "),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let mut command = Command::new(php);
    command.arg("-n").args(options).arg("-f");
    command.arg(setup.scripts.join(name)).args(arguments);
    let output = format!("look-{name}-{}.output", arguments.join("-"));
    Process::spawn(command, &setup.dir.join(output), Signal::KILL)
}

/// Waits until the script has said that it is there, and, if it is to sleep, sleeps.
fn wait_for(setup: &Setup<'_>, process: &Process, asleep: bool) -> Result<(), BenchError> {
    let began = Instant::now();
    while !process.output().contains("ready") || (asleep && !sleeps(process.pid())) {
        if began.elapsed() > PATIENCE {
            return Err(process.fault("did not get ready"));
        }
        setup.stop.pause(Duration::from_millis(5))?;
    }
    Ok(())
}

fn sleeps(pid: u32) -> bool {
    let wchan = Path::new("/proc").join(pid.to_string()).join("wchan");
    std::fs::read_to_string(wchan).is_ok_and(|name| name != "0")
}
