//! The command line: what can be asked for, and whom it is passed on to.
//!
//! The program has two. Called as `php-fpm…`, or with php-fpm's flags, it is php-fpm:
//! `flags` understands them, `fpm` does what they say, with `usage`, `about`, `test`,
//! `limits` and `handover` (titles and daemons). Otherwise it has the commands below, one
//! file each; `look` is for those that look into PHP processes. `load` is shared. Only
//! `main` and `look` write to standard output, and only `main` exits.

mod about;
mod arguments;
mod check;
mod completion;
mod flags;
mod fpm;
mod handover;
mod limits;
mod load;
mod look;
mod reload;
mod roles;
mod serve;
mod supervisor;
mod tail;
mod test;
mod trace;
mod usage;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::arguments::{CHECK_EXAMPLES, RUN_EXAMPLES};
use crate::config::LogLevel;
use crate::inspect::{self, DumpArguments, RecordArguments, TopArguments, WaitsArguments};
use crate::logs::ErrorLog;

pub use arguments::FpmArguments;
pub use completion::CompletionArguments;
pub use reload::ReloadArguments;
pub use roles::FrontArguments;
pub use serve::ServeArguments;
pub use supervisor::Whom;
pub use tail::TailCommand;
pub use trace::TraceArguments;

/// Exit status for arguments that make no sense (EX_USAGE).
pub const USAGE: u8 = 64;
/// Exit status when something went wrong inside (EX_SOFTWARE).
const SOFTWARE: u8 = 70;
/// Exit status for a configuration or a machine that does not allow a start (EX_CONFIG).
const CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  glasspool serve .                                  this folder on port 8000, with its traces
  glasspool serve public --slow 100ms --workers 8
  glasspool run -y /etc/php/8.2/fpm/php-fpm.conf     php-fpm's own configuration, in the foreground
  glasspool check -y /etc/php/8.2/fpm/php-fpm.conf   what would run, or what is wrong
  glasspool reload                                   new configuration, and whether it works
  glasspool dump all                                 what every PHP process of this machine is doing
  glasspool top www                                  the workers of a pool, live
  glasspool record www --seconds 10 -o www.svg       where their time goes, as a flame graph
  glasspool waits www                                which lines wait, for whom, and how long
  glasspool tail --status 5xx                        requests that fail, as they happen
  glasspool trace --path '/checkout*' --for 10m      these requests, whatever the sampler says
Without a command it takes php-fpm's flags and behaves as php-fpm: glasspool -t, glasspool -D.
Exit status: 0 after a clean stop, 64 wrong arguments, 70 PHP did not start, 78 what the
configuration or the machine does not allow.";

/// Runs PHP's workers, and explains every slow request.
#[derive(Debug, Parser)]
#[command(name = "glasspool", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pools of a php-fpm.conf in the foreground
    #[command(after_help = RUN_EXAMPLES)]
    Run(FpmArguments),
    /// Check the configuration and say what would run
    #[command(after_help = CHECK_EXAMPLES)]
    Check(FpmArguments),
    /// Have the running supervisor read its configuration anew, and say how that went
    Reload(ReloadArguments),
    /// Serve a folder over HTTP, traced to the terminal
    Serve(ServeArguments),
    /// Print what PHP processes are doing now, alike ones as one
    Dump(DumpArguments),
    /// Record a wall-clock profile of PHP processes, with their waits
    Record(RecordArguments),
    /// Watch PHP processes at work
    Top(TopArguments),
    /// Tell which lines of PHP wait, for what, and how long
    Waits(WaitsArguments),
    /// Show requests, slow ones with their stacks, and what workers print, as they happen
    Tail(TailCommand),
    /// Have some requests sampled for a time, in the running program
    Trace(TraceArguments),
    /// Print a completion script
    Completion(CompletionArguments),
    /// The observer's process; started by the supervisor
    #[command(hide = true)]
    Observer,
    /// Loads the kernel programs; started by the supervisor
    #[command(hide = true)]
    Loader,
    /// The HTTP front's process; started by the supervisor
    #[command(hide = true)]
    Front(FrontArguments),
}

/// A command line made sense of.
#[derive(Debug)]
pub struct Call(Kind);

#[derive(Debug)]
enum Kind {
    /// One of our own commands.
    Own(Box<Arguments>),
    /// As php-fpm would be called.
    Fpm(Vec<OsString>),
    /// By this program itself, to go on under another title.
    Resumed(handover::Handover),
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The whole chain of reasons.
    pub error: anyhow::Error,
    /// Exit status.
    pub code: u8,
    /// Where to say it.
    pub log: ErrorLog,
}

impl Failure {
    fn config(error: impl Into<anyhow::Error>) -> Failure {
        Failure::with(CONFIG, error)
    }

    /// Of something that was tried and did not work.
    fn ordinary(error: impl Into<anyhow::Error>) -> Failure {
        Failure::with(1, error)
    }

