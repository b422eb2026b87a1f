//! Hosts the engine in the stock PHP executable and speaks for the supervisor and the
//! web server: the real protocol ends, nothing in between.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use glasspool_abi::control::{Channel, EngineStart, FromEngine, PoolSpec, ToEngine};
use glasspool_abi::record::End;
use glasspool_abi::slot::{Cursor, SLOT_HEAD_BYTES, SlotReader, ring_bytes};
use glasspool_abi::trace::Sampler;
use glasspool_abi::zend::PhpBuild;
use glasspool_abi::{Pid, PoolId, WorkerId, create_slot_memory};
use glasspool_fastcgi::client::{self, RequestEncoder, ResponseReader};

/// The executable to host in; `make test` installs it.
pub(crate) fn php() -> PathBuf {
    let path = std::env::var_os("GLASSPOOL_TEST_PHP").map_or("/usr/sbin/php-fpm8.2".into(), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run `make deps`, or set GLASSPOOL_TEST_PHP",
        path.display()
    );
    path
}

fn engine_object() -> PathBuf {
    let mut folder = std::env::current_exe().expect("an executable");
    folder.pop();
    for _ in 0..3 {
        let object = folder.join("libglasspool_engine.so");
        if object.exists() {
            return object;
        }
        folder.pop();
    }
    panic!("libglasspool_engine.so is not beside the test executable");
}

/// A script is cached at once, not only when it is two seconds old.
const DEFINE: [(&str, &str); 4] = [
    ("opcache.enable", "1"),
    ("opcache.file_update_protection", "0"),
    ("log_errors", "1"),
    ("display_errors", "0"),
];

/// An engine with one pool.
pub(crate) struct Engine {
    pub(crate) child: Child,
    pub(crate) control: Channel,
    /// Where the supervisor gets its workers' questions.
    pub(crate) ask: Channel,
    pub(crate) build: PhpBuild,
    pub(crate) folder: tempfile::TempDir,
    next: u64,
}

/// A worker of that engine.
pub(crate) struct Worker {
    pub(crate) pid: i32,
    pub(crate) slot: SlotReader,
    pub(crate) memory: Option<OwnedFd>,
    cursor: Cursor,
}

pub(crate) fn pool() -> PoolSpec {
    PoolSpec {
        pool: PoolId(0),
        name: "www".to_owned(),
        clear_env: true,
        limit_extensions: vec![".php".to_owned()],
        sampler: Sampler::default(),
        tracing: true,
        log_limit: 1024,
        ..PoolSpec::default()
    }
}

/// What an engine is started with by default.
pub(crate) fn engine_start() -> EngineStart {
    EngineStart {
        supervisor: Pid(i32::try_from(std::process::id()).expect("a pid")),
        binary: php().display().to_string(),
        ini: None,
        no_ini: false,
        extended_info: false,
        define: DEFINE
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        variables: Vec::new(),
    }
}

/// Hosts an engine and waits until PHP has started in it.
pub(crate) fn host(start: EngineStart) -> (Child, Channel, PhpBuild) {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("prctl");
    let (control, theirs) = Channel::pair().expect("a socket pair");
    let child = Command::new(php())
        .env("LD_PRELOAD", engine_object())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("starts");
    let hello: FromEngine = control.receive().expect("greets").0;
    assert_eq!(
        hello,
        FromEngine::Hello {
            abi: glasspool_abi::ABI_VERSION
        }
    );
    control.send(&ToEngine::Start(start), &[]).expect("sends");
    let FromEngine::Ready(build) = control.receive().expect("starts").0 else {
        panic!("not ready")
    };
    (child, control, *build)
}

/// What an engine and its pool are made from, where it is not the usual.
pub(crate) struct Setup {
    pub(crate) start: EngineStart,
    pub(crate) spec: PoolSpec,
    /// Where its workers accept; a socket in the folder if there is none.
    pub(crate) listener: Option<OwnedFd>,
    /// Where their access log goes; a file in the folder if there is none.
    pub(crate) access_log: Option<OwnedFd>,
}

impl Setup {
    pub(crate) fn of(spec: PoolSpec) -> Setup {
        Setup {
            start: engine_start(),
            spec,
            listener: None,
            access_log: None,
        }
    }
}

impl Engine {
    /// Starts it with the system's php.ini and the pool.
    pub(crate) fn start(spec: PoolSpec) -> Engine {
        Engine::set_up(Setup::of(spec))
    }

