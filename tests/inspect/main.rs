//! The inspecting commands on real PHP processes: what they say is known beforehand.

mod dump;
#[cfg(test)]
mod php;
mod record;
#[cfg(test)]
mod refusals;
mod top;
mod waits;

use std::process::ExitCode;

use clap::Parser;
use glasspool::inspect::Console;

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: ExitCode,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out.clone()).expect("is text")
    }

    #[track_caller]
    pub(crate) fn expect_code(&self, code: u8) {
        assert_eq!(self.code, ExitCode::from(code), "{}", self.err);
    }
}

/// Arguments as on a command line.
#[derive(Debug, Parser)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    arguments: A,
}

/// Runs a command with a command line's arguments.
pub(crate) fn run<A: clap::Args>(command: fn(&A, &mut Console<'_>) -> ExitCode, line: &str) -> Ran {
    let words = std::iter::once("glasspool").chain(line.split(' '));
    let parsed = Line::<A>::parse_from(words);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command(&parsed.arguments, &mut Console::plain(&mut out, &mut err));
    Ran {
        code,
        out,
        err: String::from_utf8(err).expect("is text"),
    }
}
