//! Starting this program anew under php-fpm's title, in place or as a daemon.
//!
//! `ps` and monitoring know php-fpm's master by its title. A program can change its own
//! only by writing over its arguments in memory; a new image of it is simply given the
//! title as its name. The real arguments come along in a memory file as standard input,
//! which php-fpm's master does not have anyway, and a daemon's acknowledgement goes back
//! through what would be its standard output.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

/// How the title starts; the path of the configuration and a bracket follow.
const TITLE: &str = "php-fpm: master process (";
/// This program, also when its file has been replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// More than the kernel lets a program have (2 MiB with the usual stack limit, execve(2)).
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// What the daemon sends when it is up.
const UP: &[u8] = b"1";

/// What the new image is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// php-fpm as the caller started it: it stays, or launches a daemon.
    Caller,
    /// The daemon: acknowledges to whoever launched it.
    Daemon,
}

/// What a new image is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handover {
    pub(super) part: Part,
    /// The arguments of the first image, its own name first.
    pub(super) argv: Vec<OsString>,
}

impl Handover {
    /// Becomes that image, with the same pid. Returns only on failure, and then nothing
    /// has changed.
    pub(super) fn exec(&self, conf: &Path) -> io::Error {
        match self.command(conf) {
            Ok(mut command) => command.exec(),
            Err(e) => e,
        }
    }

    /// Starts that image as a child.
    pub(super) fn launch(&self, conf: &Path) -> io::Result<Launched> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // It is not waited for: it outlives us, and then belongs to init.
        let _child = self.command(conf)?.stdout(Stdio::from(writer)).spawn()?;
        Ok(Launched(reader))
    }

    fn command(&self, conf: &Path) -> io::Result<Command> {
        let mut title = OsString::from(TITLE);
        title.push(conf);
        title.push(")");
        let arguments = rustix::fs::memfd_create("glasspool-arguments", MemfdFlags::CLOEXEC)?;
        let mut arguments = File::from(arguments);
        arguments.write_all(&self.encode())?;
        arguments.rewind()?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0(title).stdin(Stdio::from(arguments));
        Ok(command)
    }

    fn encode(&self) -> Vec<u8> {
        let part: &[u8] = match self.part {
            Part::Caller => b"caller",
            Part::Daemon => b"daemon",
        };
        // An argument holds any byte but this one.
        let parts = std::iter::once(part).chain(self.argv.iter().map(|argument| argument.as_bytes()));
        parts.flat_map(|part| [part, b"\0"].concat()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Handover> {
        let mut parts = bytes.strip_suffix(b"\0")?.split(|byte| *byte == 0);
        let part = match parts.next()? {
            b"caller" => Part::Caller,
            b"daemon" => Part::Daemon,
            _ => return None,
        };
        let argv = parts.map(|part| OsString::from_vec(part.to_vec())).collect();
        Some(Handover { part, argv })
    }
}

/// What this image was given, if it is one that was started as above.
pub(super) fn given(argv0: &OsStr) -> Option<Handover> {
    if !argv0.as_bytes().starts_with(TITLE.as_bytes()) {
        return None;
    }
    let mut bytes = Vec::new();
    let stdin = rustix::stdio::stdin().try_clone_to_owned().ok()?;
    File::from(stdin).take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Handover::decode(&bytes)
}

/// Puts the null device in the place of standard input and output, and gives what
/// standard output was: for a daemon, the way back to whoever launched it.
pub(super) fn detach_streams() -> io::Result<OwnedFd> {
    let output = rustix::stdio::stdout().try_clone_to_owned()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(output)
}

/// Tells the launcher that the daemon is up.
pub(super) fn acknowledge(launcher: OwnedFd) {
    // A launcher that is gone, or has stopped waiting, is nobody's loss.
    File::from(launcher).write_all(UP).unwrap_or_default();
}

/// A daemon that has been started and not yet been heard of.
#[derive(Debug)]
pub(super) struct Launched(OwnedFd);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Up,
    /// It has ended, and said why where its messages go.
    Ended,
    /// Nothing was heard.
    Silent,
}

impl Launched {
    /// Waits until it is up or has ended, for so long at most.
    pub(super) fn wait(self, patience: Duration) -> io::Result<Outcome> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut ready = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut ready, Some(&left)) {
                Ok(0) => return Ok(Outcome::Silent),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let mut said = Vec::new();
        File::from(self.0).take(1).read_to_end(&mut said)?;
        Ok(if said == UP { Outcome::Up } else { Outcome::Ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_arrives() {
        for part in [Part::Caller, Part::Daemon] {
            let argv = [b"php-fpm".to_vec(), b"".to_vec(), b"-d\xff=a\nb".to_vec()];
            let argv = argv.map(OsString::from_vec).to_vec();
            let handover = Handover { part, argv };
            assert_eq!(Handover::decode(&handover.encode()), Some(handover));
        }
        for bad in [&b""[..], b"\0", b"caller", b"else\0php-fpm\0"] {
            assert_eq!(Handover::decode(bad), None, "{bad:?}");
        }
        assert_eq!(given(OsStr::new("php-fpm")), None);
    }

    #[test]
    fn a_daemon_is_up_ended_or_silent() {
        let launched = || {
            let (reader, writer) = rustix::pipe::pipe().expect("makes");
            (Launched(reader), writer)
        };
        let patience = Duration::from_millis(10);
        let (up, writer) = launched();
        acknowledge(writer);
        assert_eq!(up.wait(patience).expect("waits"), Outcome::Up);
        let (ended, writer) = launched();
        drop(writer);
        assert_eq!(ended.wait(patience).expect("waits"), Outcome::Ended);
        let (silent, _writer) = launched();
        assert_eq!(silent.wait(patience).expect("waits"), Outcome::Silent);
    }
}
