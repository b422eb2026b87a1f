//! One request for each thing that PHP code hangs in, all at once: `dump` and the slow
//! event name the builtin, its line, the system call, the descriptor and the peer.

use std::fs::{File, OpenOptions, Permissions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::fs::{FlockOperation, Mode, flock, mkfifoat};
use serde_json::Value;
use tempfile::TempDir;

use super::is_root;
use super::sink::{Event, Sink};
use super::stand::{Site, Stand, dump};
use crate::database::Database;
use crate::harness::{PATIENCE, skipped};

/// A look at a request that hangs before this may find it on its way to where it hangs.
const SLOW: &str = "1s";

/// A disk answers when it likes; this one never does.
const HOLD_FSYNC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/hold-fsync");

/// A script that hangs in its last line.
struct Case {
    name: &'static str,
    code: String,
    /// As PHP's backtraces name it.
    builtin: &'static str,
    /// With `N` for the number of a descriptor.
    wait: String,
    class: &'static str,
}

/// What the scripts hang in. Nothing of it answers until this ends.
struct World {
    folder: TempDir,
    http: TcpListener,
    udp: UdpSocket,
    database: Option<Database>,
    resolver: UdpSocket,
    /// Whether fsync(2) can be made to wait.
    holds_fsync: bool,
    _lock: File,
    _pipe: File,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
        set(folder.path(), 0o755).expect("sets");
        let path = |name| folder.path().join(name);
        let lock = File::create(path("lock")).expect("creates");
        flock(&lock, FlockOperation::LockExclusive).expect("nobody else has it");
        mkfifoat(rustix::fs::CWD, path("pipe"), Mode::from_raw_mode(0o644)).expect("creates");
        // Readers of a pipe that somebody may write to wait; they end with this test.
        let pipe = OpenOptions::new().read(true).write(true).open(path("pipe"));
        File::create(path("data")).expect("creates");
        set(&path("data"), 0o666).expect("sets");
        let resolver = resolver();
        let address = resolver.local_addr().expect("is bound").ip();
        let text = format!("nameserver {address}\noptions timeout:30\n");
        std::fs::write(path("resolv.conf"), text).expect("writes");
        World {
            http: TcpListener::bind("127.0.0.1:0").expect("binds"),
            udp: UdpSocket::bind("127.0.0.1:0").expect("binds"),
            database: Database::start()
                .map_err(|why| skipped(&format!("looks: {why}")))
                .ok(),
            resolver,
            holds_fsync: holds_fsync(),
            _lock: lock,
            _pipe: pipe.expect("opens"),
            folder,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let path = |name| self.folder.path().join(name).display().to_string();
        let (lock, pipe, data) = (path("lock"), path("pipe"), path("data"));
        let http = self.http.local_addr().expect("is bound");
        let udp = self.udp.local_addr().expect("is bound").port();
        let resolver = self.resolver.local_addr().expect("is bound");
        let case = |name, code: String, builtin, class, wait: String| Case {
            name,
            code,
            builtin,
            wait,
            class,
        };
        let mut cases = vec![
            case(
                "sleep",
                "sleep(300);".to_owned(),
                "sleep",
                "sleep",
                "clock_nanosleep".to_owned(),
            ),
            case(
                "http",
                format!("file_get_contents('http://{http}/slow');"),
                "file_get_contents",
                "network",
                format!("poll on fd N -> tcp {http}"),
            ),
            case(
                "lock",
                format!("$file = fopen('{lock}', 'r');\nflock($file, LOCK_SH);"),
                "flock",
                "lock",
                format!("flock on fd N ({lock})"),
            ),
            case(
                "pipe",
                format!("$child = popen('exec cat {pipe}', 'r');\nfread($child, 10);"),
                "fread",
                "pipe",
                "read on fd N (pipe)".to_owned(),
            ),
            case(
                "shell",
                format!("shell_exec('exec cat {pipe}');"),
                "shell_exec",
                "pipe",
                "read on fd N (pipe)".to_owned(),
            ),
            case(
                "name",
                "gethostbyname('slow.example');".to_owned(),
                "gethostbyname",
                "network",
                format!("poll on fd N -> udp {resolver}"),
            ),
            case(
                "timed",
                format!(
                    "$socket = socket_create(AF_INET, SOCK_DGRAM, SOL_UDP);\n\
                     socket_connect($socket, '127.0.0.1', {udp});\n\
                     socket_set_option($socket, SOL_SOCKET, SO_RCVTIMEO, ['sec' => 300, 'usec' => 0]);\n\
                     socket_recv($socket, $data, 100, 0);"
                ),
                "socket_recv",
                "network",
                format!("recvfrom on fd N -> udp 127.0.0.1:{udp}"),
            ),
        ];
        if self.holds_fsync {
            cases.push(case(
                "disk",
                format!("$file = fopen('{data}', 'r+');\nfsync($file);"),
                "fsync",
                "file",
                format!("fsync on fd N ({data})"),
            ));
        }
        if let Some(database) = &self.database {
            let port = database.port;
            let connections = [
                (
                    "mysqli",
                    "mysqli->query",
                    format!("new mysqli('127.0.0.1', 'root', '', '', {port})"),
                ),
                (
                    "pdo",
                    "PDO->query",
                    format!("new PDO('mysql:host=127.0.0.1;port={port}', 'root', '')"),
                ),
            ];
            cases.extend(connections.map(|(name, builtin, connection)| {
                let code = format!("$db = {connection};\n$db->query('SELECT SLEEP(300)');");
                case(
                    name,
                    code,
                    builtin,
                    "network",
                    format!("poll on fd N -> tcp 127.0.0.1:{port}"),
                )
            }));
        }
        cases
    }

    /// A command that runs another one where our resolver is the only one, and fsync(2)
    /// waits. PHP's resolver asks those of one file only, and at port 53 only.
    fn through(&self) -> Vec<String> {
        let resolv = self.folder.path().join("resolv.conf").display().to_string();
        let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut words = ["unshare", "-m", "sh", "-c", mount, &resolv]
            .map(str::to_owned)
            .to_vec();
        if self.holds_fsync {
            words.push(HOLD_FSYNC.to_owned());
        }
        words
    }
}

/// Whether its tool works here; else why not is noted.
fn holds_fsync() -> bool {
    let tried = Command::new(HOLD_FSYNC).arg("true").output().expect("starts");
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        skipped(&format!(
            "looks: fsync: {}",
            why.lines().last().unwrap_or_default()
        ));
    }
    tried.status.success()
}

