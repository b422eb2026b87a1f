//! The border to C: the only Rust file that names a C symbol.
//!
//! Above: safe functions for the rest of this crate. Below: the leaves that the shim
//! calls. Layouts mirror `shim/glasspool.h`; [`check_sizes`] compares them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null, null_mut};
use std::slice;

use glasspool_abi::zend::{Layout, MissingOffset, PhpBuild};

use crate::worker::exchange::{self, PhpError};

#[repr(C)]
#[derive(Clone, Copy)]
struct GpText {
    at: *const c_char,
    length: usize,
}

#[repr(C)]
struct GpParam {
    name: GpText,
    value: GpText,
}

#[repr(C)]
struct GpRequest {
    method: *const c_char,
    query: *const c_char,
    content_type: *const c_char,
    request_uri: *const c_char,
    script: *const c_char,
    auth: *const c_char,
    php_value: GpText,
    php_admin_value: GpText,
    content_length: i64,
    denied: bool,
}

#[repr(C)]
#[derive(Default)]
struct GpOutcome {
    memory_peak: i64,
    status: i32,
    exit_status: i32,
    started: bool,
}

#[repr(C)]
struct GpStart {
    binary: *const c_char,
    ini_path: *const c_char,
    ini_entries: *const c_char,
}

#[repr(C)]
struct GpOffset {
    name: *const c_char,
    value: u32,
}

unsafe extern "C" {
    safe fn gp_abi_sizes() -> usize;
    safe fn gp_php_version() -> *const c_char;
    safe fn gp_php_api() -> u32;
    safe fn gp_php_is_zts() -> bool;
    safe fn gp_php_executor_globals() -> u64;
    fn gp_php_offsets(count: *mut usize) -> *const GpOffset;
    safe fn gp_php_fix_pathinfo() -> c_int;
    safe fn gp_php_discard_path() -> c_int;
    safe fn gp_php_doc_root() -> *const c_char;
    fn gp_php_start(start: *const GpStart) -> bool;
    safe fn gp_php_stop();
    safe fn gp_php_after_fork();
    fn gp_php_set_ini(
        name: *const c_char,
        name_length: usize,
        value: *const c_char,
        value_length: usize,
        admin: bool,
    ) -> bool;
    fn gp_php_request(request: *const GpRequest, outcome: *mut GpOutcome);
    safe fn gp_fork() -> c_int;
    fn gp_php_exists(path: *const c_char) -> bool;
}

// === what the rest of the crate uses ===

/// Whether both sides of the border agree on the structs that cross it.
pub(crate) fn check_sizes() -> Result<(), String> {
    let ours = size_of::<GpRequest>() << 16 | size_of::<GpOutcome>() << 8 | size_of::<GpStart>();
    let theirs = gp_abi_sizes();
    if ours == theirs {
        Ok(())
    } else {
        Err(format!(
            "structs of the shim differ: {theirs:#x}, expected {ours:#x}"
        ))
    }
}

/// What this object was compiled against, with the addresses of the running PHP.
pub(crate) fn php_build() -> Result<PhpBuild, MissingOffset> {
    let mut count = 0;
    // SAFETY: the shim returns its static table and stores its length.
    let table = unsafe { slice::from_raw_parts(gp_php_offsets(&raw mut count), count) };
    let layout = Layout::from_entries(table.iter().map(|entry| {
        // SAFETY: names of the table are string literals.
        let name = unsafe { CStr::from_ptr(entry.name) };
        (name.to_str().unwrap_or_default(), entry.value)
    }))?;
    // SAFETY: a string literal of the shim.
    let version = unsafe { CStr::from_ptr(gp_php_version()) };
    Ok(PhpBuild {
        version: version.to_string_lossy().into_owned(),
        api: gp_php_api(),
        zts: gp_php_is_zts(),
        executor_globals: gp_php_executor_globals(),
        layout,
    })
}

/// Starts PHP. The strings live as long as the process, because PHP keeps pointers.
pub(crate) fn start_php(binary: CString, ini: Option<CString>, entries: CString) -> bool {
    let start = GpStart {
        binary: CString::into_raw(binary),
        ini_path: ini.map_or(null(), |path| path.into_raw().cast_const()),
        ini_entries: CString::into_raw(entries),
    };
    // SAFETY: called once, from the only thread; the strings are never freed.
    unsafe { gp_php_start(&raw const start) }
}

/// Ends PHP in the engine, which removes what its modules made for the system.
pub(crate) fn stop_php() {
    gp_php_stop();
}

/// See `gp_fork` in `shim/fork.c`.
pub(crate) enum Forked {
    /// This is the worker.
    Worker,
    /// This is the engine; the worker has this pid.
    Engine(i32),
}