    pub(crate) fn set_up(setup: Setup) -> Engine {
        let (child, control, build) = host(setup.start);
        let folder = tempfile::tempdir().expect("a folder");
        // Workers of another user have to get there too.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let (ask, asked) = Channel::pair().expect("a socket pair");
        let listener = setup.listener.unwrap_or_else(|| {
            let listener = UnixListener::bind(folder.path().join("sock")).expect("binds");
            OwnedFd::from(listener)
        });
        let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
        let access_log = setup.spec.access_log.as_ref().map(|_| {
            let file = || OwnedFd::from(appending(&folder.path().join("access.log")));
            setup.access_log.unwrap_or_else(file)
        });
        let fds: Vec<BorrowedFd<'_>> = [listener.as_fd(), doorbell.as_fd(), asked.as_fd()]
            .into_iter()
            .chain(access_log.as_ref().map(AsFd::as_fd))
            .collect();
        control
            .send(&ToEngine::AddPool(Box::new(setup.spec)), &fds)
            .expect("sends");
        Engine {
            child,
            control,
            ask,
            build,
            folder,
            next: 0,
        }
    }

    /// What the workers wrote to the access log in the folder.
    pub(crate) fn access_log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("access.log")).unwrap_or_default();
        String::from_utf8(bytes).expect("text")
    }

    /// What the workers wrote to standard output and standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("worker.log")).unwrap_or_default()
    }

    /// Forks a worker and waits until it serves.
    pub(crate) fn spawn(&mut self) -> Worker {
        let (worker, failure) = self.try_spawn();
        assert_eq!(failure, None, "{}", self.log());
        worker
    }

    /// Forks a worker and waits until it serves or says why it cannot.
    pub(crate) fn try_spawn(&mut self) -> (Worker, Option<String>) {
        self.try_spawn_then(|_| {})
    }

    /// The same; `then` is told its pid as soon as the supervisor would know it.
    pub(crate) fn try_spawn_then(&mut self, then: impl Fn(rustix::process::Pid)) -> (Worker, Option<String>) {
        self.try_spawn_at(None, then)
    }

    /// Forks a worker that has this page of that map, and waits until it serves.
    pub(crate) fn spawn_at(&mut self, map: BorrowedFd<'_>, page: u32) -> Worker {
        let (worker, failure) = self.try_spawn_at(Some((map, page)), |_| {});
        assert_eq!(failure, None, "{}", self.log());
        worker
    }

    fn try_spawn_at(
        &mut self,
        times: Option<(BorrowedFd<'_>, u32)>,
        then: impl Fn(rustix::process::Pid),
    ) -> (Worker, Option<String>) {
        self.next += 1;
        let id = WorkerId(self.next);
        let bytes = SLOT_HEAD_BYTES + ring_bytes(4);
        let slot = create_slot_memory(bytes).expect("a slot");
        let log = appending(&self.folder.path().join("worker.log"));
        let spawn = ToEngine::Spawn {
            worker: id,
            pool: PoolId(0),
            slot_bytes: bytes as u64,
            times_page: times.map(|(_, page)| page),
        };
        let mut fds = vec![slot.as_fd(), log.as_fd(), log.as_fd()];
        fds.extend(times.map(|(map, _)| map));
        self.control.send(&spawn, &fds).expect("sends");
        let (mut pid, mut memory, mut ready, mut failure) = (None, None, false, None);
        while pid.is_none() || !(ready || failure.is_some()) {
            match self.control.receive().expect("an answer") {
                (FromEngine::Spawned { worker, pid: Pid(p) }, _) if worker == id => {
                    pid = Some(p);
                    then(rustix::process::Pid::from_raw(p).expect("a pid"));
                }
                (FromEngine::WorkerReady { worker }, mut fds) if worker == id => {
                    ready = true;
                    memory = (!fds.is_empty()).then(|| fds.swap_remove(0));
                }
                (FromEngine::WorkerFailed { worker, reason }, _) if worker == id => failure = Some(reason),
                (other, _) => panic!("{other:?}"),
            }
        }
        let slot = SlotReader::map(slot, bytes).expect("maps");
        let worker = Worker {
            pid: pid.expect("set"),
            slot,
            memory,
            cursor: Cursor::default(),
        };
        (worker, failure)
    }

    /// Writes a script and gives its path.
    pub(crate) fn script(&self, name: &str, php: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, php).expect("writes");
        path
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("sock")).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("sets");
        stream
    }

    /// A GET of a script on a connection of its own.
    pub(crate) fn get(&self, script: &Path) -> Response {
        self.request(&params(script), b"")
    }

    pub(crate) fn request(&self, params: &[(String, String)], body: &[u8]) -> Response {
        let mut stream = self.connect();
        send(&mut stream, params, body, false);
        read_response(&mut stream)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (other, _) = Channel::pair().expect("a socket pair");
        drop(std::mem::replace(&mut self.control, other));
        self.child.wait().expect("ends");
    }
}

