//! The worker's loop: accept, read a request, run PHP, answer, record.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use glasspool_abi::control::PoolSpec;
use glasspool_abi::slot::Stage;
use glasspool_fastcgi::Event;
use rustix::io::Errno;

use super::connection::{self, FIRST_BYTE, Failure, HEAD_PAUSE};
use super::exchange::{self, Exchange};
use super::script::{self, Files, PathSettings, Script};
use super::signals;
use crate::ffi::{self, PhpRequest};

/// Serves until QUIT, or until the pool's number of requests is reached.
pub(crate) fn serve(pool: &PoolSpec, listener: &OwnedFd) {
    let (fix_pathinfo, discard_path, doc_root) = ffi::path_settings();
    let settings = PathSettings {
        fix_pathinfo,
        discard_path,
        doc_root,
    };
    let mut served = 0;
    let most = if pool.max_requests == 0 {
        u64::MAX
    } else {
        pool.max_requests
    };
    while !signals::quitting() && served < most {
        exchange::with(|x| x.recorder.set_stage(Stage::Accepting));
        let socket = match connection::accept(listener.as_fd()) {
            Ok(socket) => socket,
            Err(error) => {
                // A signal, or a peer that gave up before we came (accept(2)). Anything
                // else, such as no descriptor left, may last: do not spin on it.
                if !matches!(error, Errno::INTR | Errno::CONNABORTED) && !signals::quitting() {
                    connection::pause_after_error();
                }
                continue;
            }
        };
        exchange::with(|x| x.open(socket));
        while serve_one(pool, &settings, &mut served, most) {}
        exchange::with(|x| x.connection.close());
    }
}

/// One request; true if its connection is to be used again.
fn serve_one(pool: &PoolSpec, settings: &PathSettings, served: &mut u64, most: u64) -> bool {
    let head = exchange::with(read_head).unwrap_or(Head::Nothing);
    if matches!(head, Head::Nothing) {
        return false;
    }
    *served += 1;
    let last = signals::quitting() || *served >= most;
    let Some(prepared) = exchange::with(|x| prepare(x, pool, settings, last)) else {
        return false;
    };
    // No borrow of the exchange is held here: PHP calls back into it.
    let outcome = ffi::run_request(&prepared.request());
    exchange::with(|x| {
        let (mut scalars, error) = x.end();
        scalars.status = if outcome.started { outcome.status } else { 500 };
        scalars.memory_peak = outcome.memory_peak;
        x.recorder.end(scalars, error.as_ref());
        if signals::quitting() {
            x.close_after_this();
        }
        x.next_request()
    })
    .unwrap_or(false)
}

enum Head {
    /// A request with all its parameters.
    Request,
    /// The peer is gone, silent, or speaks something else.
    Nothing,
}

/// Reads until a request is complete but for its body.
fn read_head(x: &mut Exchange) -> Head {
    let first_on_connection = !x.was_kept();
    let mut begun = false;
    loop {
        match x.connection.next_buffered() {
            Ok(Some(Event::Request)) => {
                if !begun {
                    x.recorder.mark_start();
                }
                return Head::Request;
            }
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(failure) => return give_up(x, &failure, begun),
        }
        // What is left of the request before is no beginning of the next one.
        if !begun && !x.connection.is_quiet() {
            begun = true;
            x.recorder.mark_start();
            x.recorder.set_stage(Stage::ReadingHeaders);
        }
        let pause = match (begun, first_on_connection) {
            (true, _) => Some(HEAD_PAUSE),
            (false, true) => Some(FIRST_BYTE),
            (false, false) => {
                // A kept connection between requests: QUIT must be able to end this wait.
                signals::waiting_on(x.connection.raw_socket());
                if signals::quitting() {
                    return Head::Nothing;
                }
                None
            }
        };
        let filled = x.connection.fill(pause);
        signals::waiting_on(None);
        match filled {
            Ok(()) if begun => {}
            Ok(()) => {
                begun = true;
                x.recorder.mark_start();
                x.recorder.set_stage(Stage::ReadingHeaders);
            }
            Err(Failure::Interrupted) if begun || !signals::quitting() => {}
            Err(failure) => return give_up(x, &failure, begun),
        }
    }
}

