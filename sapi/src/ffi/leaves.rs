//! What the shim calls: leaves, which never call PHP and never unwind, so that nothing
//! of theirs is on the stack when PHP jumps.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::null;
use std::slice;

use glasspool_abi::control::Severity;

use super::{GpExecuted, GpFigure, GpPage, GpParam, GpText, param_text};
use crate::worker::exchange::{self, Executed};
use crate::worker::log::{self, Place, here};
use crate::worker::pages::fields::Value;
use crate::worker::pages::{self, Page};
use crate::worker::php_error::PhpError;
use crate::worker::recorder::line::Target;

/// # Safety
/// `at` has `length` readable bytes, or `length` is 0.
unsafe fn bytes<'a>(at: *const c_char, length: usize) -> &'a [u8] {
    if length == 0 || at.is_null() {
        return &[];
    }
    // SAFETY: the caller's duty, above.
    unsafe { slice::from_raw_parts(at.cast(), length) }
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_stage(stage: c_int) {
    exchange::with(|x| x.set_stage(stage));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_write(at: *const c_char, length: usize) -> bool {
    // SAFETY: PHP's output, valid during the call.
    let body = unsafe { bytes(at, length) };
    exchange::with(|x| x.write_body(body)).unwrap_or(true)
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_flush() -> bool {
    exchange::with(exchange::Exchange::flush).unwrap_or(true)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_finish(aborted: *mut bool) -> bool {
    let (ended_now, gone) = exchange::with(exchange::Exchange::finish).unwrap_or((false, false));
    // SAFETY: points to a local of the shim.
    unsafe { *aborted = gone };
    ended_now
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_is_finished() -> bool {
    exchange::with(|x| x.is_finished()).unwrap_or(true)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_read_body(buffer: *mut c_char, length: usize) -> usize {
    // SAFETY: PHP's buffer, which it has initialised or will not read past the
    // number of bytes returned; bytes have no invalid values.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast(), length) };
    exchange::with(|x| x.read_body(buffer)).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_head_status(code: c_int, line: GpText, raw: bool) {
    // SAFETY: PHP's status line, valid during the call.
    let line = unsafe { bytes(line.at, line.length) };
    exchange::with(|x| x.head_status(code, line, raw));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_head_line(at: *const c_char, length: usize) {
    // SAFETY: PHP's header, valid during the call.
    let line = unsafe { bytes(at, length) };
    exchange::with(|x| x.head_line(line));
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_head_end() {
    exchange::with(exchange::Exchange::head_end);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_param(
    name: *const c_char,
    length: usize,
    value_length: *mut usize,
) -> *const c_char {
    // SAFETY: a name of PHP or of the shim, valid during the call.
    let name = unsafe { bytes(name, length) };
    let found = exchange::with(|x| x.param(name)).flatten();
    // SAFETY: points to a local of the shim.
    unsafe { *value_length = found.map_or(0, |(_, length)| length) };
    found.map_or(null(), |(at, _)| at.cast())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_param_at(index: usize, param: *mut GpParam) -> bool {
    let Some((name, value)) = exchange::with(|x| x.param_at(index)).flatten() else {
        return false;
    };
    let text = |(at, length): (*const u8, usize)| GpText {
        at: at.cast(),
        length,
    };
    // SAFETY: points to a local of the shim.
    unsafe {
        param.write(GpParam {
            name: text(name),
            value: text(value),
        })
    };
    true
}

impl GpText {
    fn of(text: &[u8]) -> GpText {
        GpText {
            at: text.as_ptr().cast(),
            length: text.len(),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_page(page: c_int, to_client: bool, answer: *mut GpPage) {
    let page = if page == Page::Ping as i32 {
        Page::Ping
    } else {
        Page::Status
    };
    let query = exchange::with(|x| x.param(b"QUERY_STRING")).flatten();
    let query = query.map_or(&b""[..], |(at, length)| &param_text(at, length)[..length]);
    pages::with(|desk| {
        let made = desk.answer(page, query);
        for error in &made.errors {
            log::say_of_request(
                Severity::Error,
                here!("fpm_status_handle_request"),
                error.as_bytes(),
                to_client,
            );
        }
        let page = GpPage {
            headers: made.headers.map(|header| GpText::of(header.as_bytes())),
            body: GpText::of(&made.body),
            status: made.status,
        };
        // SAFETY: points to a local of the shim.
        unsafe { answer.write(page) };
    })
    .expect("a worker that serves has its desk");
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_take_figures(to_client: bool) -> i64 {
    match pages::with(pages::Desk::take_figures) {
        Some(Ok(count)) => i64::try_from(count).unwrap_or(i64::MAX),
        Some(Err(reason)) => {
            let place = here!("fpm_status_export_to_zval");
            log::say_of_request(Severity::Notice, place, reason.as_bytes(), to_client);
            -1
        }
        None => -1,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_figure(worker: i64, index: usize, figure: *mut GpFigure) -> bool {
    let Some(Some(value)) = pages::with(|desk| {
        let (name, value) = desk.value(usize::try_from(worker).ok(), index)?;
        Some(GpFigure::of(name, value))
    }) else {
        return false;
    };
    // SAFETY: points to a local of the shim.
    unsafe { figure.write(value) };
    true
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_drop_figures() {
    pages::with(pages::Desk::drop_figures);
}

impl GpFigure {
    /// A value whose text the desk keeps until the figures are dropped.
    fn of(name: &'static str, value: Value<'_>) -> GpFigure {
        let mut figure = GpFigure {
            name: GpText::of(name.as_bytes()),
            text: GpText::of(b""),
            number: 0,
            real: 0.0,
            kind: 1,
        };
        match value {
            Value::Text(text) | Value::Uri(text, _) => figure.text = GpText::of(text),
            Value::Number(number) | Value::Time(number) => {
                (figure.number, figure.kind) = (i64::try_from(number).unwrap_or(i64::MAX), 2);
            }
            Value::Percent(percent) => (figure.real, figure.kind) = (percent, 3),
        }
        figure
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_log(
    severity: c_int,
    function: *const c_char,
    line: c_int,
    message: GpText,
    to_client: bool,
) {
    // SAFETY: the shim names its functions by string literals.
    let function = unsafe { CStr::from_ptr(function) };
    // SAFETY: a message of the shim, valid during the call.
    let message = unsafe { bytes(message.at, message.length) };
    let severity = match severity {
        0 => Severity::Debug,
        1 => Severity::Notice,
        2 => Severity::Warning,
        _ => Severity::Error,
    };
    let place = Place {
        function: function.to_str().unwrap_or_default(),
        line: line.unsigned_abs(),
    };
    log::say_of_request(severity, place, message, to_client);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_php_log(at: *const c_char, length: usize, to_client: bool) {
    // SAFETY: a message of PHP, valid during the call.
    let message = unsafe { bytes(at, length) };
    log::say_for_php(here!("php_log"), message, to_client);
    exchange::with(|x| {
        if x.recorder.wants_line(Target::Server) {
            x.recorder.line(0, message, message.len());
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_wants_line(target: GpText) -> bool {
    // SAFETY: a setting of PHP, valid during the call.
    let target = unsafe { bytes(target.at, target.length) };
    exchange::with(|x| x.recorder.wants_line(Target::Named(target))).unwrap_or(false)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_line(level: c_int, line: GpText, whole: usize) {
    // SAFETY: a local of the shim.
    let line = unsafe { bytes(line.at, line.length) };
    exchange::with(|x| x.recorder.line(level, line, whole));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_user(at: *const c_char, length: usize) {
    // SAFETY: a string of PHP, valid during the call.
    let user = unsafe { bytes(at, length) };
    exchange::with(|x| x.recorder.user(user));
}

#[unsafe(no_mangle)]
extern "C" fn gp_rs_wants_headers() -> bool {
    exchange::with(|x| x.wants_headers()).unwrap_or(false)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_response_header(at: *const c_char, length: usize) {
    // SAFETY: PHP's header, valid during the call.
    let line = unsafe { bytes(at, length) };
    exchange::with(|x| x.response_header(line));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_executed(executed: *const GpExecuted) {
    // SAFETY: a local of the shim.
    let executed = unsafe { &*executed };
    // SAFETY: a string of PHP, valid during the call.
    let user = unsafe { bytes(executed.user.at, executed.user.length) };
    let said = Executed {
        status: u32::try_from(executed.status).unwrap_or(0),
        memory_peak: u64::try_from(executed.memory_peak).unwrap_or(0),
        user,
    };
    if let Some(trouble) = exchange::with(|x| x.executed(&said)).flatten() {
        let text = trouble.to_string();
        log::say_of_request(
            Severity::Notice,
            here!("access_log"),
            text.as_bytes(),
            executed.to_client,
        );
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_php_error(kind: c_int, message: GpText, file: GpText, line: u32) {
    // SAFETY: strings of PHP, valid during the call.
    let (message, file) = unsafe { (bytes(message.at, message.length), bytes(file.at, file.length)) };
    exchange::with(|x| {
        x.php_error(&PhpError {
            kind,
            message,
            file,
            line,
        })
    });
}
