//! What cannot be looked into, each with its own message; and what looks as if it could
//! not be, and can.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use glasspool::inspect::{run_dump, run_record, run_top};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::php::{Fpm, PATIENCE, Script, skipped, until};
use crate::{Ran, run};

/// A process that is no PHP, killed on drop.
struct Other(Child);

impl Other {
    fn start(command: &mut Command) -> Other {
        Other(command.spawn().unwrap())
    }

    fn sleep() -> Other {
        Other::start(Command::new("sleep").arg("300"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.0.kill().is_err();
        let _reaped = self.0.wait().is_err();
    }
}

/// All three commands on one process.
fn each_command(pid: u32) -> [(&'static str, Ran); 3] {
    [
        ("dump", run(run_dump, &pid.to_string())),
        ("top", run(run_top, &format!("{pid} --once"))),
        (
            "record",
            run(run_record, &format!("{pid} --seconds 600 --format collapsed")),
        ),
    ]
}

fn refused(pid: u32, message: &str) {
    for (command, ran) in each_command(pid) {
        ran.expect_code(1);
        assert_eq!(ran.err, format!("glasspool: {message}\n"), "{command}");
        assert!(ran.out.is_empty(), "{command}: {}", ran.text());
    }
}

fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_owned()
}

const ASLEEP: &str = "<?php\nfunction rest() {\n    sleep(300);\n}\necho \"ready\\n\";\nrest();\n";

fn frames(script: &Script) -> String {
    let file = script.file();
    format!("  #0 sleep()\n  #1 rest() {file}:3\n  #2 {{main}} {file}:6\n")
}

#[test]
fn a_process_that_is_gone() {
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let pid = gone.id();
    refused(
        pid,
        &format!("cannot look into process {pid}: there is no such process"),
    );
}

#[test]
fn a_process_without_php() {
    let other = Other::sleep();
    let pid = other.pid();
    until("it runs its program", || status(pid, "Name:") == "sleep");
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    refused(
        pid,
        &format!(
            "process {pid} ({}) is not a PHP process: no file that it has mapped exports executor_globals",
            program.display()
        ),
    );
}

/// What a worker has executed has the worker's title for a moment, and a pool may be
/// called as one likes.
#[test]
fn a_process_without_php_in_a_pool_is_passed_over() {
    let fpm = Fpm::start(2);
    let title = format!("php-fpm: pool {}", fpm.pool);
    let child = Other::start(Command::new("sleep").arg0(&title).arg("300"));
    until("it has the title", || {
        fs::read(format!("/proc/{}/cmdline", child.pid()))
            .is_ok_and(|line| line.starts_with(title.as_bytes()))
    });
    let ran = run(run_dump, &format!("{} --no-group --json", fpm.pool));
    assert_eq!(ran.err, "");
    ran.expect_code(0);
    let dump: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!(dump["processes"].as_array().unwrap().len(), 2);
}

#[test]
fn a_process_of_another_user() {
    let script = Script::start(ASLEEP);
    script.wait_until_asleep();
    let pid = script.pid();
    for arguments in [
        vec!["dump"],
        vec!["top", "--once"],
        vec!["record", "--seconds", "600", "--format", "collapsed"],
    ] {
        let ran = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--bounding-set=-all",
                "--inh-caps=-all",
            ])
            .arg(env!("CARGO_BIN_EXE_glasspool"))
            .args(&arguments)
            .arg(pid.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ran.stderr);
        if text.starts_with("setpriv: ") {
            return skipped(&format!("becoming another user: {}", text.trim()));
        }
        let message = format!(
            "of process {pid}: it runs as root and this process as nobody (run as root, or give CAP_SYS_PTRACE)\n"
        );
        assert!(
            text.starts_with("glasspool: cannot ") && text.ends_with(&message),
            "{arguments:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(
            (ran.status.code(), &*ran.stdout),
            (Some(1), &b""[..]),
            "{arguments:?}"
        );
    }
}

