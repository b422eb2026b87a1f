//! The state of the request being served, as PHP's callbacks see it.
//!
//! PHP calls back through the leaves in `ffi`, which find the exchange in a thread
//! local: there is one thread and one request at a time. Nothing here calls PHP.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

use glasspool_abi::record::{ABORTED, EndScalars, FINISHED_EARLY};
use glasspool_abi::slot::Stage;
use glasspool_fastcgi::{ProtocolStatus, ResponseWriter};

use super::access_log::{AccessLog, Facts, Trouble};
use super::admission::Visitor;
use super::connection::{Connection, Failure};
use super::head;
use super::php_error::{KeptError, PhpError};
use super::recorder::Recorder;

/// Output that is collected before it is sent.
const OUTPUT_BYTES: usize = 32 * 1024;

thread_local! {
    static CURRENT: RefCell<Option<Exchange>> = const { RefCell::new(None) };
}

/// Makes this the worker's exchange.
pub(crate) fn install(exchange: Exchange) {
    CURRENT.with_borrow_mut(|current| *current = Some(exchange));
}

/// Runs `f` on the worker's exchange; `None` in an engine, or when called from
/// within another call (which no leaf does).
pub(crate) fn with<R>(f: impl FnOnce(&mut Exchange) -> R) -> Option<R> {
    CURRENT.with(|current| current.try_borrow_mut().ok()?.as_mut().map(f))
}

/// What PHP says when the script has run and the request is not yet ended.
#[derive(Debug)]
pub(crate) struct Executed<'a> {
    pub(crate) status: u32,
    /// Bytes.
    pub(crate) memory_peak: u64,
    /// Of basic authentication.
    pub(crate) user: &'a [u8],
}

/// What the path fix-ups made of the request under way; its texts end in NUL for PHP.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    script: Option<Vec<u8>>,
    uri: Option<Vec<u8>>,
    /// CONTENT_LENGTH, whatever of it may be read.
    pub(crate) content_length: u64,
}

impl Resolved {
    pub(crate) fn new(script: Option<Vec<u8>>, uri: Option<Vec<u8>>, content_length: u64) -> Resolved {
        let with_nul = |mut text: Vec<u8>| {
            text.retain(|b| *b != 0);
            text.push(0);
            text
        };
        Resolved {
            script: script.map(with_nul),
            uri: uri.map(with_nul),
            content_length,
        }
    }

    /// The script to run, if there is one.
    pub(crate) fn script(&self) -> Option<&[u8]> {
        self.script.as_deref().map(without_nul)
    }

    /// The URI, usually SCRIPT_NAME.
    pub(crate) fn uri(&self) -> Option<&[u8]> {
        self.uri.as_deref().map(without_nul)
    }
}

/// Where the response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// Not complete.
    Open,
    /// END_REQUEST has been sent, at this time.
    Ended { mono_ns: u64 },
}

/// One worker's connection, response and counters.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) connection: Connection,
    writer: ResponseWriter,
    pub(crate) recorder: Recorder,
    response: Response,
    /// PHP is running the script.
    executing: bool,
    /// The response ended while the script was still running.
    early: bool,
    /// The client went away before the response was complete.
    aborted: bool,
    /// The connection has served a request before this one.
    kept: bool,
    keep_alive: bool,
    /// What the client may still send of the body, by CONTENT_LENGTH.
    body_left: u64,
    body_file: Option<File>,
    pub(crate) bytes_in: u64,
    bytes_out: u64,
    stderr_begun: bool,
    error: Option<KeptError>,
    /// Parameters in order, as PHP reads them in place.
    params: Vec<(Place, Place)>,
    pub(crate) resolved: Resolved,
    access_log: Option<AccessLog>,
    /// The connection's other end, where it has an address.
    peer: Option<IpAddr>,
}

/// A text that ends in NUL inside the reader's parameters.
type Place = (*const u8, usize);

