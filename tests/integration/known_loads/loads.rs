//! The table of known loads: scripts that wait in one call, and what must be told of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::world::{self, World};
use crate::database::Database;

/// A script that spends its time in one line.
pub(super) struct Load {
    pub(super) name: &'static str,
    /// PHP code before that line.
    setup: String,
    /// The line.
    call: String,
    /// What it waits in, as spans name it.
    pub(super) builtin: &'static str,
    /// The cause that has the time; none: it computes.
    pub(super) cause: Option<&'static str>,
    /// Less than that it cannot take.
    pub(super) least: Duration,
    pub(super) peer: Option<Peer>,
    /// Name of the file that it waits for.
    pub(super) file: Option<String>,
    /// Whether it is one wait.
    pub(super) once: bool,
}

/// Whom it waits for, as attributes name it.
pub(super) struct Peer {
    pub(super) address: String,
    pub(super) port: Option<u16>,
    pub(super) transport: &'static str,
}

/// When, how much of a CPU and how long waiting for one (the scheduler's own counters),
/// nanoseconds. getrusage(2) brings the counters up to now.
const READING: &str = "\
function reading() {
    $used = getrusage();
    $waited = explode(' ', file_get_contents('/proc/self/schedstat'))[1];
    $micros = 1e6 * ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) + $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec'];
    return [hrtime(true), 1000 * (int) $micros, (int) $waited];
}
function since($then, $now) { return array_map(fn($then, $now) => $now - $then, $then, $now); }
";

const COMPUTE: &str = "\
function used() { $used = getrusage(); return 1e6 * ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) \
+ $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec']; }
function compute() { $until = used() + 100000; while (used() < $until); }";

impl Load {
    fn new(
        name: &'static str,
        builtin: &'static str,
        cause: &'static str,
        least: Duration,
        call: &str,
    ) -> Load {
        Load {
            name,
            setup: String::new(),
            call: call.to_owned(),
            builtin,
            cause: Some(cause),
            least,
            peer: None,
            file: None,
            once: true,
        }
    }

    fn after(mut self, setup: String) -> Load {
        self.setup = setup;
        self
    }

    fn tcp(mut self, address: SocketAddr) -> Load {
        self.peer = Some(Peer {
            address: address.ip().to_string(),
            port: Some(address.port()),
            transport: "tcp",
        });
        self
    }

    fn unix(mut self, path: &Path) -> Load {
        self.peer = Some(Peer {
            address: path.display().to_string(),
            port: None,
            transport: "unix",
        });
        self
    }

    fn file(mut self, path: &Path) -> Load {
        let name = path.file_name().expect("has a name");
        self.file = Some(name.to_string_lossy().into_owned());
        self
    }

    fn often(mut self) -> Load {
        self.once = false;
        self
    }

    /// Whether one wait is long enough for a span, not only all of them.
    pub(super) fn has_child(&self) -> bool {
        self.cause.is_some() && self.name != "disk"
    }

    pub(super) fn script(&self) -> String {
        format!("{}.php", self.name)
    }

    /// Its code. It says what passed since its start and in its call.
    pub(super) fn text(&self) -> String {
        let Load { setup, call, .. } = self;
        format!(
            "<?php\n{READING}$start = reading();\n{setup}\n$before = reading();\n{call}\n$after = reading();\n\
             echo json_encode([since($start, $after), since($before, $after)]);\n"
        )
    }

    /// Where its call is.
    pub(super) fn line(&self) -> u64 {
        let text = self.text();
        let at = text.find(&format!("\n{}\n$after", self.call)).expect("is there");
        text[..=at].lines().count() as u64 + 1
    }
}

pub(super) fn sleep() -> Load {
    Load::new(
        "sleep",
        "usleep",
        "sleep",
        Duration::from_millis(50),
        "usleep(50000);",
    )
}

pub(super) fn http(server: SocketAddr) -> Load {
    let call = format!("file_get_contents('http://{server}/slow');");
    Load::new("http", "file_get_contents", "network", world::HTTP, &call).tcp(server)
}

