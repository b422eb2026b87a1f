//! The same process seen by readers with fewer rights. Credentials are a thread's in
//! the kernel, so each reader is a thread that gives its own up.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::thread;

use glasspool_abi::Pid;
use glasspool_probes::native::{End, Modules, Natives, Seams, StackCopy, Unwinder};
use glasspool_probes::rights::{Handed, Obstacle, Rights, Rung};
use glasspool_probes::wait::{Class, Fact};
use glasspool_probes::{MemFd, Options, Sample, Stop, Target, sample_with_native};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};

use crate::target::{Php, skipped, target};

/// What a reader finds out.
struct Seen {
    with_handed: Rights,
    without: Rights,
    /// With the memory that was handed over.
    sample: Sample,
}

/// Looks at `php` on a thread that first does `give_up`.
fn seen_by(php: &Php, give_up: impl FnOnce() + Send) -> Seen {
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            give_up();
            Seen {
                with_handed: Rights::try_all(
                    php.pid,
                    Handed {
                        memory: Some(php.mem.as_fd()),
                        calls: None,
                    },
                ),
                without: Rights::try_all(php.pid, Handed::default()),
                sample: look(php.pid, &target(php.pid, &php.mem, &php.build)),
            }
        });
        reader.join().unwrap()
    })
}

/// A sample with all that this thread may know, and no stop.
fn look(pid: Pid, target: &Target<'_>) -> Sample {
    let options = Options {
        stop: Stop::Never,
        ..Options::default()
    };
    let natives = Natives {
        unwinder: &mut Unwinder::new(pid),
        modules: &mut Modules::new(),
    };
    sample_with_native(target, &options, natives).unwrap()
}

/// Becomes nobody: no user in common with the target, no capability.
fn become_nobody() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_gid(Gid::from_raw(65534)).unwrap();
    rustix::thread::set_thread_uid(Uid::from_raw(65534)).unwrap();
}

fn drop_ptrace() {
    let mut sets = capabilities(None).unwrap();
    // These two would open some of the files as well.
    let gone = CapabilitySet::SYS_PTRACE | CapabilitySet::SYS_ADMIN | CapabilitySet::PERFMON;
    sets.effective -= gone;
    sets.permitted -= gone;
    sets.inheritable -= gone;
    set_capabilities(None, sets).unwrap();
}

/// A script that runs as another user and so is not dumpable, as a worker is.
fn worker() -> Option<Php> {
    if !rustix::process::geteuid().is_root() {
        skipped("readers with fewer rights than root need root to begin with");
        return None;
    }
    let mut php = Php::start("<?php posix_setgid(33); posix_setuid(33); echo \"ready\\n\"; sleep(60);")?;
    php.look_in(&["clock_nanosleep"]);
    Some(php)
}

#[test]
fn root_may_do_everything() {
    let Some(php) = worker() else { return };
    let seen = seen_by(&php, || ());
    assert_eq!(seen.without.rung(), Rung::Everything, "{}", seen.without);
    assert_eq!(
        seen.without.to_string(),
        format!(
            "process {}: PHP and native stacks, waits and peers, running or blocked",
            php.pid
        )
    );
}

#[test]
fn trying_does_not_disturb_what_it_waits_in() {
    let Some(mut php) = Php::start(
        "<?php
socket_create_pair(AF_UNIX, SOCK_STREAM, 0, $pair);
socket_set_option($pair[0], SOL_SOCKET, SO_RCVTIMEO, ['sec' => 1, 'usec' => 0]);
echo \"ready\\n\";
var_dump(@socket_recv($pair[0], $data, 1, 0));
echo socket_strerror(socket_last_error($pair[0]));",
    ) else {
        return;
    };
    php.look_in(&["recvfrom"]);
    for _ in 0..20 {
        let rights = Rights::try_all(php.pid, Handed::default());
        assert!(rights.memory.is_ok(), "{rights}");
    }
    assert_eq!(php.finish(), "bool(false)\nResource temporarily unavailable");
}

#[test]
fn nobody_sees_the_state_and_with_a_handed_descriptor_the_php_stack() {
    let Some(php) = worker() else { return };
    let seen = seen_by(&php, become_nobody);
    let other = Obstacle::OtherUser {
        user: "www-data".to_owned(),
        own: "nobody".to_owned(),
    };
    let why = "it runs as www-data and this process as nobody (run as root or as www-data, or give \
               CAP_SYS_PTRACE)";
    assert_eq!(seen.without.rung(), Rung::StateOnly);
    assert_eq!(seen.without.memory, Err(other.clone()));
    assert_eq!(
        seen.without.to_string(),
        format!(
            "process {}: whether it runs, nothing else; without memory, system calls, peers of sockets, mapped \
             files, holding it while it runs, because {why}",
            php.pid
        )
    );
    assert_eq!(seen.with_handed.rung(), Rung::PhpOnly);
    assert!(
        seen.with_handed
            .to_string()
            .starts_with(&format!("process {}: PHP stacks; without", php.pid))
    );

    let Sample {
        stack, wait, native, ..
    } = seen.sample;
    assert_eq!(stack.frames[0].qualified_name(), "sleep");
    let native = native.unwrap();
    assert_eq!(native.frames, []);
    assert!(
        matches!(&native.end, End::NoPosition { why, .. } if *why == other),
        "{:?}",
        native.end
    );
    let wait = wait.unwrap();
    assert_eq!((&wait.call, wait.class()), (&None, Class::Other));
    assert_eq!(wait.missing.len(), 1);
    assert_eq!((wait.missing[0].what, &wait.missing[0].why), (Fact::Call, &other));
    assert_eq!(
        wait.missing[0].to_string(),
        format!("cannot tell the system call of process {}: {why}", php.pid)
    );
    assert_eq!(wait.to_string(), "sleeping");
    assert!(wait.so_far.is_some(), "everybody may know this");
}