impl Worker {
    /// What it has recorded since last asked; waits until there are `count` records.
    pub(crate) fn records(&mut self, count: usize) -> Vec<End> {
        let mut out = Vec::new();
        for _ in 0..2000 {
            self.slot.drain(&mut self.cursor, &mut Vec::new(), |r| {
                out.push(End::decode(r).expect("decodes"))
            });
            if out.len() >= count {
                return out;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("{} records, expected {count}", out.len());
    }

    /// Waits until the slot shows what is asked for.
    pub(crate) fn until(&self, shows: impl Fn(&SlotReader) -> bool) {
        let shown = (0..2000).any(|_| {
            shows(&self.slot) || {
                std::thread::park_timeout(Duration::from_millis(5));
                false
            }
        });
        assert!(shown, "{:?}", self.slot.stage());
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signals");
    }

    /// Waits for its end and gives its wait status.
    pub(crate) fn wait(&self) -> rustix::process::WaitStatus {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            .expect("waits")
            .expect("ended")
            .1
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a pid");
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let _gone = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// A file to write behind its end.
pub(crate) fn appending(path: &Path) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).open(path).expect("opens")
}

/// What nginx would send for a GET of that script.
pub(crate) fn params(script: &Path) -> Vec<(String, String)> {
    let name = format!("/{}", script.file_name().expect("a name").to_string_lossy());
    let root = script.parent().expect("a folder").display().to_string();
    [
        ("QUERY_STRING", ""),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SCRIPT_NAME", &name),
        ("REQUEST_URI", &name),
        ("DOCUMENT_URI", &name),
        ("DOCUMENT_ROOT", &root),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "80"),
        ("SERVER_NAME", "localhost"),
        ("HTTP_HOST", "localhost"),
        ("SCRIPT_FILENAME", &script.display().to_string()),
    ]
    .into_iter()
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .collect()
}

/// Sets a parameter of a list.
pub(crate) fn with(mut params: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    params.retain(|(n, _)| n != name);
    params.push((name.to_owned(), value.to_owned()));
    params
}

pub(crate) fn send(stream: &mut impl Write, params: &[(String, String)], body: &[u8], keep: bool) {
    let mut bytes = Vec::new();
    RequestEncoder::begin(&mut bytes, 1, glasspool_fastcgi::Role::Responder, keep);
    RequestEncoder::params(
        &mut bytes,
        1,
        params.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())),
    );
    if !body.is_empty() {
        RequestEncoder::stdin(&mut bytes, 1, body);
    }
    RequestEncoder::stdin_end(&mut bytes, 1);
    stream.write_all(&bytes).expect("sends");
}

/// A whole response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// END_REQUEST came.
    pub(crate) ended: bool,
}

impl Response {
    pub(crate) fn body(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.split_once("\r\n\r\n")
            .map(|(_, b)| b.to_owned())
            .unwrap_or_default()
    }
}

/// Reads until END_REQUEST or the end of the stream.
pub(crate) fn read_response(stream: &mut impl Read) -> Response {
    let mut response = Response::default();
    let mut reader = ResponseReader::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return response,
            Ok(count) => count,
        };
        let mut input = &buffer[..count];
        while !input.is_empty() {
            let fed = reader.feed(input).expect("FastCGI");
            match fed.event {
                Some(client::Event::Stdout(range)) => response.stdout.extend_from_slice(&input[range]),
                Some(client::Event::Stderr(range)) => response.stderr.extend_from_slice(&input[range]),
                Some(client::Event::End(_)) => {
                    response.ended = true;
                    return response;
                }
                _ => {}
            }
            input = &input[fed.consumed..];
        }
    }
}

/// Half-closes, as a client does that has nothing more to say.
pub(crate) fn half_close(stream: &UnixStream) {
    stream.shutdown(Shutdown::Write).expect("shuts down");
}