/// Forks a worker that becomes the supervisor's child.
pub(crate) fn fork_worker() -> Result<Forked, std::io::Error> {
    match gp_fork() {
        0 => Ok(Forked::Worker),
        pid if pid > 0 => Ok(Forked::Engine(pid)),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// In a worker: lets PHP take over the signal handlers that are installed now.
pub(crate) fn php_after_fork() {
    gp_php_after_fork();
}

/// Sets an INI entry for the life of this worker; false if PHP refuses.
pub(crate) fn set_ini(name: &str, value: &str, admin: bool) -> bool {
    let (Ok(c_name), Ok(c_value)) = (CString::new(name), CString::new(value)) else {
        return false;
    };
    // SAFETY: both strings end in NUL at the lengths given and outlive the call,
    // which copies what it keeps.
    unsafe { gp_php_set_ini(c_name.as_ptr(), name.len(), c_value.as_ptr(), value.len(), admin) }
}

/// `cgi.fix_pathinfo`, `cgi.discard_path` and `doc_root` as they are set now.
pub(crate) fn path_settings() -> (bool, bool, Option<Vec<u8>>) {
    let doc_root = gp_php_doc_root();
    let doc_root = (!doc_root.is_null()).then(|| {
        // SAFETY: an INI value of PHP ends in NUL and is not changed between requests.
        unsafe { CStr::from_ptr(doc_root) }.to_bytes().to_vec()
    });
    (
        gp_php_fix_pathinfo() != 0,
        gp_php_discard_path() != 0,
        doc_root.filter(|d| !d.is_empty()),
    )
}

/// What PHP is given; texts end in NUL and are bytes of the exchange's parameters.
#[derive(Debug, Default)]
pub(crate) struct PhpRequest<'a> {
    pub(crate) method: Option<&'a [u8]>,
    pub(crate) query: Option<&'a [u8]>,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) request_uri: Option<&'a [u8]>,
    pub(crate) script: Option<&'a [u8]>,
    pub(crate) auth: Option<&'a [u8]>,
    pub(crate) php_value: Option<&'a [u8]>,
    pub(crate) php_admin_value: Option<&'a [u8]>,
    pub(crate) content_length: i64,
    pub(crate) denied: bool,
}

/// What PHP says afterwards.
#[derive(Debug)]
pub(crate) struct PhpOutcome {
    pub(crate) memory_peak: u64,
    pub(crate) status: u32,
    pub(crate) started: bool,
}

/// Runs one request from PHP's start-up to its shutdown. The leaves below are called
/// meanwhile, so the caller must hold no borrow of the exchange.
pub(crate) fn run_request(request: &PhpRequest<'_>) -> PhpOutcome {
    let text = |bytes: Option<&[u8]>| -> *const c_char {
        debug_assert!(
            bytes.is_none_or(|b| b.last() == Some(&0)),
            "texts for PHP end in NUL"
        );
        bytes.map_or(null(), |b| b.as_ptr().cast())
    };
    let ini = |bytes: Option<&[u8]>| GpText {
        at: text(bytes),
        length: bytes.map_or(0, |b| b.len() - 1),
    };
    let raw = GpRequest {
        method: text(request.method),
        query: text(request.query),
        content_type: text(request.content_type),
        request_uri: text(request.request_uri),
        script: text(request.script),
        auth: text(request.auth),
        php_value: ini(request.php_value),
        php_admin_value: ini(request.php_admin_value),
        content_length: request.content_length,
        denied: request.denied,
    };
    let mut outcome = GpOutcome::default();
    // SAFETY: one request at a time on the only thread; every text ends in NUL and
    // lives until the call returns; the shim catches every longjmp of PHP.
    unsafe { gp_php_request(&raw const raw, &raw mut outcome) };
    PhpOutcome {
        memory_peak: u64::try_from(outcome.memory_peak).unwrap_or(0),
        status: u32::try_from(outcome.status).unwrap_or(0),
        started: outcome.started,
    }
}

/// Replaces the whole environment; what the engine was started with is forgotten.
pub(crate) fn set_environment(clear: bool, variables: &[(String, String)]) {
    if clear {
        // SAFETY: this process has one thread, so nobody reads the environment now.
        unsafe { libc::clearenv() };
    }
    for (name, value) in variables {
        if let (Ok(name), Ok(value)) = (CString::new(name.as_str()), CString::new(value.as_str())) {
            // SAFETY: as above; setenv copies both strings.
            unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
        }
    }
}

/// Removes one variable of the environment.
pub(crate) fn unset_environment(name: &CStr) {
    // SAFETY: this process has one thread, so nobody reads the environment now.
    unsafe { libc::unsetenv(name.as_ptr()) };
}

/// Installs a handler for the signal; system calls are restarted.
pub(crate) fn on_signal(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: an all-zero sigaction is a valid one, filled in below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler only makes calls that are async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
}

/// Gives the signal its default action, or has it ignored.
pub(crate) fn reset_signal(signal: c_int, ignore: bool) {
    // SAFETY: SIG_IGN and SIG_DFL are valid dispositions.
    unsafe { libc::signal(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL }) };
}

/// A parameter's text, with the NUL behind it, that the exchange gave the place of.
pub(crate) fn param_text<'a>(at: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: `Params` keeps a NUL behind each text, and does not change while the
    // request runs, which is as long as the result is used.
    unsafe { slice::from_raw_parts(at, length + 1) }
}

