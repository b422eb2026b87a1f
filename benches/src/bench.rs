//! One case, both servers: rounds A B A B …, then what is measured once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::BenchError;
use crate::case::{Case, Page};
use crate::load::{Bound, Errors, Load, request};
use crate::measure::{syscalls::Counting, wrk};
use crate::nginx::Nginx;
use crate::server::{CpuReading, Ebpf, Facts, Ini, More, Server, Side, Spec, Tracing};
use crate::stop::Stop;

/// Requests under strace.
const COUNTED_REQUESTS: u64 = 500;
/// Part of a round's time spent on warming up.
const WARM_UP: f64 = 0.5;

/// What a run works with.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Stock php-fpm.
    pub stock: &'a Path,
    /// The program compared with it.
    pub candidate: &'a Path,
    /// Tools that were found.
    pub tools: Tools,
    /// php.ini.
    pub ini: &'a Ini,
    /// Where files go.
    pub dir: &'a Path,
    /// Where the scripts are.
    pub scripts: &'a Path,
    /// WordPress's document root, once there is a site.
    pub wordpress: Option<&'a Path>,
    /// How often each side is measured.
    pub rounds: u32,
    /// Looks at a script that makes torn reads.
    pub traces: u64,
    /// Requests whose telemetry is counted.
    pub requests: u64,
    /// For how long each time.
    pub time: Duration,
    /// Ends everything.
    pub stop: &'a Stop,
}

/// Programs that not every machine has.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// nginx.
    pub nginx: Option<PathBuf>,
    /// wrk.
    pub wrk: Option<PathBuf>,
    /// strace.
    pub strace: Option<PathBuf>,
}

/// What one round measured on one side.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Right answers per second.
    pub per_second: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99_us: f64,
    /// CPU time of the workers per request, microseconds.
    pub worker_cpu_us: Option<f64>,
    /// CPU time of all other processes of the server per request, microseconds.
    pub other_cpu_us: Option<f64>,
    /// Requests that the server got.
    pub requests: u64,
    /// Requests without a right answer.
    pub errors: u64,
}

/// Everything measured on one side.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SideResult {
    /// Round by round.
    pub rounds: Vec<Sample>,
    /// System calls per request; absent without strace and behind nginx.
    pub syscalls_per_request: Option<f64>,
    /// Unique memory of a worker after the rounds, kilobytes.
    pub unique_set_kb: Option<f64>,
    /// Spans, when every request is exported or should be.
    pub spans: Option<Spans>,
    /// The first failed request, in words.
    pub first_error: Option<String>,
}

/// Requests against spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spans {
    /// Requests sent in the whole case, warm-up included.
    pub requests: u64,
    /// SERVER spans received.
    pub received: u64,
    /// Those missing; `None` when only a share was to be exported.
    pub lost: Option<u64>,
    /// Spans beyond one for each request.
    pub surplus: u64,
}

/// A case that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// Under which conditions.
    pub case: Case,
    /// Conditions in words.
    pub title: String,
    /// What PHP said of itself, on both sides.
    pub php: Facts,
    /// Stock php-fpm.
    pub stock: SideResult,
    /// The candidate.
    pub candidate: SideResult,
}

/// Measures a case. Its tools must be there.
///
/// # Errors
/// A server or tool does not start, or a signal.
pub fn measure(case: &Case, setup: &Setup<'_>) -> Result<CaseResult, BenchError> {
    let mut bench = Bench::start(case, setup)?;
    for side in Side::BOTH {
        bench.round(side, setup.time.mul_f64(WARM_UP))?;
    }
    for side in &mut bench.results {
        side.rounds.clear();
    }
    for _ in 0..setup.rounds {
        for side in Side::BOTH {
            bench.round(side, setup.time)?;
        }
    }
    for side in Side::BOTH {
        bench.finish(side)?;
    }
    let [stock, candidate] = bench.results;
    Ok(CaseResult {
        case: *case,
        title: case.title(),
        php: bench.php,
        stock,
        candidate,
    })
}

struct Bench<'a> {
    case: &'a Case,
    setup: &'a Setup<'a>,
    /// Dropped before the servers, which it is connected to.
    nginx: Option<Nginx>,
    servers: [Server; 2],
    results: [SideResult; 2],
    php: Facts,
}

impl<'a> Bench<'a> {
    fn start(case: &'a Case, setup: &'a Setup<'a>) -> Result<Self, BenchError> {
        let server = |side, program| {
            let spec = Spec {
                side,
                program,
                php: setup.stock,
                ini: setup.ini,
                dir: setup.dir,
                scripts: setup.scripts,
                tcp: case.way == crate::case::Way::Tcp,
                workers: case.workers,
                tracing: case.tracing,
                slow_after_s: None,
                hold: false,
                more: More::default(),
                ebpf: Ebpf::Auto,
            };
            Server::start(&spec, setup.stop)
        };
        let servers = [
            server(Side::Stock, setup.stock)?,
            server(Side::Candidate, setup.candidate)?,
        ];
        let [stock, candidate] = &servers;
        Facts::check_equal(stock.facts(), candidate.facts())?;
        let php = stock.facts().clone();
        let mut bench = Self {
            case,
            setup,
            nginx: None,
            servers,
            results: [SideResult::default(), SideResult::default()],
            php,
        };
        if case.way.is_nginx() {
            bench.nginx = Some(bench.start_nginx()?);
        }
        Ok(bench)
    }