/// There can be only one tracer, but a look is none.
#[test]
fn a_process_that_strace_follows_is_read_as_any_other() {
    let script = Script::start(ASLEEP);
    script.wait_until_asleep();
    let pid = script.pid();
    let strace = Command::new("strace")
        .args(["-o", "/dev/null", "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn();
    let tracer = Other(strace.expect("strace is installed (make deps)"));
    until("strace has it", || {
        status(pid, "TracerPid:") == tracer.pid().to_string() && status(pid, "State:").starts_with('S')
    });
    let dump = run(run_dump, &pid.to_string());
    dump.expect_code(0);
    assert!(dump.text().contains(", waiting"), "{}", dump.text());
    assert!(dump.text().ends_with(&frames(&script)), "{}", dump.text());
    let top = run(run_top, &format!("{pid} --once"));
    top.expect_code(0);
    assert!(
        top.text().contains("sleep() < rest() script.php:3"),
        "{}",
        top.text()
    );
}

/// Memory and system call are there all the same.
#[test]
fn a_process_that_a_debugger_holds_is_read_as_any_other() {
    let script = Script::start(ASLEEP);
    script.wait_until_asleep();
    let pid = Pid::from_raw(script.pid().cast_signed());
    // Tracing is a thread's; this one lets it go before the script is killed.
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(pid).unwrap();
    waitpid(pid, None).unwrap();
    let ran = run(run_dump, &pid.to_string());
    ptrace::detach(pid, None).unwrap();
    ran.expect_code(0);
    let text = ran.text();
    assert!(text.ends_with(&frames(&script)), "{text}");
    assert!(
        text.lines().nth(1).unwrap().ends_with(" in clock_nanosleep"),
        "{text}"
    );
}

/// A script that becomes another program, and that one again, all the time. It rests in
/// between, or a busy machine would show nothing but programs that are starting.
const BECOMING: &str = r#"<?php
function become(): void {
    usleep(2000);
    pcntl_exec('/proc/self/exe', ['-n', '-d', 'opcache.jit=0', '-f', __FILE__, 'again']);
}
if ($argc < 2) {
    echo "ready\n";
}
become();
"#;

#[test]
fn a_process_that_executes_another_program_meanwhile_is_seen_whole_or_not() {
    let script = Script::start(BECOMING);
    let pid = script.pid();
    let file = script.file();
    let (mut whole, began) = (0, Instant::now());
    while began.elapsed() < PATIENCE && (whole <= 20 || began.elapsed() < PATIENCE / 10) {
        let ran = run(run_dump, &pid.to_string());
        let text = ran.text();
        let expected = [
            // It never ends, and nobody may say so.
            format!("cannot look into process {pid}: it has just executed another program"),
            format!("process {pid} ("),
        ];
        if text.is_empty() {
            ran.expect_code(1);
            let message = ran.err.strip_prefix("glasspool: ").unwrap();
            assert!(
                expected.iter().any(|start| message.starts_with(start)) || is_starting(&ran.err),
                "{}",
                ran.err
            );
            continue;
        }
        ran.expect_code(0);
        let frames = text.lines().filter(|line| line.trim_start().starts_with('#'));
        for frame in frames {
            assert!(
                frame.ends_with(" pcntl_exec()") || frame.ends_with(" usleep()") || frame.contains(&file),
                "a frame of no script: {text}"
            );
            whole += 1;
        }
    }
    assert!(whole > 0, "it was never seen in its script");
}

/// A program whose files are not all mapped yet.
fn is_starting(message: &str) -> bool {
    message.contains("cannot make sense of process")
}

#[test]
fn a_recording_ends_with_the_program_that_it_is_of() {
    let script = Script::start("<?php echo \"ready\\n\"; usleep(400000); pcntl_exec('/bin/sleep', ['300']);");
    let began = Instant::now();
    let ran = run(
        run_record,
        &format!("{} --seconds 600 --format collapsed", script.pid()),
    );
    assert!(began.elapsed() < PATIENCE, "{}", ran.err);
    ran.expect_code(0);
    let text = ran.text();
    let stacks = text.lines().map(|line| line.rsplit_once(' ').unwrap().0);
    let main = format!("php;{{main}} {}", script.file());
    for stack in stacks {
        assert!(stack.starts_with(&main), "{text}");
    }
    assert!(text.contains(";usleep;"), "{text}");
    // Now it is something else, and every command says what.
    let program = fs::read_link(format!("/proc/{}/exe", script.pid())).unwrap();
    refused(
        script.pid(),
        &format!(
            "process {} ({}) is not a PHP process: no file that it has mapped exports executor_globals",
            script.pid(),
            program.display()
        ),
    );
}
