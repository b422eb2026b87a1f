//! A `php` process that is about to block, and one look at it that takes everything:
//! PHP stack, native stack, wait.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;
use glasspool_probes::native::{Modules, NativeStack, Natives, Unwinder, WovenFrame, weave};
use glasspool_probes::wait::Wait;
use glasspool_probes::{Options, Sample, SampleError, Stack, Stop, Target, sample_with_native};

use crate::build::build;
use crate::live;

/// Long enough for the slowest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A look at a script that was blocked.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) php: Stack,
    pub(crate) native: NativeStack,
    pub(crate) wait: Wait,
}

/// A process of which only the memory was handed over.
pub(crate) fn target<'a>(pid: Pid, mem: &'a File, build: &'a PhpBuild) -> Target<'a> {
    Target {
        pid,
        mem: mem.as_fd(),
        calls: None,
        build,
        saved_registers: None,
    }
}

/// A running script that has said `ready`; killed on drop.
pub(crate) struct Php {
    child: Child,
    /// Ends with the script; a child of it may read it.
    stdin: Option<ChildStdin>,
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
        let mut command = live::mortal("php");
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
        let build = build(pid);
        Some(Php {
            child,
            stdin: Some(stdin),
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
        let options = Options {
            stop: Stop::Never,
            ..Options::default()
        };
        let sample = match self.try_sample(&options, None) {
            Err(SampleError::Gone { .. }) => return None,
            sample => sample.unwrap(),
        };
        let Sample {
            stack, wait, native, ..
        } = sample;
        Some(Moment {
            php: stack,
            wait: wait?,
            native: native?,
        })
    }

    /// One sample with native frames.
    pub(crate) fn sample(&mut self, options: &Options) -> Sample {
        self.try_sample(options, None).unwrap()
    }

    /// The same with registers that the process is said to have saved.
    pub(crate) fn try_sample(
        &mut self,
        options: &Options,
        saved_registers: Option<[u64; 2]>,
    ) -> Result<Sample, SampleError> {
        let target = Target {
            saved_registers,
            ..target(self.pid, &self.mem, &self.build)
        };
        let natives = Natives {
            unwinder: &mut self.unwinder,
            modules: &mut self.modules,
        };
        sample_with_native(&target, options, natives)
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

    /// The same of one that waits for the end of its input.
    pub(crate) fn finish_input(&mut self) -> String {
        self.stdin = None;
        self.finish()
    }

    pub(crate) fn modules(&self) -> &Modules {
        &self.modules
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

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(why: &str) {
    live::skipped("live_native", why);
}