impl Exchange {
    pub(crate) fn new(recorder: Recorder, access_log: Option<AccessLog>) -> Exchange {
        Exchange {
            connection: Connection::new(),
            writer: ResponseWriter::new(),
            recorder,
            response: Response::Open,
            executing: false,
            early: false,
            aborted: false,
            kept: false,
            keep_alive: false,
            body_left: 0,
            body_file: None,
            bytes_in: 0,
            bytes_out: 0,
            stderr_begun: false,
            error: None,
            params: Vec::new(),
            resolved: Resolved::default(),
            access_log,
            peer: None,
        }
    }

    /// Begins a request whose parameters are complete and will not change any more. Of
    /// its body `readable` bytes may be read.
    pub(crate) fn begin(&mut self, keep_alive: bool, readable: u64, body_file: Option<File>) {
        self.writer.clear_pending();
        self.writer.begin(self.connection.reader.request_id());
        self.response = Response::Open;
        (self.executing, self.early, self.aborted) = (false, false, false);
        self.keep_alive = keep_alive;
        self.body_left = readable;
        self.body_file = body_file;
        (self.bytes_in, self.bytes_out) = (0, 0);
        self.stderr_begun = false;
        self.error = None;
        self.params.clear();
        let place = |text: &[u8]| (text.as_ptr(), text.len() - 1);
        let params = self.connection.reader.params();
        self.params.extend(
            params
                .iter_with_nul()
                .map(|(name, value)| (place(name), place(value))),
        );
    }

    pub(crate) fn set_stage(&mut self, stage: i32) {
        self.executing = stage == 4;
        match stage {
            4 => self.recorder.set_stage(Stage::Executing),
            _ if !self.is_finished() => self.recorder.set_stage(Stage::End),
            _ => {}
        }
    }

    /// Whether the access log shows headers of the response.
    pub(crate) fn wants_headers(&self) -> bool {
        self.access_log.as_ref().is_some_and(AccessLog::wants_headers)
    }

    /// A header of the response, for the access log.
    pub(crate) fn response_header(&mut self, line: &[u8]) {
        if let Some(log) = &mut self.access_log {
            log.header(line);
        }
    }

    /// The script has run: writes the access log.
    pub(crate) fn executed(&mut self, said: &Executed<'_>) -> Option<Trouble> {
        let log = self.access_log.as_mut()?;
        let (began, began_cpu) = self.recorder.started();
        log.write(&Facts {
            params: self.connection.reader.params(),
            script: self.resolved.script(),
            uri: self.resolved.uri(),
            peer: self.peer,
            user: said.user,
            status: said.status,
            content_length: self.resolved.content_length,
            memory_peak: said.memory_peak,
            began,
            began_cpu,
            ids: self.recorder.ids(),
            queued_ns: self.recorder.queued_ns(),
            account: self.recorder.account(),
        })
    }

    pub(crate) fn param(&self, name: &[u8]) -> Option<Place> {
        let value = self.connection.reader.params().value_with_nul(name)?;
        Some((value.as_ptr(), value.len() - 1))
    }

    /// The script and the URI that PHP is given.
    pub(crate) fn resolved_places(&self) -> [Option<Place>; 2] {
        [&self.resolved.script, &self.resolved.uri]
            .map(|text| text.as_ref().map(|text| (text.as_ptr(), text.len() - 1)))
    }

    pub(crate) fn param_at(&self, index: usize) -> Option<(Place, Place)> {
        self.params.get(index).copied()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.response != Response::Open
    }

    /// Body bytes of the response; false when the client is gone. After the end of
    /// the response they are thrown away, as in php-fpm.
    pub(crate) fn write_body(&mut self, bytes: &[u8]) -> bool {
        if self.is_finished() {
            return true;
        }
        self.bytes_out += bytes.len() as u64;
        for piece in bytes.chunks(OUTPUT_BYTES) {
            self.writer.stdout(piece);
            if self.writer.pending_len() >= OUTPUT_BYTES && !self.flush() {
                return false;
            }
        }
        !self.aborted
    }

    pub(crate) fn flush(&mut self) -> bool {
        if self.is_finished() || self.aborted {
            return !self.aborted;
        }
        if self.writer.pending_len() > 0 && self.connection.send(self.writer.pending()).is_err() {
            self.aborted = true;
        }
        self.writer.clear_pending();
        !self.aborted
    }

