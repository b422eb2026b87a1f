//! PROCESS: the engine. Starts PHP once, then forks workers on the supervisor's
//! request, one message at a time, single-threaded for life. When the supervisor's
//! end of the control socket closes, it ends PHP and exits.

mod opcache;

use std::collections::HashMap;
use std::ffi::{CString, OsString, c_int};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use glasspool_abi::control::{Channel, ChannelError, EngineStart, FromEngine, PoolSpec, Severity, ToEngine};
use glasspool_abi::{ABI_VERSION, Pid, PoolId, WorkerId};

use crate::ffi::{self, Forked, TitleArea};
use crate::worker::become_worker::{self, Parts};
use crate::worker::log::{self, here};

/// Exit status when PHP or a worker cannot start (EX_SOFTWARE of sysexits.h).
const EXIT_SOFTWARE: c_int = 70;

/// What the engine keeps of a pool.
#[derive(Debug)]
struct Pool {
    spec: PoolSpec,
    listener: OwnedFd,
    doorbell: OwnedFd,
    /// Where workers ask the supervisor for the pool's state.
    ask: OwnedFd,
    access_log: Option<OwnedFd>,
}

impl Pool {
    /// Takes the descriptors of [`ToEngine::AddPool`]; `None` if there are too few or too many.
    fn new(spec: PoolSpec, fds: Vec<OwnedFd>) -> Option<Pool> {
        let mut fds = fds.into_iter();
        let pool = Pool {
            spec,
            listener: fds.next()?,
            doorbell: fds.next()?,
            ask: fds.next()?,
            access_log: fds.next(),
        };
        fds.next().is_none().then_some(pool)
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let always = [&self.listener, &self.doorbell, &self.ask];
        always.into_iter().chain(&self.access_log).map(AsFd::as_fd)
    }
}

/// Runs the engine; its return value is the process's exit status.
pub(crate) fn main(title: &TitleArea) -> c_int {
    let control = match take_control() {
        Ok(control) => control,
        Err(_) => {
            let hint = b"the engine object is started by glasspool, with a control socket as standard input";
            log::say(Severity::Error, here!("main"), hint);
            return EXIT_SOFTWARE;
        }
    };
    match run(&control, title) {
        Ok(()) | Err(Stop::Orphaned) => {
            ffi::stop_php();
            0
        }
        Err(Stop::Worker(status)) => status,
        Err(Stop::Failed(reason)) => {
            // If nobody listens any more there is nobody to tell.
            let _unheard = control.send(&FromEngine::Failed { reason }, &[]);
            EXIT_SOFTWARE
        }
    }
}

/// Why the engine's loop ends.
enum Stop {
    /// The supervisor is gone, or does not want us any more.
    Orphaned,
    /// PHP did not start, or the supervisor says nonsense.
    Failed(String),
    /// This process is a worker that has served its time.
    Worker(c_int),
}

impl From<ChannelError> for Stop {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => Stop::Orphaned,
            other => Stop::Failed(other.to_string()),
        }
    }
}

/// Standard input is the control socket: moves it away and puts the null device there.
fn take_control() -> Result<Channel, std::io::Error> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::net::sockopt::socket_type(&socket)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(Channel::from(socket))
}

fn run(control: &Channel, title: &TitleArea) -> Result<(), Stop> {
    control.send(&FromEngine::Hello { abi: ABI_VERSION }, &[])?;
    let (ToEngine::Start(start), _) = control.receive()? else {
        return Err(Stop::Failed("the first message is not Start".to_owned()));
    };
    let supervisor = start.supervisor;
    // The terminal's signals are the supervisor's business.
    for signal in [
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
    ] {
        ffi::reset_signal(signal, true);
    }
    order_environment(&start.variables);
    start_php(&start)?;
    title.set(&format!("glasspool: engine ({})", start.binary));
    let build = ffi::php_build().map_err(|e| Stop::Failed(e.to_string()))?;
    control.send(&FromEngine::Ready(Box::new(build)), &[])?;

    let mut pools: HashMap<PoolId, Pool> = HashMap::new();
    let mut raised = None;
    loop {
        let (message, mut fds) = control.receive()?;
        match message {
            ToEngine::AddPool(spec) => {
                let id = spec.pool;
                let Some(pool) = Pool::new(*spec, fds) else {
                    return Err(Stop::Failed(format!(
                        "pool {id} came with a wrong number of descriptors"
                    )));
                };
                pools.insert(id, pool);
            }
            ToEngine::Raised => raised = fds.pop(),
            ToEngine::AccessLog { pool } => {
                // A pool that is not here any more needs no log.
                if let Some(pool) = pools.get_mut(&pool) {
                    pool.access_log = fds.pop();
                }
            }
            ToEngine::Spawn {
                worker,
                pool,
                slot_bytes,
                times_page,
            } => {
                let order = Order {
                    worker,
                    pool,
                    slot_bytes,
                    raised: raised.as_ref(),
                    times_page,
                    fds,
                };
                spawn(control, title, &pools, supervisor, order)?;
            }
            ToEngine::AskOpcache => {
                let to = fds
                    .pop()
                    .ok_or_else(|| Stop::Failed("AskOpcache came without a descriptor".to_owned()))?;
                let inherited = pools.values().flat_map(Pool::fds);
                opcache::ask(
                    control,
                    title,
                    inherited.chain(raised.as_ref().map(AsFd::as_fd)),
                    to,
                )?;
            }
            ToEngine::Describe(about) => {
                let to = fds
                    .pop()
                    .ok_or_else(|| Stop::Failed("Describe came without a descriptor".to_owned()))?;
                // As from php-fpm, a reader that went away is no failure.
                ffi::describe(about, to);
                return Ok(());
            }
            message => return Err(Stop::Failed(format!("a message out of place: {message:?}"))),
        }
    }
}

