//! Where and with what rights the programs work, what is said where they do not, and what
//! happens at their limits.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::loaded_maps;
use aya::programs::loaded_programs;
use glasspool_waits::{Cause, RegisterError, Settings, SlotIndex, Unavailable, Waits, WorkerId};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::php::{PATIENCE, Php, load, measure, skipped};

const NAP: &str = "usleep(50000);";
const NAPPED: Duration = Duration::from_millis(50);

#[test]
fn a_worker_in_namespaces_of_its_own_is_told_right() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--net", "--kill-child", "php"]);
    if !Command::new("unshare")
        .args(["--pid", "--fork", "--net", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        skipped("unshare(1) may make no namespaces here");
        return;
    }
    let mut php = Php::start_in(command, "", NAP);
    assert_eq!(php.says, "1", "its own idea of its process id");
    php.watch(&mut waits, 3);
    naps(&mut waits, &mut php, 3);
}

/// Has it sleep, and looks whether that is told. The timer may be late where the host has no
/// CPU for this machine: one nap of these must be as long as it should.
fn naps(waits: &mut Waits, php: &mut Php, worker: u64) {
    let naps: Vec<_> = (0..5)
        .map(|_| {
            let turn = measure(waits, php, worker);
            // On a busy machine it may have waited long for its turn, too.
            let slept = turn.waits.iter().find(|wait| wait.cause == Cause::Sleep);
            assert_eq!(slept.expect("is told").frames[0].name(), "usleep");
            turn.times.blocked(Cause::Sleep)
        })
        .collect();
    assert!(
        naps.iter()
            .any(|slept| slept.abs_diff(NAPPED) < Duration::from_micros(500)),
        "{naps:?}"
    );
    assert!(naps.iter().all(|slept| *slept >= NAPPED), "{naps:?}");
}

/// Does something in a thread that has these capabilities only.
pub(crate) fn with_capabilities<T: Send>(effective: CapabilitySet, run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let limited = scope.spawn(|| {
            let sets = CapabilitySets {
                effective,
                permitted: effective,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).unwrap();
            run()
        });
        limited.join().unwrap()
    })
}

#[test]
fn two_capabilities_are_enough_and_none_is_needed_afterwards() {
    if load(&Settings::default()).is_none() {
        return;
    }
    let mut php = Php::start("", NAP);
    with_capabilities(CapabilitySet::BPF | CapabilitySet::PERFMON, || {
        let mut waits = Waits::load(&Settings::default()).unwrap();
        set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            },
        )
        .unwrap();
        php.watch(&mut waits, 1);
        naps(&mut waits, &mut php, 1);
    });
}

#[test]
fn a_missing_capability_is_named_with_what_grants_it() {
    if load(&Settings::default()).is_none() {
        return;
    }
    for (has, missing) in [
        (CapabilitySet::empty(), "CAP_BPF and CAP_PERFMON are missing"),
        (CapabilitySet::BPF, "CAP_PERFMON is missing"),
        (CapabilitySet::PERFMON, "CAP_BPF is missing"),
    ] {
        let refused = with_capabilities(has, || Waits::load(&Settings::default()).unwrap_err());
        assert!(matches!(refused, Unavailable::Capabilities { .. }), "{refused}");
        let line = refused.to_string();
        assert!(
            line.contains(missing) && line.contains("AmbientCapabilities="),
            "{line}"
        );
        assert!(!line.contains('\n'), "{line}");
    }
}

/// Programs of the kernel that use a map of pages of this many slots.
pub(crate) fn programs_with(slots: u32) -> usize {
    let map = loaded_maps()
        .filter_map(Result::ok)
        .find(|map| map.name_as_str() == Some("pages") && map.max_entries() == slots);
    let Some(map) = map.map(|map| map.id()) else {
        return 0;
    };
    loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| matches!(program.map_ids(), Ok(Some(maps)) if maps.contains(&map)))
        .count()
}

