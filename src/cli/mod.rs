//! The command line: what can be asked for, and whom it is passed on to.
//!
//! Nothing here prints or exits; `main` does both.

mod fpm;
mod roles;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::LogLevel;
use crate::logs::ErrorLog;

pub use fpm::FpmArguments;
pub use roles::FrontArguments;
pub use serve::ServeArguments;

/// Exit status for arguments that make no sense (EX_USAGE).
pub const USAGE: u8 = 64;
/// Exit status for a configuration or a machine that does not allow a start (EX_CONFIG).
const CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  glasspool serve .                                  this folder at http://127.0.0.1:8000, traced to the terminal
  glasspool serve public --slow 100ms --workers 8
  glasspool -y /etc/php/8.2/fpm/php-fpm.conf         php-fpm's own configuration, in the foreground
  glasspool check -y /etc/php/8.2/fpm/php-fpm.conf   what would run, or what is wrong
Exit status: 0 after a clean stop, 64 wrong arguments, 70 PHP did not start, 78 configuration or machine.";

/// Runs PHP's workers, and explains every slow request.
#[derive(Debug, Parser)]
#[command(name = "glasspool", version, about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Without a command: `run`.
    #[command(flatten)]
    fpm: FpmArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pools of a php-fpm.conf in the foreground (the default)
    Run(FpmArguments),
    /// Check the configuration and say what would run
    Check(FpmArguments),
    /// Serve a folder over HTTP, traced to the terminal
    Serve(ServeArguments),
    /// The observer's process; started by the supervisor
    #[command(hide = true)]
    Observer,
    /// The HTTP front's process; started by the supervisor
    #[command(hide = true)]
    Front(FrontArguments),
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
        Failure {
            error: error.into(),
            code: CONFIG,
            log: ErrorLog::stderr(LogLevel::Notice),
        }
    }
}

/// Does what was asked for. Results for people go to `say`, line by line.
///
/// # Errors
/// With the status to exit with.
pub fn run(arguments: Arguments, say: impl Fn(&str) + 'static) -> Result<ExitCode, Failure> {
    match arguments.command {
        None => fpm::run(&arguments.fpm),
        Some(Command::Run(fpm)) => fpm::run(&fpm),
        Some(Command::Check(fpm)) => fpm::check(&fpm, say),
        Some(Command::Serve(serve)) => serve::run(serve, say),
        Some(Command::Observer) => Ok(roles::observer()),
        Some(Command::Front(front)) => roles::front(front),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_run() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).expect(line);
        assert!(parse("glasspool").command.is_none());
        assert!(
            parse("glasspool -y a.conf -p /x -R --nodaemonize")
                .command
                .is_none()
        );
        assert!(matches!(
            parse("glasspool run -y a.conf").command,
            Some(Command::Run(_))
        ));
        assert!(matches!(
            parse("glasspool serve .").command,
            Some(Command::Serve(_))
        ));
        assert!(Arguments::try_parse_from(["glasspool", "--no-such-flag"]).is_err());
        assert!(Arguments::try_parse_from(["glasspool", "serve", ".", "--slow", "soon"]).is_err());
    }
}
