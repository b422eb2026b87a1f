//! The table of known loads, at the level of spans: real PHP waits for a known time in a
//! known call, measures itself, and its request's span, its child spans and the span's
//! attributes must say the same. Compared is with what was measured inside, by hrtime() and
//! the scheduler's own counters: a busy machine makes times longer, not wrong.
//!
//! Needs root (or CAP_BPF and CAP_PERFMON) and a kernel that tells its types. Where the
//! programs could be loaded nothing may be skipped.

#![expect(clippy::print_stdout, reason = "a test shows what it has measured")]

mod judge;
mod loads;
mod world;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use glasspool_waits::{Settings, Waits};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use crate::collector::{Collector, text};
use crate::database::Database;
use crate::fastcgi::ask;
use crate::harness::{PATIENCE, kill, skipped};
use crate::looks::stand::{Site, Stand, command};
use judge::{Passed, Told, integer, judge, seconds};
use loads::Load;
use world::{World, serve_http};

/// A command in which fsync(2) takes a tenth of a second.
const SLOW_FSYNC: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/hold-fsync"),
    "--for",
    "0.1",
];
const HELD: Duration = Duration::from_millis(100);
/// After its request's span, a wait's is not late before that.
const LATE: Duration = Duration::from_secs(5);

/// A user with nothing but what the programs need, and one with nothing at all.
const TWO_CAPABILITIES: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all,+bpf,+perfmon",
    "--inh-caps=-all,+bpf,+perfmon",
    "--ambient-caps=-all,+bpf,+perfmon",
];
const NOTHING: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
];
/// Bits of these (capabilities(7)).
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const SYS_ADMIN: u64 = 1 << 21;

/// Networks of one's own have a loopback that is down; this becomes what is given to it.
const LOOPBACK_UP: &str = "\
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack('16sH14x', b'lo', IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])";

/// Whether the programs can be loaded here; else that is noted.
fn programs_load() -> bool {
    let Err(reason) = Waits::load(&Settings::default()) else {
        return true;
    };
    assert!(!can_be_loaded(), "they could be loaded here, but: {reason}");
    skipped(&format!("known loads: {reason}"));
    false
}

/// Told without trying.
fn can_be_loaded() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("reads");
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let capabilities = status_bits(&status, "CapEff:");
    let filtered = status_line(&status, "Seccomp:").is_none_or(|mode| mode != "0");
    cfg!(feature = "ebpf")
        && Path::new("/sys/kernel/btf/vmlinux").exists()
        && rustix::param::page_size() == 4096
        && (capabilities & (PERFMON | BPF) == PERFMON | BPF || capabilities & SYS_ADMIN != 0)
        && !filtered
        && !lockdown.contains("[confidentiality]")
}

fn status_line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.trim()))
}

fn status_bits(status: &str, name: &str) -> u64 {
    let bits = status_line(status, name).expect("is there");
    u64::from_str_radix(bits, 16).expect("a number")
}

/// Whether this command may do what it does; else that is noted.
fn works(through: &[&str]) -> bool {
    let tried = command(through, "true").output().expect("starts");
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).into_owned();
        skipped(&format!("known loads: {through:?}: {}", why.trim()));
    }
    tried.status.success()
}

/// Glasspool with one worker, and what it tells.
struct Watched {
    stand: Stand,
    collector: Collector,
    asked: u32,
    /// Whether the programs run.
    has_waits: bool,
    _folder: TempDir,
}

impl Watched {
    /// Starts it with scripts for these loads; `None` if PHP is missing, which is noted.
    fn start(through: &[&str], mode: &str, loads: &[Load]) -> Option<Watched> {
        let folder = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(folder.path());
        Watched::telling(collector, folder, through, mode, loads)
    }

