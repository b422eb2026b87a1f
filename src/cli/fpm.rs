//! Behaving as php-fpm, and `glasspool run`, which is the same in the foreground.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::flags::{self, Asked, Flags};
use super::handover::{self, Handover, Outcome, Part};
use super::load::{fpm_conf, load, open_log, say_failure, say_lines, standing};
use super::{CONFIG, SOFTWARE, USAGE, about, limits, test, usage};
use crate::config::{LogLevel, Settings};
use crate::logs::{Errno, ErrorLog};
use crate::supervisor::{self, Launch};

/// How long a launcher waits for its daemon beyond what PHP is given to start. php-fpm
/// waits as long in all, but starts PHP before it makes the daemon.
const LAUNCH_TIME: Duration = Duration::from_secs(10);

/// Does what php-fpm's command line asks for.
pub(super) fn call(argv: Vec<OsString>, say: impl Fn(&str)) -> ExitCode {
    let argv0 = argv.first().map(OsString::as_os_str).unwrap_or_default();
    match flags::parse(&argv) {
        Asked::Wrong => {
            say(usage::text(argv0).trim_end());
            ExitCode::from(USAGE)
        }
        Asked::Help => {
            say(usage::text(argv0).trim_end());
            ExitCode::SUCCESS
        }
        Asked::About(about, php) => about::print(argv0, about, php),
        Asked::Fpm(flags) if flags.tests > 0 => test::test(&flags),
        Asked::Fpm(flags) => {
            hold_back_signals();
            let part = Part::Caller;
            let handover = Handover { part, argv };
            // Where that is not to be had (no /proc, say), only the title is missing.
            let _reason = handover.exec(&fpm_conf(&flags));
            start(&flags, handover, None)
        }
    }
}

/// Goes on as the new image that the handover describes.
pub(super) fn resume(handover: Handover) -> ExitCode {
    let output = match handover::detach_streams() {
        Ok(output) => output,
        Err(e) => {
            let log = ErrorLog::stderr(LogLevel::Notice);
            log.error(format_args!(
                "failed to init stdio: open(\"/dev/null\"): {}",
                Errno(&e)
            ));
            return ExitCode::from(SOFTWARE);
        }
    };
    take_name(&handover.argv);
    match flags::parse(&handover.argv) {
        Asked::Fpm(flags) => start(&flags, handover, Some(output)),
        // The first image has sorted these out.
        Asked::Wrong | Asked::Help | Asked::About(..) => ExitCode::from(USAGE),
    }
}

/// Runs the pools of these flags, under the program's own name.
pub(super) fn run(flags: &Flags) -> ExitCode {
    hold_back_signals();
    let handover = Handover {
        part: Part::Caller,
        argv: std::env::args_os().collect(),
    };
    start(flags, handover, None)
}

fn start(flags: &Flags, handover: Handover, launcher: Option<OwnedFd>) -> ExitCode {
    let mut settings = match load(flags) {
        Ok(settings) => settings,
        Err(failure) => {
            say_failure(flags, &failure);
            return ExitCode::from(CONFIG);
        }
    };
    let mut standing = standing(flags, settings.global.daemonize);
    standing.foreground &= handover.part == Part::Caller;
    let log = match open_log(&settings.global, standing) {
        Ok(log) => log,
        Err(lines) => {
            say_lines(&ErrorLog::stderr(settings.global.log_level), &lines);
            return ExitCode::from(CONFIG);
        }
    };
    if let Err(line) = limits::set_limits(&settings.global) {
        return give_up(&log, &line, CONFIG);
    }
    if !standing.foreground && handover.part == Part::Caller {
        return launch(flags, handover, &settings, &log);
    }
    if handover.part == Part::Daemon
        && let Err(e) = rustix::process::setsid()
    {
        let reason = io::Error::from(e);
        return give_up(&log, &format!("failed to daemonize: {}", Errno(&reason)), CONFIG);
    }
    for notice in std::mem::take(&mut settings.notices) {
        log.at(notice.level, notice.text);
    }
    if let Err(line) = limits::set_priority(&settings.global, &log) {
        return give_up(&log, &line, CONFIG);
    }
    for notice in std::mem::take(&mut settings.start_notices) {
        log.at(notice.level, notice.text);
    }
    serve(flags, handover, settings, log, launcher)
}

/// Starts the daemon and waits for what becomes of it.
fn launch(flags: &Flags, handover: Handover, settings: &Settings, log: &ErrorLog) -> ExitCode {
    // These would be found out by the daemon as well, but then with another exit status.
    if let Err(lines) = test::open_pool_logs(settings) {
        say_lines(log, &lines);
        return ExitCode::from(CONFIG);
    }
    let daemon = Handover {
        part: Part::Daemon,
        ..handover
    };
    let patience = LAUNCH_TIME + supervisor::START_TIME;
    let outcome = daemon
        .launch(&fpm_conf(flags))
        .and_then(|launched| launched.wait(patience));
    match outcome {
        Ok(Outcome::Up) => return ExitCode::SUCCESS,
        // It has said why.
        Ok(Outcome::Ended) => {}
        Ok(Outcome::Silent) => {
            log.error("the master process didn't send back its status (via the pipe to the calling process)");
        }
        Err(e) => log.error(format_args!("failed to daemonize: {}", Errno(&e))),
    }
    ExitCode::from(SOFTWARE)
}

fn serve(
    flags: &Flags,
    handover: Handover,
    settings: Settings,
    log: ErrorLog,
    launcher: Option<OwnedFd>,
) -> ExitCode {
    let mut launch = Launch::new(settings, log.clone());
    launch.allow_root = flags.allow_root;
    launch.ini = flags.php.ini.clone();
    launch.no_ini = flags.php.no_ini;
    launch.extended_info = flags.php.extended_info;
    launch.define = flags.php.define.clone();
    let is_daemon = handover.part == Part::Daemon;
    launch.argv = handover.argv;
    let again = flags.clone();
    launch.reload = Box::new(move || load(&again).map_err(|failure| failure.lines()));
    if let Some(launcher) = launcher.filter(|_| is_daemon) {
        launch.announce = Some(Box::new(move |_| handover::acknowledge(launcher)));
    }
    match supervisor::run(launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => give_up(&log, &e.to_string(), e.exit_code()),
    }
}

fn give_up(log: &ErrorLog, line: &str, code: u8) -> ExitCode {
    let lines = [line, "FPM initialization failed"];
    say_lines(log, &lines.map(|line| (LogLevel::Error, line.to_owned())));
    ExitCode::from(code)
}

/// Signals that scripts send to php-fpm at any time would end the program until the
/// supervisor listens for them; until then they wait.
fn hold_back_signals() {
    let mut signals = SigSet::empty();
    [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGCHLD]
        .into_iter()
        .for_each(|signal| signals.add(signal));
    // Without it everything works but for a signal that comes too early.
    signals.thread_block().unwrap_or_default();
}

/// Tools that look for processes by their name know php-fpm's by that of its file.
fn take_name(argv: &[OsString]) {
    let name = argv.first().and_then(|argv0| Path::new(argv0).file_name());
    let name = name.and_then(|name| CString::new(name.as_bytes()).ok());
    // Only what is shown depends on it.
    nix::sys::prctl::set_name(&name.unwrap_or_else(|| c"php-fpm".to_owned())).unwrap_or_default();
}
