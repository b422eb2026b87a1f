//! The border to C: the only Rust file that names a C symbol.
//!
//! Here: safe functions for the rest of this crate. In [`leaves`]: what the shim calls.
//! Layouts mirror `shim/glasspool.h`; [`check_sizes`] compares them.

mod leaves;

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};
use std::slice;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use glasspool_abi::control::{About, OpcacheAnswer, OpcacheFigures};
use glasspool_abi::zend::{Layout, MissingOffset, PhpBuild};

use crate::worker::pages::Page;

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
    body_error: *const c_char,
    php_value: GpText,
    php_admin_value: GpText,
    content_length: i64,
    denied: bool,
    page: i32,
}

/// Mirrors `gp_page`.
#[repr(C)]
struct GpPage {
    headers: [GpText; 3],
    body: GpText,
    status: i32,
}

/// Mirrors `gp_figure`.
#[repr(C)]
struct GpFigure {
    name: GpText,
    text: GpText,
    number: i64,
    real: f64,
    kind: i32,
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
    no_ini: bool,
    extended_info: bool,
}

/// Mirrors `gp_executed`.
#[repr(C)]
struct GpExecuted {
    user: GpText,
    memory_peak: i64,
    status: i32,
    to_client: bool,
}

/// Mirrors `gp_opcache`.
#[repr(C)]
#[derive(Default)]
struct GpOpcache {
    memory: [i64; 3],
    strings: [i64; 2],
    jit: [i64; 2],
    scripts: i64,
    keys: i64,
    key_limit: i64,
    hits: i64,
    misses: i64,
    restarts: [i64; 3],
    full: bool,
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
    safe fn gp_watch_forks() -> bool;
    safe fn gp_is_forked() -> bool;
    fn gp_php_exists(path: *const c_char) -> bool;
    fn gp_php_about(what: c_int, fd: c_int) -> bool;
    fn gp_php_opcache(figures: *mut GpOpcache) -> c_int;
    fn gp_catch_crashes(
        words: *const *mut u64,
        doorbell: c_int,
        patience_ms: c_int,
        handled: *mut u64,
    ) -> bool;
}

// === what the rest of the crate uses ===

/// Whether both sides of the border agree on the structs that cross it.
pub(crate) fn check_sizes() -> Result<(), String> {
    let ours = size_of::<GpOpcache>() << 56
        | size_of::<GpExecuted>() << 48
        | size_of::<GpFigure>() << 40
        | size_of::<GpPage>() << 32
        | size_of::<GpRequest>() << 16
        | size_of::<GpOutcome>() << 8
        | size_of::<GpStart>();
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

/// How PHP is started.
#[derive(Debug)]
pub(crate) struct PhpStart {
    pub(crate) binary: CString,
    /// Where php.ini is; PHP's own search if absent.
    pub(crate) ini: Option<CString>,
    /// Lines `name=value` that win over php.ini.
    pub(crate) entries: CString,
    pub(crate) no_ini: bool,
    pub(crate) extended_info: bool,
}

/// Starts PHP. The strings live as long as the process, because PHP keeps pointers.
pub(crate) fn start_php(start: PhpStart) -> bool {
    let start = GpStart {
        binary: CString::into_raw(start.binary),
        ini_path: start.ini.map_or(null(), |path| path.into_raw().cast_const()),
        ini_entries: CString::into_raw(start.entries),
        no_ini: start.no_ini,
        extended_info: start.extended_info,
    };
    // SAFETY: called once, from the only thread; the strings are never freed.
    unsafe { gp_php_start(&raw const start) }
}

/// Ends PHP in the engine, which removes what its modules made for the system.
pub(crate) fn stop_php() {
    gp_php_stop();
}

/// In an engine that will never fork: prints what is asked for to the file; false if
/// not all of it arrived.
pub(crate) fn describe(about: About, to: OwnedFd) -> bool {
    let what = match about {
        About::Version => 1,
        About::Modules => 2,
        About::Info => 3,
    };
    // SAFETY: called from the only thread while no request runs; the shim catches
    // every longjmp of PHP, and owns the descriptor from now on.
    unsafe { gp_php_about(what, to.into_raw_fd()) }
}

/// In a fork of the engine that ends after this: what opcache says of its memory.
pub(crate) fn ask_opcache() -> OpcacheAnswer {
    let mut told = GpOpcache::default();
    // SAFETY: called from the only thread while no request runs; the shim catches every
    // longjmp of PHP, and fills the struct whatever comes of it.
    match unsafe { gp_php_opcache(&raw mut told) } {
        1 => OpcacheAnswer::Restricted,
        2 => {
            let count = |number: i64| u64::try_from(number).unwrap_or(0);
            OpcacheAnswer::Told(OpcacheFigures {
                memory: told.memory.map(count),
                strings: told.strings.map(count),
                jit: told.jit.map(count),
                scripts: count(told.scripts),
                keys: count(told.keys),
                key_limit: count(told.key_limit),
                hits: count(told.hits),
                misses: count(told.misses),
                restarts: told.restarts.map(count),
                full: told.full,
            })
        }
        _ => OpcacheAnswer::Off,
    }
}

/// Ends this process without what libraries do at an exit, such as telling a server that
/// the engine's connection to it is over.
pub(crate) fn exit_at_once(status: c_int) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(status) }
}