#[test]
fn nothing_stays_in_the_kernel() {
    // No other test asks for as many.
    let settings = Settings {
        slots: 77,
        ..Settings::default()
    };
    let Some(waits) = load(&settings) else {
        return;
    };
    assert_eq!(waits.slots(), 77);
    assert!(programs_with(77) >= 2);
    drop(waits);
    // The kernel lets go of a program when nobody can be in it any more.
    let began = Instant::now();
    while programs_with(77) > 0 {
        assert!(began.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

#[test]
fn two_on_one_host_do_not_disturb_each_other() {
    let (Some(mut one), Some(mut other)) = (load(&Settings::default()), load(&Settings::default())) else {
        return;
    };
    let mut php = Php::start("", NAP);
    php.watch(&mut other, 2);
    php.watch(&mut one, 1);
    let turn = measure(&mut one, &mut php, 1);
    let mut theirs = Vec::new();
    other.drain(usize::MAX, |wait| theirs.push(wait));
    let mine = &turn.waits[0];
    // The clock is read twice, one after the other.
    let same = theirs
        .iter()
        .find(|wait| wait.began_ns.abs_diff(mine.began_ns) < 100_000);
    let same = same.unwrap();
    assert_eq!((mine.worker, same.worker), (WorkerId(1), WorkerId(2)));
    assert_eq!(same.frames, mine.frames);
    drop(one);
    php.turn();
    assert!(other.drain(usize::MAX, |_| {}).records > 0);
}

#[test]
fn a_full_ring_is_counted_and_times_stay_exact() {
    let settings = Settings {
        ring_bytes: 64 * 1024,
        wait_threshold: Duration::from_micros(50),
        ..Settings::default()
    };
    let Some(mut waits) = load(&settings) else {
        return;
    };
    let mut php = Php::start("", "for ($i = 0; $i < 400; $i++) usleep(100);");
    php.watch(&mut waits, 1);
    php.turn();
    php.turn();
    let times = waits.times(SlotIndex(1)).unwrap();
    assert!(waits.lost() > 0 && times.totals.lost == waits.lost(), "{times:?}");
    assert!(times.totals.written + times.totals.lost >= 800, "{times:?}");
    assert!(
        times.blocked(Cause::Sleep) > Duration::from_millis(60),
        "{times:?}"
    );
    let mut told = 0;
    // No turn is longer than was asked for.
    while waits.drain(10, |_| told += 1).more {}
    assert_eq!(told, times.totals.written);
    php.turn();
    assert!(waits.drain(usize::MAX, |_| {}).records > 0);
}

#[test]
fn what_cannot_be_watched_is_refused_with_the_reason() {
    let settings = Settings {
        slots: 2,
        ..Settings::default()
    };
    let Some(mut waits) = load(&settings) else {
        return;
    };
    let php = Php::start("", NAP);
    let (worker, slot) = (WorkerId(7), SlotIndex(0));
    let refused = waits
        .register(php.pidfd(), worker, SlotIndex(2), None)
        .unwrap_err();
    assert!(
        refused.to_string().contains("slot 2 does not exist, there are 2"),
        "{refused}"
    );
    assert!(waits.times(SlotIndex(2)).is_none());

    let mut build = php.build().clone();
    build.layout.func_scope = 40;
    let refused = waits
        .register(php.pidfd(), worker, slot, Some(&build))
        .unwrap_err();
    assert!(
        refused.to_string().contains("zend_function.scope at 40"),
        "{refused}"
    );
    build.layout.func_scope = 18;
    assert!(waits.register(php.pidfd(), worker, slot, Some(&build)).is_err());

    waits.register(php.pidfd(), worker, slot, None).unwrap();
    let twice = waits.register(php.pidfd(), worker, slot, None).unwrap_err();
    assert!(matches!(twice, RegisterError::Kernel { .. }), "{twice}");
    waits.unregister(php.pidfd(), worker).unwrap();
    waits.unregister(php.pidfd(), worker).unwrap();
    assert!(waits.times_of(php.pidfd()).is_none());
    waits.register(php.pidfd(), worker, slot, None).unwrap();

    let mut child = Command::new("true").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    child.wait().unwrap();
    let gone = waits.register(&pidfd, worker, SlotIndex(1), None).unwrap_err();
    assert!(matches!(gone, RegisterError::Gone(_)), "{gone}");
    waits.unregister(&pidfd, worker).unwrap();
}

#[test]
fn offsets_and_addresses_that_lead_anywhere_do_no_harm() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    for (name, globals, beyond) in [
        ("nowhere", 0x10, 0),
        ("in the kernel", 0xffff_ffff_8100_0000, 0),
        ("at the end", u64::MAX - 4, 0),
        ("far", 0, 0x7fff_0000),
    ] {
        let mut php = Php::start("", NAP);
        let mut build = php.build().clone();
        if globals != 0 {
            build.executor_globals = globals;
        }
        build.layout.class_name += beyond;
        build.layout.op_lineno += beyond;
        waits
            .register(php.pidfd(), WorkerId(1), SlotIndex(1), Some(&build))
            .unwrap();
        let turn = measure(&mut waits, &mut php, 1);
        let slept = turn.times.blocked(Cause::Sleep);
        assert!(
            slept.abs_diff(NAPPED) < Duration::from_millis(5),
            "{name}: {slept:?}"
        );
        assert!(
            turn.waits.iter().all(|wait| wait.frames.is_empty() || wait.fault),
            "{name}: {:?}",
            turn.waits
        );
    }
}

#[test]
fn both_ways_to_a_workers_times_agree() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start("", NAP);
    php.watch(&mut waits, 1);
    php.turn();
    let (by_page, by_task) = (
        waits.times(SlotIndex(1)).unwrap(),
        waits.times_of(php.pidfd()).unwrap(),
    );
    assert_eq!(by_task.since(&by_page).on_cpu(), Duration::ZERO);
    assert_eq!(
        (by_page.began_ns, by_page.totals.waits),
        (by_task.began_ns, by_task.totals.waits)
    );
    let waiting = waits.going_on(php.pidfd()).unwrap();
    assert_eq!(
        (waiting.cause, waiting.frames[0].name().as_str()),
        (Cause::Pipe, "fgets")
    );
}
