//! What the scripts wait for: servers that answer after a known time, in this process.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// Times that the servers take to answer.
pub(super) const HTTP: Duration = Duration::from_millis(200);
const UNIX: Duration = Duration::from_millis(40);
const LOCK: Duration = Duration::from_millis(60);

/// The servers serve until the test program ends; their folder goes with this value.
pub(super) struct World {
    folder: TempDir,
}

impl World {
    /// Starts those that need no network.
    pub(super) fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        open_to_all(folder.path());
        let world = World { folder };
        world.serve_unix();
        world.serve_lock();
        File::create(world.data()).expect("creates");
        open_to_all(&world.data());
        world
    }

    /// Answers a byte with a byte, later.
    pub(super) fn unix(&self) -> PathBuf {
        self.folder.path().join("late")
    }

    /// Has the lock when it answers, and lets it go some time later.
    pub(super) fn locker(&self) -> PathBuf {
        self.folder.path().join("locker")
    }

    /// What is locked.
    pub(super) fn lock(&self) -> PathBuf {
        self.folder.path().join("lock")
    }

    /// A file to write to.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn serve_unix(&self) {
        serve(listen(&self.unix()), |stream| {
            hold(UNIX);
            stream.write_all(b"x").is_ok()
        });
    }

    fn serve_lock(&self) {
        let file = File::create(self.lock()).expect("creates");
        open_to_all(&self.lock());
        serve(listen(&self.locker()), move |stream| {
            flock(&file, FlockOperation::LockExclusive).expect("locks");
            let told = stream.write_all(b"x").is_ok();
            hold(LOCK);
            flock(&file, FlockOperation::Unlock).expect("unlocks");
            told
        });
    }
}

fn listen(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("binds");
    open_to_all(path);
    listener
}

/// The workers run as nobody.
fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).expect("sets");
}

/// Does the same for each byte of each connection, until it says that nobody listens.
fn serve(listener: UnixListener, mut answer: impl FnMut(&mut dyn Write) -> bool + Send + 'static) {
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length == 1) && answer(&mut stream) {}
        }
    });
}

/// An HTTP server on loopback of the network that the calling thread is in.
pub(super) fn serve_http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            // Of one that has gone away there is nothing to serve.
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                hold(HTTP);
                let _gone = stream
                    .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .is_err();
            }
        }
    });
    address
}

/// Lets time pass: that is the load, and nobody waits for an event.
fn hold(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}
