//! A `php` process with everything a reader is told about a worker.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_probes::Target;
use glasspool_probes::process::{self, RunState};
use object::{Object, ObjectSegment, ObjectSymbol};

/// Long enough for the slowest machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// PHP 8.2, NTS, x86_64: compiled from the headers of Debian's php8.2-dev 8.2.36.
const PHP_8_2_NTS_X86_64: [(&str, u32); 25] = [
    ("zend_executor_globals.current_execute_data", 488),
    ("zend_executor_globals.vm_stack", 472),
    ("zend_executor_globals.vm_stack_top", 456),
    ("zend_executor_globals.vm_stack_end", 464),
    ("zend_execute_data.opline", 0),
    ("zend_execute_data.func", 24),
    ("zend_execute_data.This", 32),
    ("zend_execute_data.This.u1.type_info", 40),
    ("zend_execute_data.prev_execute_data", 48),
    ("sizeof zend_execute_data", 80),
    ("zend_function.type", 0),
    ("zend_function.common.fn_flags", 4),
    ("zend_function.common.function_name", 8),
    ("zend_function.common.scope", 16),
    ("zend_op_array.opcodes", 88),
    ("zend_op_array.last", 80),
    ("zend_op_array.filename", 152),
    ("zend_op_array.line_start", 160),
    ("sizeof zend_op_array", 248),
    ("sizeof zend_internal_function", 136),
    ("zend_op.lineno", 24),
    ("sizeof zend_op", 32),
    ("zend_class_entry.name", 8),
    ("zend_string.len", 16),
    ("zend_string.val", 24),
];

/// A script in a directory of its own, both removed on drop.
pub(crate) struct Script {
    directory: tempfile::TempDir,
    name: &'static str,
}

pub(crate) fn script(name: &'static str, text: &str) -> Script {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), text).unwrap();
    Script { directory, name }
}

impl Script {
    pub(crate) fn file(&self) -> String {
        self.directory.path().join(self.name).to_str().unwrap().to_owned()
    }
}

/// A running script that has said `ready`; killed on drop.
pub(crate) struct Php {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) pid: Pid,
    pub(crate) mem: File,
    pub(crate) build: PhpBuild,
}

impl Php {
    /// Starts the script, or says why not and returns `None`.
    pub(crate) fn start(script: &Script) -> Option<Php> {
        let version = Command::new("php")
            .args(["-n", "-r", "echo PHP_VERSION, PHP_ZTS;"])
            .output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        match version {
            Ok(version) if version.starts_with("8.2.") && version.ends_with('0') => {}
            other => panic!("needs `php` 8.2 NTS, found {other:?}: run `make deps`"),
        }
        if !cfg!(target_arch = "x86_64") {
            skipped("the table of offsets is x86_64's");
            return None;
        }
        let mut child = Command::new("php")
            .args(["-d", "opcache.jit=0", "-f", &script.file()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let pid = Pid(child.id().try_into().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let mem = File::open(format!("/proc/{pid}/mem")).unwrap();
        let build = PhpBuild {
            version: "8.2".to_owned(),
            api: 20_220_829,
            zts: false,
            executor_globals: executor_globals(pid),
            layout: Layout::from_entries(PHP_8_2_NTS_X86_64).unwrap(),
        };
        Some(Php {
            child,
            stdin,
            stdout,
            pid,
            mem,
            build,
        })
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            pid: self.pid,
            mem: self.mem.as_fd(),
            build: &self.build,
        }
    }

    /// Waits until the script is in this state for good: the same after it has had a
    /// chance to go on.
    pub(crate) fn wait_for(&self, state: RunState) {
        let began = Instant::now();
        let seen = || (process::state(self.pid), process::run_counters(self.pid));
        loop {
            let before = seen();
            let settled = Instant::now();
            while settled.elapsed() < Duration::from_millis(2) {
                std::thread::yield_now();
            }
            if before.0 == Some(state) && seen() == before {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "still {before:?}");
        }
    }

    /// Writes a line to the script and returns the line it answers, if any.
    pub(crate) fn say(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// Where the executable's `executor_globals` is: its symbol, moved by the load bias.
fn executor_globals(pid: Pid) -> u64 {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let bytes = fs::read(&exe).unwrap();
    let elf = object::File::parse(bytes.as_slice()).unwrap();
    let symbol = elf
        .dynamic_symbols()
        .find(|symbol| symbol.name() == Ok("executor_globals"))
        .unwrap();
    let first = elf.segments().map(|segment| segment.address()).min().unwrap() & !0xfff;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let start = maps
        .lines()
        .find(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            fields.next() == Some("00000000") && line.ends_with(exe.to_str().unwrap())
        })
        .and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok())
        .unwrap();
    start - first + symbol.address()
}

/// Says what is missing where `make test` counts it.
fn skipped(why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        std::io::Write::write_all(&mut file.unwrap(), format!("live_php: {why}\n").as_bytes()).unwrap();
    }
}