    fn with(code: u8, error: impl Into<anyhow::Error>) -> Failure {
        Failure {
            error: error.into(),
            code,
            log: ErrorLog::stderr(LogLevel::Notice),
        }
    }
}

/// Makes sense of the program's arguments, its own name first. May read standard input
/// where this program has started itself.
///
/// # Errors
/// With what to print when they make none, or when help was asked for.
pub fn understand(argv: Vec<OsString>) -> Result<Call, clap::Error> {
    let argv0 = argv.first().map(OsString::as_os_str).unwrap_or_default();
    if let Some(handover) = handover::given(argv0) {
        return Ok(Call(Kind::Resumed(handover)));
    }
    let named_so = Path::new(argv0)
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"php-fpm"));
    if named_so || argv.get(1).is_some_and(|first| flags::is_php_fpms(first)) {
        return Ok(Call(Kind::Fpm(argv)));
    }
    Ok(Call(Kind::Own(Box::new(Arguments::try_parse_from(argv)?))))
}

/// Does what was asked for. Results for people go to `say`, line by line.
///
/// # Errors
/// With the status to exit with.
pub fn run(call: Call, say: impl Fn(&str) + 'static) -> Result<ExitCode, Failure> {
    let command = match call.0 {
        Kind::Resumed(handover) => return Ok(fpm::resume(handover)),
        Kind::Fpm(argv) => return Ok(fpm::call(argv, say)),
        Kind::Own(arguments) => arguments.command,
    };
    match command {
        None => Ok(fpm::run(&FpmArguments::default().flags())),
        Some(Command::Run(fpm)) => Ok(fpm::run(&fpm.flags())),
        Some(Command::Check(fpm)) => check::check(&fpm.flags(), say),
        Some(Command::Reload(reload)) => reload::reload(&reload, say),
        Some(Command::Serve(serve)) => serve::run(serve, say),
        Some(Command::Dump(dump)) => Ok(look::with_console(|console| inspect::run_dump(&dump, console))),
        Some(Command::Record(record)) => Ok(look::with_console(|console| {
            inspect::run_record(&record, console)
        })),
        Some(Command::Top(top)) => Ok(look::with_console(|console| inspect::run_top(&top, console))),
        Some(Command::Waits(waits)) => Ok(look::with_console(|console| inspect::run_waits(&waits, console))),
        Some(Command::Tail(command)) => tail::tail(&command),
        Some(Command::Trace(arguments)) => trace::trace(arguments, say),
        Some(Command::Completion(completion)) => Ok(completion::print(&completion, say)),
        Some(Command::Observer) => Ok(roles::observer()),
        Some(Command::Loader) => Ok(roles::loader()),
        Some(Command::Front(front)) => roles::front(front),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(line: &str) -> Result<Kind, clap::Error> {
        understand(line.split(' ').map(OsString::from).collect()).map(|call| call.0)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_takes_them() {
        use clap::CommandFactory;
        let program = Arguments::command();
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        for command in commands.chain([&program]) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let longest = help.lines().map(|line| line.chars().count()).max();
            // Where clap wraps what it wraps itself.
            assert!(longest <= Some(100), "{}: {help}", command.get_name());
            let mut examples = help
                .lines()
                .filter(|line| line.starts_with("  glasspool "))
                .peekable();
            assert!(examples.peek().is_some(), "{} has none", command.get_name());
            for example in examples {
                // What it does stands behind it; what a shell does with it is left out.
                let line = example.trim().split("  ").next().unwrap_or(example);
                let line = line.split([';', '&', '>', '|']).next().unwrap_or(line);
                let words = line.split_whitespace().map(|word| word.trim_matches('\'').into());
                understand(words.collect()).unwrap_or_else(|e| panic!("{line}: {e}"));
            }
        }
    }

    #[test]
    fn a_name_or_a_flag_of_php_fpm_makes_it_php_fpm() {
        for line in [
            "php-fpm",
            "/usr/sbin/php-fpm8.2 -h",
            "glasspool -t",
            "glasspool -y a.conf --config b",
        ] {
            assert!(matches!(understood(line), Ok(Kind::Fpm(_))), "{line}");
        }
    }

    #[test]
    fn everything_else_is_our_own() {
        let command = |line: &str| match understood(line).expect(line) {
            Kind::Own(arguments) => arguments.command,
            other => panic!("{line}: {other:?}"),
        };
        assert!(command("glasspool").is_none());
        assert!(matches!(
            command("glasspool run -y a.conf -R"),
            Some(Command::Run(_))
        ));
        assert!(matches!(command("glasspool serve ."), Some(Command::Serve(_))));
        assert!(matches!(command("glasspool reload 42"), Some(Command::Reload(_))));
        for line in [
            "glasspool --no-such-flag",
            "glasspool serve . --slow soon",
            "glasspool --help",
            "glasspool -V",
        ] {
            assert!(understood(line).is_err(), "{line}");
        }
    }
}
