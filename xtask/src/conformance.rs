//! `xtask conformance`: the judges that are not ours. Answers are compared with stock
//! php-fpm's byte by byte, and php-src's own FPM tests run against the program, twice.
//!
//! The tests are php-src's, fetched from Debian's source package by
//! `tests/conformance/run-fpm-suite` and kept in `target/fpm-suite`. Which of them must pass
//! is what stock php-fpm passes: `tests/conformance/fpm-8.2-ext.expected`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build::build;
use crate::stage::Stage;
use crate::tally::{self, Tally};
use crate::test::run_tests;

/// php-src's series whose tests run; the engine object is built for the same.
const SERIES: &str = "8.2";
/// Times in a row that the suite must pass: what passes by luck is not good enough.
const RUNS: usize = 2;
const RUNNER: &str = "tests/conformance/run-fpm-suite";
const EXPECTED: &str = "tests/conformance/fpm-8.2-ext.expected";

/// Which tests of the suite, and of what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Test the optimised program, which must have been built
    #[arg(long)]
    release: bool,
    /// Only tests of the suite whose name matches
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,
}

/// Runs both comparisons; true if nothing failed.
pub(crate) fn conformance(options: &Options) -> Result<bool> {
    let folder = if options.release {
        PathBuf::from("target/release")
    } else {
        build(false)?
    };
    let mut tally = Tally::default();
    let mut all_good = true;
    // `xtask test` has the comparison among its tests.
    if !tally::tests_were_run() && options.filter.is_none() {
        let (compared, ran) = run_tests(&[vec!["--package", "glasspool-sapi", "--test", "engine", "stock"]])?;
        tally += compared;
        all_good &= ran && compared.passed > 0;
    }
    // Some of the tests run as the user nobody.
    let stage = Stage::new(&folder)?;
    let mut outcomes = BTreeMap::new();
    for run in 1..=RUNS {
        writeln!(
            std::io::stdout(),
            "php-src's FPM tests, run {run} of {RUNS} in a row"
        )?;
        merge(&mut outcomes, run_suite(&stage, options.filter.as_deref())?);
    }
    let mut expected = expected()?;
    if options.filter.is_some() {
        expected.retain(|name| outcomes.contains_key(name));
    }
    let suite = count(&outcomes, &expected, rustix::process::geteuid().is_root())?;
    tally += suite;
    tally.conclude("conformance")?;
    Ok(all_good && tally.failed == 0 && suite.passed > 0)
}

/// What became of one test, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Skipped,
    Failed,
}

type Outcomes = BTreeMap<String, Outcome>;

/// Runs the suite once.
fn run_suite(stage: &Stage, filter: Option<&str>) -> Result<Outcomes> {
    let report = stage.prefix().join("report.json");
    let mut command = Command::new(RUNNER);
    command
        .arg("--fpm")
        .arg(stage.program())
        .args([
            "--suite",
            SERIES,
            "--build-extensions",
            "--retry",
            "0",
            "--verbose",
        ])
        .args(["--expect", EXPECTED])
        .arg("--json")
        .arg(&report);
    if let Some(filter) = filter {
        command.args(["--filter", filter]);
    }
    // Its exit status says nothing that its report does not say, unless it could not run.
    let status = command
        .status()
        .with_context(|| format!("cannot start {RUNNER}"))?;
    if status.code().is_none_or(|code| code > 1) {
        bail!("{RUNNER}: {status}");
    }
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("{RUNNER} wrote no report ({})", report.display()))?;
    read_report(&text)
}

fn read_report(text: &str) -> Result<Outcomes> {
    let report: Value = serde_json::from_str(text).context("the suite's report is no JSON")?;
    let results = report["results"]
        .as_array()
        .context("the suite's report has no results")?;
    results
        .iter()
        .map(|result| {
            let name = result["name"].as_str().context("a result without a name")?;
            let outcome = match result["status"].as_str() {
                Some("PASS") => Outcome::Passed,
                Some("FAIL") => Outcome::Failed,
                Some("SKIP") => Outcome::Skipped,
                other => bail!("{name} has the unknown status {other:?}"),
            };
            Ok((name.to_owned(), outcome))
        })
        .collect()
}

/// Keeps the worst outcome of each test.
fn merge(so_far: &mut Outcomes, run: Outcomes) {
    for (name, outcome) in run {
        let kept = so_far.entry(name).or_insert(outcome);
        *kept = outcome.max(*kept);
    }
}

/// Counts each test once. A test that stock php-fpm passes must pass, so one that is
/// skipped or missing has failed; without root, though, some cannot run.
fn count(outcomes: &Outcomes, expected: &[String], is_root: bool) -> Result<Tally> {
    let mut out = std::io::stdout().lock();
    let mut tally = Tally::default();
    for (name, outcome) in outcomes {
        let must_pass = expected.contains(name);
        match outcome {
            Outcome::Passed => tally.passed += 1,
            Outcome::Skipped if must_pass && is_root => {
                writeln!(out, "failed: {name} was skipped, and php-fpm passes it")?;
                tally.failed += 1;
            }
            Outcome::Failed if !must_pass => {
                writeln!(out, "skipped: {name} fails with php-fpm, too")?;
                tally.skipped += 1;
            }
            Outcome::Skipped => tally.skipped += 1,
            Outcome::Failed => tally.failed += 1,
        }
    }
    for name in expected.iter().filter(|name| !outcomes.contains_key(*name)) {
        writeln!(out, "failed: the suite has no test {name}")?;
        tally.failed += 1;
    }
    Ok(tally)
}

/// Names of the tests that stock php-fpm passes.
fn expected() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(EXPECTED).with_context(|| format!("cannot read {EXPECTED}"))?;
    let names = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(&str, Outcome)]) -> Outcomes {
        list.iter()
            .map(|(name, outcome)| ((*name).to_owned(), *outcome))
            .collect()
    }

    #[test]
    fn one_bad_run_counts() {
        let mut all = outcomes(&[
            ("a", Outcome::Passed),
            ("b", Outcome::Failed),
            ("c", Outcome::Passed),
        ]);
        merge(
            &mut all,
            outcomes(&[
                ("a", Outcome::Failed),
                ("b", Outcome::Passed),
                ("c", Outcome::Skipped),
            ]),
        );
        assert_eq!(
            all,
            outcomes(&[
                ("a", Outcome::Failed),
                ("b", Outcome::Failed),
                ("c", Outcome::Skipped)
            ])
        );
    }

    #[test]
    fn skipping_what_must_pass_is_failing() {
        let all = outcomes(&[
            ("passes", Outcome::Passed),
            ("skipped", Outcome::Skipped),
            ("elsewhere", Outcome::Skipped),
            ("broken-upstream", Outcome::Failed),
        ]);
        let expected = ["passes", "skipped", "missing"].map(str::to_owned);
        let of = |passed, failed, skipped| Tally {
            passed,
            failed,
            skipped,
        };
        assert_eq!(count(&all, &expected, true).expect("prints"), of(1, 2, 2));
        assert_eq!(count(&all, &expected, false).expect("prints"), of(1, 1, 3));
    }

    #[test]
    fn reports_are_read() {
        let text = r#"{"results": [{"name": "a", "status": "PASS"}, {"name": "b", "status": "SKIP"}]}"#;
        assert_eq!(
            read_report(text).expect("reads"),
            outcomes(&[("a", Outcome::Passed), ("b", Outcome::Skipped)])
        );
        assert!(read_report(r#"{"results": [{"name": "a", "status": "?"}]}"#).is_err());
        assert!(read_report("{}").is_err());
    }
}
