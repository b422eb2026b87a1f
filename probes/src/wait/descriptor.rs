//! What a descriptor of another process is.
//!
//! `/proc/PID/fd/N` names it, for a reader with ptrace access to the target. A reader
//! that may duplicate the descriptor but not open that directory (CAP_SYS_PTRACE
//! without CAP_DAC_READ_SEARCH) looks at its own copy instead. A copy is closed at once:
//! while it exists, a close in the target does not end the connection.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use glasspool_abi::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Fact;
use super::socket::Socket;
use crate::process;
use crate::rights::Obstacle;

/// Paths are cut at this many bytes.
const PATH_CAP: usize = 512;
/// An epoll instance has a line of 100 bytes for each descriptor.
const FDINFO_CAP: u64 = 8 * 1024;

/// A descriptor of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in the target.
    pub number: i32,
    /// What it is.
    pub kind: Kind,
}

/// What a descriptor refers to. Texts are bounded and hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket(Socket),
    /// A pipe without a name, mostly to a child process.
    Pipe,
    /// A file, directory, named pipe or device.
    File {
        /// Its path in the target's root directory.
        path: String,
        /// Whether the path was removed since it was opened.
        deleted: bool,
    },
    /// A counter to wake somebody: eventfd(2).
    EventFd,
    /// A set of descriptors: epoll(7).
    Epoll,
    /// timerfd_create(2).
    TimerFd,
    /// signalfd(2).
    SignalFd,
    /// inotify(7).
    Inotify,
    /// Something else, as the kernel calls it.
    Other(String),
    /// The target has no such descriptor (any more).
    Closed,
    /// It could not be looked at; [`super::Wait::missing`] says why.
    Unknown,
}