    /// Ends the response. Returns whether it was open until now, and whether the
    /// client was gone.
    pub(crate) fn finish(&mut self) -> (bool, bool) {
        if self.is_finished() {
            return (false, self.aborted);
        }
        self.writer.end(0, ProtocolStatus::RequestComplete);
        self.flush();
        if self.aborted {
            self.keep_alive = false;
        }
        if !self.keep_alive {
            self.close();
        }
        self.response = Response::Ended {
            mono_ns: super::clock::monotonic_ns(),
        };
        self.early = self.executing;
        self.recorder.set_stage(Stage::Finished);
        (true, self.aborted)
    }

    pub(crate) fn read_body(&mut self, buffer: &mut [u8]) -> usize {
        let most = usize::try_from(self.body_left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..most];
        let finished = self.is_finished();
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match &mut self.body_file {
                Some(file) => file.read(&mut buffer[filled..]).map_err(|_| Failure::Closed),
                None if finished => Ok(0),
                None => self.connection.read_body(&mut buffer[filled..]),
            };
            match read {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(_) => {
                    self.aborted = true;
                    break;
                }
            }
        }
        self.body_left -= filled as u64;
        self.bytes_in += filled as u64;
        filled
    }

    pub(crate) fn head_status(&mut self, code: i32, line: &[u8], raw: bool) {
        if !self.is_finished() {
            head::status(&mut self.writer, code, line, raw);
        }
    }

    /// A header of the response. The one that names the route is for us alone.
    pub(crate) fn head_line(&mut self, line: &[u8]) {
        if let Some(route) = head::route(line) {
            self.recorder.route(route);
        } else if !self.is_finished() {
            self.writer.stdout(line);
            self.writer.stdout(b"\r\n");
        }
    }

    pub(crate) fn head_end(&mut self) {
        if !self.is_finished() {
            self.writer.stdout(b"\r\n");
        }
    }

    /// Several lines of one request are joined with `; `, as php-fpm does.
    pub(crate) fn log_to_client(&mut self, message: &[u8]) {
        if self.is_finished() || self.aborted {
            return;
        }
        let mut line = Vec::with_capacity(message.len() + 16);
        if self.stderr_begun {
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(message);
        self.writer.stderr(&line);
        self.stderr_begun = true;
    }

    /// Takes note of an error that PHP reports.
    pub(crate) fn php_error(&mut self, error: &PhpError<'_>) {
        KeptError::keep(&mut self.error, error);
    }

    /// What there is to record of the request that has just ended. Ends the response
    /// if PHP did not.
    pub(crate) fn end(&mut self) -> (EndScalars, Option<KeptError>) {
        self.finish();
        let Response::Ended { mono_ns } = self.response else {
            return (EndScalars::default(), None);
        };
        let scalars = EndScalars {
            responded_mono_ns: mono_ns,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            flags: if self.aborted { ABORTED } else { 0 } | if self.early { FINISHED_EARLY } else { 0 },
            ..EndScalars::default()
        };
        (scalars, self.error.take())
    }

    /// Gets ready for the next request of the connection, if it is to be used again.
    pub(crate) fn next_request(&mut self) -> bool {
        self.kept = self.keep_alive && self.connection.is_open();
        if self.kept {
            self.connection.next_request();
        }
        self.kept
    }

    /// Takes a new connection.
    pub(crate) fn open(&mut self, visitor: Visitor) {
        self.kept = false;
        self.peer = visitor.peer;
        self.connection.open(visitor.socket);
        self.recorder
            .account()
            .set_connection(self.connection.raw_socket());
    }

    /// Ends the connection, if there is one.
    pub(crate) fn close(&mut self) {
        self.connection.close();
        self.recorder.account().set_connection(None);
    }

    /// Whether the connection has served a request before.
    pub(crate) fn was_kept(&self) -> bool {
        self.kept
    }

    /// Ends the use of a kept connection after the current request.
    pub(crate) fn close_after_this(&mut self) {
        self.keep_alive = false;
        if self.is_finished() {
            self.close();
        }
    }
}

fn without_nul(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}
