//! A pool of real PHP, with the kernel's own answer to whoever loads programs; and what is
//! held of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::fastcgi::{ask, script};
use crate::harness::{Supervised, launch, skipped};
use crate::prometheus::stand::{TEXT, get};

pub(super) const SERVING: &str = "ready to handle connections";
pub(super) const ON: &str = "ebpf: on, for up to 256 workers at a time";
/// What loading takes; without the last one neither.
const CAPABILITIES: &str = "-bpf,-perfmon,-sys_admin";
/// Has spans made. Nobody listens there.
pub(super) const TRACED: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");

pub(super) struct Site {
    pub(super) folder: TempDir,
}

impl Site {
    /// `None` where there is no PHP to host an engine in, which is noted.
    pub(super) fn new(overlay: &str) -> Option<Site> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
        let at = folder.path().display();
        let conf = format!(
            "[global]\nerror_log = {at}/error.log\npid = {at}/pid\n\
             [www]\nlisten = {at}/sock\nlisten.mode = 0666\nuser = nobody\n\
             pm = static\npm.max_children = 2\n"
        );
        fs::write(folder.path().join("fpm.conf"), conf).expect("writes");
        fs::write(
            folder.path().join("sleep.php"),
            "<?php usleep(20000); echo 'slept';",
        )
        .expect("writes");
        let site = Site { folder };
        site.configure(overlay);
        let checked = Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .args(["check", "-R", "-y"])
            .arg(site.folder.path().join("fpm.conf"))
            .output()
            .expect("starts");
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("kernel programs: {}", why.trim()));
            return None;
        }
        Some(site)
    }

    pub(super) fn configure(&self, overlay: &str) {
        configure(self.folder.path(), overlay);
    }

    /// Starts it with spans made.
    pub(super) fn start(self, through: &[&str], endpoint: &str) -> Supervised {
        let mut words = through.to_vec();
        words.extend([env!("CARGO_BIN_EXE_glasspool"), "-F", "-O", "-R", "-y"]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(self.folder.path().join("fpm.conf"))
            .env(TRACED.0, endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50");
        launch(self.folder, command)
    }

    /// Starts it where the programs can be loaded; where they cannot that is noted.
    pub(super) fn start_with_programs(self, endpoint: &str) -> Option<Supervised> {
        let mut supervised = self.start(&[], endpoint);
        let line = supervised.wait_for("ebpf: ");
        if !line.contains(ON) {
            skipped(&format!("kernel programs: {line}"));
            return None;
        }
        supervised.wait_for(SERVING);
        Some(supervised)
    }
}

/// What `glasspool check` says of the programs.
pub(super) fn checked(site: &Site, through: &[&str]) -> String {
    let words: Vec<_> = through.iter().chain(&[env!("CARGO_BIN_EXE_glasspool")]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(["check", "-R", "-y"])
        .arg(site.folder.path().join("fpm.conf"))
        .output()
        .expect("starts");
    assert!(output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    let lines = said.iter().flat_map(|text| text.lines());
    let mut lines = lines.filter(|line| line.contains("ebpf: "));
    let line = lines.next().expect("one line").to_owned();
    assert_eq!(lines.next(), None);
    line
}

pub(super) fn configure(folder: &Path, overlay: &str) {
    fs::write(folder.join("glasspool.toml"), overlay).expect("writes");
}

/// A command after which nothing can be loaded; empty where that is so already.
pub(super) fn without_capabilities() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        vec!["setpriv", "--bounding-set", CAPABILITIES]
    } else {
        Vec::new()
    }
}

impl Supervised {
    pub(super) fn answers(&self) -> String {
        self.runs("sleep.php")
    }

    pub(super) fn runs(&self, name: &str) -> String {
        let path = self.path(name);
        let answer = ask(&self.path("sock"), &script(path.to_str().expect("text")));
        answer.expect("is answered")
    }

    pub(super) fn takes_over(&mut self, overlay: &str) {
        let line = self.reloaded(overlay);
        assert!(line.contains(SERVING), "{overlay}: {line}");
    }

    pub(super) fn reloaded(&mut self, overlay: &str) -> String {
        configure(&self.path(""), overlay);
        self.signal(Signal::USR2);
        self.wait_for("Reloading in progress ...");
        loop {
            let line = self.wait_for("");
            if line.contains("reload failed: ") || line.contains(SERVING) {
                return line;
            }
        }
    }

    pub(super) fn holds(&self) -> Held {
        Held::by(self.pid())
    }
}

/// What a process holds in the kernel, by the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) programs: BTreeSet<u32>,
    pub(super) maps: BTreeSet<u32>,
}

impl Held {
    pub(super) fn by(pid: i32) -> Held {
        let mut held = Held {
            programs: BTreeSet::new(),
            maps: BTreeSet::new(),
        };
        let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs");
        for entry in folder.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for line in text.lines() {
                let Some((name, value)) = line.split_once(':') else {
                    continue;
                };
                let numbers = match name {
                    "prog_id" => &mut held.programs,
                    "map_id" => &mut held.maps,
                    _ => continue,
                };
                numbers.insert(value.trim().parse().expect("a number"));
            }
        }
        held
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty()
    }

    /// Whether the kernel has none of it any more.
    pub(super) fn is_gone(&self) -> bool {
        let programs = aya::programs::loaded_programs().flatten();
        let maps = aya::maps::loaded_maps().flatten();
        !programs
            .map(|program| program.id())
            .any(|id| self.programs.contains(&id))
            && !maps.map(|map| map.id()).any(|id| self.maps.contains(&id))
    }
}

/// A metric of that name and label, as the page at that address has it.
pub(super) fn metric(address: SocketAddr, name: &str, label: &str) -> Option<f64> {
    let page = get(address, "/metrics", TEXT).ok()?;
    let mut lines = page.lines();
    let line = lines.find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{') && rest.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}
