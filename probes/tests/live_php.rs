//! Real PHP processes: the stacks of scripts whose every frame and line is known.
//!
//! Needs the `php` command line of PHP 8.2, which `make deps` installs, on x86_64.

#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

#[path = "live/build.rs"]
mod build;
#[path = "live/mod.rs"]
mod live;
#[path = "live_php/target.rs"]
mod target;

use std::time::{Duration, Instant};

use glasspool_probes::php::check::{Checked, read_checked};
use glasspool_probes::process::RunState;
use glasspool_probes::stop::{StopError, with_stopped};
use glasspool_probes::{
    How, Kind, MemFd, Options, Partial, SampleError, Stack, Stop, read_held, read_stack, sample,
};
use target::{Php, script};

/// One line per frame: name, base name of the file, line, `~` where it is a guess.
fn lines(stack: &Stack) -> Vec<String> {
    let line = |frame: &glasspool_probes::Frame| match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            let guess = if frame.line_exact { "" } else { "~" };
            format!("{} {file}:{line}{guess}", frame.qualified_name())
        }
        _ => frame.qualified_name(),
    };
    stack.frames.iter().map(line).collect()
}

/// Runs a script until it sleeps and expects these frames.
fn asleep(text: &str, expected: &[&str]) {
    let Some(php) = Php::start(&script("main.php", text)) else {
        return;
    };
    php.wait_for(RunState::Sleeping);
    let sample = sample(
        &php.target(),
        &Options {
            stop: Stop::Never,
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(lines(&sample.stack), expected);
    assert_eq!(sample.stack.how, How::Exact);
    assert!(!sample.stack.cut);
    let wait = sample.wait.expect("it sleeps");
    let call = wait.call.as_ref().expect("the test may know the call");
    assert!(
        matches!(
            call.name,
            Some("poll" | "select" | "pselect6" | "read" | "recvfrom")
        ),
        "{wait:?}"
    );
}

#[test]
fn methods_closures_callbacks_and_includes_down_to_a_blocked_read() {
    let lib = script(
        "lib.php",
        "<?php
namespace App;
abstract class Store {
    public static function open($socket): static { return new static($socket); }
    public function __construct(private $socket) {}
    public function first(array $keys) {
        return array_map(function ($key) {
            return $this->fetch($key);
        }, $keys);
    }
    abstract protected function fetch(string $key);
    protected function wait() { return fread($this->socket, 10); }
}
",
    );
    let middle = script("middle.php", "<?php\n\nreturn load($store);\n");
    asleep(
        &format!(
            "<?php
require '{}';
class Repo extends App\\Store {{
    protected function fetch(string $key) {{
        return $this->wait();
    }}
}}
function load($store) {{
    return $store
        ->first(['a', 'b']);
}}
$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$store = Repo::open($pair[0]);
echo \"ready\\n\";
include '{}';
",
            lib.file(),
            middle.file()
        ),
        &[
            "fread",
            "App\\Store::wait lib.php:12",
            "Repo::fetch main.php:5",
            "App\\Store::App\\{closure} lib.php:8",
            "array_map",
            "App\\Store::first lib.php:7",
            "load main.php:10",
            "{include} middle.php:3",
            "{main} main.php:15",
        ],
    );
}

#[test]
fn generators_delegation_eval_and_magic_calls() {
    asleep(
        "<?php
class Magic {
    public function __call($name, $arguments) {
        foreach (outer() as $value) {
        }
    }
}
function inner() {
    yield 1;
    $read = [STDIN]; $none = null;
    stream_select($read, $none, $none, 60);
}
function outer() {
    yield from inner();
}
echo \"ready\\n\";
eval('
(new Magic)->anything();');
",
        &[
            "stream_select",
            "inner main.php:11",
            "Magic::__call main.php:4",
            "{eval} main.php(17) : eval()'d code:2",
            "{main} main.php:17",
        ],
    );
}

#[test]
fn a_fiber_goes_on_into_who_resumed_it() {
    asleep(
        "<?php
function wait() { fgets(STDIN); }
$fiber = new Fiber(function () {
    Fiber::suspend();
    wait();
});
$fiber->start();
echo \"ready\\n\";
function resume($fiber) { $fiber->resume(); }
resume($fiber);
",
        &[
            "fgets",
            "wait main.php:2",
            "{closure} main.php:5",
            "{fiber}",
            "Fiber::resume",
            "resume main.php:9",
            "{main} main.php:10",
        ],
    );
}

#[test]
fn shutdown_functions_and_destructors_run_outside_of_any_script() {
    asleep(
        "<?php
class Last { public function __destruct() { echo \"ready\\n\"; fgets(STDIN); } }
register_shutdown_function(function () { $last = new Last; unset($last); });
",
        &["fgets", "Last::__destruct main.php:2", "{closure} main.php:3"],
    );
}

#[test]
fn a_deep_recursion_is_cut_at_the_limit_and_otherwise_whole() {
    let text = "<?php
function down($n) { if ($n == 0) { echo \"ready\\n\"; fgets(STDIN); return; } down($n - 1); }
down(5000);
";
    let Some(php) = Php::start(&script("main.php", text)) else {
        return;
    };
    php.wait_for(RunState::Sleeping);
    let take = |max_frames| {
        sample(
            &php.target(),
            &Options {
                max_frames,
                ..Options::default()
            },
        )
        .unwrap()
    };
    let stack = take(20).stack;
    assert_eq!((stack.frames.len(), stack.cut), (20, true));
    let stack = take(usize::MAX).stack;
    assert_eq!((stack.frames.len(), stack.cut), (1024, true));
    assert!(
        stack.frames[1..]
            .iter()
            .all(|frame| frame.function == "down" && frame.line == Some(2))
    );
}

#[test]
fn an_anonymous_class_keeps_its_path_to_itself() {
    asleep(
        "<?php
$object = new class { public function run() { echo \"ready\\n\"; fgets(STDIN); } };
$object->run();
",
        &["fgets", "class@anonymous::run main.php:2", "{main} main.php:3"],
    );
}

/// Two chains of 22 calls, entered and left as fast as PHP can. Function `cN` of chain
/// `c` is on line `N + 2` (chain a) or `N + 24` (chain b), and calls the next.
fn two_chains() -> String {
    let mut text = "<?php\n".to_owned();
    for chain in ["a", "b"] {
        for depth in 0..21 {
            text += &format!(
                "function {chain}{depth}($n) {{ return {chain}{}($n + 1); }}\n",
                depth + 1
            );
        }
        text += &format!("function {chain}21($n) {{ return $n * 3; }}\n");
    }
    text + "echo \"ready\\n\";\nfor (;;) { a0(1);\n b0(1); }\n"
}

/// What is wrong with a stack of [`two_chains`], if anything.
fn judge(stack: &Stack) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: {:#?}", lines(stack)));
    let Some((main, calls)) = stack.frames.split_last() else {
        return wrong("empty");
    };
    if main.kind != Kind::Main {
        return wrong("does not end in main");
    }
    let Some(outermost) = calls.last() else {
        return Ok(());
    };
    let (chain, first_line, main_line) = match outermost.function.as_str() {
        "a0" => ("a", 2, 47),
        "b0" => ("b", 24, 48),
        _ => return wrong("main calls another"),
    };
    if main.line != Some(main_line) {
        return wrong("main calls from another line");
    }
    for (depth, frame) in calls.iter().rev().enumerate() {
        let line = first_line + u32::try_from(depth).unwrap();
        if frame.function != format!("{chain}{depth}") {
            return wrong("another function");
        }
        // Also the innermost one, guess or not: each function is on one line.
        if frame.line != Some(line) || frame.class.is_some() {
            return wrong("another line");
        }
        if depth + 1 < calls.len() && !frame.line_exact {
            return wrong("a caller's line is a guess");
        }
    }
    Ok(())
}

#[test]
fn no_checked_read_of_the_worst_script_is_wrong() {
    let Some(php) = Php::start(&script("main.php", &two_chains())) else {
        return;
    };
    let mem = MemFd::new(&php.mem);
    let (mut judged, mut gave_up, mut tries, mut deepest, mut torn) = (0_u32, 0_u32, 0_u64, 0, 0_u32);
    // How often the script stands still for long enough depends on how busy the machine
    // is, so the number of stacks that can be judged differs; that none is wrong does not.
    let end = Instant::now() + Duration::from_secs(20);
    while judged < 20_000 && Instant::now() < end {
        match read_checked(&mem, &php.build, 64, 100).unwrap() {
            Checked::Stack(stack) => {
                judge(&stack).unwrap();
                judged += 1;
                deepest = deepest.max(stack.frames.len());
                if let How::Checked { tries: these } = stack.how {
                    tries += u64::from(these);
                }
            }
            Checked::GaveUp { .. } => gave_up += 1,
        }
    }
    assert!(judged >= 500, "{judged} judged, {gave_up} given up");
    // The check is put to the test only if the target does move under the reader.
    let mut unchecked = 0_u32;
    while unchecked < 2_000 || (torn == 0 && unchecked < 1_000_000) {
        let stack = read_stack(&mem, &php.build, 64).unwrap();
        unchecked += 1;
        torn += u32::from(stack.how != How::Exact || judge(&stack).is_err());
    }
    println!("gave up {gave_up}, {tries} tries, deepest {deepest}; unchecked: {torn} of {unchecked} torn");
    assert_eq!(deepest, 23, "the judge has seen whole chains");
    assert!(torn > 0, "the script is no challenge for the check");
}

#[test]
fn a_script_that_may_not_be_held_shows_what_stays() {
    // The same, called from a function that stays, and with a main that never changes.
    let text = two_chains().replace("for (;;)", "function stay() { for (;;)") + "}\nstay();\n";
    let Some(php) = Php::start(&script("main.php", &text)) else {
        return;
    };
    let options = Options {
        tries: 1,
        stop: Stop::Never,
        ..Options::default()
    };
    let (mut partial, mut with_main) = (0, 0);
    let mut taken = 0;
    while partial < 50 {
        taken += 1;
        assert!(taken < 200_000, "{partial} partial");
        let stack = sample(&php.target(), &options).unwrap().stack;
        if !matches!(stack.how, How::Partial(Partial::Moving { tries: 1, .. })) {
            continue;
        }
        partial += 1;
        let Some(main) = stack.frames.last() else { continue };
        assert_eq!(
            (main.kind, main.line, main.line_exact || stack.frames.len() == 1),
            (Kind::Main, Some(50), true)
        );
        with_main += 1;
        if let [.., stay, _] = stack.frames.as_slice() {
            assert_eq!(stay.function, "stay");
        }
    }
    println!("{partial} partial, {with_main} of them with frames");
    assert!(
        with_main * 2 > partial,
        "{partial} partial, {with_main} with frames"
    );
}

#[test]
fn a_running_script_is_sampled_whatever_it_takes_and_goes_on() {
    let Some(php) = Php::start(&script("main.php", &two_chains())) else {
        return;
    };
    // No try of an unstopped read at all would be dishonest; one is nearly none.
    let options = Options {
        tries: 1,
        ..Options::default()
    };
    let (mut stopped, mut checked, mut longest) = (0, 0, Duration::ZERO);
    let mut given_up = 0;
    while checked < 100 || stopped < 10 {
        assert!(
            checked + stopped < 200_000,
            "{checked} checked, {stopped} stopped"
        );
        let sample = sample(&php.target(), &options).unwrap();
        match sample.stack.how {
            How::Stopped { stop } => {
                stopped += 1;
                longest = longest.max(stop);
            }
            How::Checked { .. } => checked += 1,
            // A machine that gives the script no time within the limit of a stop.
            How::Partial(Partial::NotStopped { .. }) => {
                given_up += 1;
                continue;
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sample.wait, None);
        judge(&sample.stack).unwrap();
    }
    println!("{stopped} stopped (longest {longest:?}), {checked} checked, {given_up} given up");
    assert!(given_up * 10 <= checked + stopped, "{given_up} given up");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn stops_change_nothing_and_lose_no_signal() {
    // Counts real-time signals, which queue: each that is sent is seen once.
    let text = "<?php
$seen = 0;
pcntl_async_signals(true);
foreach ([10, 36] as $signal) { pcntl_signal($signal, function () use (&$seen) { $seen++; }); }
echo \"ready\\n\";
stream_set_blocking(STDIN, false);
for ($n = 0;; $n++) { if ($n % 1000 == 0 && fgets(STDIN) !== false) { break; } }
echo $seen, \"\\n\";
";
    let Some(mut php) = Php::start(&script("main.php", text)) else {
        return;
    };
    let pid = php.pid;
    // pcntl keeps at most 64 signals that the script has not seen yet, so they come slowly
    // enough for a script that is kept from running for a while.
    let sends = 300;
    let sender = format!("for ($i = 0; $i < {sends}; $i++) {{ posix_kill({pid}, 36); usleep(3000); }}");
    let mut sender = live::mortal("php").args(["-r", &sender]).spawn().unwrap();
    let mut held = 0_u32;
    let mut shortest = Duration::MAX;
    while sender.try_wait().unwrap().is_none() || held < 200 {
        match with_stopped(pid, Duration::from_secs(5), |registers| registers.copied()) {
            Ok((registers, stop)) => {
                let registers = registers.expect("this machine's registers are known");
                assert_ne!((registers.instruction, registers.stack), (0, 0));
                shortest = shortest.min(stop);
                held += 1;
            }
            Err(StopError::NotRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    println!("held {held} times, shortest {shortest:?}");
    assert_eq!(php.say("end"), sends.to_string());
}

#[test]
fn a_stopped_read_knows_the_innermost_line() {
    // One function, one long loop of lines, no calls: only the registers know.
    let mut text = "<?php\nfunction spin() {\n for ($i = 0;; $i++) {\n".to_owned();
    for _ in 0..40 {
        text += "$i = ($i * 31 + 7) & 0xffff;\n";
    }
    text += "}}\necho \"ready\\n\";\nspin();\n";
    let Some(php) = Php::start(&script("main.php", &text)) else {
        return;
    };
    let (mut stopped, mut exact) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    while stopped < 200 {
        let (stack, _) = match with_stopped(php.pid, Duration::from_secs(5), |registers| {
            read_held(&MemFd::new(&php.mem), &php.build, 64, registers)
        }) {
            Err(StopError::NotRunning { .. }) => continue,
            held => held.unwrap(),
        };
        let stack = stack.unwrap();
        // It says `ready` before it calls the function.
        let [frame, main] = stack.frames.as_slice() else {
            continue;
        };
        assert_eq!((frame.function.as_str(), main.kind), ("spin", Kind::Main));
        assert!(
            frame.line.is_some_and(|line| (2..=44).contains(&line)),
            "{frame:?}"
        );
        stopped += 1;
        exact += u32::from(frame.line_exact);
        seen.extend(frame.line.filter(|_| frame.line_exact));
    }
    println!("{exact} of {stopped} exact, on {} lines", seen.len());
    assert!(exact * 10 > stopped * 9, "{exact} of {stopped}");
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn a_script_that_has_ended_is_gone() {
    let Some(mut php) = Php::start(&script("main.php", "<?php echo \"ready\\n\"; fgets(STDIN);")) else {
        return;
    };
    php.say("end");
    php.reap();
    let result = sample(&php.target(), &Options::default());
    assert!(matches!(result, Err(SampleError::Gone { .. })), "{result:?}");
}
