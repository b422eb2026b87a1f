//! Jaeger as Go builds it, kept below `target/jaeger`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::report::Report;
use crate::run;

const MODULE: &str = "github.com/jaegertracing/jaeger";
/// v2.20.0. Its go.mod has no replace lines, so `go install` takes it; by a commit, as tags
/// of a second version would want another name of the module.
const COMMIT: &str = "798e4b0fcf22609e381df764a01461affd813e1e";
/// v2.13.0 by the last tag that Go knows, for module proxies that have only tags.
const TAG: &str = "v1.76.0";

/// A Jaeger that can be run.
#[derive(Debug)]
pub(super) struct Built {
    pub program: PathBuf,
    /// A tag or a commit.
    pub revision: &'static str,
}

/// The go command, if there is one.
pub(super) fn find_go(given: Option<&Path>) -> Option<PathBuf> {
    let usual = [Path::new("go"), Path::new("/usr/local/go/bin/go")];
    let candidates = given.map_or(usual.to_vec(), |given| vec![given]);
    let works = |go: &&Path| {
        let tried = Command::new(go).arg("version").stdout(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(works).map(Path::to_path_buf)
}

/// Builds it, unless that was done before: several minutes and 2 GB of caches.
pub(super) fn jaeger(go: &Path, report: &mut Report) -> Result<Built> {
    let cache = std::path::absolute("target/jaeger")?;
    let of = |revision: &'static str| Built {
        program: cache.join(revision).join("jaeger"),
        revision,
    };
    for built in [of(COMMIT), of(TAG)] {
        if built.program.exists() {
            return Ok(built);
        }
    }
    let built = of(COMMIT);
    report.progress(format_args!("building Jaeger {COMMIT}: this takes some minutes"));
    let folder = cache.join(COMMIT);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let package = format!("{MODULE}/cmd/jaeger@{COMMIT}");
    let installed = run::run(command(go).args(["install", &package]).env("GOBIN", &folder));
    if installed.is_ok() && built.program.exists() {
        return Ok(built);
    }
    report.progress(format_args!(
        "the module proxy has no such commit ({installed:?}): building {TAG} instead"
    ));
    let built = of(TAG);
    build_tag(go, &built.program)?;
    Ok(built)
}

/// In the folder of its sources, as `go install` takes no module with replace lines. Its own
/// go.sum says what every source must be.
fn build_tag(go: &Path, program: &Path) -> Result<()> {
    let module = format!("{MODULE}@{TAG}");
    let told = run::output(command(go).args(["mod", "download", "-json", &module]))?;
    let told: serde_json::Value = serde_json::from_str(&told).context("go mod download says no JSON")?;
    let Some(sources) = told["Dir"].as_str() else {
        bail!("go mod download does not say where {module} is: {told}");
    };
    let mut build = command(go);
    build
        .current_dir(sources)
        .args(["build", "-mod=readonly", "-o"])
        .arg(program)
        .arg("./cmd/jaeger");
    run::run(&mut build)?;
    ensure!(program.exists(), "go has built no {}", program.display());
    Ok(())
}

/// With one compiler at a time: Jaeger's dependencies take 1 GB of memory each.
fn command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("GOFLAGS", "-p=1 -buildvcs=false");
    command
}
