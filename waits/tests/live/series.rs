//! Many waits in a row, each judged.

use std::thread;
use std::time::Duration;

use glasspool_waits::{Frame, Settings, SlotIndex, Wait, Waits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::php::{Php, load};

/// How often, unless `GLASSPOOL_WAITS` says more.
const FEW: usize = 3000;

fn rounds() -> usize {
    let wanted = std::env::var("GLASSPOOL_WAITS").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(FEW)
}

/// Waits for a quarter of the ring, or a little.
fn pause(waits: &Waits) {
    let ring = waits.ring();
    let mut fds = [PollFd::new(&ring, PollFlags::IN)];
    let little = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    poll(&mut fds, Some(&little)).unwrap();
}

/// Functions of a file that exists for one wait only: their memory, and that of all names,
/// is used again by the next one. A name that is looked up later than at the wait itself
/// is another one's then.
const WORST: &str = "\
$n = 0;
function once($n) {
    $d = sys_get_temp_dir() . '/' . getmypid();
    $file = \"$d-$n.php\";
    $pad = str_repeat(\"\\n\", $n % 37);
    file_put_contents($file, \"<?php\\n{$pad}return [function(\\$f) { usleep(150); },\\n\"
        . \"function(\\$f) { \\$f[0](\\$f); },\\nfunction(\\$f) { \\$f[1](\\$f); }];\\n\");
    $f = include $file;
    unlink($file);
    $f[2]($f);
}";

fn judge(wait: &Wait) -> Result<usize, String> {
    let [builtin, a, b, c, once, main] = wait.frames.as_slice() else {
        return Err(format!("{} frames", wait.frames.len()));
    };
    let number = |frame: &Frame| {
        let file = frame.file.as_ref()?.strip_suffix(".php")?;
        file.rsplit('-').next()?.parse::<usize>().ok()
    };
    let n = number(a).ok_or("no number")?;
    let line = u32::try_from(n % 37).unwrap() + 2;
    let right = builtin.name() == "usleep"
        && [a, b, c]
            .iter()
            .all(|frame| frame.function == "{closure}" && number(frame) == Some(n))
        && [a, b, c].map(|frame| frame.line) == [Some(line), Some(line + 1), Some(line + 2)]
        && once.function == "once"
        && main.function == "{main}"
        && !wait.cut
        && !wait.fault;
    if right { Ok(n) } else { Err(format!("{wait:#?}")) }
}

fn worst_case(opcache: bool) {
    let settings = Settings {
        wait_threshold: Duration::from_micros(100),
        ..Settings::default()
    };
    let Some(mut waits) = load(&settings) else {
        return;
    };
    let rounds = rounds();
    let mut command = std::process::Command::new("php");
    command.args(["-d", "opcache.jit=0"]);
    command.args([
        "-d",
        if opcache {
            "opcache.enable_cli=1"
        } else {
            "opcache.enable_cli=0"
        },
    ]);
    command.args([
        "-d",
        "opcache.file_update_protection=0",
        "-d",
        "opcache.max_accelerated_files=100000",
    ]);
    let mut php = Php::start_in(
        command,
        WORST,
        &format!("for ($i = 0; $i < {rounds}; $i++) once($n++);"),
    );
    php.watch(&mut waits, 1);
    let (mut right, mut wrong, mut next) = (0, Vec::new(), 0);
    let mut judge_one = |wait: Wait| {
        // Others may be slow, too: a file is written, the turn is waited for.
        if wait.frames.first().is_none_or(|frame| frame.function != "usleep") {
            return;
        }
        match judge(&wait) {
            Ok(n) if n >= next => {
                right += 1;
                next = n + 1;
            }
            Ok(n) => wrong.push(format!("{n} after {next}")),
            Err(why) => wrong.push(why),
        }
    };
    thread::scope(|scope| {
        let turn = scope.spawn(|| php.turn());
        while !turn.is_finished() {
            waits.drain(usize::MAX, &mut judge_one);
            pause(&waits);
        }
    });
    waits.drain(usize::MAX, &mut judge_one);
    println!(
        "{right} stacks right, {} wrong, {} lost, {} missed (opcache {opcache})",
        wrong.len(),
        waits.lost(),
        waits.missed()
    );
    assert!(wrong.is_empty(), "{} wrong, the first: {}", wrong.len(), wrong[0]);
    assert_eq!((waits.lost(), waits.malformed(), waits.odd()), (0, 0, 0));
    // Of one that was late to sleep the time may be over before it sleeps.
    assert!(right > rounds - rounds / 20, "{right} of {rounds}");
}

#[test]
fn no_stack_is_wrong_where_memory_is_used_again_at_once() {
    worst_case(false);
}

#[test]
fn no_stack_is_wrong_with_opcache() {
    worst_case(true);
}

#[test]
fn all_time_is_somewhere_and_the_scheduler_agrees_request_by_request() {
    let Some(mut waits) = load(&Settings::default()) else {
        return;
    };
    let turn = "$i = ($i ?? 0) + 1;\n\
        if ($i % 4 == 0) usleep(80);\n\
        if ($i % 4 == 1) for ($k = 0; $k < 5000; $k++);\n\
        if ($i % 4 == 2) file_put_contents('/dev/null', str_repeat('x', 10000));";
    let mut php = Php::start("", turn);
    php.watch(&mut waits, 1);
    php.turn();
    let slot = SlotIndex(1);
    let rounds = rounds();
    let mut off = Vec::with_capacity(rounds);
    let (mut counters, mut before) = (php.settle(), waits.times(slot).unwrap());
    for _ in 0..rounds {
        php.turn();
        let after = php.settle();
        let now = waits.times(slot).unwrap();
        let times = now.since(&before);
        let wall = Duration::from_nanos(times.at_ns - times.began_ns);
        assert!(
            times.total().abs_diff(wall) < Duration::from_micros(1),
            "{times:?}"
        );
        // What the scheduler says was not blocked. It leaves out what was stolen.
        let theirs =
            Duration::from_nanos(after.cpu_ns - counters.cpu_ns + after.delay_ns - counters.delay_ns);
        off.push((times.on_cpu() + times.runqueue()).abs_diff(theirs));
        (counters, before) = (after, now);
    }
    off.sort();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = (off.len() as f64 * share) as usize;
        off[index.min(off.len() - 1)]
    };
    println!(
        "{rounds} requests, from the scheduler's counters by p50 {:?}, p99 {:?}, p99.9 {:?}, at most {:?}; {} missed",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        waits.missed()
    );
    assert_eq!(waits.odd(), 0);
    // The hypervisor takes milliseconds now and then, which only one of the two counts.
    assert!(at(0.99) < Duration::from_micros(100), "{:?}", at(0.99));
}
