//! What a request waited for, as its trace tells it: the database, by the line of PHP that
//! asked, and no time that is nowhere.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::server::Program;
use super::sink::{Received, Span};
use super::site::Site;
use super::slow::SLEEPS;
use super::stand::Setting;
use crate::report::Report;

/// What the parts may differ by from the whole.
const EXACT: Duration = Duration::from_micros(100);
/// In which a database that has slept enough answers, on a busy machine.
const ANSWERS: Duration = Duration::from_millis(100);
const CAUSES: [&str; 6] = ["network", "disk", "lock", "sleep", "pipe", "other"];
/// Of `wpdb::_do_query`, in WordPress's own class for its database.
const CALL: &str = "mysqli_query( $this->dbh, $query )";
const FILES: [&str; 2] = ["wp-includes/class-wpdb.php", "wp-includes/wp-db.php"];

/// Checks the request of `/?slow_sql`, and prints its trace.
pub(super) fn check(
    setting: &Setting,
    site: &Site,
    received: &Received,
    request: &Span,
    report: &mut Report,
) -> Result<()> {
    let waits = received.waits(request);
    for line in trace(request, &waits).lines() {
        report.show(line);
    }
    let parts = ["on_cpu", "runqueue", "blocked"].map(|part| request.seconds(&format!("php.time.{part}")));
    let sum: Option<Duration> = parts.into_iter().sum();
    let after = request.seconds("php.request.post_response_duration");
    let took = request.duration() + after.unwrap_or_default();
    report.check(
        "slow page: on a CPU, waiting for one and blocked add up to the span's time (and what is after it)",
        sum.is_some_and(|sum| sum.abs_diff(took) < EXACT),
        format_args!("{took:?}"),
        format_args!("{parts:?}"),
    );
    if setting.account.owner().is_some() {
        report.skip(
            "slow page: what it waited for",
            "the kernel's programs need CAP_BPF and CAP_PERFMON",
        );
        return Ok(());
    }
    let causes: Duration = CAUSES.iter().filter_map(|cause| blocked_by(request, cause)).sum();
    let [_, _, blocked] = parts;
    report.check(
        "slow page: the causes add up to the time blocked",
        blocked.is_some_and(|blocked| blocked.abs_diff(causes) < EXACT),
        format_args!("{blocked:?}"),
        format_args!("{causes:?}"),
    );

    let queries = waits.iter().filter(|wait| wait.name() == "mysqli_query");
    let query = queries.max_by_key(|wait| wait.duration());
    let query = query.with_context(|| {
        format!(
            "no span mysqli_query of that trace, which the kernel's programs tell of ({})",
            program(setting)
        )
    })?;
    report.equal("slow page: the query's kind", "CLIENT", query.kind());
    let text = |key| query.attribute(key).unwrap_or_default();
    let peer = (text("network.peer.address"), text("network.peer.port"));
    report.equal(
        "slow page: the query goes to the database",
        ("127.0.0.1".to_owned(), site.port.to_string()),
        peer,
    );
    let (file, line) = line_of_call(site)?;
    report.equal(
        "slow page: the query's place",
        (file, line.to_string()),
        (text("code.file.path"), text("code.line.number")),
    );
    let slept = query.duration();
    report.check(
        "slow page: the query takes what it sleeps",
        (SLEEPS..SLEEPS + ANSWERS).contains(&slept),
        format_args!("{SLEEPS:?}"),
        format_args!("{slept:?}"),
    );
    Ok(())
}

fn program(setting: &Setting) -> String {
    match &setting.program {
        Program::Glasspool(path) | Program::PhpFpm(path) => path.display().to_string(),
    }
}

fn blocked_by(request: &Span, cause: &str) -> Option<Duration> {
    request.seconds(&format!("php.blocked.{cause}"))
}

/// Where WordPress asks its database.
fn line_of_call(site: &Site) -> Result<(String, usize)> {
    let found = FILES.iter().find_map(|name| {
        // PHP names files by their real paths.
        let path = site.docroot().join(name);
        let path = path.canonicalize().unwrap_or(path);
        let text = std::fs::read_to_string(&path).ok()?;
        let line = text.lines().position(|line| line.contains(CALL))?;
        Some((path.display().to_string(), line + 1))
    });
    found.with_context(|| format!("no {CALL:?} in {FILES:?}"))
}

/// A request and what it waited for, for people.
fn trace(request: &Span, waits: &[&Span]) -> String {
    let of = |span: &Span, key: &str| span.attribute(key).unwrap_or_default();
    let mut text = format!(
        "{} {}{} {} {:.4} s",
        request.name(),
        of(request, "url.path"),
        request
            .attribute("url.query")
            .map(|query| format!("?{query}"))
            .unwrap_or_default(),
        request.kind(),
        request.duration().as_secs_f64()
    );
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("a string takes everything");
    for part in ["on_cpu", "runqueue", "blocked"] {
        if let Some(time) = request.seconds(&format!("php.time.{part}")) {
            add(format_args!(", {part} {:.4} s", time.as_secs_f64()));
        }
    }
    for cause in CAUSES {
        if let Some(time) = blocked_by(request, cause) {
            add(format_args!(", {cause} {:.4} s", time.as_secs_f64()));
        }
    }
    for wait in waits {
        let after = Duration::from_nanos(wait.start().saturating_sub(request.start()));
        add(format_args!(
            "\n  at {:.4} s: {} {} {:.4} s, {} {} {}:{} in {}:{}",
            after.as_secs_f64(),
            wait.name(),
            wait.kind(),
            wait.duration().as_secs_f64(),
            of(wait, "php.wait_class"),
            of(wait, "php.wait_syscall"),
            of(wait, "network.peer.address"),
            of(wait, "network.peer.port"),
            of(wait, "code.file.path"),
            of(wait, "code.line.number"),
        ));
    }
    text
}
