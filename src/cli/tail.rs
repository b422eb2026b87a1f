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
