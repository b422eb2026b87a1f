//! What is told of slow requests with fewer and fewer rights: the slow log and the events
//! always have the PHP stack; what else is missing is said at the start, with its cure.

use std::fs;
use std::net::TcpListener;

use super::is_root;
use super::sink::{Event, Sink};
use super::stand::{GLASSPOOL, Site, Stand, command, dump};
use super::waits::without_numbers;
use crate::harness::skipped;

/// Bit of CAP_SYS_PTRACE (capabilities(7)).
const SYS_PTRACE: u64 = 1 << 19;
const WORKERS: usize = 2;

/// How the supervisor, and whoever dumps its pool, are started.
const ROOT: &[&str] = &[];
const ROOT_WITHOUT_PTRACE: &[&str] = &["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
];
const NO_NEW_PRIVILEGES: &[&str] = &["setpriv", "--no-new-privs"];

/// As the metric names the rungs.
const ALL: i64 = 4;
const PHP_ONLY: i64 = 2;

const EVERYTHING: &str = "PHP and native stacks, waits and peers, running or blocked";
/// The worker has changed its user, as every worker of root's does.
const STACKS_ONLY: &str = "PHP stacks; without system calls, peers of sockets, mapped files, holding it while it \
                           runs, because it runs as nobody and is not dumpable (run as root, give CAP_SYS_PTRACE, \
                           or set process.dumpable = yes)";

/// A pool with a request that is blocked and one that runs, past their limit.
struct Rung {
    stand: Stand,
    /// What the blocked one waits for.
    server: TcpListener,
    sink: Sink,
    blocked: Event,
    running: Event,
}

impl Rung {
    /// `None` if it cannot be had here, which is noted.
    fn reach(through: &[&str]) -> Option<Rung> {
        if !is_root("a supervisor with fewer rights") {
            return None;
        }
        let tried = command(through, GLASSPOOL)
            .arg("--version")
            .output()
            .expect("starts");
        if !tried.status.success() {
            let reason = String::from_utf8_lossy(&tried.stderr).into_owned();
            skipped(&format!("looks: {through:?}: {}", reason.trim()));
            return None;
        }
        let server = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = server.local_addr().expect("is bound");
        let site = Site::new(
            "rung",
            WORKERS,
            "slowlog = ROOT/slow.log\n[global]\nlog_level = debug",
        );
        site.write(
            "blocked.php",
            &format!("<?php\nfunction ask() {{\n    file_get_contents('http://{address}/');\n}}\nask();\n"),
        );
        site.write(
            "running.php",
            "<?php\nfunction spin() {\n    for ($n = 0; ; $n++);\n}\nspin();\n",
        );
        // What the kernel programs know needs no look.
        site.write("glasspool.toml", "ebpf = \"off\"\n[slow]\nafter = \"300ms\"\n");
        let mut sink = Sink::start();
        let mut stand = site.ours(through, &sink)?;
        stand.send("blocked.php");
        stand.send("running.php");
        let (blocked, running) = (sink.slow("/blocked"), sink.slow("/running"));
        Some(Rung {
            stand,
            server,
            sink,
            blocked,
            running,
        })
    }

