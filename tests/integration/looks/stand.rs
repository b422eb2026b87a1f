//! A pool under a stock php-fpm or under Glasspool, from one configuration.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::RequestEncoder;
use tempfile::TempDir;

use super::sink::Sink;
use crate::fastcgi;
use crate::harness::{PATIENCE, Supervised, launch, skipped};

/// The program under test.
pub(super) const GLASSPOOL: &str = env!("CARGO_BIN_EXE_glasspool");

/// A folder that any user may write to, with a configuration of one pool and its scripts.
pub(crate) struct Site {
    folder: TempDir,
    pool: String,
}

impl Site {
    /// With so many workers, and further lines for the pool, where `ROOT` stands for the
    /// folder.
    pub(crate) fn new(pool: &str, workers: usize, lines: &str) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
        // Pools are found by their names, and other tests run some, too.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let pool = format!("{pool}-{}-{number}", std::process::id());
        let root = folder.path().display().to_string();
        let conf = format!(
            "[global]\nerror_log = ROOT/error.log\n[{pool}]\nlisten = ROOT/socket\nlisten.mode = 0666\n\
             listen.backlog = 128\nuser = nobody\ngroup = nogroup\npm = static\npm.max_children = {workers}\n\
             {lines}\n"
        );
        fs::write(folder.path().join("fpm.conf"), conf.replace("ROOT", &root)).expect("writes");
        Site { folder, pool }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("writes");
        path
    }

    /// Starts a stock php-fpm with it; `through` is a command that runs its arguments.
    pub(crate) fn stock(self, through: &[&str]) -> Stand {
        self.start(command(through, "php-fpm8.2"))
    }

    /// Starts Glasspool with it and telemetry to `sink`, if PHP and an engine object for
    /// it are here; else that is noted.
    pub(super) fn ours(self, through: &[&str], sink: &Sink) -> Option<Stand> {
        self.telling(through, sink.variables())
    }

    /// The same with telemetry as these variables say.
    pub(crate) fn telling(
        self,
        through: &[&str],
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Option<Stand> {
        let checked = Command::new(GLASSPOOL)
            .args(["check", "-R", "-y"])
            .arg(self.folder.path().join("fpm.conf"))
            .output()
            .expect("starts");
        if !checked.status.success() {
            skipped(&format!(
                "looks: {}",
                String::from_utf8_lossy(&checked.stderr).trim()
            ));
            return None;
        }
        let mut command = command(through, GLASSPOOL);
        command.envs(variables);
        Some(self.start(command))
    }

    fn start(self, mut command: Command) -> Stand {
        command
            .args(["-F", "-O", "-R", "-y"])
            .arg(self.folder.path().join("fpm.conf"));
        let mut supervised = launch(self.folder, command);
        supervised.wait_for("ready to handle connections");
        Stand {
            supervised,
            pool: self.pool,
            busy: Vec::new(),
        }
    }
}

/// That program, by `through`, a command that runs its arguments.
pub(crate) fn command(through: &[&str], program: &str) -> Command {
    let Some((first, rest)) = through.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// A running pool. It ends with this value, requests under way too.
pub(crate) struct Stand {
    pub(crate) supervised: Supervised,
    pub(crate) pool: String,
    busy: Vec<UnixStream>,
}

impl Stand {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.supervised.path(name)
    }

    /// Runs a script of the folder and does not wait for its answer. The path that the
    /// client names is the script's name without `.php`.
    pub(crate) fn send(&mut self, name: &str) {
        let mut stream = UnixStream::connect(self.path("socket")).expect("connects");
        stream.write_all(&self.request(name)).expect("sends");
        self.busy.push(stream);
    }

    /// What a client says that wants that script run, and its connection closed afterwards.
    pub(crate) fn request(&self, name: &str) -> Vec<u8> {
        let script = self.path(name);
        let mut request = Vec::new();
        RequestEncoder::begin(&mut request, 1, Role::Responder, false);
        RequestEncoder::params(&mut request, 1, params(&script, &uri(name)));
        RequestEncoder::stdin_end(&mut request, 1);
        request
    }

    /// Runs a script of the folder; the thread returns what it says.
    pub(crate) fn ask(&self, name: &str) -> JoinHandle<String> {
        let (socket, script, uri) = (self.path("socket"), self.path(name), uri(name));
        thread::spawn(move || fastcgi::ask(&socket, &params(&script, &uri)).expect("is answered"))
    }

    /// Waits until the file has this text.
    pub(crate) fn wait_for_text(&self, file: &str, text: &str) -> String {
        let began = Instant::now();
        loop {
            let found = fs::read_to_string(self.path(file)).unwrap_or_default();
            if found.contains(text) {
                return found;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "no {text:?} in {file}:\n{found}\nlog:\n{}",
                fs::read_to_string(self.path("error.log")).unwrap_or_default()
            );
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.supervised.terminate();
    }
}

fn uri(name: &str) -> String {
    format!("/{}", name.trim_end_matches(".php"))
}

fn params<'a>(script: &'a Path, uri: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_FILENAME", script.to_str().expect("text")),
        // php-fpm takes the path from here.
        ("SCRIPT_NAME", uri),
        ("REQUEST_URI", uri),
    ]
}

/// Runs `glasspool dump`, with the rights that `through` leaves.
pub(crate) fn dump(through: &[&str], arguments: &[&str]) -> Output {
    command(through, GLASSPOOL)
        .arg("dump")
        .args(arguments)
        .output()
        .expect("starts")
}
