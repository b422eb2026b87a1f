//! `xtask test`, `lint` and `fuzz`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::build::build;
use crate::run::{cargo, output, run};
use crate::tally::Tally;
use crate::tidy;

/// Packages whose tests need no PHP headers, in the order of the arrows.
const PACKAGES: &[&str] = &[
    "glasspool-abi",
    "glasspool-fastcgi",
    "glasspool-probes",
    "glasspool-waits",
    "glasspool-otel",
    "glasspool-benches",
    "xtask",
    "glasspool",
    "glasspool-sapi",
];

/// The program without its kernel programs: what can break there is how it starts, serves,
/// looks and tells without them.
const WITHOUT_EBPF: &[&str] = &[
    "--package",
    "glasspool",
    "--no-default-features",
    "--no-fail-fast",
    "--test",
    "integration",
    "--",
    "known_loads::",
    "loader::",
    "looks::rungs",
    "reloads::",
    "starts::",
    "stops::",
    "tail::",
    "telemetry::",
    "tracing::",
    "waits_",
    "with_php::",
];

/// What a skipped test says there that needs them. It runs in the build that has them.
const NEEDS_EBPF: &str = "built without the kernel programs";

/// Runs every test and closes with one line of totals.
pub(crate) fn test() -> Result<bool> {
    build(false)?;
    // First, so that the program that stays is the whole one. Cargo makes examples only where
    // it tests everything of a package.
    run(&mut cargo(&[
        "build",
        "--package",
        "glasspool",
        "--no-default-features",
        "--example",
        "fake-engine",
    ]))?;
    let (without, without_ran) = run_tests(&[WITHOUT_EBPF.to_vec()])?;
    let runs: Vec<_> = PACKAGES
        .iter()
        .map(|package| vec!["--package", package, "--no-fail-fast"])
        .collect();
    let (mut tally, all_ran) = run_tests(&runs)?;
    tally += without;
    tally.conclude("test")?;
    Ok(all_ran && without_ran && tally.failed == 0 && tally.passed > 0)
}

/// Runs `cargo test` with each of these sets of arguments: what the tests came to, and
/// whether each run succeeded.
pub(crate) fn run_tests(runs: &[Vec<&str>]) -> Result<(Tally, bool)> {
    let mut tally = Tally::default();
    let mut all_ran = true;
    // A test that cannot run here says why in this file.
    let skips = std::path::absolute("target/skipped-tests")?;
    std::fs::write(&skips, "").with_context(|| format!("cannot write {}", skips.display()))?;
    for arguments in runs {
        let mut child = cargo(&["test"])
            .args(arguments)
            .env("GLASSPOOL_SKIPS", &skips)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo test")?;
        let stdout = child.stdout.take().context("cargo test has no standard output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what cargo test prints")?;
            writeln!(std::io::stdout(), "{line}")?;
            tally.count(&line);
        }
        all_ran &= child.wait()?.success();
    }
    let mut elsewhere = 0;
    for why in std::fs::read_to_string(&skips)?.lines() {
        if why.contains(NEEDS_EBPF) {
            elsewhere += 1;
        } else {
            writeln!(std::io::stdout(), "skipped: {why}")?;
            tally.skipped += 1;
        }
    }
    if elsewhere > 0 {
        writeln!(
            std::io::stdout(),
            "{elsewhere} of these need the kernel programs, and count only in the build that has them"
        )?;
        tally.passed = tally.passed.saturating_sub(elsewhere);
    }
    Ok((tally, all_ran))
}

/// Formatting, clippy and the rules of `tidy`.
pub(crate) fn lint() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))?;
    tidy::check()
}

/// Runs each fuzz target for SECONDS (60) seconds. The instrumentation flags are
/// unstable in rustc, hence RUSTC_BOOTSTRAP; nothing else here needs it.
pub(crate) fn fuzz() -> Result<()> {
    let seconds = std::env::var("SECONDS").unwrap_or_else(|_| "60".to_owned());
    let targets: Vec<String> = std::fs::read_dir("fuzz/fuzz_targets")
        .context("cannot list fuzz/fuzz_targets")?
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_suffix(".rs")
                .map(str::to_owned)
        })
        .collect();
    if targets.is_empty() {
        bail!("there are no fuzz targets");
    }
    let flags = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                 -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1 \
                 -Cdebug-assertions=on";
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|l| l.strip_prefix("host: "))
        .context("rustc -vV names no host")?
        .to_owned();
    for target in targets {
        std::fs::create_dir_all(format!("fuzz/corpus/{target}"))?;
        writeln!(std::io::stdout(), "fuzz: {target} for {seconds} s")?;
        run(cargo(&[
            "run",
            "--release",
            "--quiet",
            "--manifest-path",
            "fuzz/Cargo.toml",
        ])
        // With --target the flags do not reach build scripts, which are not instrumented.
        .args(["--target", &host])
        .args(["--bin", &target, "--", &format!("fuzz/corpus/{target}")])
        .args([
            &format!("-max_total_time={seconds}"),
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        .env("RUSTFLAGS", flags)
        .env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
}
