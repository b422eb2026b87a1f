//! Processes of which nothing is known but their number.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use glasspool_abi::Pid;
use glasspool_probes::foreign::{LayoutFrom, VmKind, Way};
use glasspool_probes::memory::CoreFile;
use glasspool_probes::{
    Access, Arguments, How, Kind, OpenError, Options, Process, SampleError, Stack, Want, read_stack,
};

use super::golden;
use super::series::{available, wait_asleep};
use crate::live;

const WAITS: &str = "<?php function wait() { echo \"ready\\n\"; fgets(STDIN); } wait();";

fn pid_of(child: &Child) -> Pid {
    Pid(child.id().try_into().unwrap())
}

#[test]
fn both_ways_to_the_memory_give_the_same_stack() {
    for series in available() {
        let php = series.start("ways", &[("main.php", WAITS)]);
        php.wait_asleep();
        let stacks: Vec<_> = [Way::Any, Way::Mem, Way::VmRead]
            .into_iter()
            .map(|way| {
                let access = Access {
                    way,
                    ..Access::default()
                };
                let process = Process::open(php.pid, access).unwrap();
                assert!(process.build().version.starts_with(series.name));
                assert_eq!(process.vm_kind(), Some(VmKind::Hybrid), "{}", series.name);
                assert!(process.is_alive());
                process.sample(&Options::default()).unwrap().stack
            })
            .collect();
        assert_eq!(stacks[0].frames.len(), 3);
        assert!(stacks.iter().all(|stack| *stack == stacks[0]), "{stacks:#?}");
        assert_eq!(stacks[0].frames[2].kind, Kind::Main);
        assert_ne!(stacks[0].frames[0].handler, None);
        let request = php.open().request().unwrap();
        assert_eq!((request.stale, request.method), (false, None));
        assert!(request.script.unwrap().ends_with("main.php"));
    }
}

#[test]
fn a_process_that_ends_is_gone_whatever_was_going_on() {
    for series in available() {
        let mut php = series.start("ends", &[("main.php", WAITS)]);
        php.wait_asleep();
        let by_mem = php.open();
        let by_vm = Process::open(
            php.pid,
            Access {
                way: Way::VmRead,
                ..Access::default()
            },
        )
        .unwrap();
        php.say("end");
        php.reap();
        for process in [by_mem, by_vm] {
            let result = process.sample(&Options::default());
            assert!(matches!(result, Err(SampleError::Gone { .. })), "{result:?}");
            assert!(!process.is_alive());
            assert_eq!(process.request(), None);
        }
        let result = Process::open(php.pid, Access::default());
        assert!(matches!(result, Err(OpenError::Gone { .. })), "{result:?}");
    }
}

