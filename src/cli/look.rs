//! `dump`, `record`, `top` and `waits`: gives `inspect` the terminal.

use std::io;
use std::process::ExitCode;

use crate::inspect::Console;

pub(super) fn with_console(run: impl FnOnce(&mut Console<'_>) -> ExitCode) -> ExitCode {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    run(&mut Console::standard(&mut out, &mut err))
}
