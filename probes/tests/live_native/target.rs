//! A `php` process that is about to block, and one look at it that takes everything:
//! PHP stack, native stack, wait.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_probes::native::{Modules, Moment, Unwinder, WovenFrame, read_blocked, weave};
use glasspool_probes::{MemFd, Options, SampleError, Stop, Target, sample};
use object::{Object, ObjectSegment, ObjectSymbol};

/// Long enough for the slowest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// PHP 8.2, NTS, x86_64: compiled from the headers of Debian's php8.2-dev 8.2.36.
const PHP_8_2_NTS_X86_64: [(&str, u32); 26] = [
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
    ("zend_internal_function.handler", 72),
    ("sizeof zend_internal_function", 136),
    ("zend_op.lineno", 24),
    ("sizeof zend_op", 32),
    ("zend_class_entry.name", 8),
    ("zend_string.len", 16),
    ("zend_string.val", 24),
];

/// A running script that has said `ready`; killed on drop.
pub(crate) struct Php {
    child: Child,
    /// Ends with the script; a child of it may read it.
    _stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) pid: Pid,
    pub(crate) mem: File,
    pub(crate) build: PhpBuild,
    unwinder: Unwinder,
    modules: Modules,
    _directory: tempfile::TempDir,
}

impl Php {
    /// Starts a script, or says why it cannot and returns `None`. The script prints
    /// `ready` and a line break before it blocks.
    pub(crate) fn start(script: &str) -> Option<Php> {
        let mut command = Command::new("php");
        command.args(["-d", "opcache.jit=0"]);
        Php::start_in(command, script)
    }

    /// The same with a command that runs `php` with the arguments that it is given.
    pub(crate) fn start_in(mut command: Command, script: &str) -> Option<Php> {
        if !cfg!(target_arch = "x86_64") {
            skipped("the table of offsets is x86_64's");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("main.php");
        fs::write(&file, script).unwrap();
        let mut child = command
            .args(["-f", file.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = Pid(child.id().try_into().unwrap());
        let build = PhpBuild {
            version: "8.2".to_owned(),
            api: 20_220_829,
            zts: false,
            executor_globals: executor_globals(pid),
            layout: Layout::from_entries(PHP_8_2_NTS_X86_64).unwrap(),
        };
        Some(Php {
            child,
            _stdin: stdin,
            stdout,
            pid,
            mem: File::open(format!("/proc/{pid}/mem")).unwrap(),
            build,
            unwinder: Unwinder::new(pid),
            modules: Modules::new(),
            _directory: directory,
        })
    }

    /// One look at the script if it is blocked; it is not held.
    pub(crate) fn look(&mut self) -> Option<Moment> {
        let mem = MemFd::new(self.mem.as_fd());
        let target = Target {
            pid: self.pid,
            mem: self.mem.as_fd(),
            build: &self.build,
        };
        let options = Options {
            stop: Stop::Never,
            ..Options::default()
        };
        let readers = (&mut self.unwinder, &mut self.modules);
        read_blocked(self.pid, &mem, &self.build.layout, readers, || {
            Ok::<_, SampleError>(sample(&target, &options)?.stack)
        })
        .unwrap()
    }

    /// Looks until the script is blocked in one of these calls, with something that the
    /// test waits for.
    pub(crate) fn look_in(&mut self, calls: &[&str]) -> Moment {
        let began = Instant::now();
        loop {
            let look = self.look();
            if let Some(look) = look
                && let Some(call) = &look.wait.call
                && call.name.is_some_and(|name| calls.contains(&name))
            {
                return look;
            }
            assert!(began.elapsed() < PATIENCE, "not in {calls:?}: {:?}", self.look());
            std::thread::yield_now();
        }
    }

    /// Waits for the end of the script and returns what else it wrote.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        text
    }

    pub(crate) fn modules(&self) -> usize {
        self.modules.len()
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// The joined stack, one line per frame, without addresses and directories.
pub(crate) fn woven(look: &Moment) -> Vec<String> {
    let short = |frame: &WovenFrame| {
        let line = frame.to_string();
        let line = line.split("+0x").next().unwrap().to_owned();
        match line.split_once(" /") {
            Some((name, path)) => format!("{name} {}", path.rsplit('/').next().unwrap()),
            None => line,
        }
    };
    weave(&look.php, &look.native).iter().map(short).collect()
}

/// The descriptor that it waits for.
pub(crate) fn fd(look: &Moment) -> i32 {
    look.wait.call.as_ref().unwrap().descriptors[0].number
}

/// Where the executable's `executor_globals` is: its symbol, moved by the load bias.
fn executor_globals(pid: Pid) -> u64 {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let bytes = fs::read(&exe).unwrap();
    let elf = object::File::parse(bytes.as_slice()).unwrap();
    let mut symbols = elf.dynamic_symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok("executor_globals"));
    let first = elf.segments().map(|segment| segment.address()).min().unwrap() & !0xfff;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let head = maps
        .lines()
        .find(|line| line.contains(" 00000000 ") && line.ends_with(exe.to_str().unwrap()))
        .unwrap();
    let start = u64::from_str_radix(head.split('-').next().unwrap(), 16).unwrap();
    start - first + symbol.unwrap().address()
}

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = fs::OpenOptions::new().append(true).create(true).open(file);
        std::io::Write::write_all(&mut file.unwrap(), format!("live_native: {why}\n").as_bytes()).unwrap();
    }
}
