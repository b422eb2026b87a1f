//! From a fork of the engine to a worker of its pool: order matters, because each
//! step takes away what a later one must not have. It is php-fpm's order, and so are
//! the messages.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::WorkerId;
use glasspool_abi::control::{Channel, FromEngine, PhpSetting, PoolSpec, Severity};
use glasspool_abi::slot::SlotWriter;
use glasspool_abi::trace::raised::RaisedRules;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use rustix::process::Signal;

use super::access_log::{AccessLog, Fixed};
use super::account::Account;
use super::admission::Admission;
use super::exchange::{self, Exchange};
use super::log::{self, here};
use super::recorder::Recorder;
use super::{crash, pages, rights, signals, time_zone};
use crate::ffi;

/// What a worker is made from.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) pool: &'a PoolSpec,
    pub(crate) listener: &'a OwnedFd,
    pub(crate) doorbell: &'a OwnedFd,
    pub(crate) ask: &'a OwnedFd,
    pub(crate) access_log: Option<&'a OwnedFd>,
    pub(crate) raised: Option<&'a OwnedFd>,
    pub(crate) slot: OwnedFd,
    pub(crate) slot_bytes: u64,
    /// The kernel programs' map of pages, and which is this worker's.
    pub(crate) times: Option<(OwnedFd, u32)>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) supervisor: i32,
}

/// Becomes the worker and reports so; an error says which step failed and why.
pub(crate) fn become_worker(parts: Parts<'_>, control: &Channel) -> Result<Admission, String> {
    // Opened now, the first stays readable for the observer whatever rights we give up
    // below: the kernel checks at open(2), not at read(2). Of the second it checks the
    // reader too, but no longer the mode of the file, which is root's from then on.
    let memory = File::open("/proc/self/mem").ok();
    let calls = memory
        .as_ref()
        .and_then(|_| File::open("/proc/self/syscall").ok());
    // Opened before the root of the file system may change. The map's other pages belong to
    // others, so its descriptor is closed at once.
    let account = Account::of(parts.times, parts.pool.tracing, ffi::is_forked);
    rustix::stdio::dup2_stdout(&parts.stdout).map_err(|e| format!("dup2 of standard output: {e}"))?;
    rustix::stdio::dup2_stderr(&parts.stderr).map_err(|e| format!("dup2 of standard error: {e}"))?;
    drop((parts.stdout, parts.stderr));
    let pool = parts.pool;
    log::configure(pool.log_level, pool.log_limit);

    let become_it = || -> Result<Admission, String> {
        let zone = time_zone::of(pool);
        let access_log = access_log(pool, parts.access_log, parts.supervisor, zone.clone())?;
        answer_for(pool, parts.ask, zone)?;
        limit(pool);
        rights::give_up(pool)?;
        signals::install(parts.listener)?;
        ffi::set_environment(pool.clear_env, &pool.env);
        ffi::php_after_fork();
        if !ffi::watch_forks() {
            return Err("pthread_atfork: there is no memory".to_owned());
        }
        for setting in &pool.php_values {
            set_php_value(setting);
        }
        let admission = Admission::new(parts.listener, pool.allowed_clients.as_deref());

        let bytes = usize::try_from(parts.slot_bytes).map_err(|e| e.to_string())?;
        let slot = SlotWriter::map(&parts.slot, bytes).map_err(|e| e.to_string())?;
        let doorbell = parts
            .doorbell
            .try_clone()
            .map_err(|e| format!("dup of the doorbell: {e}"))?;
        let raised = parts.raised.map(|page| RaisedRules::map(page, &pool.name));
        let raised = raised.transpose().map_err(|e| e.to_string())?;
        let mut recorder = Recorder::new(slot, doorbell, account, raised);
        recorder.tell_lines(pool.tell_lines, pool.catch_output);
        exchange::install(Exchange::new(recorder, access_log));
        follow_supervisor(parts.supervisor)?;
        crash::watch(&pool.name, &parts.slot, parts.doorbell);
        Ok(admission)
    };
    let admission = become_it().inspect_err(|reason| complain(pool, reason))?;
    let ready = FromEngine::WorkerReady { worker: parts.worker };
    let handed: Vec<_> = [&memory, &calls].into_iter().flatten().map(AsFd::as_fd).collect();
    control.send(&ready, &handed).map_err(|e| e.to_string())?;
    Ok(admission)
}