/// Whether the path leads to anything, by PHP's realpath cache.
pub(crate) fn path_exists(path: &[u8]) -> bool {
    // SAFETY: the string ends in NUL and outlives the call.
    CString::new(path).is_ok_and(|path| unsafe { gp_php_exists(path.as_ptr()) })
}

/// Has these descriptors lead to the null device, without giving up their numbers.
pub(crate) fn replace_by_null(fds: &[BorrowedFd<'_>]) {
    let Ok(null) = std::fs::File::open("/dev/null") else {
        return;
    };
    for fd in fds {
        // SAFETY: numbers only; whoever owns `fd` goes on owning it.
        unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    }
}

/// Async-signal-safe: makes `onto` another name for `from`.
pub(crate) fn raw_dup2(from: c_int, onto: c_int) {
    // SAFETY: numbers only; a wrong one is an error that is of no consequence here.
    unsafe { libc::dup2(from, onto) };
}

/// Async-signal-safe: makes reads of the socket end.
pub(crate) fn raw_shutdown_read(socket: c_int) {
    // SAFETY: numbers only; a wrong one is an error that is of no consequence here.
    unsafe { libc::shutdown(socket, libc::SHUT_RD) };
}

/// The memory that `ps` shows as the command line: that of argv and the environment,
/// which lie one behind the other.
pub(crate) struct TitleArea {
    start: *mut u8,
    bytes: usize,
}

impl TitleArea {
    /// Takes the area over. Must come first of all: it moves the environment away.
    fn take(argc: c_int, argv: *mut *mut c_char) -> TitleArea {
        let mut area = TitleArea {
            start: null_mut(),
            bytes: 0,
        };
        let mut variables = Vec::new();
        let argc = usize::try_from(argc).unwrap_or(0);
        // SAFETY: the kernel hands over argv and, behind its NULL, the environment,
        // both arrays of strings that end with NULL and lie one behind the other.
        unsafe {
            let mut at = argv;
            for _ in 0..2 {
                while !(*at).is_null() {
                    let text = CStr::from_ptr(*at);
                    let first = (*at).cast::<u8>();
                    let length = text.to_bytes_with_nul().len();
                    if area.start.is_null() {
                        area.start = first;
                    }
                    if area.start.add(area.bytes) == first {
                        area.bytes += length;
                    }
                    if at >= argv.add(argc) {
                        variables.push(text.to_owned());
                    }
                    at = at.add(1);
                }
                at = at.add(1);
            }
        }
        let pairs: Vec<(String, String)> = variables
            .iter()
            .filter_map(|v| v.to_str().ok()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        set_environment(true, &pairs);
        area
    }

    /// Shows another title, cut to what there is room for.
    pub(crate) fn set(&self, title: &str) {
        let Some(room) = self.bytes.checked_sub(1) else {
            return;
        };
        let title = &title.as_bytes()[..title.len().min(room)];
        // SAFETY: `start` has `bytes` bytes that nobody else uses since `take`.
        unsafe {
            self.start.write_bytes(0, self.bytes);
            self.start.copy_from_nonoverlapping(title.as_ptr(), title.len());
        }
    }
}

// === how the process starts ===

type Main = extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;
type StartMain = unsafe extern "C" fn(
    Main,
    c_int,
    *mut *mut c_char,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;

extern "C" fn engine_main(argc: c_int, argv: *mut *mut c_char, _envp: *mut *mut c_char) -> c_int {
    unset_environment(c"LD_PRELOAD");
    crate::engine::main(&TitleArea::take(argc, argv))
}

/// Stands in front of libc's function of the same name: the executable's start code
/// calls this one, which hands libc our `main` in place of PHP's.
///
/// # Safety
/// Called once, by the start code of the executable that this object is preloaded to.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __libc_start_main(
    _php_main: Main,
    argc: c_int,
    argv: *mut *mut c_char,
    init: *mut c_void,
    fini: *mut c_void,
    rtld_fini: *mut c_void,
    stack_end: *mut c_void,
) -> c_int {
    // SAFETY: the next definition of this symbol is libc's, of this very type.
    unsafe {
        let libc_start = libc::dlsym(libc::RTLD_NEXT, c"__libc_start_main".as_ptr());
        let libc_start: Option<StartMain> = std::mem::transmute(libc_start);
        match libc_start {
            Some(start) => start(engine_main, argc, argv, init, fini, rtld_fini, stack_end),
            None => libc::abort(),
        }
    }
}

// === leaves: called by the shim, never call PHP, never unwind ===

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

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_log(at: *const c_char, length: usize, to_client: bool) {
    // SAFETY: a message of PHP or of the shim, valid during the call.
    let message = unsafe { bytes(at, length) };
    exchange::log(message, to_client);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gp_rs_php_log(at: *const c_char, length: usize, to_client: bool) {
    // SAFETY: a message of PHP, valid during the call.
    let message = unsafe { bytes(at, length) };
    exchange::php_log(message, to_client);
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
