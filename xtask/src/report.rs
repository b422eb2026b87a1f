//! What was checked and how it came out, a line each.

use std::fmt::{Debug, Display};
use std::io::Write as _;
use std::time::Instant;

/// Counts results and prints them as they come.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report {
            started: Instant::now(),
            passed: 0,
            failed: 0,
            skipped: 0,
        }
    }

    /// Says what goes on; for work that takes a while.
    pub(crate) fn progress(&self, text: impl Display) {
        let seconds = self.started.elapsed().as_secs();
        print(format_args!("....  {seconds:>4} s  {text}"));
    }

    /// What was found, for people.
    pub(crate) fn show(&self, text: impl Display) {
        print(format_args!("      {text}"));
    }

    /// `ok` or `FAIL`; the two sides are shown when it failed.
    pub(crate) fn check(
        &mut self,
        what: impl Display,
        ok: bool,
        expected: impl Display,
        found: impl Display,
    ) {
        if ok {
            self.passed += 1;
            print(format_args!("ok    {what}"));
        } else {
            self.failed += 1;
            print(format_args!("FAIL  {what}: expected {expected}, found {found}"));
        }
    }

    /// Both sides must be equal.
    pub(crate) fn equal<T: PartialEq + Debug>(&mut self, what: impl Display, expected: T, found: T) {
        let ok = expected == found;
        self.check(what, ok, format_args!("{expected:?}"), format_args!("{found:?}"));
    }

    /// A text that must contain another; a failure shows its beginning.
    pub(crate) fn contains(&mut self, what: impl Display, needle: &str, text: &str) {
        let start: String = text.chars().take(300).collect();
        self.check(
            what,
            text.contains(needle),
            format_args!("{needle:?}"),
            format_args!("{start:?}"),
        );
    }

    /// Not checked, and why.
    pub(crate) fn skip(&mut self, what: impl Display, why: impl Display) {
        self.skipped += 1;
        print(format_args!("skip  {what}: {why}"));
    }

    /// A part that could not be carried through counts as failed.
    pub(crate) fn part(&mut self, what: &str, result: anyhow::Result<()>) {
        if let Err(e) = result {
            self.check(what, false, "to be carried through", format_args!("{e:#}"));
        }
    }

    /// Prints the sums; true if nothing failed.
    pub(crate) fn conclude(&self) -> bool {
        let Report {
            passed,
            failed,
            skipped,
            ..
        } = self;
        print(format_args!(
            "{passed} passed, {failed} failed, {skipped} skipped"
        ));
        *failed == 0
    }
}

/// A reader that went away (`| head`) is no reason to stop before everything is cleaned up.
fn print(line: impl Display) {
    writeln!(std::io::stdout(), "{line}").unwrap_or_default();
}
