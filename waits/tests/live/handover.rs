//! One process loads, and others hold what it made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use glasspool_abi::control::{Channel, ChannelError, FromLoader, ProgramPart};
use glasspool_waits::{Cause, Eye, Record, Records, Roster, Settings, SlotIndex, WorkerId, load};
use rustix::thread::CapabilitySet;
use rustix::time::{ClockId, clock_gettime};

use crate::php::{PATIENCE, Php, load as try_load};
use crate::places::{programs_with, with_capabilities};
use crate::watch::Watch;

/// No other test asks for as many.
const PAGES: u32 = 78;
const NAP: Duration = Duration::from_millis(50);

/// Not a test: what the other process of the test below runs.
#[test]
#[ignore = "the other half of a test"]
fn loads_gives_away_and_ends() {
    let channel = Channel::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let settings = Settings {
        slots: PAGES,
        ..Settings::default()
    };
    for (part, fd) in load(&settings).unwrap() {
        channel.send(&FromLoader::Part(part), &[fd.as_fd()]).unwrap();
    }
    channel.send(&FromLoader::Loaded, &[]).unwrap();
}

/// The parts that a process made which has ended.
fn parts() -> Vec<(ProgramPart, OwnedFd)> {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut loader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handover::loads_gives_away_and_ends", "--ignored"])
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut parts = Vec::new();
    loop {
        match ours.receive::<FromLoader>() {
            Ok((FromLoader::Part(part), mut fds)) => parts.push((part, fds.remove(0))),
            Ok((FromLoader::Loaded, _)) => break,
            Ok((refused @ FromLoader::Refused { .. }, _)) => panic!("{refused:?}"),
            Err(e) => panic!("{e}"),
        }
    }
    assert!(loader.wait().unwrap().success());
    assert!(matches!(ours.receive::<FromLoader>(), Err(ChannelError::Closed)));
    parts
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

#[test]
fn the_programs_outlive_who_loaded_them_and_end_with_who_holds_them() {
    if try_load(&Settings::default()).is_none() {
        return;
    }
    let mut parts = parts();
    let programs = programs_with(PAGES);
    assert!(programs >= 2);
    let mut php = Php::start("", "usleep(50000);");
    with_capabilities(CapabilitySet::empty(), || watch(&mut parts, &mut php));
    assert_eq!(programs_with(PAGES), programs, "links and clocks are still here");
    drop(parts);
    // The kernel lets go of a program when nobody can be in it any more.
    let began = Instant::now();
    while programs_with(PAGES) > 0 {
        assert!(began.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

#[test]
fn a_worker_whose_page_was_begun_is_accounted_for_from_then_on() {
    let Some(mut watch) = Watch::load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start("", "usleep(50000);");
    // It waits to be told to go on; what it did before that is not told.
    php.settle();
    let slot = SlotIndex(6);
    let began = now_ns();
    watch.page(slot.0).begin(began);
    let build = Some(php.build());
    let registered = watch
        .roster
        .register_since(php.pidfd(), WorkerId(6), slot, build, Some(began));
    registered.unwrap();
    // Nothing has been told of it yet.
    let before = watch.eye.times(slot, now_ns()).unwrap();
    assert!(watch.eye.runs(slot) && before.on_cpu_ns > 0);
    php.turn();
    let now = now_ns();
    let times = watch.eye.times(slot, now).unwrap();
    assert_eq!(times.total_ns(), now - began, "{times:?}");
    assert!(times.blocked_ns[3] > 49_000_000, "{times:?}");
    assert_eq!(watch.eye.odd(), 0);
    assert!(!watch.eye.runs(slot), "it waits for its next turn");
}

/// All that is done with the parts, by somebody who has no right to anything.
fn watch(parts: &mut Vec<(ProgramPart, OwnedFd)>, php: &mut Php) {
    let mut take = |wanted| {
        let at = parts.iter().position(|(part, _)| *part == wanted).unwrap();
        parts.remove(at).1
    };
    let (workers, pages) = (take(ProgramPart::Workers), take(ProgramPart::Pages));
    let mut records = Records::new(take(ProgramPart::Ring)).unwrap();
    let counts = take(ProgramPart::Counts);
    let mut roster = Roster::new(workers.try_clone().unwrap(), take(ProgramPart::Layouts), PAGES);
    let eye = Eye::new(workers, pages, counts, PAGES).unwrap();

    let (worker, slot) = (WorkerId(9), SlotIndex(4));
    roster
        .register(php.pidfd(), worker, slot, Some(php.build()))
        .unwrap();
    php.turn();
    let before = eye.times(slot, now_ns()).unwrap();
    php.turn();
    let slept = eye.times(slot, now_ns()).unwrap().since(&before);
    let slept = Duration::from_nanos(slept.blocked_ns[3]);
    assert!(slept.abs_diff(NAP) < Duration::from_millis(1), "{slept:?}");
    let going_on = eye.going_on(php.pidfd()).unwrap();
    assert_eq!((going_on.worker, going_on.cause), (worker, Cause::Pipe));
    let mut naps = 0;
    records.drain(usize::MAX, |record| {
        if let Record::Wait(wait) = record {
            naps += u32::from(wait.worker == worker && wait.cause == Cause::Sleep);
        }
    });
    assert_eq!((naps, records.malformed(), eye.lost()), (2, 0, 0));
    roster.unregister(php.pidfd(), worker).unwrap();
    assert!(eye.going_on(php.pidfd()).is_none());
}