/// As the observer of a supervisor that root has started: a user that has nothing in
/// common with the worker, and one capability.
fn become_observer() {
    set_keep_capabilities(true).unwrap();
    become_nobody();
    let only = CapabilitySet::SYS_PTRACE;
    let sets = CapabilitySets {
        effective: only,
        permitted: only,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).unwrap();
}

#[test]
fn the_observer_sees_all_of_a_worker_that_handed_over_its_two_files() {
    if !rustix::process::geteuid().is_root() {
        skipped("an observer with one capability needs root to begin with");
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let Some(mut php) = Php::start(&format!(
        "<?php posix_setgid(33); posix_setuid(33); echo \"ready\\n\"; file_get_contents('http://{address}/');"
    )) else {
        return;
    };
    php.look_in(&["poll"]);
    let calls = File::open(format!("/proc/{}/syscall", php.pid)).unwrap();
    let handed = Target {
        calls: Some(calls.as_fd()),
        ..target(php.pid, &php.mem, &php.build)
    };
    thread::scope(|scope| {
        let observer = scope.spawn(|| {
            become_observer();
            // The file's mode keeps it out, and the memory's too.
            let denied = File::open(format!("/proc/{}/syscall", php.pid)).unwrap_err();
            assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);
            let rights = Rights::try_all(
                php.pid,
                Handed {
                    memory: Some(handed.mem),
                    calls: handed.calls,
                },
            );
            assert_eq!(rights.rung(), Rung::Everything, "{rights}");
            assert_eq!(rights.missing(), []);
            let sample = look(php.pid, &handed);
            let wait = sample.wait.unwrap();
            let call = wait.call.as_ref().unwrap();
            let number = call.descriptors[0].number;
            assert_eq!(wait.to_string(), format!("poll on fd {number} -> tcp {address}"));
            assert_eq!(wait.alike(), format!("poll on tcp {address}"));
            assert_eq!(call.peer().unwrap().port(), Some(address.port()));
            assert_eq!((wait.class(), wait.missing), (Class::Network, Vec::new()));
            let native = sample.native.unwrap();
            assert_eq!(native.end, End::Root, "{native:#?}");
            let builtin = native.frames.iter().find_map(|frame| frame.builtin.as_ref());
            assert_eq!(builtin, Some(&(0, "file_get_contents".to_owned())));
            // Without the second file, what is missing is said, and how to get it.
            let sample = look(php.pid, &target(php.pid, &php.mem, &php.build));
            assert_eq!(sample.stack.frames[0].qualified_name(), "file_get_contents");
            let missing = &sample.wait.as_ref().unwrap().missing[0];
            assert_eq!((missing.what, &missing.why), (Fact::Call, &Obstacle::FileMode));
        });
        observer.join().unwrap();
    });
}

#[test]
fn maps_that_may_not_be_read_end_the_native_stack_with_the_reason() {
    let Some(php) = worker() else { return };
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            become_nobody();
            let stack = look(php.pid, &target(php.pid, &php.mem, &php.build)).stack;
            // Were the registers known, the maps would still be missing.
            let mem = MemFd::new(php.mem.as_fd());
            let registers = glasspool_probes::wait::Position {
                instruction: stack.frames[0].addr,
                stack: stack.frames[0].addr,
            };
            let copy = StackCopy::read(&mem, registers).unwrap();
            let seams = Seams::read(&mem, &php.build.layout, &stack).unwrap();
            Unwinder::new(php.pid).unwind(&mut Modules::new(), &mem, &copy, seams)
        });
        let native = reader.join().unwrap();
        assert_eq!(native.frames, []);
        assert!(
            matches!(
                native.end,
                End::NoMaps {
                    why: Obstacle::OtherUser { .. },
                    ..
                }
            ),
            "{:?}",
            native.end
        );
    });
}

#[test]
fn root_without_the_capability_is_told_to_get_it() {
    let Some(php) = worker() else { return };
    let seen = seen_by(&php, drop_ptrace);
    assert_eq!(seen.with_handed.rung(), Rung::PhpOnly, "{}", seen.with_handed);
    assert_eq!(
        seen.without.memory,
        Err(Obstacle::NoCapability),
        "{}",
        seen.without
    );
    assert_eq!(seen.without.hold, Err(Obstacle::NoCapability));
    assert!(seen.without.to_string().ends_with(
        "because this process is root but lacks CAP_SYS_PTRACE (give it; in a container with --cap-add SYS_PTRACE)"
    ));
}

#[test]
fn the_same_user_is_told_that_the_process_is_not_dumpable() {
    let Some(php) = worker() else { return };
    let seen = seen_by(&php, || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(Gid::from_raw(33)).unwrap();
        rustix::thread::set_thread_uid(Uid::from_raw(33)).unwrap();
    });
    let expected = Obstacle::NotDumpable {
        user: "www-data".to_owned(),
    };
    assert_eq!(seen.without.memory, Err(expected), "{}", seen.without);
    assert!(seen.without.to_string().contains("set process.dumpable = yes"));
}
