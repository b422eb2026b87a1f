//! Waits in words. A wait has the same words each time, so that equal ones can be
//! counted: neither the time so far nor a time limit is in them. [`Wait::alike`] also
//! leaves out what tells processes that wait for the same from one another.

use std::fmt;

use super::{Call, Class, Descriptor, Endpoint, Fact, Kind, Purpose, Socket, SocketState, Wait};
use crate::process::RunState;

/// `poll on fd 4 -> tcp 127.0.0.1:13306`, `flock on fd 4 (/srv/lock)`, and without the
/// right to know, what is known: `sleeping in futex_wait_queue`.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(call) = &self.call {
            return call.fmt(f);
        }
        let known = self.missing.iter().all(|missing| missing.what != Fact::Call);
        match (self.state, known) {
            (RunState::Stopped, _) => f.write_str("stopped")?,
            (_, true) => f.write_str("waiting for a page of memory")?,
            (RunState::DiskSleep, false) => f.write_str("in uninterruptible sleep")?,
            (_, false) => f.write_str("sleeping")?,
        }
        match &self.wchan {
            Some(wchan) => write!(f, " in {wchan}"),
            None => Ok(()),
        }
    }
}

impl Wait {
    /// The words without the numbers of descriptors and of child processes, which differ
    /// between processes that wait for the same: `poll on tcp 10.0.3.7:3306`.
    #[must_use]
    pub fn alike(&self) -> String {
        let Some(call) = &self.call else {
            return self.to_string();
        };
        let mut text = call
            .name
            .map_or_else(|| format!("system call {}", call.number), str::to_owned);
        match &call.purpose {
            Purpose::Child(_) => text.push_str(" for a child"),
            Purpose::Path(path) => text = format!("{text} ({path})"),
            _ => {}
        }
        let mut word = " on ";
        for descriptor in &call.descriptors {
            text.push_str(word);
            text.push_str(&without_number(&descriptor.kind));
            word = ", ";
        }
        text
    }
}

/// `tcp 10.0.3.7:3306`, `/srv/lock`; what is known no better, `a descriptor`.
fn without_number(kind: &Kind) -> String {
    let text = Tail(kind).to_string();
    let other_end = text.strip_prefix(" -> ").or_else(|| text.strip_prefix(" <- "));
    let in_brackets = || text.strip_prefix(" (")?.strip_suffix(')');
    other_end
        .or_else(in_brackets)
        .unwrap_or("a descriptor")
        .to_owned()
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(name)?,
            None => write!(f, "system call {}", self.number)?,
        }
        match &self.purpose {
            Purpose::Child(Some(pid)) => write!(f, " for process {pid}")?,
            Purpose::Child(None) => f.write_str(" for any child")?,
            Purpose::Path(path) => write!(f, " ({path})")?,
            Purpose::Restarted => f.write_str(" (goes on with a call that was interrupted)")?,
            _ => {}
        }
        let mut word = " on";
        for descriptor in &self.descriptors {
            write!(f, "{word} {descriptor}")?;
            word = ",";
        }
        if self.more_descriptors > 0 {
            write!(f, " and {} more", self.more_descriptors)?;
        }
        Ok(())
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd {}{}", self.number, Tail(&self.kind))
    }
}

/// A kind as it goes on after the descriptor's number.
struct Tail<'a>(&'a Kind);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Socket(socket) => socket.fmt(f),
            Kind::Pipe => f.write_str(" (pipe)"),
            Kind::File { path, deleted: false } => write!(f, " ({path})"),
            Kind::File { path, deleted: true } => write!(f, " ({path}, deleted)"),
            Kind::EventFd => f.write_str(" (eventfd)"),
            Kind::Epoll => f.write_str(" (epoll)"),
            Kind::TimerFd => f.write_str(" (timerfd)"),
            Kind::SignalFd => f.write_str(" (signalfd)"),
            Kind::Inotify => f.write_str(" (inotify)"),
            Kind::Other(name) => write!(f, " ({name})"),
            Kind::Closed => f.write_str(" (closed)"),
            Kind::Unknown => Ok(()),
        }
    }
}

/// As it goes on after the descriptor's number.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = self.transport.as_deref().unwrap_or("socket");
        match (&self.peer, &self.local, self.state) {
            (Some(Endpoint::Unnamed), _, _) => write!(f, " ({transport} socket)"),
            (Some(peer), _, _) => write!(f, " -> {transport} {peer}"),
            (None, Some(local), SocketState::Listening) => write!(f, " <- {transport} {local}"),
            (None, Some(Endpoint::Ip(local)), _) if local.port() != 0 => {
                write!(f, " ({transport} {local}, no peer)")
            }
            (None, _, SocketState::Unknown) => write!(f, " ({transport})"),
            (None, _, _) => write!(f, " ({transport}, no peer)"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => address.fmt(f),
            Endpoint::Unix(path) => f.write_str(path),
            Endpoint::Abstract(name) => write!(f, "@{name}"),
            Endpoint::Unnamed => f.write_str("unnamed"),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fact::Call => "the system call",
            Fact::Arguments => "the arguments of the system call",
            Fact::Descriptor => "the kind of a descriptor",
            Fact::Peer => "the peer of a socket",
        })
    }
}

impl Class {
    /// The word, for metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Network => "network",
            Class::Pipe => "pipe",
            Class::File => "file",
            Class::Lock => "lock",
            Class::Sleep => "sleep",
            Class::Child => "child",
            Class::Memory => "memory",
            Class::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(number: i32, kind: Kind) -> Wait {
        let call = Call {
            number: 7,
            name: Some("poll"),
            args: [0; 6],
            purpose: Purpose::Ready,
            descriptors: vec![Descriptor { number, kind }],
            more_descriptors: 0,
            limit: None,
        };
        Wait {
            call: Some(call),
            state: RunState::Sleeping,
            wchan: None,
            so_far: None,
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_differs_between_workers_that_wait_for_the_same_can_be_left_out() {
        let database = |number, local: &str| {
            let kind = Kind::Socket(Socket {
                transport: Some("tcp".to_owned()),
                local: Some(Endpoint::Ip(local.parse().unwrap())),
                peer: Some(Endpoint::Ip("10.0.3.7:3306".parse().unwrap())),
                state: SocketState::Connected,
                ..Socket::default()
            });
            wait(number, kind)
        };
        let (one, other) = (database(4, "10.0.3.1:50001"), database(9, "10.0.3.1:50002"));
        assert_eq!(one.to_string(), "poll on fd 4 -> tcp 10.0.3.7:3306");
        assert_eq!(one.alike(), "poll on tcp 10.0.3.7:3306");
        assert_eq!(one.alike(), other.alike());
        let cases = [
            (Kind::Pipe, "poll on pipe"),
            (
                Kind::File {
                    path: "/srv/a (b)".to_owned(),
                    deleted: true,
                },
                "poll on /srv/a (b), deleted",
            ),
            (
                Kind::Socket(Socket {
                    transport: Some("unix".to_owned()),
                    peer: Some(Endpoint::Unnamed),
                    ..Socket::default()
                }),
                "poll on unix socket",
            ),
            (Kind::Unknown, "poll on a descriptor"),
        ];
        for (kind, words) in cases {
            assert_eq!(wait(3, kind).alike(), words);
        }
    }
}
