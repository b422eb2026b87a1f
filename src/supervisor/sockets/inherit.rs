//! Sockets that another program has left to us: an earlier php-fpm, or the service
//! manager (sd_listen_fds(3)).
//!
//! Both name descriptors by number, and anybody can write anything into an environment:
//! only what really listens at the address that was named is touched.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType};

use super::key::Key;
use super::listener::{Listener, Node};
use crate::logs::{Errno, ErrorLog};

/// php-fpm's variables are this one, then this one with `_1`, `_2` … after it.
pub(super) const VARIABLE: &str = "FPM_SOCKETS";
/// Most of them.
pub(super) const MOST_VARIABLES: usize = 256;
/// Most descriptors that a service manager may pass; its own limit is lower.
const MOST_DESCRIPTORS: i32 = 4096;
/// The first of them, `SD_LISTEN_FDS_START`.
const FIRST_DESCRIPTOR: RawFd = 3;

/// A socket that waits for its pool.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) listener: Listener,
    giver: Giver,
}

#[derive(Debug)]
enum Giver {
    /// php-fpm, or we in its way: sockets and files become ours.
    Fpm,
    /// It goes on listening there itself, and so keeps the files.
    ServiceManager,
}

impl Inherited {
    /// No pool wants it.
    pub(super) fn dismiss(self, log: &ErrorLog) {
        let (number, key) = (self.listener.number(), self.listener.key());
        match self.giver {
            Giver::Fpm => log.debug(format_args!(
                "closing inherited socket fd={number}, \"{key}\": no pool listens there"
            )),
            Giver::ServiceManager => log.warning(format_args!(
                "closing the service manager's socket fd={number}, \"{key}\": no pool listens there (set `listen = {key}` in a pool, or remove the socket unit)"
            )),
        }
    }
}

pub(super) fn is_private(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let numbered = |rest: &[u8]| rest.is_empty() || rest.starts_with(b"_");
    name.strip_prefix(VARIABLE.as_bytes()).is_some_and(numbered)
        || [
            &b"LISTEN_FDS"[..],
            b"LISTEN_PID",
            b"LISTEN_FDNAMES",
            b"LISTEN_PIDFDID",
        ]
        .contains(&name)
}

pub(super) fn announce(log: &ErrorLog, number: RawFd, key: &Key) {
    log.notice(format_args!("using inherited socket fd={number}, \"{key}\""));
}

/// Takes over every socket that these variables name.
pub(super) fn take(
    environment: impl Iterator<Item = (OsString, OsString)>,
    log: &ErrorLog,
) -> Vec<Inherited> {
    let variables: BTreeMap<OsString, OsString> = environment.filter(|(name, _)| is_private(name)).collect();
    let get = |name: &str| variables.get(OsStr::new(name)).map(|value| value.as_bytes());
    let numbered = (1..MOST_VARIABLES).map(|number| format!("{VARIABLE}_{number}"));
    let values = std::iter::once(VARIABLE.to_owned())
        .chain(numbered)
        .map_while(|name| get(&name));
    let left_by_fpm = values
        .flat_map(entries)
        .map(|(key, number)| (Some(key), number, Giver::Fpm));
    let count = passed_to(&meant(), get("LISTEN_PID"), get("LISTEN_FDS"));
    let passed = (0..count).map(|place| (None, FIRST_DESCRIPTOR + place, Giver::ServiceManager));
    let mut taken = Vec::new();
    for (expected, number, giver) in left_by_fpm.chain(passed) {
        match adopt(number, expected.as_ref()) {
            Ok((socket, key)) => {
                announce(log, number, &key);
                let node = key.path().and_then(|path| Node::at(path).ok());
                let node = match giver {
                    Giver::Fpm => node,
                    Giver::ServiceManager => node.map(Node::of_another),
                };
                let listener = Listener::new(socket, key, node);
                taken.push(Inherited { listener, giver });
            }
            Err(e) => {
                let named = expected.map(|key| format!(", \"{key}\"")).unwrap_or_default();
                log.warning(format_args!(
                    "ignoring inherited socket fd={number}{named}: {}",
                    Errno(&e)
                ));
            }
        }
    }
    taken
}

