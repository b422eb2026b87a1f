use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::memory::Image;
use crate::wait::{Class, Wait};

const AT: u64 = 0x7000_0000_0000;

fn own() -> Pid {
    Pid(std::process::id().try_into().unwrap())
}

/// What a call means in a process with these bytes at [`AT`] and our descriptors.
fn meaning(name: &str, args: [u64; 6], bytes: &[u8]) -> Wait {
    let number = (0..500)
        .find(|&number| process::syscall_name(number) == Some(name))
        .unwrap();
    decoded(number, args, bytes, None)
}

fn decoded(number: u64, args: [u64; 6], bytes: &[u8], innermost: Option<&str>) -> Wait {
    let mut image = Image::new();
    image.map(TargetAddr(AT), bytes);
    let mut missing = Vec::new();
    let call = call(own(), &image, number, args, innermost, &mut missing);
    Wait {
        call: Some(call),
        state: process::RunState::Sleeping,
        wchan: None,
        so_far: None,
        missing,
    }
}

fn number(fd: impl AsFd) -> u64 {
    fd.as_fd().as_raw_fd().try_into().unwrap()
}

fn pollfds(fds: &[u64]) -> Vec<u8> {
    let entry = |fd: &u64| {
        let fd = i32::try_from(*fd).unwrap();
        fd.to_le_bytes().into_iter().chain([1, 0, 0, 0])
    };
    fds.iter().flat_map(entry).collect()
}

#[test]
fn a_poll_names_its_descriptors_and_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    let stream = TcpStream::connect(peer).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (socket, pipe) = (number(&stream), number(&pipe));
    let wait = meaning("poll", [AT, 2, 1500, 0, 0, 0], &pollfds(&[socket, pipe]));
    assert_eq!(
        wait.to_string(),
        format!("poll on fd {socket} -> tcp {peer}, fd {pipe} (pipe)")
    );
    let call = wait.call.as_ref().unwrap();
    assert_eq!(call.limit, Some(Duration::from_millis(1500)));
    assert_eq!(call.peer().unwrap().port(), Some(peer.port()));
    assert_eq!(wait.class(), Class::Network);
    let forever = meaning("poll", [AT, 1, u64::MAX, 0, 0, 0], &pollfds(&[socket]));
    assert_eq!(forever.call.unwrap().limit, None);
}

#[test]
fn a_select_is_read_from_its_sets_and_counts_what_it_leaves_out() {
    let files: Vec<File> = (0..10).map(|_| File::open("/dev/null").unwrap()).collect();
    let mut set = [0_u8; 128];
    for file in &files {
        let fd = usize::try_from(file.as_raw_fd()).unwrap();
        set[fd / 8] |= 1 << (fd % 8);
    }
    let mut bytes = set.to_vec();
    bytes.extend(2_u64.to_le_bytes());
    bytes.extend(500_000_000_u64.to_le_bytes());
    // Two sets hold the same descriptors: each counts once.
    let wait = meaning("pselect6", [1024, AT, AT, 0, AT + 128, 0], &bytes);
    let call = wait.call.unwrap();
    assert_eq!((call.descriptors.len(), call.more_descriptors), (8, 2));
    assert_eq!(call.descriptors[0].path(), Some("/dev/null"));
    assert_eq!(call.limit, Some(Duration::from_millis(2500)));
}

#[test]
fn hostile_counts_and_pointers_cost_nothing_and_break_nothing() {
    for args in [
        [AT, u64::MAX, u64::MAX, AT, AT, AT],
        [u64::MAX; 6],
        [0; 6],
        [AT - 4, 1 << 40, 7, AT + 1, 1, u64::MAX],
    ] {
        for number in 0..500 {
            let wait = decoded(number, args, &[0xff; 40], Some("poll"));
            let call = wait.call.as_ref().unwrap();
            assert!(call.descriptors.len() <= MAX_DESCRIPTORS);
            assert!(call.more_descriptors <= MAX_WATCHED);
            assert!(wait.to_string().len() < 4096);
        }
    }
}