    fn telling(
        collector: Collector,
        folder: TempDir,
        through: &[&str],
        mode: &str,
        loads: &[Load],
    ) -> Option<Watched> {
        let site = Site::new("loads", 1, "[global]\nlog_level = debug");
        for load in loads {
            site.write(&load.script(), &load.text());
        }
        site.write(
            "glasspool.toml",
            &format!("[php]\ndefine = [\"ffi.enable=1\"]\n[ebpf]\nmode = \"{mode}\"\n"),
        );
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ];
        Some(Watched {
            stand: site.telling(through, variables)?,
            collector,
            asked: 0,
            has_waits: mode == "required",
            _folder: folder,
        })
    }

    /// One request: what its script measured, and what is told of it.
    fn ask(&mut self, load: &Load) -> ([Passed; 2], Told) {
        self.asked += 1;
        let uri = format!("/{}/{}", load.name, self.asked);
        let script = self.stand.path(&load.script());
        let params = [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_FILENAME", script.to_str().expect("text")),
            ("SCRIPT_NAME", &uri),
            ("REQUEST_URI", &uri),
        ];
        let answer = ask(&self.stand.path("socket"), &params).expect("is answered");
        let passed = Passed::read(&answer).unwrap_or_else(|| panic!("{}: {answer}", load.name));
        (passed, self.told(&uri, load))
    }

    /// Waits for the request's span, and for one of a wait if it should have any: these
    /// travel by themselves.
    fn told(&self, path: &str, load: &Load) -> Told {
        let end = Instant::now() + PATIENCE;
        let mut came = None;
        loop {
            let spans = self.collector.spans();
            let span = spans.iter().find(|span| text(span, "url.path") == Some(path));
            if let Some(span) = span {
                let children = |other: &&Value| other["parentSpanId"] == span["spanId"];
                let told = Told {
                    span: span.clone(),
                    children: spans.iter().filter(children).cloned().collect(),
                };
                let is_late = came.get_or_insert_with(Instant::now).elapsed() > LATE;
                if is_late || !self.has_waits || told.child(load.builtin).is_some() || !load.has_child() {
                    return told;
                }
            }
            assert!(Instant::now() < end, "no span of {path} in {spans:#?}");
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// One request to make everything ready that a first one does, and one that counts.
    fn measure(&mut self, load: &Load) -> ([Passed; 2], Told) {
        self.ask(load);
        self.ask(load)
    }

    /// Measures all of them, and shows all that is wrong.
    fn judge(&mut self, loads: &[Load]) {
        let faults: Vec<String> = loads.iter().filter_map(|load| self.fault(load)).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    }

    fn fault(&mut self, load: &Load) -> Option<String> {
        let (passed, told) = self.measure(load);
        let [whole, call] = passed;
        println!(
            "{:<10} {:?} = {:?} on a CPU, waiting for one, blocked; script {:?}, of it in the call {:?}, on a CPU {:?}, waiting for one {:?}",
            load.name,
            told.whole(),
            told.parts(),
            whole.wall,
            call.wall,
            call.ran,
            call.delayed,
        );
        judge(load, &self.stand.path(&load.script()), passed, &told).err()
    }
}

/// Processes that compute until this is dropped.
struct Burners(Vec<Child>);

impl Burners {
    /// Twice as many as there are CPUs.
    fn start() -> Burners {
        let cpus = thread::available_parallelism().expect("is known").get();
        let burn = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Burners((0..2 * cpus).map(|_| burn().expect("starts")).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            // Both fail only if it has ended already.
            let _ended = burner.kill().is_err();
            let _reaped = burner.wait().is_err();
        }
    }
}

#[test]
fn each_known_load_is_told_right() {
    if !programs_load() {
        return;
    }
    let world = World::new();
    let on_disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fs::set_permissions(
        on_disk.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("sets");
    let mut all = vec![
        loads::sleep(),
        loads::http(serve_http()),
        loads::futex(),
        loads::lock(&world),
        loads::disk(&on_disk.path().join("data")),
        loads::shell(),
        loads::pipe(),
        loads::unix(&world),
        loads::compute("cpu"),
    ];
    let database = Database::start().map_err(|why| skipped(&format!("known loads: {why}")));
    if let Ok(database) = &database {
        all.extend(loads::databases(database));
    }
    let mut through: &[&str] = &[];
    if works(&SLOW_FSYNC) {
        through = &SLOW_FSYNC;
        all.push(loads::fsync(&world, HELD));
    }
    let busy = loads::compute("cpu-busy");
    let Some(mut watched) = Watched::start(through, "required", &all) else {
        return;
    };
    watched.judge(&all);
    let script = watched.stand.path(&busy.script());
    fs::write(script, busy.text()).expect("writes");
    let burners = Burners::start();
    watched.judge(std::slice::from_ref(&busy));
    let (_, told) = watched.measure(&busy);
    let [_, runqueue, _] = told.parts().expect("are told");
    assert!(runqueue > Duration::from_millis(20), "{told:#?}");
    drop(burners);
}

#[test]
fn so_it_is_in_namespaces_of_its_own() {
    const NETWORK: [&str; 2] = ["unshare", "--net"];
    if !programs_load() || !works(&NETWORK) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let through = [&NETWORK[..], &["python3", "-c", LOOPBACK_UP]].concat();
    let collector = Collector::start_through(&through, folder.path());
    collector.endpoint();
    let network = format!("/proc/{}/ns/net", collector.pid());
    let inside = network.clone();
    let server = thread::spawn(move || {
        let network = fs::File::open(inside).expect("runs");
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .expect("enters");
        serve_http()
    });
    let world = World::new();
    let loads = [
        loads::sleep(),
        loads::http(server.join().expect("serves")),
        loads::lock(&world),
        loads::shell(),
        loads::unix(&world),
    ];
    // The supervisor is the first process in there.
    let enter = format!("--net={network}");
    let through = [
        "nsenter",
        &enter,
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    if !works(&through) {
        return;
    }
    let Some(mut watched) = Watched::telling(collector, folder, &through, "required", &loads) else {
        return;
    };
    watched.judge(&loads);
    // unshare(1) itself does not end by a signal that the supervisor should get.
    let outer = watched.stand.supervised.pid();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).expect("reads");
    kill(children.trim().parse().expect("has one"), Signal::TERM);
    watched.stand.supervised.wait_for_end();
}

#[test]
fn two_capabilities_are_enough() {
    if !programs_load() || !works(TWO_CAPABILITIES) {
        return;
    }
    let world = World::new();
    let loads = [
        loads::sleep(),
        loads::http(serve_http()),
        loads::futex(),
        loads::lock(&world),
        loads::unix(&world),
    ];
    let Some(mut watched) = Watched::start(TWO_CAPABILITIES, "required", &loads) else {
        return;
    };
    watched.judge(&loads);
    // Who runs PHP has none of it, nor who looks at it.
    let (_, told) = watched.ask(&loads[0]);
    let worker = integer(&told.span, "process.pid").expect("is told");
    let mut others = watched.stand.supervised.children(Some("observer"));
    others.push(i32::try_from(worker).expect("a pid"));
    for pid in others {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
        for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
            assert_eq!(
                status_bits(&status, set) & (BPF | PERFMON),
                0,
                "{set} of {status}"
            );
        }
    }
}

/// What is known without the programs: no causes, no waits, and still the whole time.
fn totals_only(watched: &mut Watched, loads: &[Load]) {
    for load in loads {
        let ([whole, _], told) = watched.measure(load);
        let parts = told.parts().unwrap_or_else(|| panic!("{told:#?}"));
        let sum: Duration = parts.iter().sum();
        assert!(
            sum.abs_diff(told.whole()) < Duration::from_micros(100),
            "{told:#?}"
        );
        let [on_cpu, runqueue, blocked] = parts;
        let cpu = ["user", "system"].map(|kind| seconds(&told.span, &format!("php.cpu.{kind}_time")));
        let cpu = cpu.map(Option::unwrap_or_default).iter().sum::<Duration>();
        assert!(on_cpu.abs_diff(cpu) < Duration::from_micros(1), "{told:#?}");
        let outside = told.whole().saturating_sub(whole.wall) + Duration::from_micros(500);
        assert!(
            runqueue + Duration::from_micros(500) > whole.delayed && runqueue < whole.delayed + outside,
            "{whole:?} {told:#?}"
        );
        // What is left. CPU time since the end of the request before counts as this one's
        // (docs/instrumentation.md), so some of it may have come off the wait.
        let waited = blocked + on_cpu;
        assert!(waited + Duration::from_micros(500) > load.least, "{told:#?}");
        assert!(blocked + Duration::from_millis(5) > load.least, "{told:#?}");
        for start in ["php.blocked.", "php.waits."] {
            assert!(told.attributes(start).is_empty(), "{told:#?}");
        }
        assert!(told.children.is_empty(), "{told:#?}");
    }
}

#[test]
fn switched_off_only_totals_are_told() {
    let loads = [loads::sleep(), loads::http(serve_http())];
    if let Some(mut watched) = Watched::start(&[], "off", &loads) {
        totals_only(&mut watched, &loads);
    }
}

#[test]
fn without_rights_only_totals_are_told_and_the_log_says_why() {
    if !works(NOTHING) {
        return;
    }
    let loads = [loads::sleep(), loads::http(serve_http())];
    let Some(mut watched) = Watched::start(NOTHING, "auto", &loads) else {
        return;
    };
    totals_only(&mut watched, &loads);
    let supervised = &mut watched.stand.supervised;
    let reason = if cfg!(feature = "ebpf") {
        "CAP_BPF and CAP_PERFMON"
    } else {
        "was built without the kernel programs"
    };
    supervised.wait_for_all(&[reason]);
}
