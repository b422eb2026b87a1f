//! The PHPs that the tests run: the machine's own 8.2, and others in root directories
//! that `GLASSPOOL_PHP_ROOTS` names, one per series (`7.4`, `8.4`, ...).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use glasspool_abi::Pid;
use glasspool_probes::process::{self, RunState};
use glasspool_probes::{Access, Process};

use crate::live;

/// Long enough for the slowest machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// All that are supported.
const SERIES: [&str; 4] = ["7.4", "8.2", "8.4", "8.5"];

/// A PHP of one series.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// `None`: the machine's own.
    pub(super) root: Option<PathBuf>,
}

/// Those that can run here. Says which cannot where `make test` counts it.
pub(crate) fn available() -> Vec<Series> {
    static SKIPPED: Once = Once::new();
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        SKIPPED.call_once(|| skipped("no offsets are known for this machine"));
        return Vec::new();
    }
    let roots = std::env::var_os("GLASSPOOL_PHP_ROOTS").map(PathBuf::from);
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for name in SERIES {
        let root = roots.as_ref().map(|roots| roots.join(name));
        let root = root.filter(|root| root.join(format!("usr/bin/php{name}")).exists());
        match root {
            Some(root) => found.push(Series {
                name,
                root: Some(root),
            }),
            None if name == "8.2" => found.push(Series { name, root: None }),
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        let why = format!(
            "no PHP {} (GLASSPOOL_PHP_ROOTS names a folder with a root directory per series)",
            missing.join(", ")
        );
        SKIPPED.call_once(|| skipped(&why));
    }
    found
}

/// The value of `GLASSPOOL_BLESS`: golden images are written anew, from the PHPs that are
/// in root directories, whose paths do not depend on the machine.
pub(crate) fn blesses() -> bool {
    std::env::var_os("GLASSPOOL_BLESS").is_some()
}

impl Series {
    pub(crate) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Whether the language has what came with this version.
    pub(crate) fn is_at_least(&self, version: &str) -> bool {
        let number = |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
        number(self.name) >= number(version)
    }

    /// Starts a script made of files, the first of which is run, and waits until it has
    /// said `ready`.
    pub(crate) fn start(&self, case: &str, files: &[(&str, &str)]) -> Php {
        self.start_with(case, files, &[])
    }

    /// The same, with settings as in php.ini.
    pub(crate) fn start_with(&self, case: &str, files: &[(&str, &str)], ini: &[&str]) -> Php {
        self.start_by(self.command(&format!("php{}", self.name)), case, files, ini)
    }

