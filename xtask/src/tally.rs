//! What tests came to: counts, and the closing line of a verb.
//!
//! A run of several verbs (`.ci/run`) names a file in GLASSPOOL_TOTALS; each verb adds its
//! counts to it and closes with the sum so far, so that the last line speaks of all of them.

use std::fmt::{self, Display};
use std::io::Write as _;
use std::ops::AddAssign;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Tests by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Counts cargo's closing line of a test binary; other lines do not matter.
    pub(crate) fn count(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.add(rest);
        }
    }

    /// Prints the closing line: these counts, or the sum of all verbs of this run.
    pub(crate) fn conclude(self, verb: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let Some(path) = totals() else {
            writeln!(out, "{self}")?;
            return Ok(());
        };
        let mut sum = Tally::default();
        match std::fs::read_to_string(&path) {
            Ok(text) => sum.add(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
        sum += self;
        std::fs::write(&path, format!("{sum}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "{verb}: {self}\n{sum}")?;
        Ok(())
    }

    fn add(&mut self, text: &str) {
        for part in text.split(['.', ';', ',']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" | "skipped" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Whether an earlier verb of this run has counted the workspace's tests.
pub(crate) fn tests_were_run() -> bool {
    totals().is_some_and(|path| path.exists())
}

fn totals() -> Option<PathBuf> {
    std::env::var_os("GLASSPOOL_TOTALS").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let mut tally = Tally::default();
        tally.count(
            "test result: ok. 36 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.count(
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tally.count("test a ... ok");
        let expected = Tally {
            passed: 37,
            failed: 3,
            skipped: 2,
        };
        assert_eq!(tally, expected);
        // What is carried from verb to verb reads back as what it was.
        let mut read = Tally::default();
        read.add(&tally.to_string());
        assert_eq!(read, expected);
    }
}