/// Puts the variables of the environment into this order; others come last.
fn order_environment(names: &[String]) {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    variables.sort_by_key(|(name, _)| names.iter().position(|n| **n == **name).unwrap_or(usize::MAX));
    ffi::set_environment(true, &variables);
}

fn start_php(start: &EngineStart) -> Result<(), Stop> {
    ffi::check_sizes().map_err(Stop::Failed)?;
    let text = |what: &str, text: &str| {
        CString::new(text).map_err(|_| Stop::Failed(format!("{what} holds a NUL byte")))
    };
    let ini = start
        .ini
        .as_deref()
        .map(|path| text("the path of php.ini", path))
        .transpose()?;
    let entries: String = start
        .define
        .iter()
        .map(|(name, value)| ini_line(name, value))
        .collect();
    let started = ffi::start_php(ffi::PhpStart {
        binary: text("the path of php", &start.binary)?,
        ini,
        entries: text("a defined INI entry", &entries)?,
        no_ini: start.no_ini,
        extended_info: start.extended_info,
    });
    if !started {
        let hint = "see the messages above, or what `php -v` prints with the same php.ini";
        return Err(Stop::Failed(format!(
            "PHP itself failed to start in {} ({hint})",
            start.binary
        )));
    }
    Ok(())
}

/// One line for PHP's INI parser. Values that are not plain words are quoted, as
/// php-fpm does with `-d`.
fn ini_line(name: &str, value: &str) -> String {
    let plain = value
        .bytes()
        .next()
        .is_none_or(|b| b.is_ascii_alphanumeric() || b == b'"');
    if plain {
        format!("{name}={value}\n")
    } else {
        format!("{name}=\"{value}\"\n")
    }
}

/// A worker to be made.
struct Order<'a> {
    worker: WorkerId,
    pool: PoolId,
    slot_bytes: u64,
    /// Rules of sampling that are raised for a time.
    raised: Option<&'a OwnedFd>,
    times_page: Option<u32>,
    fds: Vec<OwnedFd>,
}

fn spawn(
    control: &Channel,
    title: &TitleArea,
    pools: &HashMap<PoolId, Pool>,
    supervisor: Pid,
    order: Order<'_>,
) -> Result<(), Stop> {
    let worker = order.worker;
    let refuse = |reason: String| Ok(control.send(&FromEngine::SpawnFailed { worker, reason }, &[])?);
    let Some(pool) = pools.get(&order.pool) else {
        return refuse(format!("pool {} is not known to this engine", order.pool));
    };
    let mut fds = order.fds;
    let map_of_pages = order.times_page.and_then(|_| fds.pop());
    let Ok([slot, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
        return refuse("a worker needs its slot, standard output and standard error".to_owned());
    };
    match ffi::fork_worker() {
        Err(error) => refuse(format!("fork() failed: {error}")),
        Ok(Forked::Engine(pid)) => Ok(control.send(
            &FromEngine::Spawned {
                worker,
                pid: Pid(pid),
            },
            &[],
        )?),
        Ok(Forked::Worker) => {
            title.set(&format!("php-fpm: pool {}", pool.spec.name));
            let parts = Parts {
                worker,
                pool: &pool.spec,
                listener: &pool.listener,
                doorbell: &pool.doorbell,
                ask: &pool.ask,
                access_log: pool.access_log.as_ref(),
                raised: order.raised,
                slot,
                slot_bytes: order.slot_bytes,
                times: map_of_pages.zip(order.times_page),
                stdout,
                stderr,
                supervisor: supervisor.0,
            };
            Err(Stop::Worker(be_worker(control, pool, pools, parts)))
        }
    }
}

/// The rest of a worker's life.
fn be_worker(control: &Channel, own: &Pool, pools: &HashMap<PoolId, Pool>, parts: Parts<'_>) -> c_int {
    let worker = parts.worker;
    let admission = match become_worker::become_worker(parts, control) {
        Ok(admission) => admission,
        Err(reason) => {
            // If nobody listens any more there is nobody to tell.
            let _unheard = control.send(&FromEngine::WorkerFailed { worker, reason }, &[]);
            return EXIT_SOFTWARE;
        }
    };
    // The application must not reach the supervisor, nor other pools' sockets.
    let foreign: Vec<BorrowedFd<'_>> = pools
        .iter()
        .filter(|(id, _)| **id != own.spec.pool)
        .flat_map(|(_, pool)| pool.fds())
        .chain([control.as_fd()])
        .collect();
    ffi::replace_by_null(&foreign);
    crate::worker::serve::serve(&own.spec, &own.listener, &admission);
    0
}
