//! PROCESS: the observer. Reads the workers' slots, makes spans of finished requests,
//! watches deadlines, looks into workers that take too long, exports.
//!
//! Started by the supervisor with the control socket as standard input; standard output
//! is where the console exporter writes, standard error is the error log. Serving does
//! not depend on it: it may crash, and its successor goes on reading where it stopped.
//!
//! **Trust.** Whatever a worker can write is hostile: slots, memory, the doorbell. Work
//! per turn is bounded by what the supervisor said of sizes.
//!
//! It writes to no file but those that the supervisor has opened, and starts no process, and accepts connections only where its metrics
//! are to be fetched (`metrics::endpoint`). Start reading at
//! `state`, then `drain` and `looks`; `run` is the loop around them.

mod announce;
mod budget;
#[cfg(test)]
mod cost;
mod counters;
mod desk;
mod diagnostics;
mod drain;
mod ending;
mod eyes;
mod history;
mod ladder;
mod lines;
mod looks;
#[cfg(test)]
mod looks_tests;
mod metrics;
mod outputs;
mod privileges;
mod protocol;
mod readers;
mod report;
mod routes;
mod run;
mod sampler;
mod saturation;
mod scoreboard;
#[cfg(test)]
mod set_clock_tests;
mod sighting;
mod slow;
mod slowlog;
mod state;
mod still_running;
mod surroundings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod throttle;
mod waits;

use std::io;
use std::process::ExitCode;

use glasspool_abi::control::Channel;
use rustix::net::SocketType;
use rustix::time::{ClockId, clock_gettime};

use crate::config::LogLevel;
use crate::logs::ErrorLog;

/// Speaks with the supervisor over standard input until it is told to stop, or the
/// supervisor is gone.
pub fn main() -> ExitCode {
    let log = ErrorLog::stderr(LogLevel::Notice);
    match serve(&log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log.error(format_args!("the observer ends: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(log: &ErrorLog) -> Result<(), run::StartError> {
    let system = |what| move |source| run::StartError::System { what, source };
    let channel = take_channel().map_err(system(
        "use standard input (only the supervisor starts an observer)",
    ))?;
    // Fails only if there is one already, which is as good.
    tracing::subscriber::set_global_default(diagnostics::Diagnostics(log.clone())).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start the runtime"))?;
    let result = runtime.block_on(run::run(channel, log));
    // Not waiting for name look-ups of exporters that may be under way.
    runtime.shutdown_background();
    result
}

/// Moves the control socket away from standard input, so that nothing reads it by mistake.
fn take_channel() -> io::Result<Channel> {
    let stdin = rustix::stdio::stdin();
    if rustix::net::sockopt::socket_type(stdin)? != SocketType::SEQPACKET {
        return Err(io::Error::other("not a packet socket"));
    }
    let channel = stdin.try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(Channel::from(channel))
}

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of the slots.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0);
    whole
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
