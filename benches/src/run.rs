//! A whole comparison: finds the tools, goes through the cases, gathers the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::BenchError;
use crate::args::RunArguments;
use crate::bench::{self, Setup, Tools};
use crate::case::{self, CASES, Case, Page};
use crate::look::{self, torn};
use crate::machine::Machine;
use crate::process::{adopt_orphans, find_program};
use crate::report::{CaseReport, Note, Options, Report, Verdict};
use crate::server::Ini;
use crate::site::Workspace;
use crate::slow;
use crate::stop::Stop;
use crate::telemetry::{black_hole, cost, counts};
use crate::waits::{cost as ebpf_cost, sum};
use crate::wordpress::WordPress;

/// `--quick`.
const QUICK: (u32, u64) = (2, 1);

/// Compares; tells `say` each result as it comes, one or more lines at a time.
///
/// A case that cannot be measured is noted and the others go on.
///
/// # Errors
/// No server, no folder to work in, or a signal.
pub fn run(arguments: &RunArguments, stop: &Stop, say: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let (rounds, seconds) = if arguments.quick {
        QUICK
    } else {
        (arguments.rounds, arguments.seconds)
    };
    let stock = program(&arguments.stock)?;
    let candidate = program(&arguments.candidate)?;
    let wordpress_tool = arguments.wordpress.as_deref().map(program).transpose()?;
    adopt_orphans()?;
    let workspace = Workspace::create()?;
    let dir = workspace.path();
    let tools = Tools {
        nginx: find_program("nginx"),
        wrk: find_program("wrk"),
        strace: find_program("strace"),
    };
    let machine = machine(&stock, &candidate, &tools, dir, stop)?;
    let ini = Ini::write(&stock, dir, stop)?;
    let scripts = workspace.scripts();
    let setup = Setup {
        stock: &stock,
        candidate: &candidate,
        tools,
        ini: &ini,
        dir,
        scripts: &scripts,
        wordpress: None,
        rounds,
        traces: arguments.traces,
        requests: arguments.requests,
        time: Duration::from_secs(seconds),
        stop,
    };
    let report = Report {
        machine,
        options: Options {
            rounds,
            seconds,
            stock: stock.display().to_string(),
            candidate: candidate.display().to_string(),
        },
        cases: Vec::new(),
        slow_stop: None,
        look: None,
        torn: None,
        counts: None,
        black_hole: None,
        cost: None,
        hello_ebpf: None,
        waits_sum: None,
        skipped: Vec::new(),
        failed: Vec::new(),
        bar: Vec::new(),
    };
    let mut run = Run {
        setup,
        report,
        wordpress_tool,
        wordpress_dir: arguments.wordpress_dir.clone(),
        say,
    };
    for name in choose(&arguments.only) {
        run.named(name)?;
    }
    let mut report = run.report;
    report.bar = Verdict::all(&report);
    Ok(report)
}

struct Run<'a> {
    setup: Setup<'a>,
    report: Report,
    wordpress_tool: Option<PathBuf>,
    wordpress_dir: Option<PathBuf>,
    say: &'a mut dyn FnMut(&str),
}

