//! A PHP FastCGI server under test: stock php-fpm or Glasspool, started with the same files.
//!
//! Both get the same php-fpm.conf, php.ini, environment and flags; Glasspool reads `glasspool.toml`
//! besides. What PHP then says of itself is compared before anything is measured.

mod config;
mod facts;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub(crate) use config::free_port;
pub use config::{Ebpf, Ini, Tracing};
pub use facts::Facts;

use crate::BenchError;
use crate::load::{self, Address, Bound, Load, Outcome, request};
use crate::measure::proc;
use crate::process::{Process, read_tail, read_text};
use crate::sink::{Names, Received, Sink};
use crate::stop::{Stop, Waited};

/// PHP starts in well under a second; a machine that builds something else meanwhile needs longer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(20);
/// No single request of a benchmark takes longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Attempts to have every worker answer at the same time.
const PID_ROUNDS: u32 = 40;
/// Time to export everything and to end.
const END_LIMIT: Duration = Duration::from_secs(60);
/// After so long without an export the missing spans are lost.
const SPAN_QUIET: Duration = Duration::from_secs(6);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What is compared with.
    Stock,
    /// What is measured.
    Candidate,
}

impl Side {
    /// In the order of a round.
    pub const BOTH: [Self; 2] = [Self::Stock, Self::Candidate];

    /// For file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Candidate => "candidate",
        }
    }
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// Stock or candidate.
    pub side: Side,
    /// The program. One called `php-fpm…` is a php-fpm, whatever side it is on; others are Glasspool.
    pub program: &'a Path,
    /// The stock php executable, which Glasspool hosts its engine in.
    pub php: &'a Path,
    /// php.ini.
    pub ini: &'a Ini,
    /// Where files of this server go; traversable for everybody.
    pub dir: &'a Path,
    /// Where [`crate::site`]'s scripts are.
    pub scripts: &'a Path,
    /// A TCP port instead of a unix socket.
    pub tcp: bool,
    /// `pm.max_children`.
    pub workers: NonZeroU32,
    /// What Glasspool exports; php-fpm has nothing to export.
    pub tracing: Tracing,
    /// `request_slowlog_timeout`, seconds.
    pub slow_after_s: Option<u32>,
    /// Whether Glasspool holds a slow worker that runs, as php-fpm does, rather than only if it must.
    pub hold: bool,
    /// Whether Glasspool uses programs in the kernel.
    pub ebpf: Ebpf,
    /// What else its files say.
    pub more: More<'a>,
}

/// Lines for one server's own purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct More<'a> {
    /// Of the pool, in php-fpm.conf.
    pub pool: &'a str,
    /// At the end of `glasspool.toml`.
    pub overlay: &'a str,
}

/// A running server whose workers are known.
#[derive(Debug)]
pub struct Server {
    /// Dropped first: its last exports still find the sink.
    process: Process,
    sink: Option<Sink>,
    address: Address,
    scripts: PathBuf,
    log: PathBuf,
    slowlog: PathBuf,
    workers: Vec<u32>,
    facts: Facts,
    /// Requests sent to it so far.
    sent: u64,
}

/// CPU time used so far.
#[derive(Debug, Clone, Copy)]
pub struct CpuReading {
    /// By the pool's workers.
    pub workers: Duration,
    /// By everything else that belongs to the server.
    pub others: Duration,
}

impl Server {
    /// Starts it, waits until it answers, finds its workers.
    ///
    /// # Errors
    /// It does not come up in time; the message has the end of its log.
    pub fn start(spec: &Spec<'_>, stop: &Stop) -> Result<Self, BenchError> {
        let name = spec.side.name();
        let traced = spec.tracing != Tracing::Off && !config::is_php_fpm(spec.program);
        let sink = if traced { Some(Sink::start()?) } else { None };
        let files = config::Files::write(spec, sink.as_ref().map(Sink::address))?;
        let mut command = Command::new(spec.program);
        command
            .arg("-F")
            .arg("-c")
            .arg(&spec.ini.path)
            .arg("-y")
            .arg(&files.conf);
        if let Some(overlay) = &files.overlay {
            command.arg("--config").arg(overlay);
        }
        // The same environment for both: OTEL_* and PHP_* of ours are none of theirs.
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        let output = spec.dir.join(format!("{name}.output"));
        let process = Process::spawn(command, &output, Signal::TERM)?;
        let mut server = Self {
            process,
            sink,
            address: files.address,
            scripts: spec.scripts.to_owned(),
            log: files.log,
            slowlog: files.slowlog,
            workers: Vec::new(),
            facts: Facts::default(),
            sent: 0,
        };
        server.facts = server.wait_ready(stop)?;
        server.workers = server.find_workers(spec.workers, stop)?;
        Ok(server)
    }

