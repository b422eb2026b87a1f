//! One wait, from the kernel's words to telemetry's. Pure.

use std::borrow::Cow;
use std::time::Duration;

use glasspool_otel::slow::{Peer, SlowEvent};
use glasspool_otel::tcp::TcpState;
use glasspool_otel::wait_span::{WaitPlace, WaitSpan};
use glasspool_probes::process::syscall_name;
use glasspool_probes::{Frame, Kind as FrameKind, TargetAddr};
use glasspool_waits::record::{Kind, Tcp};
use glasspool_waits::{Address, Cause, Wait};

use crate::observer::sighting::stacktrace;

/// From 1 on as the values of `network.connection.state` call them. The last is one that
/// waits for the end of its handshake, of which the conventions know one kind only.
const CONNECTION_STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "syn_received",
];
/// Protocols of IP (RFC 5237).
const TCP: u16 = 6;
const UDP: u16 = 17;
/// What is waited for instead of a peer, where that is who has sent the request.
const OWN_CONNECTION: &str = "web server";
/// How a sample is called that is the kernel programs'.
const NOTED: &str = "noted";

/// A wait that is to be a span.
pub(super) fn span(wait: &Wait, blocked_ns: u64) -> WaitSpan {
    let WaitPlace {
        function, file, line, ..
    } = place(wait);
    WaitSpan {
        began_mono_ns: wait.began_ns,
        blocked_ns,
        runqueue_ns: super::nanoseconds(wait.runqueue),
        class: wait.cause.name(),
        syscall: syscall(wait),
        function,
        file,
        line,
        stacktrace: stacktrace(&frames(wait), usize::MAX).into(),
        peer: peer(wait),
        tcp: tcp(wait),
        file_name: file_name(wait).map(str::to_owned),
    }
}

/// What waits are added up by: the innermost function, the line of PHP, and whom or what it
/// waited for. No time yet.
pub(super) fn place(wait: &Wait) -> WaitPlace {
    let (file, line) = line(&wait.frames);
    WaitPlace {
        function: wait.frames.first().map(glasspool_waits::Frame::name),
        file: file.map(str::to_owned),
        line,
        class: wait.cause.name(),
        with: address(wait)
            .map(ToString::to_string)
            .or(wait.own_connection.then(|| OWN_CONNECTION.to_owned()))
            .or(file_name(wait).map(str::to_owned)),
        ..WaitPlace::default()
    }
}

/// The innermost line of PHP, and its file.
pub(super) fn line(frames: &[glasspool_waits::Frame]) -> (Option<&str>, Option<u32>) {
    let innermost = frames.iter().find(|frame| frame.line.is_some());
    innermost.map_or((None, None), |frame| (frame.file.as_deref(), frame.line))
}

/// The stack as if it had been read; where its frames are in memory is not known.
pub(in crate::observer) fn frames(wait: &Wait) -> Vec<Frame> {
    let frame = |frame: &glasspool_waits::Frame| Frame {
        addr: TargetAddr(0),
        kind: match frame.function.as_str() {
            _ if frame.internal => FrameKind::Internal,
            "{main}" => FrameKind::Main,
            "{include}" => FrameKind::Include,
            "{eval}" => FrameKind::Eval,
            _ => FrameKind::Function,
        },
        function: frame.function.clone(),
        class: frame.class.clone(),
        on_object: false,
        file: frame.file.clone(),
        line: frame.line,
        line_exact: frame.line_exact,
        internal: frame.internal,
        handler: None,
        arguments: None,
    };
    wait.frames.iter().map(frame).collect()
}

/// Puts on a sample what the kernel knows of the wait that goes on and has gone on since
/// before the sample was taken, at `looked_mono_ns`, when its request was `age` old. What
/// the reader has found out itself is richer, and stays; when the wait began it cannot know
/// as well, nor that the peer is who has sent the request.
pub(in crate::observer) fn complete(event: &mut SlowEvent, wait: &Wait, looked_mono_ns: u64, age: Duration) {
    let so_far = Duration::from_nanos(looked_mono_ns.saturating_sub(wait.began_ns));
    let waiting = &mut event.waiting;
    waiting.so_far = Some(so_far.min(age));
    let knows_peer = if wait.own_connection {
        waiting.peer.take().is_none()
    } else {
        waiting.peer.is_some() || address(wait).is_none()
    };
    if event.wait.is_none() || waiting.syscall.is_none() || !knows_peer {
        let alike = describe(wait, "");
        let number = wait.descriptor.as_ref().map(|one| format!("fd {}", one.number));
        event.wait = Some(describe(wait, &number.unwrap_or_default()));
        waiting.alike = Some(alike);
        waiting.class = Some(class(wait.cause));
    }
    if waiting.syscall.is_none() {
        waiting.syscall = syscall(wait).map(Cow::into_owned);
    }
    if waiting.peer.is_none() {
        waiting.peer = peer(wait);
    }
    waiting.tcp = tcp(wait);
}

