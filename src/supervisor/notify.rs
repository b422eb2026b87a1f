//! What the service manager is told, sd_notify(3): ready, reloading, stopping, alive, and
//! a line of figures for `systemctl status`, in php-fpm's words.
//!
//! Sends and never waits. A service manager that does not read in time misses a message;
//! each beat says again that we are ready, as in php-fpm, so it learns of that later.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::own_pid;
use crate::logs::{Errno, ErrorLog};

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_TIME: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// What `systemd_interval` is unless it is configured.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Most characters of why a reload has failed.
const MOST_REASON: usize = 300;
/// Shortest time between two beats, however impatient the watchdog is.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// What php-fpm reports of all pools together. Counters count since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Workers that serve a request.
    pub(super) active: u64,
    /// Workers that wait for one.
    pub(super) idle: u64,
    /// Requests.
    pub(super) requests: u64,
    /// Slow requests.
    pub(super) slow: u64,
}

/// The way to the service manager, and when it is to hear of us again. Works the same,
/// without sending anything, where there is none.
#[derive(Debug)]
pub(super) struct Notifier {
    target: Option<Target>,
    /// Time between two beats; `None` sends none.
    interval: Option<Duration>,
    /// Whether each beat says that we are alive.
    is_watched: bool,
    state: State,
    due: Option<Instant>,
    /// Why the last reload has failed.
    not_reloaded: Option<String>,
    /// When the last beat was, and requests until then.
    last: (Instant, u64),
}

/// What the service manager was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

impl Notifier {
    /// From our environment and `systemd_interval`, logging what php-fpm logs of it.
    pub(super) fn from_environment(
        environment: impl Iterator<Item = (OsString, OsString)>,
        interval: Option<Duration>,
        now: Instant,
        log: &ErrorLog,
    ) -> Notifier {
        let variables: Vec<_> = environment.filter(|(name, _)| is_private(name)).collect();
        let get = |name: &str| {
            let found = variables.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_os_str())
        };
        let target = get(SOCKET).and_then(|address| {
            let opened = Target::open(address);
            let told = opened.map_err(|e| {
                log.warning(format_args!(
                    "failed to notify start to systemd: {SOCKET} is '{}': {}",
                    address.display(),
                    Errno(&e)
                ));
            });
            told.ok()
        });
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        // A daemon is watched in its launcher's place.
        let watched = [own_pid().0, parent];
        let watchdog = watchdog_interval(get(WATCHDOG_TIME), get(WATCHDOG_PID), &watched);
        if let Some(beat) = watchdog {
            if interval.is_some_and(|interval| interval != DEFAULT_INTERVAL) {
                log.warning("systemd_interval option ignored");
            }
            log.notice(format_args!(
                "systemd watchdog configured to {}sec",
                three_digits(beat)
            ));
        }
        Notifier {
            target,
            interval: watchdog.or(interval),
            is_watched: watchdog.is_some(),
            state: State::Starting,
            due: None,
            not_reloaded: None,
            last: (now, 0),
        }
    }

    /// Connections are handled: for the first time, or those of a new configuration.
    pub(super) fn ready(&mut self, now: Instant, log: &ErrorLog) {
        let pid = own_pid();
        self.send(
            &format!("READY=1\nSTATUS=Ready to handle connections\nMAINPID={pid}"),
            log,
        );
        self.state = State::Ready;
        self.not_reloaded = None;
        match self.interval {
            Some(interval) => log.notice(format_args!(
                "systemd monitor interval set to {}ms",
                interval.as_millis()
            )),
            None => log.notice("systemd monitor disabled"),
        }
        self.due = self.interval.map(|interval| now + interval);
    }

    /// A reload has begun.
    pub(super) fn reloading(&mut self, log: &ErrorLog) {
        // systemd.service(5) wants the time of Type=notify-reload to be this clock's.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(
            &format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reloading in progress ..."),
            log,
        );
        self.state = State::Reloading;
    }

    /// The reload has failed, and everything goes on as before. Each beat says so until
    /// there is a better one.
    pub(super) fn not_reloaded(&mut self, why: &str, log: &ErrorLog) {
        // A newline would begin another assignment.
        let why: String = why.replace('\n', " ").chars().take(MOST_REASON).collect();
        self.send(
            &format!("READY=1\nSTATUS=Reload failed, the old configuration stays: {why}"),
            log,
        );
        self.state = State::Ready;
        self.not_reloaded = Some(why);
    }

    /// A stop has begun.
    pub(super) fn stopping(&mut self, log: &ErrorLog) {
        self.send("STOPPING=1\nSTATUS=Stopping ...", log);
        self.state = State::Stopping;
    }

    /// `systemd_interval` of a new configuration; a watchdog's time stays.
    pub(super) fn set_interval(&mut self, interval: Option<Duration>) {
        if !self.is_watched {
            self.interval = interval;
        }
    }

    /// When the next beat is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends a beat if it is due. The figures are asked for only then.
    pub(super) fn beat(&mut self, now: Instant, figures: impl FnOnce() -> Figures, log: &ErrorLog) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = self.interval.map(|interval| now + interval);
        if self.target.is_none() {
            return;
        }
        let figures = figures();
        let mut message = String::new();
        if self.state == State::Ready {
            message.push_str("READY=1\n");
        }
        if self.is_watched {
            message.push_str("WATCHDOG=1\n");
        }
        // What a reload or a stop is doing is worth more than figures.
        if self.state == State::Ready {
            message.push_str(&status(figures, self.last, now));
            if let Some(why) = &self.not_reloaded {
                message.push_str("; the last reload failed: ");
                message.push_str(why);
            }
        }
        self.last = (now, figures.requests);
        self.send(message.trim_end(), log);
    }

    fn send(&self, message: &str, log: &ErrorLog) {
        let Some(target) = &self.target else { return };
        match target.send(message) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                log.debug("the service manager does not read its messages; one was not sent")
            }
            Err(e) => log.notice(format_args!("failed to notify status to systemd: {}", Errno(&e))),
        }
    }
}

