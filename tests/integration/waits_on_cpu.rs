//! What requests past their limit compute, told by the CPUs' clocks; and when those run: with
//! PHP and the kernel programs. The supervisor's clocks are read from outside.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use glasspool_abi::control::CLOCK_LEASE;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use serde_json::Value;

use crate::collector::each;
use crate::harness::{Supervised, kill, number_after, stop, wait_until};
use crate::waits_spans::Watched;

const SLOW: &str = "[slow]\nafter = \"200ms\"\n";

/// Two seconds of CPU time, three quarters of it in one function.
const SPIN: &str = "<?php
function cpu() { $u = getrusage(); return $u['ru_utime.tv_sec'] * 1e6 + $u['ru_utime.tv_usec']; }
function heavy() {
    $until = cpu() + 150000;
    while (cpu() < $until)
        for ($i = 0; $i < 20000; $i++);
}
function light() {
    $until = cpu() + 50000;
    while (cpu() < $until)
        for ($i = 0; $i < 20000; $i++);
}
for ($round = 0; $round < 10; $round++) {
    heavy();
    light();
}
";

/// Computes until there is a file of that name.
const UNTIL: &str = "<?php
while (!file_exists(__DIR__ . '/enough'))
    for ($i = 0; $i < 20000; $i++);
unlink(__DIR__ . '/enough');
";

/// The clocks of all CPUs, as the supervisor holds them.
struct Clocks(Vec<OwnedFd>);

impl Clocks {
    fn of(supervised: &Supervised) -> Clocks {
        let pid = supervised.pid();
        let process = Pid::from_raw(pid).expect("above zero");
        let process = pidfd_open(process, PidfdFlags::empty()).expect("runs");
        let folder = format!("/proc/{pid}/fd");
        let names = fs::read_dir(&folder).expect("its own user or root");
        let names = names.map(|name| name.expect("reads").file_name().into_string().expect("a number"));
        let clocks = names.filter(|name| {
            fs::read_link(format!("{folder}/{name}"))
                .is_ok_and(|target| target.to_str() == Some("anon_inode:[perf_event]"))
        });
        let clocks = clocks.map(|name| {
            let number = name.parse().expect("a number");
            pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("its own user or root")
        });
        let clocks = Clocks(clocks.collect());
        assert!(!clocks.0.is_empty(), "one of each CPU");
        clocks
    }

    /// How long each has run, nanoseconds (perf_event_open(2): the count of a CPU clock).
    fn counts(&self) -> Vec<u64> {
        let count = |clock| {
            let mut count = [0; 8];
            assert_eq!(rustix::io::read(clock, &mut count).expect("is read"), 8);
            u64::from_ne_bytes(count)
        };
        self.0.iter().map(count).collect()
    }

    /// How long the one has run that has run longest.
    fn ran(&self) -> Duration {
        Duration::from_nanos(self.counts().into_iter().max().unwrap_or(0))
    }

    /// Whether any of them runs.
    fn run(&self) -> bool {
        self.counts() != self.counts()
    }

    /// Waits until they do or do not.
    fn wait_for(&self, run: bool) {
        wait_until(&format!("clocks run: {run}"), || self.run() == run);
    }
}

fn samples(span: &Value) -> Option<u64> {
    let attribute = each(span, "attributes").find(|attribute| attribute["key"] == "php.cpu.samples")?;
    attribute["value"]["intValue"].as_str()?.parse().ok()
}

/// Each place and its share in percent.
fn top_frames(span: &Value) -> Vec<(String, u32)> {
    let attribute = each(span, "attributes").find(|attribute| attribute["key"] == "php.cpu.top_frames");
    let Some(attribute) = attribute else {
        return Vec::new();
    };
    let frames = each(&attribute["value"]["arrayValue"], "values");
    let frame = |frame: &Value| {
        let (place, share) = frame["stringValue"].as_str()?.rsplit_once(' ')?;
        Some((place.to_owned(), share.strip_suffix('%')?.parse().ok()?))
    };
    frames
        .map(|told| frame(told).unwrap_or_else(|| panic!("{told}")))
        .collect()
}