#[test]
fn sleeps_tell_their_time_and_absolute_ones_do_not_pretend_to() {
    let mut bytes = 3_u64.to_le_bytes().to_vec();
    bytes.extend(5_000_000_u64.to_le_bytes());
    let wait = meaning("clock_nanosleep", [0, 0, AT, AT, 0, 0], &bytes);
    assert_eq!(
        wait.call.as_ref().unwrap().limit,
        Some(Duration::from_millis(3005))
    );
    assert_eq!(
        (wait.class(), wait.to_string().as_str()),
        (Class::Sleep, "clock_nanosleep")
    );
    let absolute = meaning("clock_nanosleep", [0, 1, AT, 0, 0, 0], &bytes);
    assert_eq!(absolute.call.unwrap().limit, None);
    bytes[8..].copy_from_slice(&1_000_000_000_u64.to_le_bytes());
    let garbled = meaning("nanosleep", [AT, 0, 0, 0, 0, 0], &bytes);
    assert_eq!(garbled.call.unwrap().limit, None);
}

#[test]
fn a_restarted_call_is_named_by_the_native_frame_or_said_to_be_unknown() {
    let restart = (0..500)
        .find(|&number| process::syscall_name(number) == Some("restart_syscall"))
        .unwrap();
    let null = File::open("/dev/null").unwrap();
    let fd = number(&null);
    let args = [AT, 1, 1000, 0, 0, 0];
    let unknown = decoded(restart, args, &pollfds(&[fd]), None);
    assert_eq!(
        unknown.to_string(),
        "restart_syscall (goes on with a call that was interrupted)"
    );
    for frame in ["poll", "__poll"] {
        let known = decoded(restart, args, &pollfds(&[fd]), Some(frame));
        if process::syscall_name(7) == Some("poll") {
            assert_eq!(known.to_string(), format!("poll on fd {fd} (/dev/null)"));
        }
    }
    let other = decoded(restart, args, &pollfds(&[fd]), Some("zend_gc_run"));
    assert_eq!(other.call.unwrap().purpose, Purpose::Restarted);
}

#[test]
fn locks_children_and_paths() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let fd = number(file.as_file());
    let flock = meaning("flock", [fd, 2, 0, 0, 0, 0], b"");
    assert_eq!(flock.to_string(), format!("flock on fd {fd} ({path})"));
    assert_eq!(flock.call.unwrap().purpose, Purpose::Lock { exclusive: true });
    let fcntl = meaning("fcntl", [fd, 7, AT, 0, 0, 0], &[0; 32]);
    assert_eq!(fcntl.call.unwrap().purpose, Purpose::Lock { exclusive: false });
    let child = meaning("wait4", [42, 0, 0, 0, 0, 0], b"");
    assert_eq!(child.to_string(), "wait4 for process 42");
    let any = meaning("wait4", [u64::MAX, 0, 0, 0, 0, 0], b"");
    assert_eq!(any.to_string(), "wait4 for any child");
    let open = meaning("openat", [0, AT, 0, 0, 0, 0], b"/mnt/nfs/a\n\0rest");
    assert_eq!(open.to_string(), "openat (/mnt/nfs/a\u{fffd})");
}

#[test]
fn a_connect_is_aimed_at_the_address_in_memory() {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let address = [2, 0, 0x33, 0xfa, 10, 0, 3, 7, 0, 0, 0, 0, 0, 0, 0, 0];
    let fd = number(&socket);
    let wait = meaning("connect", [fd, AT, 16, 0, 0, 0], &address);
    assert_eq!(
        wait.to_string(),
        format!("connect on fd {fd} -> tcp 10.0.3.7:13306")
    );
    let unix = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let fd = number(&unix);
    let wait = meaning("connect", [fd, AT, u64::MAX, 0, 0, 0], b"\x01\0/run/db.sock\0");
    assert_eq!(
        wait.to_string(),
        format!("connect on fd {fd} -> unix /run/db.sock")
    );
}
