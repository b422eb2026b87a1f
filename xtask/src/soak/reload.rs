//! Asking for a reload, and waiting for how it ends.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with, sockopt,
};
use rustix::process::Signal;

use super::site::{READY, Site};

/// A reload starts PHP and serves one request; a busy machine has more time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line of an answer on the control socket.
const LONGEST_ANSWER: usize = 64 * 1024;
/// What the log says in place of [`READY`] when a reload was refused.
const REFUSED: &str = "reload failed";

/// By which way it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// SIGUSR2; the log tells the outcome.
    Signal,
    /// As `glasspool reload` does; the answer tells it.
    Control,
}

impl How {
    /// In turn.
    pub(super) fn of(number: u32) -> Self {
        if number.is_multiple_of(2) {
            Self::Control
        } else {
            Self::Signal
        }
    }
}

/// Reloads; the inner result is how the server says it ended.
///
/// # Errors
/// The server does not say it.
pub(super) fn reload(site: &mut Site, how: How) -> Result<Result<(), String>> {
    match how {
        How::Signal => {
            site.process.catch_up();
            site.process.signal(Signal::USR2)?;
            log_says(site)
        }
        How::Control => {
            site.process.catch_up();
            let answer = ask(site.process.pid())?;
            // The log says the same, and the next reload by signal must not take it for its own.
            let logged = log_says(site)?;
            if logged.is_ok() != answer.is_ok() {
                bail!("the control socket says {answer:?}, the log {logged:?}");
            }
            Ok(answer)
        }
    }
}

fn log_says(site: &mut Site) -> Result<Result<(), String>> {
    let line = site.process.wait_for(READY, PATIENCE, |line| {
        line.contains(READY) || line.contains(REFUSED)
    })?;
    if line.text.contains(READY) {
        Ok(Ok(()))
    } else {
        Ok(Err(line.text))
    }
}

/// Sends `reload` to the control socket of `pid` and waits for the last answer.
fn ask(pid: u32) -> Result<Result<(), String>> {
    let name = format!("glasspool-ctl-{pid}");
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("cannot make a socket")?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    connect(&socket, &address).with_context(|| format!("cannot connect to @{name}"))?;
    send(&socket, b"reload", SendFlags::NOSIGNAL).context("cannot ask for a reload")?;
    let mut buffer = vec![0; LONGEST_ANSWER];
    let mut told = String::new();
    loop {
        let (count, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())
            .with_context(|| format!("no answer from @{name} within {PATIENCE:?}; it had said {told:?}"))?;
        let text = String::from_utf8_lossy(&buffer[..count]);
        match text.trim_end() {
            "" => bail!("@{name} hung up; it had said {told:?}"),
            "ok" => return Ok(Ok(())),
            line => match line.strip_prefix("failed: ") {
                Some(reason) => return Ok(Err(reason.to_owned())),
                None => {
                    told.push_str(line);
                    told.push('\n');
                }
            },
        }
    }
}