impl Run<'_> {
    fn named(&mut self, name: &'static str) -> Result<(), BenchError> {
        if let Some(reason) = self.missing(name) {
            (self.say)(&format!("{name}: skipped, {reason}\n"));
            self.report.skipped.push(Note {
                name: name.to_owned(),
                reason,
            });
            return Ok(());
        }
        let done = match CASES.iter().find(|case| case.name == name) {
            Some(case) => self.case(case),
            None if name == case::LOOK => self.look(),
            None if name == case::TORN => self.torn(),
            None if name == case::COUNTS => self.counts(),
            None if name == case::BLACK_HOLE => self.black_hole(),
            None if name == case::COST => self.cost(),
            None if name == case::HELLO_EBPF => self.hello_ebpf(),
            None if name == case::WAITS_SUM => self.waits_sum(),
            None => self.slow_stop(),
        };
        match done {
            Ok(()) => Ok(()),
            Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
            Err(error) => {
                (self.say)(&format!("{name}: failed: {error}\n"));
                self.report.failed.push(Note {
                    name: name.to_owned(),
                    reason: error.to_string(),
                });
                Ok(())
            }
        }
    }

    /// What a case needs and this machine has not; a missing strace costs one number only.
    fn missing(&mut self, name: &str) -> Option<String> {
        let tools = &self.setup.tools;
        let case = CASES.iter().find(|case| case.name == name)?;
        if case.way.is_nginx() && tools.nginx.is_none() {
            return Some("nginx is not installed".to_owned());
        }
        if case.way.is_nginx() && tools.wrk.is_none() {
            return Some("wrk is not installed".to_owned());
        }
        if case.page == Page::WordPress && self.wordpress_tool.is_none() {
            return Some("no --wordpress TOOL given (or GLASSPOOL_BENCH_WORDPRESS)".to_owned());
        }
        let known = self
            .report
            .skipped
            .iter()
            .any(|note| note.name == "syscalls/request");
        if tools.strace.is_none() && !case.way.is_nginx() && !known {
            let reason = "strace is not installed".to_owned();
            self.report.skipped.push(Note {
                name: "syscalls/request".to_owned(),
                reason,
            });
        }
        None
    }

    fn case(&mut self, case: &Case) -> Result<(), BenchError> {
        let result = match case.page {
            Page::WordPress => self.with_wordpress(|setup| bench::measure(case, setup))?,
            Page::Hello | Page::Table | Page::Cpu => bench::measure(case, &self.setup)?,
        };
        let report = CaseReport::new(result);
        (self.say)(&report.to_string());
        self.report.cases.push(report);
        Ok(())
    }

    /// Measures with a WordPress site, if there is a tool that makes one.
    fn with_wordpress<T>(
        &mut self,
        measure: impl FnOnce(&Setup<'_>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        let Some(tool) = &self.wordpress_tool else {
            return measure(&self.setup);
        };
        let dir = self
            .wordpress_dir
            .clone()
            .unwrap_or_else(|| self.setup.dir.join("wp"));
        (self.say)("wordpress: making the site …\n");
        let output = self.setup.dir.join("wordpress.output");
        let site = WordPress::provision(tool, &dir, &output, self.setup.stop)?;
        measure(&Setup {
            wordpress: Some(site.docroot()),
            tools: self.setup.tools.clone(),
            ..self.setup
        })
    }

    fn slow_stop(&mut self) -> Result<(), BenchError> {
        let result = slow::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.slow_stop = Some(result);
        Ok(())
    }

    fn look(&mut self) -> Result<(), BenchError> {
        let result = look::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.look = Some(result);
        Ok(())
    }

    fn torn(&mut self) -> Result<(), BenchError> {
        let result = torn::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.torn = Some(result);
        Ok(())
    }

    fn counts(&mut self) -> Result<(), BenchError> {
        let result = counts::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.counts = Some(result);
        Ok(())
    }

    fn black_hole(&mut self) -> Result<(), BenchError> {
        let result = black_hole::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.black_hole = Some(result);
        Ok(())
    }

    fn cost(&mut self) -> Result<(), BenchError> {
        let result = cost::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.cost = Some(result);
        Ok(())
    }

    fn hello_ebpf(&mut self) -> Result<(), BenchError> {
        let result = self.with_wordpress(ebpf_cost::measure)?;
        (self.say)(&result.to_string());
        self.report.hello_ebpf = Some(result);
        Ok(())
    }

    fn waits_sum(&mut self) -> Result<(), BenchError> {
        let result = sum::measure(&self.setup)?;
        (self.say)(&result.to_string());
        self.report.waits_sum = Some(result);
        Ok(())
    }
}

/// The cases of `--only` in the order of the table; without any, all.
fn choose(only: &[String]) -> impl Iterator<Item = &'static str> {
    case::names().filter(|name| only.is_empty() || only.iter().any(|chosen| chosen == name))
}

/// Its absolute path: servers are started elsewhere.
fn program(name: &Path) -> Result<PathBuf, BenchError> {
    let found = find_program(&name.to_string_lossy());
    let source = std::io::Error::from(std::io::ErrorKind::NotFound);
    let found = found.ok_or(BenchError::Spawn {
        program: name.display().to_string(),
        source,
    })?;
    found.canonicalize().map_err(BenchError::file("resolve", &found))
}

fn machine(
    stock: &Path,
    candidate: &Path,
    tools: &Tools,
    dir: &Path,
    stop: &Stop,
) -> Result<Machine, BenchError> {
    let mut programs = vec![(stock, "-v"), (candidate, "--version")];
    let flags = [(&tools.nginx, "-v"), (&tools.wrk, "-v"), (&tools.strace, "-V")];
    programs.extend(
        flags
            .iter()
            .filter_map(|(program, flag)| Some((program.as_deref()?, *flag))),
    );
    Machine::inspect(&programs, dir, stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_in_the_order_of_the_table() {
        let names = |only: &[&str]| {
            choose(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), CASES.len() + 8);
        assert_eq!(names(&["cpu", "hello-tcp"]), ["hello-tcp", "cpu"]);
    }
}