/// A connection that failed within a request costs itself only, and is told of.
fn give_up(x: &mut Exchange, failure: &Failure, begun: bool) -> Head {
    if begun || matches!(failure, Failure::Protocol(_)) {
        x.recorder.incident(&failure.to_string());
    }
    Head::Nothing
}

/// A request ready for PHP. The texts are owned here or lie in the exchange's
/// parameters, which do not change until the next request.
struct Prepared {
    places: [Option<(*const u8, usize)>; 6],
    request_uri: Option<Vec<u8>>,
    script: Option<Vec<u8>>,
    content_length: u64,
    denied: bool,
}

fn prepare(x: &mut Exchange, pool: &PoolSpec, settings: &PathSettings, last: bool) -> Prepared {
    let role = x.connection.reader.role();
    let params = x.connection.reader.params_mut();
    params.set(b"FCGI_ROLE", role.name().as_bytes());
    let scalars = x.recorder.trace(params, &pool.sampler, pool.tracing);
    let Script { path, request_uri } = script::resolve(params, settings, &RealFiles);
    let content_length = params
        .get(b"CONTENT_LENGTH")
        .and_then(|l| std::str::from_utf8(l).ok()?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let body_file = params
        .get(b"REQUEST_BODY_FILE")
        .filter(|p| !p.is_empty())
        .map(|path| {
            let opened = File::open(Path::new(std::ffi::OsStr::from_bytes(path)));
            opened.map_err(|e| (path.to_vec(), e))
        });
    x.recorder
        .begin(&scalars, x.connection.reader.params(), path.as_deref());
    let keep_alive = x.connection.reader.keep_alive() && !last;
    let (body_file, complaint) = match body_file {
        None => (None, None),
        Some(Ok(file)) => (Some(file), None),
        Some(Err((path, error))) => {
            let number = error.raw_os_error().unwrap_or(0);
            let path = String::from_utf8_lossy(&path).into_owned();
            let text = format!("REQUEST_BODY_FILE: open('{path}') failed: {error} ({number})");
            (None, Some(text))
        }
    };
    let readable = if complaint.is_some() { 0 } else { content_length };
    x.begin(keep_alive, readable, body_file);
    if let Some(text) = complaint {
        x.log_to_client(text.as_bytes());
    }
    let denied = path
        .as_deref()
        .is_some_and(|p| !script::is_allowed(p, &pool.limit_extensions));
    let with_nul = |text: Vec<u8>| {
        let mut text = text;
        text.retain(|b| *b != 0);
        text.push(0);
        text
    };
    Prepared {
        places: [
            x.param(b"REQUEST_METHOD"),
            x.param(b"QUERY_STRING"),
            x.param(b"CONTENT_TYPE"),
            x.param(b"HTTP_AUTHORIZATION"),
            x.param(b"PHP_VALUE"),
            x.param(b"PHP_ADMIN_VALUE"),
        ],
        request_uri: request_uri.map(with_nul),
        script: path.map(with_nul),
        content_length,
        denied,
    }
}

impl Prepared {
    fn request(&self) -> PhpRequest<'_> {
        let place = |index: usize| self.places[index].map(|(at, length)| ffi::param_text(at, length));
        PhpRequest {
            method: place(0),
            query: Some(place(1).unwrap_or(b"\0")),
            content_type: Some(place(2).unwrap_or(b"\0")),
            auth: place(3),
            php_value: place(4),
            php_admin_value: place(5),
            request_uri: self.request_uri.as_deref(),
            script: self.script.as_deref(),
            content_length: i64::try_from(self.content_length).unwrap_or(i64::MAX),
            denied: self.denied,
        }
    }
}

struct RealFiles;

impl Files for RealFiles {
    fn exists(&self, path: &[u8]) -> bool {
        ffi::path_exists(path)
    }

    fn is_file(&self, path: &[u8]) -> bool {
        Path::new(std::ffi::OsStr::from_bytes(path)).is_file()
    }
}
