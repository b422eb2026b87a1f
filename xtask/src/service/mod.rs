//! `xtask service`: the unit and the init script of `packaging/`, and Debian's own unit,
//! with Debian's own php-fpm.conf and pool.d: started, reloaded, asked and stopped by a
//! real systemd in namespaces of its own. The machine is left as it was.
//!
//! Every command is shown with what it printed, so that the run can be read as a
//! transcript.

mod machine;

use std::io::Write as _;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use glasspool_benches::load::{self, Address, Bound, Load, request};
use glasspool_benches::stop::Stop;

use crate::report::Report;
use crate::run;
use machine::{Machine, Ran};

const UNIT: &str = "glasspool@8.2";
const INIT_SCRIPT: &str = "/etc/init.d/glasspool";
/// Debian's own, which a link may stand in for.
const PHP_FPM: &str = "/usr/sbin/php-fpm8.2";
const DEBIANS_UNIT: &str = "php8.2-fpm";
const GLASSPOOL: &str = "/usr/bin/glasspool";
/// Time that one program has to take the other's place.
const SWAP_TIME: Duration = Duration::from_secs(15);
/// Pause between two looks at which of them it is.
const PAUSE: Duration = Duration::from_millis(100);
/// Debian's pool, which is used as it is.
const POOL: &str = "/etc/php/8.2/fpm/pool.d/www.conf";
const SOCKET: &str = "/run/php/php8.2-fpm.sock";
const SCRIPT: &str = "/service.php";
/// What [`SCRIPT`] answers: Debian's pool runs as that user.
const ANSWER: &str = "service answers as www-data.";

/// Which build.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder with the program and its engine object
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    built: PathBuf,
}

/// Runs the trial; true if nothing failed.
///
/// # Errors
/// When it cannot begin.
pub(crate) fn trial(options: &Options) -> Result<bool> {
    let mut report = Report::new();
    if let Some(why) = Machine::obstacle() {
        report.skip("a service manager", why);
        return Ok(report.conclude());
    }
    let stop = Stop::on_signals()?;
    let scratch = tempfile::Builder::new().prefix("gpservice-").tempdir()?;
    let installed = scratch.path().join("installed");
    install(&installed, &options.built, scratch.path())?;
    let machine = Machine::start(&installed, scratch.path(), &stop)?;
    let trial = Trial { machine, stop: &stop };
    let outcome = trial.by_systemd(&mut report);
    report.part("systemd", outcome);
    let outcome = trial.by_init_script(&mut report);
    report.part("the init script", outcome);
    let outcome = trial.in_php_fpms_place(&mut report);
    report.part("in php-fpm's place", outcome);
    drop(trial);
    Ok(report.conclude())
}

/// `make install` into a folder, of this build.
fn install(folder: &Path, built: &Path, scratch: &Path) -> Result<()> {
    // It takes the build below the folder that it runs in.
    let built = built
        .canonicalize()
        .with_context(|| format!("no {} (run `make build` first)", built.display()))?;
    std::fs::create_dir(scratch.join("target"))?;
    symlink(built, scratch.join("target/release"))?;
    symlink(std::path::absolute("packaging")?, scratch.join("packaging"))?;
    let own = std::env::current_exe().context("no /proc")?;
    run::run(
        Command::new(own)
            .arg("install")
            .current_dir(scratch)
            .env("DESTDIR", folder)
            .env("PREFIX", "/usr"),
    )
}

struct Trial<'a> {
    machine: Machine,
    stop: &'a Stop,
}

