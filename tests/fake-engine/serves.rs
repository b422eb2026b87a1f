//! The serving half of a fake worker: accepts on standard input, answers each request
//! with the name of its pool, and ends after as many as its pool allows. A request with
//! `UNTIL`, the path of a socket, is answered when the other side closes that; one of
//! method `CRASH` is the worker's end.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use glasspool_fastcgi::{Event, Limits, ProtocolStatus, RequestReader, ResponseWriter};
use rustix::event::{PollFd, PollFlags, poll};

/// Held while a request is served.
pub(crate) type Serving = Arc<Mutex<()>>;

/// Serves on a thread of its own, for as long as the process lives.
pub(crate) fn start(behaviour: &str, most_requests: u64, pool: String) -> Serving {
    let serving = Serving::default();
    let (behaviour, theirs) = (behaviour.to_owned(), Arc::clone(&serving));
    let listener = rustix::stdio::stdin()
        .try_clone_to_owned()
        .expect("has a standard input");
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true).expect("sets");
    std::thread::spawn(move || {
        let mut served = 0;
        loop {
            let mut readable = [PollFd::new(&listener, PollFlags::IN)];
            poll(&mut readable, None).expect("waits");
            // From accepting on, so that no connection is taken and not served.
            let held = theirs.lock().expect("nobody panics");
            let Ok((connection, _)) = listener.accept() else {
                continue; // Another worker was faster.
            };
            connection.set_nonblocking(false).expect("sets");
            serve(connection, &behaviour, &pool);
            drop(held);
            served += 1;
            if served == most_requests {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::QUIT)
                    .expect("is alive");
            }
        }
    });
    serving
}

fn serve(mut connection: UnixStream, behaviour: &str, pool: &str) {
    if behaviour == "crash" {
        crash();
    }
    let mut reader = RequestReader::new(Limits::default());
    let (mut input, mut replies, mut done) = (Vec::new(), Vec::new(), false);
    while !done {
        let mut buf = [0; 4096];
        let count = connection.read(&mut buf).expect("reads");
        assert!(count > 0, "a whole request");
        input.extend_from_slice(&buf[..count]);
        loop {
            let fed = reader.feed(&input, &mut replies).expect("a good request");
            input.drain(..fed.consumed);
            match fed.event {
                None => break,
                Some(Event::StdinEnd) => done = true,
                Some(Event::Request) if reader.params().get(b"REQUEST_METHOD") == Some(b"CRASH") => crash(),
                Some(Event::Request | Event::Stdin(_) | Event::Aborted) => {}
            }
        }
    }
    if let Some(gate) = reader.params().get(b"UNTIL") {
        // Until the test closes it.
        let mut gate = UnixStream::connect(OsStr::from_bytes(gate)).expect("the test listens");
        gate.read_to_end(&mut Vec::new()).expect("is closed in the end");
    }
    let mut writer = ResponseWriter::new();
    writer.begin(reader.request_id());
    writer.stdout(format!("Status: 404\r\n\r\n{pool} {}", std::process::id()).as_bytes());
    writer.end(0, ProtocolStatus::RequestComplete);
    connection.write_all(writer.pending()).expect("writes");
}

/// Dies by SIGSEGV, which Rust's own handler would survive once.
fn crash() -> ! {
    panic!("{}", Command::new("sh").args(["-c", "kill -SEGV $$"]).exec());
}