#[test]
fn what_is_not_php_is_said_to_be_not_php() {
    let mut child = live::mortal("cat").stdin(Stdio::piped()).spawn().unwrap();
    wait_asleep(pid_of(&child));
    let error = Process::open(pid_of(&child), Access::default()).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(error, OpenError::NotPhp { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("/cat) is not a PHP process"), "{message}");
    for pid in [0, -1, i32::MAX] {
        let error = Process::open(Pid(pid), Access::default()).unwrap_err();
        assert!(matches!(error, OpenError::Gone { .. }), "{error}");
    }
}

#[test]
fn a_reader_without_rights_is_told_what_to_grant() {
    // This very test, run again as nobody by itself.
    if let Ok(pid) = std::env::var("KINDS_DENIED_PID") {
        let why = std::env::var("KINDS_DENIED_WHY").unwrap();
        for way in [Way::Any, Way::Mem, Way::VmRead] {
            let access = Access {
                way,
                ..Access::default()
            };
            let error = Process::open(Pid(pid.parse().unwrap()), access).unwrap_err();
            assert!(matches!(error, OpenError::Denied { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains(&why), "{message}");
        }
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        super::series::skipped("needs root, to run something as nobody");
        return;
    }
    let hidden = "/proc hides it (it is mounted with hidepid; run as root, or in the group";
    for (mount, why) in [
        (
            "true",
            "it runs as root and this process as nobody (run as root, or give CAP_SYS_PTRACE)",
        ),
        ("mount -t proc -o hidepid=2 proc /proc", hidden),
        ("mount -t proc -o hidepid=1 proc /proc", hidden),
    ] {
        let php = available()[0].start("denied", &[("main.php", WAITS)]);
        php.wait_asleep();
        // The test's file need not be readable for others; a copy in a directory of its own is.
        let copy = tempfile::Builder::new()
            .permissions(mode(0o755))
            .tempdir()
            .unwrap();
        let program = copy.path().join("kinds");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$0\" \"$@\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &format!("{mount} && {as_nobody}")])
            .arg(program)
            .args([
                "--exact",
                "foreign::a_reader_without_rights_is_told_what_to_grant",
            ])
            .env("KINDS_DENIED_PID", php.pid.to_string())
            .env("KINDS_DENIED_WHY", why)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if mount != "true" && said.contains("mount:") {
            super::series::skipped("a /proc with hidepid cannot be mounted here");
            continue;
        }
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{mount}: {told}{said}");
        assert!(told.contains("1 passed"), "{told}");
    }
}

fn mode(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

#[test]
fn a_running_script_is_sampled_too() {
    for series in available() {
        let spin =
            "<?php function spin() { for ($i = 0;; $i++) { $i &= 0xffff; } } echo \"ready\\n\"; spin();";
        let php = series.start("spin", &[("main.php", spin)]);
        let process = php.open();
        let mut seen = 0;
        while seen < 20 {
            let stack = process.sample(&Options::default()).unwrap().stack;
            assert!(!matches!(stack.how, How::Partial(_)), "{:?}", stack.how);
            // It says `ready` before it calls the function.
            if stack.frames.len() == 2 {
                assert_eq!(stack.frames[0].function, "spin");
                seen += 1;
            }
        }
    }
}

#[test]
fn a_process_that_becomes_another_program_is_not_read_as_php() {
    for series in available() {
        let text = "<?php echo \"ready\\n\"; fgets(STDIN); pcntl_exec('/bin/sleep', ['60']);";
        let mut php = series.start("exec", &[("main.php", text)]);
        php.wait_asleep();
        let by_mem = php.open();
        let by_vm = Process::open(
            php.pid,
            Access {
                way: Way::VmRead,
                ..Access::default()
            },
        )
        .unwrap();
        by_vm.sample(&Options::default()).unwrap();
        php.go_on();
        let exe = || std::fs::read_link(format!("/proc/{}/exe", php.pid)).unwrap();
        while !exe().ends_with("sleep") && !exe().to_string_lossy().contains("coreutils") {
            std::thread::yield_now();
        }
        wait_asleep(php.pid);
        let error = by_mem.sample(&Options::default()).unwrap_err();
        assert!(matches!(error, SampleError::Gone { .. }), "{error:?}");
        let error = by_vm.sample(&Options::default()).unwrap_err();
        assert!(matches!(error, SampleError::Gone { .. }), "{error:?}");
        assert!(by_vm.is_alive(), "the process is another program now, not over");
        assert_eq!(by_mem.request(), None);
        assert_eq!(by_vm.request(), None);
        let error = Process::open(php.pid, Access::default()).unwrap_err();
        assert!(matches!(error, OpenError::NotPhp { .. }), "{error}");
    }
}

/// The worst case for a reader by number: all addresses are plausible, and PHP is there.
#[test]
fn a_process_that_executes_php_anew_is_not_taken_for_the_old_one() {
    for series in available() {
        let text = "<?php
if (!isset($argv[1])) { echo \"ready\\n\"; fgets(STDIN); again(); }
function again() { pcntl_exec('/usr/bin/php' . PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION, ['-n', __FILE__, 'again']); }
function second() { echo \"second\\n\"; fgets(STDIN); }
second();";
        let mut php = series.start("again", &[("main.php", text)]);
        php.wait_asleep();
        let process = Process::open(
            php.pid,
            Access {
                way: Way::VmRead,
                ..Access::default()
            },
        )
        .unwrap();
        assert_eq!(php.say("go on"), "second");
        php.wait_asleep();
        let error = process.sample(&Options::default()).unwrap_err();
        assert!(matches!(error, SampleError::Gone { .. }), "{error:?}");
        assert_eq!(process.request(), None);
        let frames = php.open().sample(&Options::default()).unwrap().stack.frames;
        assert_eq!(frames[1].function, "second", "PHP {}", series.name);
    }
}

#[test]
fn php_cgi_is_read_as_well() {
    let mut child = live::mortal("php-cgi8.2")
        .args(["-n", "-q", "-d", "implicit_flush=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("needs php-cgi8.2: run `make deps`");
    let script = "<?php function wait() { echo \"ready\\n\"; sleep(60); }\nwait();\n";
    // It reads the script to the end of its input before it runs it.
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    wait_asleep(pid_of(&child));
    let process = Process::open(pid_of(&child), Access::default()).unwrap();
    let stack = process.sample(&Options::default()).unwrap().stack;
    child.kill().unwrap();
    child.wait().unwrap();
    let names: Vec<String> = stack.frames.iter().map(|frame| frame.php_name()).collect();
    assert_eq!(names, ["sleep", "wait", "{main}"]);
    assert_eq!(stack.frames[2].line, Some(2));
}

#[test]
fn a_core_file_has_the_stack_that_the_process_died_with() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/']) {
        super::series::skipped("kernel.core_pattern does not put cores into the current directory");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("main.php");
    std::fs::write(&script, WAITS).unwrap();
    let mut child = live::mortal("sh")
        .args(["-c", "ulimit -c unlimited; exec php8.2 -n -f main.php"])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    wait_asleep(pid_of(&child));
    let process = Process::open(pid_of(&child), Access::default()).unwrap();
    let build = process.build().clone();
    let live = process.sample(&Options::default()).unwrap().stack;
    let target = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGABRT).unwrap();
    child.wait().unwrap();
    let mut files = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let core = files.find(|file| *file != script);
    let Some(core) = core else {
        super::series::skipped("the kernel wrote no core (its size is limited)");
        return;
    };
    let core = CoreFile::open(&core).unwrap();
    let want = Want {
        max_frames: 64,
        arguments: Arguments::Types,
    };
    let dead = read_stack(&core, &build, want).unwrap();
    assert_eq!(dead.how, How::Exact);
    // The names of a builtin's parameters are constants of its file, which no core has.
    let told = |stack: &Stack| golden::lines(stack).join("\n").replace("stream: ", "");
    assert_eq!(told(&dead), told(&live));
}

/// Debug information as a distribution would install it: in a file of its own that is found
/// by the build id of PHP, where the process would look for it.
#[test]
fn offsets_are_taken_from_debug_information_where_there_is_no_table() {
    for series in available() {
        let Some(file) = series.compile_debug_file() else {
            super::series::skipped(&format!("no headers of PHP {}", series.name));
            continue;
        };
        let php = series.start_seeing(&file, "described", &[("main.php", WAITS)], &[]);
        let Some(php) = php else {
            super::series::skipped("needs root, to mount a folder over /usr/lib/debug");
            continue;
        };
        php.wait_asleep();
        let access = Access {
            debug_information: true,
            ..Access::default()
        };
        let described = Process::open(php.pid, access).unwrap();
        assert_eq!(described.layout_from(), LayoutFrom::DebugInformation);
        let table = php.open();
        assert_eq!(table.layout_from(), LayoutFrom::Table);
        assert_eq!(described.build(), table.build(), "PHP {}", series.name);
        let stack = |process: &Process| process.sample(&Options::default()).unwrap().stack;
        assert_eq!(stack(&described), stack(&table));
    }
}

#[test]
fn without_debug_information_a_build_that_has_no_table_is_refused_by_name() {
    for series in available() {
        let php = series.start("undescribed", &[("main.php", WAITS)]);
        php.wait_asleep();
        let access = Access {
            debug_information: true,
            ..Access::default()
        };
        let error = Process::open(php.pid, access).unwrap_err();
        assert!(matches!(error, OpenError::Unsupported { .. }), "{error}");
        let message = error.to_string();
        let version = php.open().build().version.clone();
        assert!(
            message.contains(&format!("PHP {version} (API"))
                && message.contains(",NTS): no layout table and no debug information"),
            "{message}"
        );
    }
}