/// The `key=fd` entries of a variable. A path may hold commas itself: one that does not
/// follow a descriptor's number belongs to the path.
fn entries(value: &[u8]) -> Vec<(Key, RawFd)> {
    let mut found = Vec::new();
    let mut start = 0;
    for end in 0..=value.len() {
        if value.get(end).is_some_and(|byte| *byte != b',') {
            continue;
        }
        if let Some(entry) = entry(&value[start..end]) {
            found.push(entry);
            start = end + 1;
        }
    }
    found
}

fn entry(text: &[u8]) -> Option<(Key, RawFd)> {
    let equals = text.iter().rposition(|byte| *byte == b'=')?;
    let (key, number) = (&text[..equals], &text[equals + 1..]);
    // `parse` would also take a sign.
    let is_plain = !key.is_empty() && number.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    is_plain.then(|| (Key::from_text(key), number))
}

/// Whom a service manager may have started: this process, or the one that launched it as
/// its daemon and has not ended yet.
fn meant() -> [u32; 2] {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    [std::process::id(), parent.cast_unsigned()]
}

/// How many descriptors the service manager has passed to one of these processes.
fn passed_to(meant: &[u32], pid: Option<&[u8]>, count: Option<&[u8]>) -> i32 {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let pid = pid.and_then(number);
    let for_us = meant.iter().any(|meant| pid == Some(i64::from(*meant)));
    let count = count.and_then(number).filter(|_| for_us).unwrap_or(0);
    i32::try_from(count.clamp(0, i64::from(MOST_DESCRIPTORS))).expect("clamped")
}

/// Takes over the descriptor of that number, if it is a socket that listens, and at that
/// address if one is given.
fn adopt(number: RawFd, expected: Option<&Key>) -> io::Result<(OwnedFd, Key)> {
    let copy = duplicate(number)?;
    let is_stream = rustix::net::sockopt::socket_type(&copy)? == SocketType::STREAM;
    if !is_stream || !rustix::net::sockopt::socket_acceptconn(&copy)? {
        return Err(io::Error::other("it does not listen"));
    }
    let key = Key::of_socket(&copy)?;
    if let Some(expected) = expected.filter(|expected| **expected != key) {
        return Err(io::Error::other(format!(
            "it listens on \"{key}\" and not on \"{expected}\""
        )));
    }
    // Workers rely on a blocking accept(2).
    let flags = rustix::fs::fcntl_getfl(&copy)?;
    rustix::fs::fcntl_setfl(&copy, flags.difference(OFlags::NONBLOCK))?;
    if number <= rustix::stdio::raw_stderr() {
        // Standard streams are everybody's; the copy is enough.
        return Ok((copy, key));
    }
    // Nobody else here owns this number: all listening sockets are made in this room,
    // and this is the first that is done in it. The socket keeps its number, which log
    // lines and operators know.
    nix::unistd::close(number)?;
    Ok((rustix::io::fcntl_dupfd_cloexec(&copy, number)?, key))
}

