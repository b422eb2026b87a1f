//! The joined stack of PHP and native frames.

use std::os::fd::AsFd;
use std::time::Duration;

use glasspool_probes::native::{End, Modules, Seams, StackCopy, Unwinder, Woven, weave};
use glasspool_probes::process::{self, RunState};
use glasspool_probes::stop::with_stopped;
use glasspool_probes::{MemFd, read_held};

use crate::target::{Php, woven};

/// Everything from the first frame of PHP's own main on, which differs by version.
fn upper(woven: Vec<String>) -> Vec<String> {
    woven
        .into_iter()
        .take_while(|line| line != "zend_execute" && line != "zend_execute_scripts")
        .collect()
}

#[test]
fn callbacks_builtins_and_user_functions_are_woven_in_their_order() {
    let Some(mut php) = Php::start(
        "<?php
function compare($a, $b) {
    echo \"ready\\n\";
    sleep(60);
    return 0;
}
function order($list) {
    usort($list, 'compare');
}
order([2, 1]);
",
    ) else {
        return;
    };
    let look = php.look_in(&["clock_nanosleep"]);
    let woven = upper(woven(&look));
    let position = |name: &str| {
        let found = woven.iter().position(|line| line == name);
        found.unwrap_or_else(|| panic!("no {name} in {woven:#?}"))
    };
    // Of PHP and what marks a callback nothing is missing and all is in order; between
    // them are native frames whose names depend on the build.
    let order = [
        "clock_nanosleep",
        "sleep",
        "compare main.php:4",
        "zend_call_function",
        "usort",
        "order main.php:8",
        "{main} main.php:10",
    ];
    let positions = order.map(position);
    assert!(positions.is_sorted(), "{woven:#?}");
    assert_eq!(positions[6], woven.len() - 1, "{woven:#?}");
    assert!(woven.iter().all(|line| line != "execute_ex"), "{woven:#?}");
    assert!(
        php.modules().len() < 8,
        "only files with an address in the stack are read"
    );
    // PHP and libc: 0.6 MiB of call frame information, the rest is names. With debug
    // symbols of PHP it is twice as many.
    let bytes = php.modules().bytes();
    assert!((500_000..2_500_000).contains(&bytes), "{bytes} bytes are kept");
}

#[test]
fn generators_destructors_and_fibers_are_woven_whole() {
    let Some(mut php) = Php::start(
        "<?php
class Last {
    public function __destruct() { foreach (wait() as $one) {} }
}
function wait() { echo \"ready\\n\"; yield sleep(60); }
$fiber = new Fiber(function () {
    $last = new Last;
    unset($last);
});
$fiber->start();
",
    ) else {
        return;
    };
    let look = php.look_in(&["clock_nanosleep"]);
    let woven = woven(&look);
    let php_frames: Vec<&String> = woven
        .iter()
        .filter(|line| line.contains("main.php") || *line == "Fiber->start" || *line == "{fiber}")
        .collect();
    assert_eq!(
        php_frames,
        [
            "wait main.php:5",
            "Last->__destruct main.php:3",
            "{closure} main.php:8",
            "{fiber}",
            "Fiber->start",
            "{main} main.php:10",
        ],
        "{woven:#?}"
    );
    // Between the generator and its consumer is the C code that resumes it.
    let at = |name: &str| woven.iter().position(|line| line == name).unwrap();
    assert!(
        at("Last->__destruct main.php:3") > at("wait main.php:5") + 1,
        "{woven:#?}"
    );
}

#[test]
fn a_running_process_is_unwound_from_its_registers_while_it_is_held() {
    let Some(php) = Php::start(
        "<?php
function busy() {
    for ($i = 0; ; $i++) { $list[$i & 1023] = md5((string) $i); }
}
echo \"ready\\n\";
busy();
",
    ) else {
        return;
    };
    let mem = MemFd::new(php.mem.as_fd());
    let (mut unwinder, mut modules) = (Unwinder::new(php.pid), Modules::new());
    let (mut whole, mut held) = (0, 0);
    while held < 200 {
        if process::state(php.pid) != Some(RunState::Running) {
            std::thread::yield_now();
            continue;
        }
        let seen = with_stopped(php.pid, Duration::from_secs(5), |registers| {
            let stack = read_held(&mem, &php.build, 64, registers).unwrap();
            let seams = Seams::read(&mem, &php.build.layout, &stack).unwrap();
            (stack, seams, StackCopy::read(&mem, registers.unwrap()).unwrap())
        });
        let Ok(((stack, seams, copy), _)) = seen else {
            continue;
        };
        held += 1;
        let native = unwinder.unwind(&mut modules, &mem, &copy, seams);
        whole += u32::from(native.end.to_string() == "the stack is whole");
        let woven = weave(&stack, &native);
        let in_order = woven.iter().filter_map(|frame| match &frame.what {
            Woven::Php(frame) => Some(&**frame),
            Woven::Native | Woven::Callback => None,
        });
        assert!(
            in_order.eq(&stack.frames),
            "each PHP frame is there once: {woven:#?}"
        );
    }
    assert!(whole >= 195, "{whole} of {held} stacks were whole");
}

#[test]
fn a_call_that_was_interrupted_is_named_by_its_native_frame() {
    let Some(mut php) = Php::start("<?php echo \"ready\\n\"; sleep(60);") else {
        return;
    };
    php.look_in(&["clock_nanosleep"]);
    // A stop and a continuation by signals, as a shell does it; then the kernel shows
    // `restart_syscall`.
    for (signal, state) in [
        (rustix::process::Signal::STOP, RunState::Stopped),
        (rustix::process::Signal::CONT, RunState::Sleeping),
    ] {
        let pid = rustix::process::Pid::from_raw(php.pid.0).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        while process::state(php.pid) != Some(state) {
            std::thread::yield_now();
        }
    }
    let look = php.look_in(&["clock_nanosleep"]);
    let number = look.wait.call.as_ref().unwrap().number;
    assert_eq!(
        process::syscall_name(number),
        Some("restart_syscall"),
        "{look:#?}"
    );
    // What is left of it: the C library has the kernel write that over the request.
    let left = look.wait.call.unwrap().limit.unwrap();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(60)).contains(&left),
        "{left:?}"
    );
}

#[test]
fn code_of_the_jit_ends_the_native_stack_and_not_the_php_stack() {
    let mut command = crate::live::mortal("php");
    command.args(["-d", "opcache.enable_cli=1", "-d", "opcache.jit=function"]);
    command.args([
        "-d",
        "opcache.jit_buffer_size=16M",
        "-d",
        "opcache.file_update_protection=0",
    ]);
    let Some(mut php) = Php::start_in(
        command,
        "<?php
function outer() { inner(); }
function inner() { sleep(60); }
echo \"ready\\n\";
outer();
",
    ) else {
        return;
    };
    let look = php.look_in(&["clock_nanosleep"]);
    let builtin = look
        .native
        .frames
        .iter()
        .position(|frame| frame.builtin.is_some());
    assert!(
        builtin.is_some_and(|at| at + 1 == look.native.frames.len()),
        "{look:#?}"
    );
    assert!(matches!(look.native.end, End::NoModule { .. }), "{look:#?}");
    let woven = woven(&look);
    let php_frames = [
        "sleep",
        "inner main.php:3",
        "outer main.php:2",
        "{main} main.php:5",
    ];
    assert!(woven.ends_with(&php_frames.map(str::to_owned)), "{woven:#?}");
}
