//! Real PHP for the tests: scripts on the command line and a stock php-fpm, all of them
//! killed when dropped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for the slowest machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running script that has said `ready`.
pub(crate) struct Script {
    child: Child,
    folder: tempfile::TempDir,
}

impl Script {
    /// Starts PHP code, saved as `script.php`, and waits for its `ready`.
    pub(crate) fn start(code: &str) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script.php");
        fs::write(&file, code).unwrap();
        let mut child = Command::new("php8.2")
            .args(["-n", "-d", "opcache.jit=0", "-f"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("php8.2 is installed (make deps)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Script { child, folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The script's path.
    pub(crate) fn file(&self) -> String {
        self.folder.path().join("script.php").display().to_string()
    }

    /// Waits until it sleeps in the kernel.
    pub(crate) fn wait_until_asleep(&self) {
        until("the script sleeps", || state(self.pid()) == Some('S'));
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// A stock php-fpm with one pool of static workers.
pub(crate) struct Fpm {
    master: Child,
    folder: tempfile::TempDir,
    pub(crate) pool: String,
    /// Requests under way.
    busy: Vec<UnixStream>,
}

impl Fpm {
    pub(crate) fn start(workers: u32) -> Fpm {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        // Other tests run pools, too.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let pool = format!("inspect-{}-{number}", std::process::id());
        let configuration = format!(
            "[global]\nerror_log = {root}/log\ndaemonize = no\n\
             [{pool}]\nlisten = {root}/socket\nlisten.backlog = 128\nuser = nobody\ngroup = nogroup\n\
             listen.mode = 0666\npm = static\npm.max_children = {workers}\n"
        );
        fs::write(folder.path().join("fpm.conf"), configuration).unwrap();
        let master = Command::new("php-fpm8.2")
            .args(["-n", "-F", "-R", "-y"])
            .arg(folder.path().join("fpm.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php-fpm8.2 is installed (make deps)");
        let fpm = Fpm {
            master,
            folder,
            pool,
            busy: Vec::new(),
        };
        until("all workers have their title", || {
            fpm.workers().len() == workers as usize
        });
        fpm
    }

    /// The workers' ids.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let title = format!("php-fpm: pool {}", self.pool);
        processes()
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let text = String::from_utf8_lossy(&line);
                text.trim_end_matches(['\0', ' ']) == title
            })
            .collect()
    }

    /// Writes a script that workers may read.
    pub(crate) fn script(&self, name: &str, code: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = self.folder.path().join(name);
        fs::write(&file, code).unwrap();
        file
    }

    /// Sends a request and does not wait for its answer.
    pub(crate) fn request(&mut self, script: &Path, uri: &str) {
        let mut stream = UnixStream::connect(self.folder.path().join("socket")).unwrap();
        stream.write_all(&fastcgi(script, uri)).unwrap();
        self.busy.push(stream);
    }

    /// Waits until so many workers sleep in this system call.
    pub(crate) fn wait_until_asleep(&self, workers: usize, syscall: &str) {
        until("the workers are inside the script", || {
            let inside = self.workers().into_iter().filter(|pid| {
                let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
                call.split(' ').next() == Some(syscall)
            });
            inside.count() == workers
        });
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        // The master ends its workers; if it is killed instead, they are told nothing.
        let pid = rustix::process::Pid::from_child(&self.master);
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_err();
        let _reaped = self.master.wait().is_err();
    }
}

/// One request as FastCGI has it (begin, params, end of params, end of input).
fn fastcgi(script: &Path, uri: &str) -> Vec<u8> {
    let script = script.display().to_string();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut params = Vec::new();
    for (name, value) in [
        ("SCRIPT_FILENAME", script.as_str()),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", uri),
        // php-fpm takes the path from here.
        ("SCRIPT_NAME", path),
        ("QUERY_STRING", query),
    ] {
        let lengths = [name.len(), value.len()].map(|len| u8::try_from(len).unwrap());
        params.extend(lengths);
        params.extend(name.bytes().chain(value.bytes()));
    }
    let record = |kind: u8, body: &[u8]| {
        let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
        let mut record = vec![1, kind, 0, 1, high, low, 0, 0];
        record.extend(body);
        record
    };
    let begin = record(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
    [begin, record(4, &params), record(4, &[]), record(5, &[])].concat()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Asks until it is so.
pub(crate) fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "it never came about that {what}");
        std::thread::yield_now();
    }
}

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = fs::OpenOptions::new().append(true).create(true).open(file);
        file.unwrap()
            .write_all(format!("inspect: {why}\n").as_bytes())
            .unwrap();
    }
}
