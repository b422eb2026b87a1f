//! Which running supervisor a command is about, and the way to it.
//!
//! A supervisor listens on an abstract unix socket of packets that has its pid in the name;
//! `supervisor::ctl` is the other side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::flags::Flags;
use super::load::load;

/// Longest answer packet.
const LINE_BYTES: usize = 4096;

/// Which supervisor.
#[derive(Debug, Args)]
pub struct Whom {
    /// Pid of the supervisor [default: what the pid file says]
    #[arg(value_name = "PID")]
    supervisor: Option<i32>,
    /// Configuration that names the pid file [default: as for `glasspool run`]
    #[arg(short = 'y', long, value_name = "FILE")]
    fpm_config: Option<PathBuf>,
    /// Pid file, whatever the configuration names
    #[arg(short = 'g', long, value_name = "FILE")]
    pid: Option<PathBuf>,
    /// Where relative paths of the configuration start
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<PathBuf>,
}

impl Whom {
    /// Its pid.
    pub(super) fn find(&self) -> anyhow::Result<i32> {
        match self.supervisor {
            Some(pid) => Ok(pid),
            None => self.by_pid_file(),
        }
    }

    fn by_pid_file(&self) -> anyhow::Result<i32> {
        if let Some(file) = &self.pid {
            return read_pid(file);
        }
        let flags = Flags {
            fpm_config: self.fpm_config.clone(),
            prefix: self.prefix.clone(),
            allow_root: true,
            ..Flags::default()
        };
        let file = match load(&flags) {
            Ok(settings) => settings.global.pid,
            // The supervisor itself says best what is wrong with the rest.
            Err(failure) => match &failure.global {
                Some(global) => global.pid.clone(),
                None => return Err(failure.into()),
            },
        };
        let file = file.context(
            "the configuration names no pid file, so the supervisor cannot be found \
             (set pid in [global], name the pid file with -g, or give the pid as an argument)",
        )?;
        read_pid(&file)
    }
}

fn read_pid(file: &Path) -> anyhow::Result<i32> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the pid file {shown} (is the supervisor running?)"))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.with_context(|| format!("the pid file {shown} holds no pid"))
}

/// Connects to the supervisor of that pid.
pub(super) fn connect(pid: i32) -> anyhow::Result<OwnedFd> {
    if !Path::new(&format!("/proc/{pid}")).exists() {
        bail!("there is no process {pid}");
    }
    try_connect(pid).with_context(|| {
        format!(
            "process {pid} takes no questions (is it Glasspool's supervisor, and yours? stock php-fpm is reloaded by \
             SIGUSR2)"
        )
    })
}

/// Asks. Whoever may not has been told so already, and finds the way closed.
pub(super) fn put(socket: &OwnedFd, question: &[u8]) -> anyhow::Result<()> {
    match rustix::net::send(socket, question, SendFlags::NOSIGNAL) {
        Ok(_) | Err(Errno::PIPE) => Ok(()),
        Err(e) => Err(e).context("cannot ask"),
    }
}

/// The next packet as a line, or `None` at the end.
pub(super) fn receive(socket: &OwnedFd, patience: Duration) -> anyhow::Result<Option<String>> {
    let until = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()))?;
        let mut ready = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&left)) {
            Ok(0) => return Err(anyhow!("nothing was heard for {patience:?}")),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut buffer = vec![0; LINE_BYTES];
    let (count, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&buffer[..count]).trim_end().to_owned()))
}

fn try_connect(pid: i32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let address = SocketAddrUnix::new_abstract_name(format!("glasspool-ctl-{pid}").as_bytes())?;
    rustix::net::connect(&socket, &address)?;
    // Any process may take such a name; only the one with the pid may answer for it.
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    if peer.pid.as_raw_nonzero().get() != pid {
        return Err(io::Error::other(format!(
            "process {} answers in its place",
            peer.pid.as_raw_nonzero()
        )));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        assert!(read_pid(&file).is_err());
        for bad in ["", "-1", "0", "x"] {
            std::fs::write(&file, bad).expect("writes");
            assert!(read_pid(&file).is_err(), "{bad}");
        }
        std::fs::write(&file, "42\n").expect("writes");
        assert_eq!(read_pid(&file).expect("a pid"), 42);
        // Pid 1 is no supervisor of ours.
        assert!(connect(1).is_err());
    }
}
