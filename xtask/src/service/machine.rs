//! Namespaces with a service manager of their own: its processes, its `/run`, its copies of
//! what is changed in `/etc` and `/usr`. Nothing of it is left when it is dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use glasspool_benches::stop::Stop;
use rustix::process::Signal;

use crate::process::{Output, Process, children, kill};

const FIRST_PROCESS: &str = include_str!("first-process.sh");
const SYSTEMD: &str = "/lib/systemd/systemd";
const START_TIME: Duration = Duration::from_secs(30);
/// Pause between two questions to a service manager that is not up yet.
const PAUSE: Duration = Duration::from_millis(100);

/// A running service manager.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its pid, seen from here.
    first: u32,
    // Dropped in this order.
    unshare: Process,
    _cgroup: Cgroup,
}

/// What a command in there came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) succeeded: bool,
    /// Standard output and standard error.
    pub(super) output: String,
}

impl Machine {
    /// Why there can be none here, if so.
    pub(super) fn obstacle() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("namespaces with their own /run and /etc need root".to_owned());
        }
        if !Path::new(SYSTEMD).exists() {
            return Some(format!("{SYSTEMD} is missing (Debian package systemd)"));
        }
        cgroups().err().map(|e| format!("{e:#}"))
    }

    /// Starts systemd with what was installed below `installed`; `scratch` is for files.
    pub(super) fn start(installed: &Path, scratch: &Path, stop: &Stop) -> Result<Self> {
        let script = scratch.join("first-process.sh");
        std::fs::write(&script, FIRST_PROCESS)?;
        let cgroup = Cgroup::make()?;
        // The shell moves itself before the namespace of control groups is made, so that
        // systemd's groups are below ours.
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(cgroup.0.join("cgroup.procs"))
            .args([
                "unshare",
                "--fork",
                "--kill-child",
                "--pid",
                "--mount",
                "--mount-proc",
            ])
            .args(["--cgroup", "--net", "--uts", "--ipc", "sh"])
            .arg(&script)
            .arg(installed)
            .args([
                SYSTEMD,
                "--system",
                "--unit=basic.target",
                "--show-status=0",
                "--log-target=null",
            ]);
        let unshare = Process::spawn("unshare", &mut command, Output::Log, None)?;
        let by = Instant::now() + START_TIME;
        let mut machine = Self {
            first: 0,
            unshare,
            _cgroup: cgroup,
        };
        loop {
            if let [first] = children(machine.unshare.pid())?.as_slice() {
                machine.first = *first;
                if machine.run(["systemctl", "is-system-running"])?.output.trim() == "running" {
                    return Ok(machine);
                }
            }
            if Instant::now() > by {
                bail!("systemd does not come up: {}", machine.unshare.tail());
            }
            stop.pause(PAUSE)?;
        }
    }

    /// Runs a command in there to its end.
    pub(super) fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<Ran> {
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.first.to_string(), "--"])
            .args(command)
            .env("SYSTEMD_COLORS", "0")
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null())
            .output()
            .context("cannot start nsenter")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Ran {
            succeeded: output.status.success(),
            output: text,
        })
    }

    /// A path of its file system, as it can be opened from here.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process all others of its namespace end; `unshare` then ends, too.
        if self.first != 0 {
            kill(self.first, Signal::KILL).unwrap_or_default();
        }
    }
}

/// A control group of ours; the groups below it are the service manager's.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Result<Self> {
        let path = cgroups()?.join(format!("glasspool-service-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_groups(&self.0);
    }
}

/// Removes a group and those below it. One that still has a process stays and can be seen.
fn remove_groups(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    std::fs::remove_dir(path).unwrap_or_default();
}

/// Where version 2 of control groups is mounted.
fn cgroups() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("no cgroup2 file system is mounted")
}