impl Trial<'_> {
    fn by_systemd(&self, report: &mut Report) -> Result<()> {
        let systemctl = |verb: &str| self.shown(&["systemctl", verb, UNIT]);
        let state = || {
            self.machine
                .run(["systemctl", "is-active", UNIT])
                .map(|ran| ran.output)
        };
        report.check(
            "systemctl start",
            systemctl("start")?.succeeded,
            "success",
            "failure",
        );
        let status = systemctl("status")?.output;
        report.contains("systemctl status: it runs", "active (running)", &status);
        report.contains(
            "systemctl status: it says so itself",
            "Ready to handle connections",
            &status,
        );
        report.contains("a request", ANSWER, &self.ask()?);
        let main = self.main_pid()?;
        report.check(
            "systemctl reload",
            systemctl("reload")?.succeeded,
            "success",
            "failure",
        );
        report.equal("its pid is the same after a reload", &main, &self.main_pid()?);
        report.contains("a request after a reload", ANSWER, &self.ask()?);

        let good = self.spoil_pool()?;
        let refused = !systemctl("reload")?.succeeded;
        report.check("a reload with a broken file fails", refused, "failure", "success");
        let status = systemctl("status")?.output;
        report.contains("it still runs", "active (running)", &status);
        report.contains("the status says why", "no_such_directive", &status);
        report.contains("a request after a failed reload", ANSWER, &self.ask()?);
        std::fs::write(self.machine.path(POOL), good)?;
        report.check(
            "repaired, a reload is done",
            systemctl("reload")?.succeeded,
            "success",
            "failure",
        );

        report.check(
            "systemctl restart",
            systemctl("restart")?.succeeded,
            "success",
            "failure",
        );
        report.contains("a request after a restart", ANSWER, &self.ask()?);
        report.check(
            "systemctl stop",
            systemctl("stop")?.succeeded,
            "success",
            "failure",
        );
        report.equal("it is stopped", "inactive", state()?.trim());
        self.check_gone(report)?;
        systemctl("status")?;
        Ok(())
    }

    fn by_init_script(&self, report: &mut Report) -> Result<()> {
        // Debian's init-functions would hand the script's work to systemd.
        let script = |verb: &str| self.shown(&["env", "_SYSTEMCTL_SKIP_REDIRECT=1", INIT_SCRIPT, verb]);
        let mut succeeds = |verb: &str, wanted: bool| -> Result<()> {
            let ran = script(verb)?;
            let word = |success| if success { "succeeds" } else { "fails" };
            report.check(
                format_args!("{INIT_SCRIPT} {verb} {}", word(wanted)),
                ran.succeeded == wanted,
                word(wanted),
                word(ran.succeeded),
            );
            Ok(())
        };
        succeeds("status", false)?;
        succeeds("start", true)?;
        succeeds("status", true)?;
        let answer = self.ask()?;
        succeeds("reload", true)?;
        let good = self.spoil_pool()?;
        succeeds("reload", false)?;
        succeeds("status", true)?;
        std::fs::write(self.machine.path(POOL), good)?;
        let answer_after = self.ask()?;
        succeeds("restart", true)?;
        succeeds("stop", true)?;
        succeeds("status", false)?;
        succeeds("start", true)?;
        succeeds("force-quit", true)?;
        succeeds("status", false)?;
        report.contains("a request", ANSWER, &answer);
        report.contains("a request after a failed reload", ANSWER, &answer_after);
        self.check_gone(report)
    }

    /// Debian's own unit, with a link where php-fpm was; then the way back and forth, by
    /// nothing but the link and a reload.
    fn in_php_fpms_place(&self, report: &mut Report) -> Result<()> {
        let diverted = format!("{PHP_FPM}.distrib");
        self.must(report, &["mv", PHP_FPM, &diverted])?;
        self.must(report, &["ln", "-s", GLASSPOOL, PHP_FPM])?;
        self.must(report, &["systemctl", "start", DEBIANS_UNIT])?;
        self.check_program(report, true)?;
        self.must(report, &["systemctl", "reload", DEBIANS_UNIT])?;
        report.contains("a request after a reload", ANSWER, &self.ask()?);
        for (program, is_ours) in [(&*diverted, false), (GLASSPOOL, true)] {
            self.must(report, &["ln", "-sfn", program, PHP_FPM])?;
            self.must(report, &["systemctl", "reload", DEBIANS_UNIT])?;
            self.check_program(report, is_ours)?;
        }
        self.must(report, &["ln", "-sfn", &diverted, PHP_FPM])?;
        self.must(report, &["systemctl", "restart", DEBIANS_UNIT])?;
        self.check_program(report, false)?;
        self.must(report, &["systemctl", "stop", DEBIANS_UNIT])?;
        self.check_gone(report)
    }

    /// Which of the two serves, waiting for it: Debian's unit does not wait for a reload.
    fn check_program(&self, report: &mut Report, is_ours: bool) -> Result<()> {
        let by = Instant::now() + SWAP_TIME;
        let command = ["systemctl", "status", DEBIANS_UNIT];
        let is_it = |status: &str| {
            status.contains("php-fpm: pool www") && status.contains("glasspool: engine") == is_ours
        };
        while !is_it(&self.machine.run(command)?.output) && Instant::now() < by {
            self.stop.pause(PAUSE)?;
        }
        let status = self.must(report, &command)?;
        let (wanted, other) = if is_ours {
            ("Glasspool", "php-fpm")
        } else {
            ("php-fpm", "Glasspool")
        };
        report.check(
            format_args!("it is {wanted} that runs"),
            is_it(&status),
            wanted,
            other,
        );
        report.contains("a request", ANSWER, &self.ask()?);
        Ok(())
    }

    /// Runs a command that succeeds; what it printed.
    fn must(&self, report: &mut Report, command: &[&str]) -> Result<String> {
        let ran = self.shown(command)?;
        report.check(command.join(" "), ran.succeeded, "success", "failure");
        Ok(ran.output)
    }

    /// Neither socket nor process is left.
    fn check_gone(&self, report: &mut Report) -> Result<()> {
        let left = self
            .machine
            .run(["pgrep", "--list-full", "php|glasspool"])?
            .output;
        report.equal("no process is left", "", left.trim());
        let socket = self.machine.path(SOCKET);
        report.check("no socket is left", !socket.exists(), "nothing", socket.display());
        Ok(())
    }

    /// Puts an unknown directive into Debian's pool; what it held before.
    fn spoil_pool(&self) -> Result<String> {
        let path = self.machine.path(POOL);
        let good = std::fs::read_to_string(&path).with_context(|| format!("cannot read {POOL}"))?;
        std::fs::write(&path, format!("{good}\nno_such_directive = 1\n"))?;
        Ok(good)
    }

    fn main_pid(&self) -> Result<String> {
        let ran = self
            .machine
            .run(["systemctl", "show", "--value", "--property=MainPID", UNIT])?;
        if !ran.succeeded {
            bail!("systemctl show: {}", ran.output);
        }
        Ok(ran.output.trim().to_owned())
    }

    /// Runs a command in there and shows it with what it printed.
    fn shown(&self, command: &[&str]) -> Result<Ran> {
        let ran = self.machine.run(command)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "      $ {}", command.join(" "))?;
        for line in ran.output.lines() {
            writeln!(out, "      {line}")?;
        }
        Ok(ran)
    }

    /// The answer to one request over Debian's socket.
    fn ask(&self) -> Result<String> {
        let mut answer = String::new();
        let load = Load {
            address: Address::Unix(self.machine.path(SOCKET)),
            keep: false,
            clients: NonZeroU32::MIN,
            bound: Bound::Count(1),
            patience: Duration::from_secs(10),
            params: request::params(Path::new("/srv"), SCRIPT, ""),
            expect: Vec::new(),
        };
        let outcome = load::run_each(&load, self.stop, &mut |bytes| {
            answer = String::from_utf8_lossy(bytes).into_owned();
        })?;
        Ok(outcome.errors.first.unwrap_or(answer))
    }
}