/// Both ways to a database, by TCP and by its socket.
pub(super) fn databases(database: &Database) -> [Load; 2] {
    let slept = Duration::from_millis(100);
    let (port, socket) = (database.port, database.socket());
    let query = "mysqli_query($d, 'SELECT SLEEP(0.1)');";
    let by_tcp = Load::new("mysqli", "mysqli_query", "network", slept, query)
        .after(format!(
            "$d = mysqli_connect('127.0.0.1', 'root', '', '', {port});"
        ))
        .tcp(([127, 0, 0, 1], port).into());
    let query = "$d->query('SELECT SLEEP(0.1)')->fetchAll();";
    let path = socket.display();
    let by_socket = Load::new("pdo", "PDO::query", "network", slept, query)
        .after(format!("$d = new PDO('mysql:unix_socket={path}', 'root', '');"))
        .unix(&socket);
    [by_tcp, by_socket]
}

/// FUTEX_WAIT on a word that nobody wakes, for 40 ms: no extension of PHP waits in one
/// by itself.
pub(super) fn futex() -> Load {
    let number = if cfg!(target_arch = "x86_64") { 202 } else { 98 };
    let call = format!("$c->syscall({number}, FFI::addr($w), 0, 0, $t, null, 0);");
    Load::new("futex", "syscall", "lock", Duration::from_millis(40), &call).after(
        "$c = FFI::cdef('long syscall(long n, int *w, long op, long v, long long *t, int *w2, long v3);', 'libc.so.6');\n\
         $w = FFI::new('int'); $t = FFI::new('long long[2]'); $t[1] = 40000000;"
            .to_owned(),
    )
}

/// A lock that this test's process has.
pub(super) fn lock(world: &World) -> Load {
    let (lock, locker) = (world.lock(), world.locker());
    // The lock is held already when the script asks for it.
    Load::new("flock", "flock", "lock", Duration::ZERO, "flock($f, LOCK_EX);")
        .after(format!(
            "$f = fopen('{}', 'r+');\n$s = stream_socket_client('unix://{}');\nfwrite($s, 'a'); fread($s, 1);",
            lock.display(),
            locker.display()
        ))
        .file(&lock)
}

/// fsync(2), where it takes that time (`tests/tools/hold-fsync`).
pub(super) fn fsync(world: &World, held: Duration) -> Load {
    Load::new("fsync", "fsync", "disk", held, "fsync($f);")
        .after(format!(
            "$f = fopen('{}', 'w');\nfwrite($f, 'x');",
            world.data().display()
        ))
        .file(&world.data())
}

/// A real disk, which takes the time that it takes.
pub(super) fn disk(file: &Path) -> Load {
    Load::new(
        "disk",
        "fdatasync",
        "disk",
        Duration::ZERO,
        "for ($i = 0; $i < 5; $i++) { fwrite($f, $b); fdatasync($f); }",
    )
    .after(format!(
        "$f = fopen('{}', 'w'); $b = str_repeat('x', 4 << 20);",
        file.display()
    ))
    .often()
}

/// A child, which has to be started and waited for, too.
pub(super) fn shell() -> Load {
    let slept = Duration::from_millis(50);
    Load::new(
        "shell",
        "shell_exec",
        "pipe",
        slept,
        "shell_exec('exec sleep 0.05');",
    )
    .often()
}

pub(super) fn pipe() -> Load {
    Load::new("pipe", "fread", "pipe", Duration::ZERO, "fread($p, 1);")
        .after("$p = popen('exec sleep 0.05', 'r');".to_owned())
}

pub(super) fn unix(world: &World) -> Load {
    let path = world.unix();
    Load::new("unix", "fread", "network", Duration::ZERO, "fread($s, 1);")
        .after(format!(
            "$s = stream_socket_client('unix://{}');\nfwrite($s, 'a');",
            path.display()
        ))
        .unix(&path)
}

/// 100 ms of the worker's own CPU time.
pub(super) fn compute(name: &'static str) -> Load {
    let worked = Duration::from_millis(100);
    let load = Load::new(name, "", "", worked, "compute();").after(COMPUTE.to_owned());
    Load { cause: None, ..load }
}