/// A copy of one of our own descriptors of which only the number is known. The kernel
/// looks the number up when it is sent, and we send it to ourselves.
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    let (here, there) = UnixDatagram::pair()?;
    let message = [IoSlice::new(b"x")];
    let rights = [ControlMessage::ScmRights(&[number])];
    sendmsg::<()>(there.as_raw_fd(), &message, &rights, MsgFlags::empty(), None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(
        here.as_fd(),
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        flags,
    )?;
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("the kernel has not copied it"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;

    use proptest::prelude::*;

    use super::*;
    use crate::config::LogLevel;

    fn keys(value: &[u8]) -> Vec<(String, RawFd)> {
        let entries = entries(value).into_iter();
        entries.map(|(key, number)| (key.to_string(), number)).collect()
    }

    #[test]
    fn entries_are_php_fpms_and_paths_may_hold_anything() {
        let expected = [("127.0.0.1:9000", 7), (":::9001", 8), ("/run/a,b=c.sock", 9)];
        assert_eq!(
            keys(b"127.0.0.1:9000=7,:::9001=8,/run/a,b=c.sock=9"),
            expected.map(|(key, number)| (key.to_owned(), number))
        );
        for bad in [
            &b""[..],
            b",",
            b"=3",
            b"/a=",
            b"/a=-1",
            b"/a=+3",
            b"/a=99999999999",
        ] {
            assert_eq!(keys(bad), [], "{bad:?}");
        }
    }

    #[test]
    fn only_the_process_that_is_meant_takes_descriptors() {
        assert_eq!(passed_to(&[7, 6], Some(b"7"), Some(b"2")), 2);
        assert_eq!(passed_to(&[7, 6], Some(b"6"), Some(b"2")), 2);
        for (pid, count) in [
            (Some(&b"8"[..]), Some(&b"2"[..])),
            (None, Some(b"2")),
            (Some(b""), Some(b"2")),
            (Some(b"7"), None),
            (Some(b"7"), Some(b"-2")),
            (Some(b"7"), Some(b"x")),
        ] {
            assert_eq!(passed_to(&[7, 6], pid, count), 0, "{pid:?} {count:?}");
        }
        assert_eq!(
            passed_to(&[7, 6], Some(b"7"), Some(b"99999999999")),
            MOST_DESCRIPTORS
        );
    }

    #[test]
    fn variables_of_sockets_are_nobody_elses() {
        for name in [
            "FPM_SOCKETS",
            "FPM_SOCKETS_1",
            "FPM_SOCKETS_255",
            "LISTEN_FDS",
            "LISTEN_PID",
        ] {
            assert!(is_private(OsStr::new(name)), "{name}");
        }
        for name in ["FPM_SOCKETSX", "LISTEN", "LISTEN_FDSX", "PATH"] {
            assert!(!is_private(OsStr::new(name)), "{name}");
        }
    }

    /// A descriptor as execve(2) passes it on: nothing in this process owns the number,
    /// which is so high that other tests do not get it meanwhile.
    fn leave(socket: &TcpListener) -> RawFd {
        let high = rustix::io::fcntl_dupfd_cloexec(socket, 900).expect("duplicates");
        high.into_raw_fd()
    }

    #[test]
    fn a_listening_socket_is_taken_over_under_its_number() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        socket.set_nonblocking(true).expect("sets");
        let address = socket.local_addr().expect("has one");
        let key = Key::tcp(address);
        let number = leave(&socket);
        drop(socket);
        let (taken, found) = adopt(number, Some(&key)).expect("listens");
        assert_eq!((taken.as_raw_fd(), &found), (number, &key));
        let flags = rustix::io::fcntl_getfd(&taken).expect("reads");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let flags = rustix::fs::fcntl_getfl(&taken).expect("reads");
        assert!(!flags.contains(OFlags::NONBLOCK));
        std::net::TcpStream::connect(address).expect("still listens");
    }

    #[test]
    fn anything_else_is_left_alone() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let other = Key::from_text(b"127.0.0.1:1");
        let e = adopt(socket.as_raw_fd(), Some(&other)).expect_err("another address");
        assert!(e.to_string().contains("it listens on"), "{e}");
        let address = socket.local_addr().expect("has one");
        let stream = std::net::TcpStream::connect(address).expect("connects");
        assert!(adopt(stream.as_raw_fd(), None).is_err());
        let file = tempfile::tempfile().expect("a file");
        assert!(adopt(file.as_raw_fd(), None).is_err());
        assert!(adopt(-1, None).is_err());
        assert!(adopt(RawFd::MAX, None).is_err());
        // They are all still there.
        assert!(rustix::io::fcntl_getfd(&socket).is_ok() && rustix::io::fcntl_getfd(&file).is_ok());
        let log = ErrorLog::stderr(LogLevel::Alert);
        let lies = [(VARIABLE, "/nowhere=3,127.0.0.1:1=99999"), ("LISTEN_FDS", "1")];
        let lies = lies.map(|(name, value)| (name.into(), value.into()));
        assert!(take(lies.into_iter(), &log).is_empty());
    }

    proptest! {
        #[test]
        fn no_value_is_too_odd(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (key, number) in entries(&value) {
                prop_assert!(number >= 0 && !key.as_os_str().is_empty());
            }
        }
    }
}