    fn start_nginx(&mut self) -> Result<Nginx, BenchError> {
        let Setup { dir, stop, .. } = *self.setup;
        let program = self.setup.tools.nginx.as_deref().unwrap_or(Path::new("nginx"));
        let [stock, candidate] = &self.servers;
        let addresses = [stock.address(), candidate.address()];
        let mut nginx = Nginx::start(
            program,
            dir,
            self.root(),
            addresses,
            self.case.way.keeps(),
            self.case.tracing == Tracing::All,
            stop,
        )?;
        let (path, text) = self.case.page.path_and_text();
        for side in Side::BOTH {
            let before = nginx.requests_when_idle(stop)?;
            nginx.check(side, path, text)?;
            let requests = nginx.requests_when_idle(stop)? - before;
            self.servers[side as usize].add_sent(requests);
        }
        Ok(nginx)
    }

    fn root(&self) -> &'a Path {
        match self.case.page {
            Page::WordPress => self.setup.wordpress.unwrap_or(self.setup.scripts),
            Page::Hello | Page::Table | Page::Cpu => self.setup.scripts,
        }
    }

    fn round(&mut self, side: Side, time: Duration) -> Result<(), BenchError> {
        let server = &self.servers[side as usize];
        let before = server.cpu();
        let (mut sample, first_error) = match self.case.way.is_nginx() {
            true => (self.nginx_round(side, time)?, None),
            false => self.direct_round(side, time)?,
        };
        let server = &self.servers[side as usize];
        let after = server.cpu();
        if let (Some(before), Some(after)) = (before, after) {
            let part = |of: fn(&CpuReading) -> Duration| {
                per(
                    of(&after).saturating_sub(of(&before)).as_secs_f64() * 1e6,
                    sample.requests,
                )
            };
            (sample.worker_cpu_us, sample.other_cpu_us) = (part(|cpu| cpu.workers), part(|cpu| cpu.others));
        }
        server.digest();
        let result = &mut self.results[side as usize];
        result.rounds.push(sample);
        result.first_error = result.first_error.take().or(first_error);
        Ok(())
    }

    fn direct_round(&mut self, side: Side, time: Duration) -> Result<(Sample, Option<String>), BenchError> {
        let load = self.direct_load(side, Bound::Time(time));
        let outcome = self.servers[side as usize].load(&load, self.setup.stop)?;
        let Errors { first, .. } = outcome.errors.clone();
        let sample = Sample {
            per_second: outcome.per_second(),
            p50_us: outcome.percentile_us(50.0),
            p99_us: outcome.percentile_us(99.0),
            worker_cpu_us: None,
            other_cpu_us: None,
            requests: outcome.sent,
            errors: outcome.errors.total(),
        };
        Ok((sample, first))
    }

    fn direct_load(&self, side: Side, bound: Bound) -> Load {
        let (path, text) = self.case.page.path_and_text();
        Load {
            keep: self.case.way.keeps(),
            clients: self.case.clients,
            bound,
            params: request::params(self.root(), path, ""),
            ..self.servers[side as usize].load_of(path, "", text)
        }
    }

    fn nginx_round(&mut self, side: Side, time: Duration) -> Result<Sample, BenchError> {
        let Setup {
            dir, stop, ref tools, ..
        } = *self.setup;
        let nginx = self.nginx.as_mut().expect("started for this case");
        let wrk = tools.wrk.as_deref().unwrap_or(Path::new("wrk"));
        let before = nginx.requests_when_idle(stop)?;
        let (path, _) = self.case.page.path_and_text();
        let report = wrk::run(
            wrk,
            nginx.address(side),
            path,
            self.case.clients.get(),
            time,
            dir,
            stop,
        )?;
        let requests = nginx.requests_when_idle(stop)? - before;
        self.servers[side as usize].add_sent(requests);
        Ok(Sample {
            per_second: report.per_second,
            p50_us: report.p50_us,
            p99_us: report.p99_us,
            worker_cpu_us: None,
            other_cpu_us: None,
            requests,
            errors: report.socket_errors + report.bad_status,
        })
    }

    /// What is measured once, after the rounds.
    fn finish(&mut self, side: Side) -> Result<(), BenchError> {
        let index = side as usize;
        self.results[index].unique_set_kb = self.servers[index].unique_set_kb();
        if !self.case.way.is_nginx() && self.case.page == Page::Hello {
            self.results[index].syscalls_per_request = self.count_syscalls(side)?;
        }
        let server = &self.servers[index];
        let Some(received) = server.exported(self.setup.stop)? else {
            return Ok(());
        };
        let all = self.case.tracing == Tracing::All;
        self.results[index].spans = Some(Spans {
            requests: server.sent(),
            received: received.spans,
            lost: all.then(|| server.sent().saturating_sub(received.spans)),
            surplus: received.spans.saturating_sub(server.sent()),
        });
        Ok(())
    }

    fn count_syscalls(&mut self, side: Side) -> Result<Option<f64>, BenchError> {
        let Setup {
            dir, stop, ref tools, ..
        } = *self.setup;
        let Some(strace) = &tools.strace else {
            return Ok(None);
        };
        let load = self.direct_load(side, Bound::Count(COUNTED_REQUESTS));
        let server = &mut self.servers[side as usize];
        let counting = Counting::start(strace, server.workers(), dir, stop)?;
        let outcome = server.load(&load, stop)?;
        let calls = counting.finish(stop)?;
        #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
        Ok(per(calls as f64, outcome.sent))
    }
}

/// A share; `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn per(total: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| total / count as f64)
}
