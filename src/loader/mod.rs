//! PROCESS: the loader. Loads the programs that account for workers' time inside the
//! kernel, hands their parts to the supervisor, and ends: they live as long as somebody
//! holds those.
//!
//! It is a process of its own because loading takes the kernel's five megabytes of types
//! apart, of which nothing shall stay in the supervisor, and may take its time; a crash of
//! it costs a line in the log. It reads one message, from a standard input that is the
//! control socket, and opens nothing but the kernel's description of itself.

use std::os::fd::AsFd;
use std::process::ExitCode;

use glasspool_abi::control::{Channel, ChannelError, FromLoader, LoadPrograms};
use glasspool_waits::Settings;

use crate::config::LogLevel;
use crate::logs::ErrorLog;

/// Loads what the supervisor asks for.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let log = ErrorLog::stderr(LogLevel::Notice);
            log.error(format_args!(
                "the loader ends: {e} (only the supervisor starts one)"
            ));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ChannelError> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned();
    let channel = Channel::from(stdin.map_err(|source| ChannelError::Os { call: "dup", source })?);
    let (asked, _): (LoadPrograms, _) = channel.receive()?;
    let loaded = glasspool_waits::load(&Settings {
        slots: asked.pages,
        wait_threshold: asked.wait_threshold,
        frames: asked.frames,
        ring_bytes: asked.ring_bytes,
        system_calls: asked.system_calls,
    });
    match loaded {
        Ok(parts) => {
            for (part, fd) in parts {
                channel.send(&FromLoader::Part(part), &[fd.as_fd()])?;
            }
            channel.send(&FromLoader::Loaded, &[])
        }
        Err(unavailable) => {
            let refused = FromLoader::Refused {
                name: unavailable.name().to_owned(),
                reason: unavailable.to_string(),
            };
            channel.send(&refused, &[])
        }
    }
}