/// Whether a variable is between the service manager and this process alone.
pub(super) fn is_private(name: &OsStr) -> bool {
    [SOCKET, WATCHDOG_TIME, WATCHDOG_PID]
        .iter()
        .any(|own| name == *own)
}

/// Half of the watchdog's time, which sd_watchdog_enabled(3) recommends, if it watches
/// one of these processes.
fn watchdog_interval(micros: Option<&OsStr>, pid: Option<&OsStr>, watched: &[i32]) -> Option<Duration> {
    let pid = pid.map(|pid| pid.to_str()?.parse::<i32>().ok());
    if pid.is_some_and(|pid| pid.is_none_or(|pid| !watched.contains(&pid))) {
        return None;
    }
    let micros: u64 = micros?.to_str()?.parse().ok()?;
    let half = Duration::from_micros(micros) / 2;
    (micros > 0).then_some(half.max(LEAST_INTERVAL))
}

fn status(figures: Figures, (before, requests_before): (Instant, u64), now: Instant) -> String {
    let Figures {
        active,
        idle,
        requests,
        slow,
    } = figures;
    let time = (now - before).as_secs_f64().max(0.001);
    let traffic = requests.saturating_sub(requests_before);
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let traffic = traffic as f64 / time;
    format!(
        "STATUS=Processes active: {active}, idle: {idle}, Requests: {requests}, slow: {slow}, Traffic: {traffic:.2}req/sec"
    )
}

/// Seconds as printf's `%.3g` has them: three digits at most, no zeros at the end.
fn three_digits(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let digits = match seconds {
        _ if seconds >= 100.0 => 0,
        _ if seconds >= 10.0 => 1,
        _ if seconds >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{seconds:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A socket of the service manager.
#[derive(Debug)]
struct Target {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Target {
    /// A path, or with `@` in front a name in the abstract namespace.
    fn open(address: &OsStr) -> io::Result<Target> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Target { socket, address })
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