    /// Its socket.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What PHP says of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Pid of the process that was started.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Pids of the pool's workers.
    pub fn workers(&self) -> &[u32] {
        &self.workers
    }

    /// Requests sent to it so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Counts requests that others (nginx) have sent to it.
    pub fn add_sent(&mut self, requests: u64) {
        self.sent += requests;
    }

    /// Entries in its slow log.
    pub fn slowlog_entries(&self) -> usize {
        read_text(&self.slowlog)
            .lines()
            .filter(|line| line.starts_with("script_filename"))
            .count()
    }

    /// Makes load on it.
    ///
    /// # Errors
    /// As [`load::run`].
    pub fn load(&mut self, load: &Load, stop: &Stop) -> Result<Outcome, BenchError> {
        self.load_each(load, stop, &mut |_| {})
    }

    /// Makes load on it, showing each answer.
    ///
    /// # Errors
    /// As [`load::run`].
    pub fn load_each(
        &mut self,
        load: &Load,
        stop: &Stop,
        on_answer: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome, BenchError> {
        let outcome = load::run_each(load, stop, on_answer)?;
        self.sent += outcome.sent;
        Ok(outcome)
    }

    /// Load of one client on a script of ours, to be filled in.
    pub fn load_of(&self, script: &str, query: &str, expect: &str) -> Load {
        Load {
            address: self.address.clone(),
            keep: false,
            clients: NonZeroU32::MIN,
            bound: Bound::Count(1),
            patience: PATIENCE,
            params: request::params(&self.scripts, script, query),
            expect: expect.as_bytes().to_vec(),
        }
    }

    /// CPU time used so far; `None` if a worker is gone.
    pub fn cpu(&self) -> Option<CpuReading> {
        let workers = self
            .workers
            .iter()
            .map(|pid| proc::cpu_time(*pid))
            .sum::<Option<Duration>>()?;
        let mut others = proc::descendants(self.process.pid());
        others.push(self.process.pid());
        others.retain(|pid| !self.workers.contains(pid));
        Some(CpuReading {
            workers,
            others: others.into_iter().filter_map(proc::cpu_time).sum(),
        })
    }

    /// Mean unique memory of a worker, kilobytes.
    #[expect(clippy::cast_precision_loss, reason = "kilobytes stay below 2^53")]
    pub fn unique_set_kb(&self) -> Option<f64> {
        let total = self
            .workers
            .iter()
            .map(|pid| proc::unique_set_kb(*pid))
            .sum::<Option<u64>>()?;
        Some(total as f64 / self.workers.len() as f64)
    }

    /// What it has exported, after it had time to; `None` if it does not export.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn exported(&self, stop: &Stop) -> Result<Option<Received>, BenchError> {
        let settle = |sink: &Sink| sink.settle(self.sent, SPAN_QUIET, stop);
        self.sink.as_ref().map(settle).transpose()
    }