/// A name server that never answers, at an address that no other test uses.
fn resolver() -> UdpSocket {
    let own = std::process::id().to_be_bytes();
    let found = (1..=254).find_map(|last| {
        let address = Ipv4Addr::new(127, own[2] | 1, own[3], last);
        UdpSocket::bind((address, 53)).ok()
    });
    found.expect("root may have port 53 of one loopback address")
}

/// With the numbers of descriptors as `N`.
pub(super) fn without_numbers(wait: &str) -> String {
    match wait.split_once(" fd ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before} fd N{after}")
        }
        None => wait.to_owned(),
    }
}

impl Case {
    fn script(&self) -> String {
        format!("{}.php", self.name)
    }

    fn text(&self) -> String {
        format!("<?php\n{}\n", self.code)
    }

    fn line(&self) -> usize {
        1 + self.code.lines().count()
    }

    fn is_in(&self, process: &Value) -> bool {
        process["request"]["path"] == format!("/{}", self.name)
    }

    /// Builtin, line and wait, as a dump should tell them.
    fn expected(&self) -> (String, u64, String) {
        (self.builtin.to_owned(), self.line() as u64, self.wait.clone())
    }

    fn check_event(&self, event: &Event, stand: &Stand) {
        let file = stand.path(&self.script()).display().to_string();
        let first = format!("#0 {file}({}): {}()", self.line(), self.builtin);
        let stack = event.text("code.stacktrace").unwrap_or_default();
        assert_eq!(stack.lines().next(), Some(&*first), "{event:#?}");
        let qualified = self.builtin.replace("->", "::");
        assert_eq!(event.text("code.function.name"), Some(qualified), "{event:#?}");
        assert_eq!(event.text("code.file.path"), Some(file), "{event:#?}");
        let wait = event.text("php.wait").map(|wait| without_numbers(&wait));
        assert_eq!(wait.as_deref(), Some(&*self.wait), "{event:#?}");
        assert_eq!(event.text("php.wait_class").as_deref(), Some(self.class));
    }
}

/// Builtin, its line and its wait, as a dump tells them of one process.
fn told(process: &Value) -> (String, u64, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&process["frames"][0]["function"]),
        process["frames"][1]["line"].as_u64().unwrap_or_default(),
        without_numbers(&text(&process["wait"]["what"])),
    )
}

/// Dumps the pool until every request is seen where it hangs.
fn check_dump(stand: &Stand, cases: &[Case]) {
    let began = Instant::now();
    loop {
        let dumped = dump(&[], &[&stand.pool, "--json", "--native"]);
        let json: Value = serde_json::from_slice(&dumped.stdout).expect("is JSON");
        let processes = json["processes"].as_array().expect("is a list");
        let others: Vec<_> = cases
            .iter()
            .filter_map(|case| {
                let of_case = processes.iter().filter(|process| case.is_in(process));
                let told: Vec<_> = of_case.map(told).collect();
                (!told.contains(&case.expected())).then(|| (case.expected(), told))
            })
            .collect();
        if others.is_empty() {
            assert_eq!(json["unread"], serde_json::json!([]));
            assert!(dumped.status.success());
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "expected and told:\n{others:#?}\n{json:#}"
        );
    }
}

/// A pool for all cases, not started.
fn site(pool: &str, cases: &[Case], lines: &str) -> Site {
    let site = Site::new(pool, cases.len(), lines);
    for case in cases {
        site.write(&case.script(), &case.text());
    }
    site
}

#[test]
fn everything_that_php_hangs_in_is_named() {
    if !is_root("a resolver of its own (a mount namespace, and port 53 on loopback)") {
        return;
    }
    let world = World::new();
    let cases = world.cases();
    let through = world.through();
    let through: Vec<&str> = through.iter().map(String::as_str).collect();

    let mut stock = site("waits-stock", &cases, "").stock(&through);
    for case in &cases {
        stock.send(&case.script());
    }
    check_dump(&stock, &cases);
    drop(stock);

    let mut sink = Sink::start();
    let own = site("waits", &cases, "slowlog = ROOT/slow.log");
    own.write("glasspool.toml", &format!("[slow]\nafter = \"{SLOW}\"\n"));
    let Some(mut own) = own.ours(&through, &sink) else {
        return;
    };
    for case in &cases {
        own.send(&case.script());
    }
    check_dump(&own, &cases);
    for case in &cases {
        case.check_event(&sink.slow(&format!("/{}", case.name)), &own);
    }
}
