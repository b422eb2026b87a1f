//! `glasspool reload`: asks the running supervisor for a reload, and waits for what
//! becomes of it. Unlike `kill -USR2` it can say that the reload failed.
//!
//! The supervisor listens on an abstract unix socket that has its pid in the name. The
//! request is the packet `reload`; the answer is lines of progress, one a packet, the
//! last of which is `ok` or `failed: REASON`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Failure;
use super::flags::Flags;
use super::load::load;

/// Longest answer packet.
const LINE_BYTES: usize = 4096;
/// Lines of progress that are read at most.
const MAX_LINES: usize = 10_000;
/// Longest silence: PHP may compile a whole application before the new pools are ready,
/// and then a worker has to answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which supervisor.
#[derive(Debug, Args)]
pub struct ReloadArguments {
    /// Pid of the supervisor [default: what the pid file says]
    #[arg(value_name = "PID")]
    supervisor: Option<i32>,
    /// Configuration that names the pid file [default: as for `glasspool run`]
    #[arg(short = 'y', long, value_name = "FILE")]
    fpm_config: Option<PathBuf>,
    /// Pid file, where the configuration names none
    #[arg(short = 'g', long, value_name = "FILE")]
    pid: Option<PathBuf>,
    /// Where relative paths of the configuration start
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<PathBuf>,
}

pub(super) fn reload(arguments: ReloadArguments, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let pid = match arguments.supervisor {
        Some(pid) => pid,
        None => pid_of(&arguments).map_err(Failure::ordinary)?,
    };
    ask(pid, say).map_err(Failure::ordinary)?;
    Ok(ExitCode::SUCCESS)
}

fn pid_of(arguments: &ReloadArguments) -> anyhow::Result<i32> {
    let flags = Flags {
        fpm_config: arguments.fpm_config.clone(),
        prefix: arguments.prefix.clone(),
        pid: arguments.pid.clone(),
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
    let file = file.or(flags.pid).context(
        "the configuration names no pid file, so the supervisor cannot be found \
         (set pid in [global], or give the pid as an argument)",
    )?;
    read_pid(&file)
}

fn read_pid(file: &Path) -> anyhow::Result<i32> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the pid file {shown} (is the supervisor running?)"))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.with_context(|| format!("the pid file {shown} holds no pid"))
}

/// Asks, and passes on the lines of progress.
fn ask(pid: i32, say: impl Fn(&str)) -> anyhow::Result<()> {
    let socket = connect(pid).with_context(|| {
        format!("process {pid} takes no questions (is it Glasspool's supervisor, and yours? stock php-fpm is reloaded by SIGUSR2)")
    })?;
    rustix::net::send(&socket, b"reload", SendFlags::NOSIGNAL).context("cannot ask for the reload")?;
    let mut last = None;
    for _ in 0..MAX_LINES {
        let Some(line) =
            receive(&socket).with_context(|| format!("process {pid} has not finished the reload"))?
        else {
            break;
        };
        if let Some(before) = last.replace(line) {
            say(&before);
        }
    }
    match last.as_deref() {
        Some("ok") => Ok(()),
        Some(answer) => match answer.strip_prefix("failed: ") {
            Some(reason) => bail!("the reload failed and everything goes on as it was: {reason}"),
            None => bail!("process {pid} stopped answering after: {answer}"),
        },
        None => bail!("process {pid} gave no answer"),
    }
}

fn connect(pid: i32) -> io::Result<OwnedFd> {
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

/// The next line, or `None` at the end.
fn receive(socket: &OwnedFd) -> anyhow::Result<Option<String>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()))?;
        let mut ready = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&left)) {
            Ok(0) => return Err(anyhow!("nothing was heard for {PATIENCE:?}")),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut buffer = vec![0; LINE_BYTES];
    let (count, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&buffer[..count]).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Answers one question under this process's own pid with these packets.
    fn answering(packets: &[&str]) -> (anyhow::Result<()>, Vec<String>) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let listener = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None).expect("makes");
        let name = format!("glasspool-ctl-{own}");
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("short");
        rustix::net::bind(&listener, &address).expect("binds");
        rustix::net::listen(&listener, 1).expect("listens");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let peer = rustix::net::accept(&listener).expect("accepts");
                let mut question = [0; 16];
                let (count, _) =
                    rustix::net::recv(&peer, &mut question[..], RecvFlags::empty()).expect("receives");
                assert_eq!(&question[..count], b"reload");
                for packet in packets {
                    rustix::net::send(&peer, packet.as_bytes(), SendFlags::NOSIGNAL).expect("sends");
                }
            });
            let said = RefCell::new(Vec::new());
            let asked = ask(own, |line| said.borrow_mut().push(line.to_owned()));
            (asked, said.into_inner())
        })
    }

    #[test]
    fn the_last_line_decides_and_those_before_are_progress() {
        let (asked, said) = answering(&["checking\n", "starting PHP", "ok"]);
        asked.expect("succeeds");
        assert_eq!(said, ["checking", "starting PHP"]);
        for (packets, expected) in [
            (&["failed: no such user"][..], "goes on as it was: no such user"),
            (&["checking"], "stopped answering after: checking"),
            (&[], "gave no answer"),
        ] {
            let error = answering(packets).0.expect_err("is no success");
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

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
        assert!(ask(1, |_| ()).is_err());
    }
}
