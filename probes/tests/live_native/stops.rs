//! When a process is held, when never, and what a look at one that runs shows.

use std::net::UdpSocket;

use glasspool_probes::native::End;
use glasspool_probes::process::{self, RunState};
use glasspool_probes::{How, Kind, Options, Stop};

use crate::target::{PATIENCE, Php, skipped};

const ALWAYS: Options = Options {
    max_frames: 64,
    tries: 100,
    stop: Stop::Always,
    arguments: glasspool_probes::Arguments::Off,
};

/// Its innermost line changes with every step, so that only registers know it.
fn spinning() -> Option<Php> {
    let mut text = "<?php\nfunction spin() {\n for ($i = 0;; $i++) {\n".to_owned();
    for _ in 0..40 {
        text += "$i = ($i * 31 + 7) & 0xffff;\n";
    }
    Php::start(&(text + "}}\necho \"ready\\n\";\nspin();\n"))
}

#[test]
fn a_running_script_is_held_at_once_if_that_is_wanted() {
    let Some(mut php) = spinning() else { return };
    let began = std::time::Instant::now();
    let (mut stopped, mut exact, mut whole) = (0, 0, 0);
    while stopped < 100 {
        assert!(began.elapsed() < PATIENCE, "{stopped} stops");
        if process::state(php.pid) != Some(RunState::Running) {
            std::thread::yield_now();
            continue;
        }
        let sample = php.sample(&ALWAYS);
        // A script that is busy anyway would pass an unstopped read now and then.
        match sample.stack.how {
            How::Stopped { stop } => assert!(!stop.is_zero()),
            // It waits for a CPU for longer than a stop may take.
            How::Checked { .. } | How::Partial(_) => continue,
            other @ How::Exact => panic!("{other:?}: it never sleeps"),
        }
        stopped += 1;
        let [frame, main] = sample.stack.frames.as_slice() else {
            continue;
        };
        assert_eq!((frame.function.as_str(), main.kind), ("spin", Kind::Main));
        exact += u32::from(frame.line_exact);
        let native = sample.native.expect("the stack was copied while it was held");
        whole += u32::from(native.end == End::Root);
        assert_eq!(sample.wait, None);
    }
    assert!(exact >= 90 && whole >= 90, "{exact} exact, {whole} whole");
}

/// A stop would make this call fail with EINTR (signal(7)).
#[test]
fn a_blocked_script_is_never_held_whatever_is_wanted() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let Some(mut php) = Php::start(&format!(
        "<?php
$s = socket_create(AF_INET, SOCK_DGRAM, SOL_UDP);
socket_connect($s, '127.0.0.1', {port});
socket_set_option($s, SOL_SOCKET, SO_RCVTIMEO, ['sec' => 1, 'usec' => 0]);
echo \"ready\\n\";
$got = @socket_recv($s, $data, 100, 0);
printf(\"%s %s\", var_export($got, true), socket_strerror(socket_last_error($s)));
fgets(STDIN);"
    )) else {
        return;
    };
    php.look_in(&["recvfrom"]);
    let in_call = |sample: &glasspool_probes::Sample| {
        let call = sample.wait.as_ref().and_then(|wait| wait.call.as_ref());
        call.is_some_and(|call| call.name == Some("recvfrom"))
    };
    let mut looks = 0;
    loop {
        let sample = php.sample(&ALWAYS);
        if !in_call(&sample) {
            break;
        }
        assert_eq!(sample.stack.how, How::Exact);
        looks += 1;
    }
    assert!(looks > 100, "{looks} looks in a second");
    // The call has ended by its own limit, not by us.
    php.look_in(&["read"]);
    assert_eq!(php.finish_input(), "false Resource temporarily unavailable");
}

#[test]
fn saved_registers_are_believed_only_where_they_fit() {
    let Some(mut php) = spinning() else { return };
    // It says `ready` before it calls the function.
    while php
        .sample(&ALWAYS)
        .stack
        .frames
        .first()
        .is_none_or(|frame| frame.function != "spin")
    {
        std::thread::yield_now();
    }
    // As good as its crash handler: it sleeps where it was interrupted.
    let pid = rustix::process::Pid::from_raw(php.pid.0).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    while process::state(php.pid) != Some(RunState::Stopped) {
        std::thread::yield_now();
    }
    let Some(registers) = registers_of_stopped(&php) else {
        skipped("the registers of a stopped script are not readable");
        return;
    };
    let look = |php: &mut Php, saved| {
        let stack = php.try_sample(&ALWAYS, saved).unwrap().stack;
        assert_eq!(stack.how, How::Exact);
        stack.frames
    };
    let stale = look(&mut php, None);
    let known = look(&mut php, Some(registers));
    assert_eq!(stale.len(), known.len());
    assert!(!stale[0].line_exact);
    if registers[0] == stale[0].addr.0 {
        assert!(known[0].line_exact, "{known:?}");
        assert!(
            known[0].line.is_some_and(|line| (3..=44).contains(&line)),
            "{known:?}"
        );
    }
    // A worker can write what it likes.
    for lie in [[0, 0], [u64::MAX; 2], [stale[0].addr.0, 8], [8, registers[1]]] {
        assert_eq!(look(&mut php, Some(lie)), stale, "{lie:x?}");
    }
}

/// r14 and r15 of a script that a signal has stopped, by a debugger's way.
fn registers_of_stopped(php: &Php) -> Option<[u64; 2]> {
    let target = nix::unistd::Pid::from_raw(php.pid.0);
    nix::sys::ptrace::seize(target, nix::sys::ptrace::Options::empty()).ok()?;
    nix::sys::ptrace::interrupt(target).ok()?;
    nix::sys::wait::waitpid(target, None).ok()?;
    let registers = nix::sys::ptrace::getregs(target).ok();
    nix::sys::ptrace::detach(target, None).ok()?;
    while process::state(php.pid) != Some(RunState::Stopped) || process::tracer(php.pid).is_some() {
        std::thread::yield_now();
    }
    #[cfg(target_arch = "x86_64")]
    let registers = registers.map(|registers| [registers.r14, registers.r15]);
    #[cfg(not(target_arch = "x86_64"))]
    let registers = registers.and(None);
    registers
}
