//! `xtask soak`: many reloads while many requests run, then reloads that must fail, with
//! real PHP on loopback.
//!
//! Asserted: no request fails, every reload says how it ended, a broken one leaves the old
//! generation serving, and nothing piles up in the supervisor: descriptors, processes,
//! memory. Nothing is measured; that is the benchmark's business. Start reading at
//! [`run`], then `reload` for what a reload is and `broken` for what breaks one.

mod broken;
mod census;
mod load;
mod reload;
mod site;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use glasspool_benches::stop::Stop;

use crate::report::Report;
use broken::Kind;
use census::Census;
use load::Loads;
use reload::{How, reload};
use site::Site;

/// How much, and of what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Program under test
    #[arg(long, value_name = "FILE", default_value = "target/release/glasspool")]
    glasspool: PathBuf,
    /// Reloads that must succeed
    #[arg(long, value_name = "N", default_value_t = 1000)]
    reloads: u32,
    /// Requests that are at least made meanwhile
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    requests: u64,
    /// Reloads with each kind of broken input
    #[arg(long, value_name = "N", default_value_t = 50)]
    broken: u32,
    /// Time for all of it, minutes
    #[arg(long, value_name = "N", default_value_t = 40)]
    minutes: u64,
    /// Leave configuration and log for a look, in the temporary folder as gpsoak-*
    #[arg(long)]
    keep: bool,
}

/// Runs the proof; true if nothing failed.
///
/// # Errors
/// When it cannot begin, time is over, or it is interrupted.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let stop = Stop::on_signals()?;
    let deadline = Instant::now() + Duration::from_secs(60 * options.minutes);
    let program = options
        .glasspool
        .canonicalize()
        .with_context(|| format!("no {} (run `make build` first)", options.glasspool.display()))?;
    let mut report = Report::new();
    let mut site = Site::start(&program, options.keep)?;
    let trial = Trial {
        stop: &stop,
        deadline,
    };
    let outcome = trial
        .reloads(&mut site, options, &mut report)
        .and_then(|()| trial.broken_reloads(&mut site, options.broken, &mut report));
    report.part("soak", outcome);
    report.part("the end", site.finish());
    Ok(report.conclude())
}

/// What bounds a run.
struct Trial<'a> {
    stop: &'a Stop,
    deadline: Instant,
}

impl Trial<'_> {
    fn check(&self) -> Result<()> {
        self.stop.check()?;
        ensure!(
            Instant::now() < self.deadline,
            "time is over (allow more with --minutes)"
        );
        Ok(())
    }

    /// Good reloads under load, by signal and by the control socket in turn.
    fn reloads(&self, site: &mut Site, options: &Options, report: &mut Report) -> Result<()> {
        let before = Census::settled(site, self.stop)?;
        let loads = Loads::start(site, options.requests)?;
        let mut done = Ok(());
        let mut early = before.clone();
        for number in 1..=options.reloads {
            done = self
                .check()
                .and_then(|()| site.write_generation(number))
                .and_then(|()| reload(site, How::of(number)))
                .with_context(|| format!("reload {number}"))
                .and_then(|ended| ended.map_err(anyhow::Error::msg).context("a good reload failed"));
            if done.is_err() {
                break;
            }
            if number == options.reloads.div_ceil(5) {
                early = Census::take(site)?;
            }
            progress(format_args!(
                "{number} of {} reloads, {}",
                options.reloads,
                loads.so_far()
            ));
        }
        let requests = loads.finish(done.is_ok());
        clear_progress();
        report.check(
            format_args!("{} reloads, each told as done", options.reloads),
            done.is_ok(),
            "all to succeed",
            done.err().map_or_else(String::new, |e| format!("{e:#}")),
        );
        requests.judge("the reloads", options.requests, report);
        for address in site.addresses() {
            report.contains(
                format_args!("{address} is served by the last generation"),
                &site::answer_of(options.reloads),
                &load::ask(site, &address, self.stop)?,
            );
        }
        let after = Census::settled(site, self.stop)?;
        Census::compare(&before, &early, &after, report);
        Ok(())
    }

    /// Reloads that must fail, kind by kind, and a good one after each kind.
    fn broken_reloads(&self, site: &mut Site, times: u32, report: &mut Report) -> Result<()> {
        let before = Census::settled(site, self.stop)?;
        for kind in Kind::all(site.is_root()) {
            let current = site.generation();
            let spoilt = kind.spoil(site)?;
            let loads = Loads::start(site, 0)?;
            let mut failed = 0;
            let mut reasons = Vec::new();
            for number in 1..=times {
                self.check()?;
                match reload(site, How::of(number))? {
                    Ok(()) => {}
                    Err(reason) => {
                        failed += 1;
                        if !reasons.contains(&reason) {
                            reasons.push(reason);
                        }
                    }
                }
                progress(format_args!(
                    "{kind}: {number} of {times} reloads, {}",
                    loads.so_far()
                ));
            }
            let requests = loads.finish(true);
            clear_progress();
            report.equal(format_args!("{kind}: {times} reloads are refused"), times, failed);
            let told = reasons.join("\n");
            report.progress(format_args!(
                "{kind}: {}",
                told.lines().next().unwrap_or_default()
            ));
            report.contains(format_args!("{kind}: the reason is told"), kind.reason(), &told);
            requests.judge(kind, 1, report);
            for address in site.addresses() {
                report.contains(
                    format_args!("{kind}: {address} is still served by the generation before"),
                    &site::answer_of(current),
                    &load::ask(site, &address, self.stop)?,
                );
            }
            drop(spoilt);
            site.write_generation(current + 1)?;
            let repaired = reload(site, How::Control)?;
            report.equal(
                format_args!("{kind}: repaired, a reload is done"),
                Ok(()),
                repaired,
            );
        }
        let after = Census::settled(site, self.stop)?;
        Census::compare(&before, &before, &after, report);
        Ok(())
    }
}

/// One line that is written over, for somebody who watches.
fn progress(text: std::fmt::Arguments<'_>) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // A progress line that cannot be shown is missed by nobody.
        write!(err, "\r\x1b[K{text}")
            .and_then(|()| err.flush())
            .unwrap_or_default();
    }
}

fn clear_progress() {
    progress(format_args!(""));
}