    /// The same by a command that runs `php` with the arguments that it is given.
    fn start_by(&self, mut command: Command, case: &str, files: &[(&str, &str)], ini: &[&str]) -> Php {
        let (directory, inside, cleanup) = self.directory(case);
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        let main = inside.join(files[0].0);
        command.arg("-n");
        for setting in ini {
            command.args(["-d", setting]);
        }
        command.arg("-f").arg(&main);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run PHP {}: {error}: run `make deps`", self.name));
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "PHP {}", self.name);
        Php {
            pid: Pid(child.id().try_into().unwrap()),
            child,
            stdin,
            stdout,
            _directory: cleanup,
        }
    }

    /// A directory for a case: as it is named here, and inside of the root directory.
    pub(super) fn directory(&self, case: &str) -> (PathBuf, PathBuf, Option<tempfile::TempDir>) {
        match &self.root {
            Some(root) => {
                let inside = PathBuf::from("srv").join(case);
                let directory = root.join(&inside);
                fs::create_dir_all(&directory).unwrap();
                (directory, Path::new("/").join(inside), None)
            }
            None => {
                let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                let temporary = tempfile::Builder::new().permissions(readable).tempdir().unwrap();
                (
                    temporary.path().to_owned(),
                    temporary.path().to_owned(),
                    Some(temporary),
                )
            }
        }
    }

    /// As [`Series::start`], with a folder in the place of `/usr/lib/debug`, for the script
    /// and nobody else. `None` without the right to do that.
    pub(crate) fn start_seeing(
        &self,
        debug: &tempfile::TempDir,
        case: &str,
        files: &[(&str, &str)],
        ini: &[&str],
    ) -> Option<Php> {
        let place = self
            .root
            .as_deref()
            .unwrap_or(Path::new("/"))
            .join("usr/lib/debug");
        if !nix::unistd::geteuid().is_root() || fs::create_dir_all(&place).is_err() {
            return None;
        }
        let mut command = live::mortal("unshare");
        command
            .args([
                "--mount",
                "sh",
                "-c",
                "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"",
            ])
            .args([debug.path(), &place]);
        let inner = self.command(&format!("php{}", self.name));
        command.arg(inner.get_program()).args(inner.get_args());
        Some(self.start_by(command, case, files, ini))
    }

    /// Starts a stock php-fpm with one worker and a script that connects back; `None` if
    /// there is no such program.
    pub(crate) fn start_fpm(&self, program: &str) -> Option<Fpm> {
        let (directory, inside, cleanup) = self.directory("fpm");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!(
            "<?php
function serve() {{
    $back = stream_socket_client('tcp://{}');
    fwrite($back, getmypid() . ($_SERVER['REQUEST_URI'] ? \"\\n\" : ''));
    fgets($back);
}}
serve();
",
            listener.local_addr().unwrap()
        );
        fs::write(directory.join("main.php"), script).unwrap();
        let inside = inside.to_str().unwrap().to_owned();
        let user = match nix::unistd::geteuid().is_root() {
            true => "user = nobody\ngroup = nogroup\n",
            false => "",
        };
        let configuration = format!(
            "[global]\nerror_log = {inside}/log\n[www]\n{user}listen = {inside}/socket\nlisten.mode = 0666\n\
             pm = static\npm.max_children = 1\n"
        );
        fs::write(directory.join("fpm.conf"), configuration).unwrap();
        let socket = directory.join("socket");
        // One that a killed predecessor has left would look ready.
        let _none = fs::remove_file(&socket).is_err();
        let mut command = self.ended_by("TERM", program);
        command.args(["-n", "-F", "-y"]).arg(format!("{inside}/fpm.conf"));
        let mut master = command.stderr(Stdio::null()).spawn().ok()?;
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = master.try_wait().unwrap() {
                assert_eq!(status.code(), Some(127), "php-fpm: {status}");
                return None;
            }
            assert!(began.elapsed() < PATIENCE, "php-fpm does not listen");
            std::thread::yield_now();
        }
        Some(Fpm {
            master,
            socket,
            script: format!("{inside}/main.php"),
            listener,
            _directory: cleanup,
        })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        self.ended_by("KILL", program)
    }

    fn ended_by(&self, signal: &str, program: &str) -> Command {
        match &self.root {
            Some(root) => {
                let mut command = live::ended_by(signal, "chroot");
                command.arg(root).arg(program);
                command
            }
            None => live::ended_by(signal, program),
        }
    }
}

/// A stock php-fpm; ended on drop.
pub(crate) struct Fpm {
    master: Child,
    pub(crate) socket: PathBuf,
    /// As php-fpm names it.
    pub(crate) script: String,
    /// What the script connects to.
    pub(crate) listener: TcpListener,
    _directory: Option<tempfile::TempDir>,
}

impl Drop for Fpm {
    fn drop(&mut self) {
        // A killed master would leave its worker behind.
        let master = nix::unistd::Pid::from_raw(self.master.id().try_into().unwrap());
        let _ended = nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGTERM).is_err();
        let _reaped = self.master.wait().is_err();
    }
}

/// A running script; killed on drop.
pub(crate) struct Php {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) pid: Pid,
    _directory: Option<tempfile::TempDir>,
}

impl Php {
    pub(crate) fn open(&self) -> Process {
        Process::open(self.pid, Access::default()).unwrap()
    }

    /// Waits until the script sleeps for good: it still does after it has had a chance
    /// to go on.
    pub(crate) fn wait_asleep(&self) {
        wait_asleep(self.pid);
    }

    /// Writes a line to the script and returns the line that it answers.
    pub(crate) fn say(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Writes a line to the script, which does not answer.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.stdin, "go on").unwrap();
    }

    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

pub(crate) fn wait_asleep(pid: Pid) {
    let began = Instant::now();
    let seen = || (process::state(pid), process::run_counters(pid));
    loop {
        let before = seen();
        let settled = Instant::now();
        while settled.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        if before.0 == Some(RunState::Sleeping) && seen() == before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "still {before:?}");
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// Where golden images are kept.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(why: &str) {
    live::skipped("kinds", why);
}
