//! The worker's loop: accept, read a request, run PHP, answer, record.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use glasspool_abi::control::PoolSpec;
use glasspool_abi::slot::Stage;
use glasspool_fastcgi::{Event, Params};
use rustix::io::Errno;

use super::admission::Admission;
use super::connection::{self, FIRST_BYTE, Failure, HEAD_PAUSE};
use super::exchange::{self, Exchange, Resolved};
use super::pages::Page;
use super::pending::Pending;
use super::script::{self, Files, PathSettings};
use super::{log, signals};
use crate::ffi::{self, PhpRequest};

/// Serves until QUIT, or until the pool's number of requests is reached.
pub(crate) fn serve(pool: &PoolSpec, listener: &OwnedFd, admission: &Admission) {
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
    let mut pending = Pending::default();
    while !signals::quitting() && served < most {
        exchange::with(|x| x.recorder.set_stage(Stage::Accepting));
        pending.let_others_run(listener);
        let visitor = match admission.accept(listener) {
            Ok(Some(visitor)) => visitor,
            Ok(None) => continue,
            Err(error) => {
                // A signal, or a peer that gave up before we came (accept(2)). Anything
                // else, such as no descriptor left, may last: do not spin on it.
                if !matches!(error, Errno::INTR | Errno::CONNABORTED) && !signals::quitting() {
                    connection::pause_after_error();
                }
                continue;
            }
        };
        exchange::with(|x| x.open(visitor));
        while serve_one(pool, &settings, &mut served, most) {}
        exchange::with(Exchange::close);
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
        // What a copy of the worker ends, which the script has forked, is no request of ours.
        if pool.catch_output && !x.recorder.is_copy() {
            log::mark_end_of_request();
        }
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
    // Also while nothing of it is here yet, as in php-fpm: the worker is not free.
    x.recorder.set_stage(Stage::ReadingHeaders);
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
            }
            // Whoever has just connected is about to ask, and QUIT is no reason to refuse.
            Err(Failure::Interrupted) if begun || first_on_connection || !signals::quitting() => {}
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

/// A request ready for PHP. Its texts lie in the exchange and do not change until the
/// next request.
struct Prepared {
    params: [Option<(*const u8, usize)>; 6],
    resolved: [Option<(*const u8, usize)>; 2],
    body_error: Option<CString>,
    content_length: u64,
    denied: bool,
    page: Option<Page>,
}

fn prepare(x: &mut Exchange, pool: &PoolSpec, settings: &PathSettings, last: bool) -> Prepared {
    let role = x.connection.reader.role();
    let params = x.connection.reader.params_mut();
    params.set(b"FCGI_ROLE", role.name().as_bytes());
    let scalars = x.recorder.trace(params, pool);
    let script = script::resolve(params, settings, &RealFiles);
    let content_length = params
        .get(b"CONTENT_LENGTH")
        .and_then(|l| std::str::from_utf8(l).ok()?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let body_file = body_file(params);
    x.resolved = Resolved::new(script.path, script.request_uri, content_length);
    x.recorder
        .begin(&scalars, x.connection.reader.params(), &x.resolved, &pool.trace);
    let keep_alive = x.connection.reader.keep_alive() && !last;
    let (body_file, body_error) = match body_file {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let readable = if body_error.is_some() { 0 } else { content_length };
    x.begin(keep_alive, readable, body_file);
    Prepared {
        params: [
            x.param(b"REQUEST_METHOD"),
            x.param(b"QUERY_STRING"),
            x.param(b"CONTENT_TYPE"),
            x.param(b"HTTP_AUTHORIZATION"),
            x.param(b"PHP_VALUE"),
            x.param(b"PHP_ADMIN_VALUE"),
        ],
        resolved: x.resolved_places(),
        body_error,
        content_length,
        denied: x
            .resolved
            .script()
            .is_some_and(|p| !script::is_allowed(p, &pool.limit_extensions)),
        page: Page::of(&pool.pages, x.resolved.uri()),
    }
}

/// The file that REQUEST_BODY_FILE names, or what is wrong with it.
fn body_file(params: &Params) -> Result<Option<File>, CString> {
    let Some(path) = params.get(b"REQUEST_BODY_FILE").filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    File::open(Path::new(OsStr::from_bytes(path)))
        .map(Some)
        .map_err(|error| {
            let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
            let why = format!("') failed: {} ({})", errno.desc(), errno as i32);
            let text = [&b"REQUEST_BODY_FILE: open('"[..], path, why.as_bytes()].concat();
            CString::new(text).unwrap_or_else(|_| c"REQUEST_BODY_FILE: the path holds a NUL byte".into())
        })
}

impl Prepared {
    fn request(&self) -> PhpRequest<'_> {
        let text = |place: Option<(*const u8, usize)>| place.map(|(at, length)| ffi::param_text(at, length));
        let param = |index: usize| text(self.params[index]);
        PhpRequest {
            method: param(0),
            query: Some(param(1).unwrap_or(b"\0")),
            content_type: Some(param(2).unwrap_or(b"\0")),
            auth: param(3),
            body_error: self.body_error.as_ref().map(|e| e.as_bytes_with_nul()),
            php_value: param(4),
            php_admin_value: param(5),
            script: text(self.resolved[0]),
            request_uri: text(self.resolved[1]),
            content_length: i64::try_from(self.content_length).unwrap_or(i64::MAX),
            denied: self.denied,
            page: self.page,
        }
    }
}

struct RealFiles;

impl Files for RealFiles {
    fn exists(&self, path: &[u8]) -> bool {
        ffi::path_exists(path)
    }

    fn is_file(&self, path: &[u8]) -> bool {
        Path::new(OsStr::from_bytes(path)).is_file()
    }
}