/// Puts the kernel's stack on a sample that has none. Returns its frames, if there are any.
pub(in crate::observer) fn complete_stack(
    event: &mut SlowEvent,
    wait: &Wait,
    depth: usize,
) -> Option<Vec<Frame>> {
    if wait.frames.is_empty() {
        return None;
    }
    let frames = frames(wait);
    let place = frames.iter().find(|frame| !frame.internal);
    event.function = frames.first().map(Frame::qualified_name);
    event.file = place.and_then(|frame| frame.file.clone());
    event.line = place.and_then(|frame| frame.line);
    event.line_exact = place.is_some_and(|frame| frame.line_exact);
    event.stacktrace = stacktrace(&frames, depth);
    let how = std::mem::replace(&mut event.how, NOTED.to_owned());
    let reason = how.split_once(": ").map_or(how.as_str(), |(_, reason)| reason);
    event.missing = Some(format!("read the stack itself: {reason}"));
    Some(frames)
}

/// The word that looks have for it.
fn class(cause: Cause) -> &'static str {
    match cause {
        Cause::Disk => "file",
        other => other.name(),
    }
}

/// As a look says it: `poll on fd 4 -> tcp 10.0.3.7:3306`, or without a number
/// `poll on tcp 10.0.3.7:3306`.
fn describe(wait: &Wait, number: &str) -> String {
    let call = syscall(wait).unwrap_or("waiting for a page of memory".into());
    let Some(descriptor) = &wait.descriptor else {
        return call.into_owned();
    };
    let what = match &descriptor.kind {
        Kind::Socket { peer, tcp, protocol } => {
            let transport = transport(peer.as_ref(), *protocol).unwrap_or("socket");
            let state = tcp.map(state).unwrap_or_default();
            let with = match address(wait) {
                Some(address) => address.to_string(),
                None if wait.own_connection => OWN_CONNECTION.to_owned(),
                None => String::new(),
            };
            format!("{transport} {}{state}", with.trim_start_matches("unix:"))
        }
        Kind::Pipe => "pipe".to_owned(),
        Kind::File { name, .. } => name.clone(),
        Kind::Other => "a descriptor".to_owned(),
    };
    let what = what.trim_end();
    match (number, &descriptor.kind) {
        ("", _) => format!("{call} on {what}"),
        (_, Kind::Socket { .. }) => format!("{call} on {number} -> {what}"),
        (_, Kind::Other) => format!("{call} on {number}"),
        _ => format!("{call} on {number} ({what})"),
    }
}

/// What the state of a connection says when the wait began, if it says more than that it
/// is one.
fn state(tcp: Tcp) -> &'static str {
    match tcp {
        _ if tcp.is_connecting() => " (connecting)",
        _ if tcp.is_listening() => " (listening)",
        _ if tcp.receive_queue > 0 => " (with unread bytes)",
        _ => "",
    }
}

fn syscall(wait: &Wait) -> Option<Cow<'static, str>> {
    let number = wait.call?;
    Some(match syscall_name(u64::from(number)) {
        Some(name) => name.into(),
        None => format!("system call {number}").into(),
    })
}

/// The other end of the connection; a listening socket has none, and who asked for the
/// request is nobody that it depends on.
fn address(wait: &Wait) -> Option<&Address> {
    match &wait.descriptor.as_ref()?.kind {
        Kind::Socket { .. } if wait.own_connection => None,
        Kind::Socket { tcp: Some(tcp), .. } if tcp.is_listening() => None,
        Kind::Socket { peer, .. } => peer.as_ref(),
        Kind::Pipe | Kind::File { .. } | Kind::Other => None,
    }
}

fn peer(wait: &Wait) -> Option<Peer> {
    let address = address(wait)?;
    let Kind::Socket { protocol, .. } = &wait.descriptor.as_ref()?.kind else {
        return None;
    };
    let transport = transport(Some(address), *protocol).map(str::to_owned);
    Some(match address {
        Address::Ip(ip) => Peer {
            address: ip.ip().to_string(),
            port: Some(ip.port()),
            transport,
        },
        Address::Unix(path) => Peer {
            address: path.clone(),
            port: None,
            transport,
        },
    })
}

/// The connection that it waits for, as it was when the wait began; a listening socket is none.
fn tcp(wait: &Wait) -> Option<TcpState> {
    let Kind::Socket { tcp: Some(tcp), .. } = &wait.descriptor.as_ref()?.kind else {
        return None;
    };
    let state = CONNECTION_STATES.get(usize::from(tcp.state).checked_sub(1)?)?;
    (!tcp.is_listening()).then_some(TcpState {
        state,
        receive_queue: tcp.receive_queue,
        send_queue: tcp.send_queue,
    })
}

/// A value of `network.transport`.
fn transport(peer: Option<&Address>, protocol: u16) -> Option<&'static str> {
    match (peer, protocol) {
        (Some(Address::Unix(_)), _) => Some("unix"),
        (_, TCP) => Some("tcp"),
        (_, UDP) => Some("udp"),
        _ => None,
    }
}

fn file_name(wait: &Wait) -> Option<&str> {
    match &wait.descriptor.as_ref()?.kind {
        Kind::File { name, .. } if !name.is_empty() => Some(name),
        _ => None,
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