    /// A line of the status of the supervisor and of its observer.
    fn status(&self, name: &str) -> [String; 2] {
        let supervised = &self.stand.supervised;
        let observer = supervised.children(Some("observer"));
        [supervised.pid(), observer[0]].map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("has the line").trim().to_owned()
        })
    }

    fn capabilities(&self, set: &str) -> [u64; 2] {
        self.status(set)
            .map(|text| u64::from_str_radix(&text, 16).expect("a number"))
    }

    /// The one line at the start, and the metric that says the same.
    fn expect(&mut self, level: &str, shows: &str, rung: i64) {
        let pool = &self.stand.pool;
        let supervised = &mut self.stand.supervised;
        supervised.wait_for_all(&["what a look shows"]);
        let line = &supervised.log[supervised.position("what a look shows")];
        let head = format!("[pool {pool}] what a look shows, as tried on process ");
        let (before, told) = line.split_once(&head).expect("names the pool");
        assert!(before.contains(&format!("] {level}: ")), "{line}");
        let (pid, told) = told.split_once(": ").expect("a process");
        assert!(pid.parse::<u32>().is_ok(), "{line}");
        assert_eq!(told, shows);
        assert_eq!(self.sink.rung(pool), rung);
    }

    /// The PHP stacks, which all rungs have, in the slow log and in the events.
    fn expect_stacks(&self) {
        let [blocked, running] = ["blocked.php", "running.php"].map(|name| self.stand.path(name));
        let (blocked, running) = (blocked.display(), running.display());
        let log = self
            .stand
            .wait_for_text("slow.log", &format!("file_get_contents() {blocked}:3\n"));
        assert!(log.contains(&format!("ask() {blocked}:5\n")), "{log}");
        let log = self
            .stand
            .wait_for_text("slow.log", &format!("spin() {running}:5\n"));
        assert!(!log.contains("dump failed"), "{log}");

        let text = |event: &Event, key| event.text(key).unwrap_or_default();
        assert_eq!(
            text(&self.blocked, "code.stacktrace"),
            format!("#0 {blocked}(3): file_get_contents()\n#1 {blocked}(5): ask()\n#2 {{main}}")
        );
        assert_eq!(text(&self.blocked, "php.sample.how"), "exact");
        assert_eq!(
            text(&self.running, "code.stacktrace"),
            format!("#0 {running}(5): spin()\n#1 {{main}}")
        );
        assert_eq!(text(&self.running, "php.wait"), "");
    }

    /// What it waits for, by name, and the C functions that lead there.
    fn expect_wait(&self) {
        let wait = format!(
            "poll on fd N -> tcp {}",
            self.server.local_addr().expect("is bound")
        );
        let text = |key| self.blocked.text(key).unwrap_or_default();
        assert_eq!(without_numbers(&text("php.wait")), wait, "{:#?}", self.blocked);
        assert_eq!(text("php.wait_class"), "network");
        assert_eq!(text("network.peer.address"), "127.0.0.1");
        assert_eq!(text("php.sample.missing"), "");
        assert!(
            text("php.native_stacktrace").contains("poll"),
            "{:#?}",
            self.blocked
        );
    }

    /// A dump with the same rights has all that the event has.
    fn expect_dump(&self, through: &[&str]) {
        let dumped = dump(through, &[&self.stand.pool]);
        let (text, error) = (
            String::from_utf8_lossy(&dumped.stdout),
            String::from_utf8_lossy(&dumped.stderr),
        );
        assert!(dumped.status.success(), "{error}");
        let address = self.server.local_addr().expect("is bound");
        for part in [
            format!(" -> tcp {address}\n  #0 file_get_contents()\n"),
            "  #0 spin() ".to_owned(),
        ] {
            assert!(text.contains(&part), "no {part:?} in {text}");
        }
    }
}

#[test]
fn root_sees_everything() {
    let Some(mut rung) = Rung::reach(ROOT) else { return };
    rung.expect("DEBUG", EVERYTHING, ALL);
    rung.expect_stacks();
    rung.expect_wait();
    rung.expect_dump(ROOT);
}

#[test]
fn root_without_the_capability_to_trace_sees_php_stacks_and_is_told_the_cure() {
    let Some(mut rung) = Rung::reach(ROOT_WITHOUT_PTRACE) else {
        return;
    };
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(
            rung.capabilities(set).map(|set| set & SYS_PTRACE),
            [0, 0],
            "{set}"
        );
    }
    assert!(rung.status("Uid:")[0].starts_with("0\t0\t"));
    rung.expect("NOTICE", STACKS_ONLY, PHP_ONLY);
    rung.expect_stacks();
    let how = rung.running.text("php.sample.how").expect("is said");
    assert_ne!(how, "stopped");
    // That it sleeps is all that it may know.
    let wait = rung.blocked.text("php.wait").expect("is said");
    assert!(wait.starts_with("sleeping"), "{wait}");
    let missing = rung.blocked.text("php.sample.missing").expect("is said");
    assert!(
        missing.contains("the system call") && missing.contains("give CAP_SYS_PTRACE"),
        "{missing}"
    );

    let dumped = dump(ROOT_WITHOUT_PTRACE, &[&rung.stand.pool]);
    assert_eq!((dumped.status.code(), &*dumped.stdout), (Some(1), &b""[..]));
    let said = String::from_utf8_lossy(&dumped.stderr);
    assert_eq!(said.lines().count(), WORKERS, "{said}");
    for line in said.lines() {
        assert!(
            line.starts_with("glasspool: cannot ")
                && line.ends_with(
                    ": this process is root but lacks CAP_SYS_PTRACE (give it; in a container with --cap-add \
                     SYS_PTRACE)"
                ),
            "{line}"
        );
    }
}

#[test]
fn a_user_without_any_capability_sees_everything_of_workers_that_run_as_the_same() {
    let Some(mut rung) = Rung::reach(NOBODY) else {
        return;
    };
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(rung.capabilities(set), [0, 0], "{set}");
    }
    let users = rung.status("Uid:");
    assert_eq!(users, ["65534\t65534\t65534\t65534"; 2]);
    rung.expect_stacks();
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !matches!(yama.trim(), "" | "0") {
        rung.stand.supervised.wait_for_all(&["kernel.yama.ptrace_scope"]);
        return;
    }
    rung.expect("DEBUG", EVERYTHING, ALL);
    rung.expect_wait();
    rung.expect_dump(NOBODY);
}

#[test]
fn no_new_privileges_take_nothing_away() {
    let Some(mut rung) = Rung::reach(NO_NEW_PRIVILEGES) else {
        return;
    };
    assert_eq!(rung.status("NoNewPrivs:"), ["1", "1"]);
    rung.expect("DEBUG", EVERYTHING, ALL);
    rung.expect_stacks();
    rung.expect_wait();
    rung.expect_dump(NO_NEW_PRIVILEGES);
}
