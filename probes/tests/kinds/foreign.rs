//! Processes of which nothing is known but their number.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use glasspool_abi::Pid;
use glasspool_probes::foreign::{VmKind, Way};
use glasspool_probes::memory::CoreFile;
use glasspool_probes::{
    Access, Arguments, How, Kind, OpenError, Options, Process, SampleError, Stack, Stop, Want, read_stack,
};

use super::golden;
use super::series::{available, wait_asleep};

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
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
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
        for way in [Way::Any, Way::Mem, Way::VmRead] {
            let access = Access {
                way,
                ..Access::default()
            };
            let error = Process::open(Pid(pid.parse().unwrap()), access).unwrap_err();
            assert!(matches!(error, OpenError::Denied { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.contains("runs as user 0 and this program as user 65534: run as root"),
                "{message}"
            );
        }
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        super::series::skipped("needs root, to run something as nobody");
        return;
    }
    for series in available().into_iter().take(1) {
        let php = series.start("denied", &[("main.php", WAITS)]);
        php.wait_asleep();
        // The test's file need not be readable for others; an open descriptor of it is.
        let copy = tempfile::Builder::new()
            .permissions(mode(0o755))
            .tempdir()
            .unwrap();
        let program = copy.path().join("kinds");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program)
            .args([
                "--exact",
                "foreign::a_reader_without_rights_is_told_what_to_grant",
            ])
            .env("KINDS_DENIED_PID", php.pid.to_string())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
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
        assert!(matches!(error, SampleError::Read { .. }), "{error:?}");
        assert_eq!(by_mem.request(), None);
        let error = Process::open(php.pid, Access::default()).unwrap_err();
        assert!(matches!(error, OpenError::NotPhp { .. }), "{error}");
    }
}

#[test]
fn php_cgi_is_read_as_well() {
    let mut child = Command::new("php-cgi8.2")
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
    let mut child = Command::new("sh")
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

/// A FastCGI record.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut record = vec![1, kind, 0, 1, len[0], len[1], 0, 0];
    record.extend(content);
    record
}

fn request(script: &str) -> Vec<u8> {
    let mut params = Vec::new();
    for (name, value) in [
        ("SCRIPT_FILENAME", script),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/orders?token=hunter2"),
        ("SCRIPT_NAME", "/orders"),
        ("QUERY_STRING", "token=hunter2"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        params.push(u8::try_from(name.len()).unwrap());
        params.push(u8::try_from(value.len()).unwrap());
        params.extend(name.bytes().chain(value.bytes()));
    }
    [
        record(1, &[0, 1, 0, 0, 0, 0, 0, 0]),
        record(4, &params),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat()
}

/// A stock php-fpm with one worker, waiting in a script and then idle.
#[test]
fn a_stock_php_fpm_worker_tells_its_request_and_when_it_is_an_old_one() {
    for series in available() {
        let program = format!("php-fpm{}", series.name);
        let Some(fpm) = series.start_fpm(&program) else {
            super::series::skipped(&format!("no {program}"));
            continue;
        };
        let mut client = UnixStream::connect(&fpm.socket).unwrap();
        client.write_all(&request(&fpm.script)).unwrap();
        // The script connects back when it has begun, and waits for an answer.
        let (mut back, _) = fpm.listener.accept().unwrap();
        let mut pid = [0; 16];
        let got = back.read(&mut pid).unwrap();
        let pid = Pid(std::str::from_utf8(&pid[..got]).unwrap().trim().parse().unwrap());
        wait_asleep(pid);
        let process = Process::open(pid, Access::default()).unwrap();
        let options = Options {
            stop: Stop::Never,
            ..Options::default()
        };
        let stack = process.sample(&options).unwrap().stack;
        let names: Vec<String> = stack.frames.iter().map(|frame| frame.php_name()).collect();
        assert_eq!(names, ["fgets", "serve", "{main}"], "PHP {}", series.name);
        let request = process.request().unwrap();
        assert_eq!(request.method.as_deref(), Some("POST"));
        assert_eq!(request.uri.as_deref(), Some("/orders?token=…"));
        assert_eq!(request.script.as_deref(), Some(fpm.script.as_str()));
        assert!(!request.stale);
        back.write_all(b"go on\n").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        wait_asleep(pid);
        let idle = process.sample(&options).unwrap();
        assert!(idle.stack.frames.is_empty(), "{:?}", idle.stack);
        assert!(process.request().is_none_or(|request| request.stale));
        // The self-test has something to look at in an idle process, too.
        Process::open(pid, Access::default()).unwrap();
    }
}