impl Descriptor {
    /// The path of the file it refers to, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match &self.kind {
            Kind::File { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// Looks at descriptors of one process. Opens its pidfd when first needed.
#[derive(Debug)]
pub(super) struct Descriptors {
    pid: Pid,
    handle: Option<OwnedFd>,
}

impl Descriptors {
    pub(super) fn of(pid: Pid) -> Descriptors {
        Descriptors { pid, handle: None }
    }

    /// What descriptor `number` is, and what could not be found out about it.
    pub(super) fn describe(&mut self, number: i32) -> (Descriptor, Vec<(Fact, Obstacle)>) {
        let mut obstacles = Vec::new();
        let kind = match fs::read_link(format!("/proc/{}/fd/{number}", self.pid)) {
            Ok(link) => self.by_link(link.as_os_str().as_bytes(), number, None, &mut obstacles),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kind::Closed,
            Err(error) => match self.copy(number) {
                Ok(copy) => {
                    let link = fs::read_link(format!("/proc/self/fd/{}", copy.as_raw_fd()));
                    let link = link.unwrap_or_default();
                    self.by_link(link.as_os_str().as_bytes(), number, Some(copy), &mut obstacles)
                }
                Err(rustix::io::Errno::BADF) => Kind::Closed,
                Err(_) => {
                    obstacles.push((Fact::Descriptor, Obstacle::behind(self.pid, &error)));
                    Kind::Unknown
                }
            },
        };
        (Descriptor { number, kind }, obstacles)
    }

    /// From what the kernel says where a descriptor leads: a path, `pipe:[inode]`,
    /// `socket:[inode]` or `anon_inode:[name]` (proc_pid_fd(5)).
    fn by_link(
        &mut self,
        link: &[u8],
        number: i32,
        copy: Option<OwnedFd>,
        obstacles: &mut Vec<(Fact, Obstacle)>,
    ) -> Kind {
        if link.starts_with(b"/") {
            return file(link);
        }
        if link.starts_with(b"pipe:") {
            return Kind::Pipe;
        }
        if link.starts_with(b"socket:") {
            let copy = match copy {
                Some(copy) => Ok(copy),
                None => self.copy(number),
            };
            return Kind::Socket(match copy {
                Ok(copy) => Socket::look(&copy),
                Err(errno) => {
                    obstacles.push((Fact::Peer, Obstacle::behind(self.pid, &errno.into())));
                    Socket::default()
                }
            });
        }
        match link.strip_prefix(b"anon_inode:") {
            Some(b"[eventfd]") => Kind::EventFd,
            Some(b"[eventpoll]") => Kind::Epoll,
            Some(b"[timerfd]") => Kind::TimerFd,
            Some(b"[signalfd]") => Kind::SignalFd,
            Some(b"inotify") => Kind::Inotify,
            Some(other) => Kind::Other(printable(other)),
            None => Kind::Other(printable(link)),
        }
    }

    /// The descriptors that an epoll instance watches, at most `max`; `None` if this
    /// reader may not know.
    pub(super) fn epoll_targets(&mut self, epoll: i32, max: usize) -> Option<Vec<i32>> {
        let direct = process::read_all(self.pid, &format!("fdinfo/{epoll}"));
        let text = direct.or_else(|_| {
            // Of a copy it is the same: the numbers are those of whoever added them.
            let copy = self.copy(epoll)?;
            let own = format!("/proc/self/fdinfo/{}", copy.as_raw_fd());
            process::read_file(&own, FDINFO_CAP)
        });
        Some(watched(&text.ok()?, max))
    }

    /// A copy of a descriptor; close-on-exec. Needs kernel 5.6.
    fn copy(&mut self, number: i32) -> rustix::io::Result<OwnedFd> {
        // The target says the number, and negative ones mean something to rustix.
        if number < 0 {
            return Err(rustix::io::Errno::BADF);
        }
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => {
                let pid = rustix::process::Pid::from_raw(self.pid.0).ok_or(rustix::io::Errno::SRCH)?;
                pidfd_open(pid, PidfdFlags::empty())?
            }
        };
        let copy = pidfd_getfd(&handle, number, PidfdGetfdFlags::empty());
        self.handle = Some(handle);
        copy
    }
}

/// The numbers in the `tfd:` lines of an epoll instance's `fdinfo` (proc_pid_fdinfo(5)).
fn watched(fdinfo: &str, max: usize) -> Vec<i32> {
    let number = |line: &str| {
        let rest = line.strip_prefix("tfd:")?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    fdinfo.lines().filter_map(number).take(max).collect()
}

fn file(link: &[u8]) -> Kind {
    // The kernel appends this to the path of a removed file. One that is really
    // called so is as rare as it is harmless.
    let (path, deleted) = match link.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (link, false),
    };
    Kind::File {
        path: printable(path),
        deleted,
    }
}

/// Bytes from the target, cut and made fit to print.
pub(super) fn printable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(PATH_CAP)];
    String::from_utf8_lossy(cut)
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn own(fd: impl AsFd) -> (Descriptor, Vec<(Fact, Obstacle)>) {
        let pid = Pid(std::process::id().try_into().unwrap());
        Descriptors::of(pid).describe(fd.as_fd().as_raw_fd())
    }

    #[test]
    fn each_kind_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a\nb");
        let file = fs::File::create(&path).unwrap();
        let name = directory.path().to_str().unwrap().to_owned() + "/a\u{fffd}b";
        assert_eq!(own(&file).0.path(), Some(name.as_str()), "no line break gets out");
        fs::remove_file(&path).unwrap();
        assert_eq!(
            own(&file).0.kind,
            Kind::File {
                path: name,
                deleted: true
            }
        );
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(own(&reader).0.kind, Kind::Pipe);
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        assert_eq!(own(&event).0.kind, Kind::EventFd);
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        assert_eq!(own(&epoll).0.kind, Kind::Epoll);
        let gone = event.as_raw_fd();
        drop(event);
        let pid = Pid(std::process::id().try_into().unwrap());
        let (closed, obstacles) = Descriptors::of(pid).describe(gone);
        // Another test's thread may have got the number meanwhile.
        assert!(
            closed.kind == Kind::Closed || closed.kind != Kind::EventFd,
            "{closed:?}"
        );
        assert_eq!(obstacles, []);
    }

    #[test]
    fn an_epoll_names_what_it_watches() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let data = rustix::event::epoll::EventData::new_u64(1);
        rustix::event::epoll::add(&epoll, &reader, data, rustix::event::epoll::EventFlags::IN).unwrap();
        let pid = Pid(std::process::id().try_into().unwrap());
        let mut descriptors = Descriptors::of(pid);
        let targets = descriptors.epoll_targets(epoll.as_raw_fd(), 8);
        assert_eq!(targets, Some(vec![reader.as_raw_fd()]));
        let copy = descriptors.copy(epoll.as_raw_fd()).unwrap();
        let of_copy = descriptors.epoll_targets(copy.as_raw_fd(), 8);
        assert_eq!(of_copy, targets);
        assert_eq!(descriptors.epoll_targets(epoll.as_raw_fd(), 0), Some(Vec::new()));
    }
}