/// See `gp_fork` in `shim/fork.c`.
pub(crate) enum Forked {
    /// This is the worker, with SIGQUIT blocked.
    Worker,
    /// This is the engine; the worker has this pid.
    Engine(i32),
}

/// Forks a worker that becomes the supervisor's child.
pub(crate) fn fork_worker() -> io::Result<Forked> {
    match gp_fork() {
        0 => Ok(Forked::Worker),
        pid if pid > 0 => Ok(Forked::Engine(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// In a worker, once: from now on [`is_forked`] tells; false if there is no memory.
pub(crate) fn watch_forks() -> bool {
    gp_watch_forks()
}

/// Whether this process was forked by the application of a worker, and is none itself.
pub(crate) fn is_forked() -> bool {
    gp_is_forked()
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
    pub(crate) body_error: Option<&'a [u8]>,
    pub(crate) php_value: Option<&'a [u8]>,
    pub(crate) php_admin_value: Option<&'a [u8]>,
    pub(crate) content_length: i64,
    pub(crate) denied: bool,
    pub(crate) page: Option<Page>,
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
        body_error: text(request.body_error),
        php_value: ini(request.php_value),
        php_admin_value: ini(request.php_admin_value),
        content_length: request.content_length,
        denied: request.denied,
        page: request.page.map_or(0, |page| page as i32),
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
pub(crate) fn set_environment<T: AsRef<OsStr>>(clear: bool, variables: &[(T, T)]) {
    if clear {
        // SAFETY: this process has one thread, so nobody reads the environment now.
        unsafe { libc::clearenv() };
    }
    for (name, value) in variables {
        let text = |text: &T| CString::new(text.as_ref().as_bytes());
        if let (Ok(name), Ok(value)) = (text(name), text(value)) {
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

/// Has a deadly signal say so in these words, see `shim/crash.c`; gives the numbers of
/// those that something else handles already. Call it once, in a worker.
pub(crate) fn catch_crashes(
    words: [&'static AtomicU64; 3],
    doorbell: OwnedFd,
    patience: Duration,
) -> io::Result<Vec<c_int>> {
    let words = words.map(AtomicU64::as_ptr);
    let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
    let mut handled = 0;
    // SAFETY: three words that live for ever and that the handler stores to as atomics;
    // it owns the descriptor from now on.
    let caught =
        unsafe { gp_catch_crashes(words.as_ptr(), doorbell.into_raw_fd(), patience, &raw mut handled) };
    if !caught {
        return Err(io::Error::last_os_error());
    }
    Ok((0..64).filter(|signal| handled >> signal & 1 == 1).collect())
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
        let pairs = variables.iter().filter_map(|variable| {
            let variable = variable.to_bytes();
            let at = variable.iter().position(|b| *b == b'=')?;
            Some((
                OsStr::from_bytes(&variable[..at]),
                OsStr::from_bytes(&variable[at + 1..]),
            ))
        });
        set_environment(true, &pairs.collect::<Vec<_>>());
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
