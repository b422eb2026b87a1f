//! The same process seen by readers with fewer rights. Credentials are a thread's in
//! the kernel, so each reader is a thread that gives its own up.

use std::os::fd::AsFd;
use std::thread;

use glasspool_probes::native::{End, Modules, Seams, StackCopy, Unwinder};
use glasspool_probes::rights::{Obstacle, Rights, Rung};
use glasspool_probes::wait::{self, Class, Fact, Outcome};
use glasspool_probes::{MemFd, Options, Stop, Target, sample};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::target::{Php, skipped};

/// What a reader finds out.
struct Seen {
    with_handed: Rights,
    without: Rights,
    wait: Outcome,
}

/// Looks at `php` on a thread that first does `give_up`.
fn seen_by(php: &Php, give_up: impl FnOnce() + Send) -> Seen {
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            give_up();
            Seen {
                with_handed: Rights::try_all(php.pid, Some(php.mem.as_fd())),
                without: Rights::try_all(php.pid, None),
                wait: wait::read(php.pid, &MemFd::new(php.mem.as_fd())),
            }
        });
        reader.join().unwrap()
    })
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
        let rights = Rights::try_all(php.pid, None);
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

    let Outcome::Waits(wait) = seen.wait else {
        panic!("{:?}", seen.wait);
    };
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

#[test]
fn a_reader_with_only_the_descriptor_reads_php_and_says_why_there_is_no_more() {
    let Some(php) = worker() else { return };
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            become_nobody();
            let target = Target {
                pid: php.pid,
                mem: php.mem.as_fd(),
                build: &php.build,
            };
            let options = Options {
                stop: Stop::Never,
                ..Options::default()
            };
            let stack = sample(&target, &options).unwrap().stack;
            assert_eq!(stack.frames[0].qualified_name(), "sleep");
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
