//! `glasspool tail`: finds the supervisor, and gives `inspect` the terminal.

use std::process::ExitCode;

use clap::Args;

use super::supervisor::{Whom, connect};
use super::{Failure, look};
use crate::inspect::{self, TailArguments};

/// What to show, and of which supervisor.
#[derive(Debug, Args)]
pub struct TailCommand {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    tail: TailArguments,
}

pub(super) fn tail(command: &TailCommand) -> Result<ExitCode, Failure> {
    let pid = command.whom.find().map_err(Failure::ordinary)?;
    Ok(look::with_console(|console| {
        inspect::run_tail(&command.tail, &|| connect(pid), console)
    }))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::super::{Arguments, understand};

    #[test]
    fn examples_in_the_help_are_accepted() {
        let command = Arguments::command();
        let tail = command.find_subcommand("tail").expect("is one");
        let help = tail.get_after_help().expect("has examples").to_string();
        let examples = help.lines().filter(|line| line.starts_with("  glasspool "));
        let mut seen = 0;
        for example in examples {
            let line = example.trim_start().split("  ").next().unwrap_or(example);
            let words = line.split_whitespace().map(OsString::from);
            understand(words.collect()).unwrap_or_else(|e| panic!("{line}: {e}"));
            seen += 1;
        }
        assert_eq!(seen, 7);
    }
}