    /// Waits for what is to be exported so far, and begins anew to add up times.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn forget_sums(&self, stop: &Stop) -> Result<(), BenchError> {
        self.exported(stop)?;
        if let Some(sink) = &self.sink {
            sink.forget_sums();
        }
        Ok(())
    }

    /// Has its collector judge whether what names a request names the right one.
    pub fn judge_names(&self) {
        if let Some(sink) = &self.sink {
            sink.judge_names();
        }
    }

    /// What it has found.
    pub fn names(&self) -> Names {
        self.sink.as_ref().map(Sink::names).unwrap_or_default()
    }

    /// Decodes what has been exported so far, so that it is not done during a measurement.
    pub fn digest(&self) {
        self.sink.as_ref().map(Sink::received);
    }

    /// Has it answer what is under way, export everything and end; the end of its log.
    ///
    /// # Errors
    /// It does not end in time, or a signal to us.
    pub fn finish(&mut self, stop: &Stop) -> Result<String, BenchError> {
        self.process.signal(Signal::QUIT);
        self.process.wait(END_LIMIT, stop)?;
        Ok(read_tail(&self.log))
    }

    /// The observer's process.
    ///
    /// # Errors
    /// There is none: it is a php-fpm, or its observer has just ended.
    pub fn observer(&self) -> Result<u32, BenchError> {
        let is_observer = |pid: &u32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.starts_with(b"glasspool\0observer") || arguments.starts_with(b"glasspool: observer")
        };
        let mut family = proc::descendants(self.process.pid()).into_iter();
        family
            .find(is_observer)
            .ok_or_else(|| self.fault("has no observer"))
    }

    /// Memory of one of its processes (RSS), kilobytes; 0 if it is gone.
    pub fn resident_kb(&self, pid: u32) -> u64 {
        let status = read_text(Path::new(&format!("/proc/{pid}/status")));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }

    /// Has its collector take connections and never answer, or answer again.
    pub fn swallow(&self, swallow: bool) {
        if let Some(sink) = &self.sink {
            sink.swallow(swallow);
        }
    }

    /// An error about this server, with the end of its log.
    pub fn fault(&self, reason: impl Into<String>) -> BenchError {
        BenchError::Server {
            server: self.process.name().to_owned(),
            reason: reason.into(),
            log: format!("{}\n{}", read_text(&self.log), self.process.output()),
        }
    }

    fn wait_ready(&mut self, stop: &Stop) -> Result<Facts, BenchError> {
        let deadline = Instant::now() + START_LIMIT;
        let load = self.load_of("/facts.php", "", "\"sapi\"");
        loop {
            let mut facts = None;
            let outcome = self.load_each(&load, stop, &mut |answer| facts = Facts::parse(answer))?;
            if let Some(facts) = facts {
                return Ok(facts);
            }
            let first = outcome
                .errors
                .first
                .unwrap_or_else(|| "facts.php wrote no JSON".to_owned());
            if outcome.sent > 0 && outcome.errors.wrong > 0 {
                return Err(self.fault(format!("answers wrongly: {first}")));
            }
            // Waiting for its end is how a start that failed is noticed at once.
            if stop.wait(rustix::fd::AsFd::as_fd(self.process.pidfd()), RETRY)? == Waited::Ready {
                let status = self
                    .process
                    .ended()?
                    .map_or_else(String::new, |status| status.to_string());
                return Err(self.fault(format!("ended while starting ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.fault(format!("does not answer within {START_LIMIT:?}: {first}")));
            }
        }
    }

    /// Asks with one client for each worker until as many different pids have answered: no guess from names or
    /// families of processes is needed.
    fn find_workers(&mut self, count: NonZeroU32, stop: &Stop) -> Result<Vec<u32>, BenchError> {
        let wanted = usize::try_from(count.get()).expect("a count of processes");
        let load = Load {
            clients: count,
            bound: Bound::Count(count.get().into()),
            ..self.load_of("/pid.php", "", "pid ")
        };
        let mut pids = Vec::new();
        for _ in 0..PID_ROUNDS {
            self.load_each(&load, stop, &mut |answer| pids.extend(parse_pid(answer)))?;
            pids.sort_unstable();
            pids.dedup();
            if pids.len() >= wanted {
                break;
            }
        }
        if pids.len() == wanted {
            return Ok(pids);
        }
        Err(self.fault(format!(
            "was to run {wanted} workers, but answers came from pids {pids:?}"
        )))
    }
}

fn parse_pid(answer: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(answer).ok()?;
    text.rsplit_once("pid ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_behind_the_headers() {
        assert_eq!(
            parse_pid(b"Content-type: text/html\r\n\r\npid 4711\n"),
            Some(4711)
        );
        assert_eq!(parse_pid(b"Content-type: text/html\r\n\r\n"), None);
        assert_eq!(parse_pid(b"pid -1"), None);
    }
}