#[test]
fn a_request_that_computes_past_its_limit_says_where() {
    let Some(watched) = Watched::with(SLOW, "", &[("spin.php", SPIN)]) else {
        return;
    };
    let clocks = Clocks::of(&watched.stand.supervised);
    watched.stand.ask("spin.php").join().expect("ends");
    let request = watched.request("/spin");
    // Almost two seconds at 99 Hz; how much of that a busy machine leaves out is not known.
    assert!(
        samples(&request).is_some_and(|samples| samples > 20),
        "{request:#}"
    );
    let frames = top_frames(&request);
    let file = watched.stand.path("spin.php");
    let share = |function: &str| -> u32 {
        let start = format!("{function} {}:", file.display());
        let shares = frames.iter().filter(|(place, _)| place.starts_with(&start));
        shares.map(|(_, share)| share).sum()
    };
    assert!(
        share("heavy") > share("light") && share("light") > 0,
        "{frames:?}"
    );
    assert!((50..=90).contains(&share("heavy")), "{frames:?}");
    clocks.wait_for(false);
    assert!(clocks.counts().iter().all(|ran| *ran > 0), "they have run");
}

#[test]
fn for_a_request_that_sleeps_past_its_limit_no_clock_runs() {
    let sleep = ("sleep.php", "<?php\nsleep(600);\n");
    let Some(mut watched) = Watched::with(SLOW, "slowlog = ROOT/slow.log", &[sleep]) else {
        return;
    };
    let clocks = Clocks::of(&watched.stand.supervised);
    watched.stand.send("sleep.php");
    let told = watched.stand.supervised.wait_for("executing too slow");
    assert!(clocks.counts().iter().all(|ran| *ran == 0), "they never have run");
    kill(number_after(&told, "] child "), Signal::KILL);
    let request = watched.request("/sleep");
    assert_eq!(samples(&request), None, "{request:#}");
    assert_eq!(top_frames(&request), [], "{request:#}");
}

#[test]
fn clocks_do_not_run_on_for_an_observer_that_stands_still() {
    let Some(watched) = Watched::with(SLOW, "", &[("until.php", UNTIL)]) else {
        return;
    };
    let clocks = Clocks::of(&watched.stand.supervised);
    let asked = watched.stand.ask("until.php");
    clocks.wait_for(true);
    let observer = observer(&watched);
    stop(observer);
    clocks.wait_for(false);
    // The request still computes.
    kill(observer, Signal::CONT);
    clocks.wait_for(true);
    let before = clocks.ran();
    wait_until("they have run longer than they do unasked", || {
        clocks.ran() - before > CLOCK_LEASE
    });
    fs::write(watched.stand.path("enough"), "").expect("writes");
    asked.join().expect("ends");
    clocks.wait_for(false);
}

#[test]
fn clocks_do_not_run_on_while_the_last_request_is_waited_for() {
    let Some(mut watched) = Watched::with(SLOW, "", &[("until.php", UNTIL)]) else {
        return;
    };
    let clocks = Clocks::of(&watched.stand.supervised);
    let asked = watched.stand.ask("until.php");
    clocks.wait_for(true);
    let observer = observer(&watched);
    watched.stand.supervised.signal(Signal::QUIT);
    watched.stand.supervised.wait_for("Finishing ...");
    stop(observer);
    clocks.wait_for(false);
    // The request still computes, and is still explained.
    kill(observer, Signal::CONT);
    clocks.wait_for(true);
    fs::write(watched.stand.path("enough"), "").expect("writes");
    asked.join().expect("ends");
    let status = watched.stand.supervised.wait_for_end();
    assert_eq!(status.code(), Some(0));
    assert!(!clocks.run());
}

#[test]
fn clocks_do_not_run_on_for_an_observer_that_was_killed() {
    let Some(watched) = Watched::with(SLOW, "", &[("until.php", UNTIL)]) else {
        return;
    };
    let clocks = Clocks::of(&watched.stand.supervised);
    let enough = || fs::write(watched.stand.path("enough"), "").expect("writes");
    let asked = watched.stand.ask("until.php");
    clocks.wait_for(true);
    let observer = observer(&watched);
    // It cannot stop them itself.
    stop(observer);
    enough();
    asked.join().expect("ends");
    kill(observer, Signal::KILL);
    clocks.wait_for(false);
    // The next one runs them when they are needed again.
    let asked = watched.stand.ask("until.php");
    clocks.wait_for(true);
    let before = clocks.ran();
    wait_until("one has run for half a second", || {
        clocks.ran() - before > Duration::from_millis(500)
    });
    enough();
    asked.join().expect("ends");
    clocks.wait_for(false);
    watched.wait_for("samples", |watched| {
        watched.collector.spans().iter().find_map(samples)
    });
}

fn observer(watched: &Watched) -> i32 {
    let [observer] = watched.stand.supervised.children(Some("observer"))[..] else {
        panic!("there is one")
    };
    observer
}