/// php-fpm's lines about a worker that cannot start.
fn complain(pool: &PoolSpec, reason: &str) {
    for text in [reason, "child failed to initialize"] {
        let line = format!("[pool {}] {text}", pool.name);
        log::say(Severity::Error, here!("become_worker"), line.as_bytes());
    }
}

/// What could not be done to what, as php-fpm says it.
pub(super) fn failure(what: impl std::fmt::Display, error: impl Into<Errno>) -> String {
    let error = error.into();
    format!("{what}: {} ({})", error.desc(), error as i32)
}

fn access_log(
    pool: &PoolSpec,
    file: Option<&OwnedFd>,
    supervisor: i32,
    zone: TimeZone,
) -> Result<Option<AccessLog>, String> {
    let (Some(settings), Some(file)) = (&pool.access_log, file) else {
        return Ok(None);
    };
    let file = file
        .try_clone()
        .map_err(|e| format!("dup of the access log: {e}"))?;
    let fixed = Fixed {
        pool: &pool.name,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        supervisor,
    };
    AccessLog::new(file, settings, fixed, zone).map(Some)
}

/// Status and ping.
fn answer_for(pool: &PoolSpec, ask: &OwnedFd, zone: TimeZone) -> Result<(), String> {
    let ask = ask
        .try_clone()
        .map_err(|e| format!("dup of the pool's socket: {e}"))?;
    pages::install(pool, ask.into(), zone);
    Ok(())
}

/// Limits that cannot be set are told of and otherwise as before, as in php-fpm.
fn limit(pool: &PoolSpec) {
    let wanted = [
        (
            "rlimit_files",
            "RLIMIT_NOFILE",
            Resource::RLIMIT_NOFILE,
            pool.limits.files,
        ),
        (
            "rlimit_core",
            "RLIMIT_CORE",
            Resource::RLIMIT_CORE,
            pool.limits.core,
        ),
    ];
    for (directive, name, resource, value) in wanted {
        let Some(value) = value else { continue };
        if let Err(error) = setrlimit(resource, value, value) {
            let text = format!(
                "[pool {}] failed to set {directive} for this pool. Please check your system limits or decrease {directive}. setrlimit({name}, {value})",
                pool.name
            );
            let text = failure(text, error);
            log::say(Severity::Error, here!("limit"), text.as_bytes());
        }
    }
}

fn set_php_value(setting: &PhpSetting) {
    if ffi::set_ini(&setting.name, &setting.value, setting.admin) {
        return;
    }
    let kind = if setting.admin {
        "php_admin_value"
    } else {
        "php_value"
    };
    let text = format!("Unable to set {kind} '{}'", setting.name);
    log::say(Severity::Error, here!("set_php_value"), text.as_bytes());
}

/// Ends this worker, after its current request, when the supervisor dies. A change of
/// identity forgets this wish (prctl(2)), so it comes after it; and the intermediate
/// process of the fork must be gone, or its end would count as the parent's.
fn follow_supervisor(supervisor: i32) -> Result<(), String> {
    for _ in 0..100_000 {
        let parent = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
        if parent == Some(supervisor) {
            return rustix::process::set_parent_process_death_signal(Some(Signal::QUIT))
                .map_err(|e| format!("prctl(PR_SET_PDEATHSIG): {e}"));
        }
        rustix::thread::sched_yield();
    }
    Err(format!("still not a child of the supervisor (pid {supervisor})"))
}
