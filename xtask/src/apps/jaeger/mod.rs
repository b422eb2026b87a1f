//! `xtask e2e-jaeger`: a real Jaeger takes what Glasspool sends, and its query API shows
//! it. Jaeger is built from its sources by Go, once, and runs in memory on loopback.
//!
//! Start reading at `trial`; `build` gets Jaeger, `backend` runs it and asks it, `front` is
//! the site with a slow query.

mod backend;
mod build;
mod front;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::backend::{Jaeger, Span};
use self::front::Front;
use super::traced::{Caller, join};
use crate::report::Report;

/// The slow request, longer than the second after which it is looked at by so much that
/// its early span can be found on a busy machine while it still runs.
pub(super) const SLOW_SECONDS: u32 = 8;
/// In which a span can be found after it was sent.
const ARRIVES: Duration = Duration::from_secs(6);
/// The same for the span of the request itself: with an export's delay.
const ENDS: Duration = Duration::from_secs(30);
const STILL_RUNNING: &str = "php.request.still_running";

/// What to prove, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Tool that makes a WordPress site; without it a script of our own asks a MariaDB
    #[arg(long, value_name = "FILE")]
    wordpress: Option<PathBuf>,
    /// Program under test
    #[arg(long, value_name = "FILE", default_value = "target/release/glasspool")]
    glasspool: PathBuf,
    /// The go command [default: go in PATH, or /usr/local/go/bin/go]
    #[arg(long, value_name = "FILE")]
    go: Option<PathBuf>,
}

/// Runs the proof; true if nothing failed.
///
/// # Errors
/// When it cannot begin: Jaeger cannot be built, the program under test is missing.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut report = Report::new();
    let Some(go) = build::find_go(options.go.as_deref()) else {
        report.skip("e2e-jaeger", "no go command here, so no Jaeger can be built");
        return Ok(report.conclude());
    };
    let built = build::jaeger(&go, &mut report)?;
    let jaeger = Jaeger::start(&built)?;
    report.progress(format_args!(
        "Jaeger {} answers at {}",
        built.revision, jaeger.query
    ));
    let front = match Front::start(options, &jaeger, &mut report)? {
        Ok(front) => front,
        Err(missing) => {
            report.skip("e2e-jaeger: slow query", missing);
            return Ok(report.conclude());
        }
    };
    let outcome = trial(&jaeger, &front, &mut report);
    report.part("e2e-jaeger", outcome.and_then(|()| front.finish()));
    Ok(report.conclude())
}

fn trial(jaeger: &Jaeger, front: &Front, report: &mut Report) -> Result<()> {
    // What PHP has to compile first is not what is slow here.
    front.client().get("/")?;
    let caller = Caller::new();
    let asked = caller.get_meanwhile(front.client(), &front.slow_path());

    let early = jaeger.wait_for(&caller.trace, ARRIVES, |spans| {
        spans.iter().any(|span| span.name == STILL_RUNNING)
    })?;
    report.check(
        "the trace can be found while its request runs",
        !asked.is_finished() && !early.iter().any(Span::is_server),
        "no answer and no span of the request yet",
        format_args!("{early:?}"),
    );
    let reply = join(asked)?;
    report.equal("the slow page answers", 200, reply.status);

    let spans = jaeger.wait_for(&caller.trace, ENDS, |spans| spans.iter().any(Span::is_server))?;
    let servers: Vec<_> = spans.iter().filter(|span| span.is_server()).collect();
    report.equal("one span of the request", 1, servers.len());
    let request = servers.first().context("no span of the request")?;
    report.equal("its parent is the caller's", &caller.span, &request.parent);
    let long = request.duration >= Duration::from_secs(u64::from(SLOW_SECONDS));
    report.check(
        "it lasts as long as the query",
        long,
        format_args!("{SLOW_SECONDS} s"),
        format_args!("{:?}", request.duration),
    );

    // At one, two, four seconds, and at eight if the page took a little longer.
    let events: Vec<_> = request
        .events
        .iter()
        .filter(|event| event.name == super::slow::EVENT)
        .collect();
    report.check(
        "its slow events are there",
        (3..=4).contains(&events.len()),
        "3 or 4",
        format_args!("{:?}", request.events),
    );
    for event in events {
        let stack = event.attribute("code.stacktrace").unwrap_or_default();
        report.contains(
            "a slow event has the stack",
            front.function(),
            &stack.replace("->", "::"),
        );
        let wait = event.attribute("php.wait").unwrap_or_default();
        report.contains("a slow event says what it waits for", "poll on ", &wait);
    }

    let early = spans.iter().filter(|span| span.name == STILL_RUNNING);
    let early: Vec<_> = early.collect();
    report.equal("one early span", 1, early.len());
    let early = early.first().context("no early span")?;
    report.equal("its parent is the request's span", &request.id, &early.parent);
    for key in [
        "code.stacktrace",
        "code.function.name",
        "php.wait",
        "php.pool",
        "url.path",
    ] {
        let value = early.attribute(key);
        report.check(
            format_args!("the early span has {key}"),
            value.is_some(),
            "a value",
            format_args!("{early:?}"),
        );
    }
    // It does warn of the caller's span, which nobody sends.
    let warned = early.attribute("@jaeger@warnings").unwrap_or_default();
    report.check(
        "Jaeger finds the early span's length sound",
        !warned.contains("duration"),
        "no such warning",
        warned,
    );

    // On the span only where the kernel's programs run.
    if request.attribute("php.waits.count").is_some() {
        let query = spans
            .iter()
            .find(|span| span.parent == request.id && span.name != STILL_RUNNING);
        let query = query.context("no span of a wait")?;
        report.check(
            "the query is a span of its own",
            ["mysqli_query", "mysqli::query"].contains(&query.name.as_str()),
            "mysqli_query or mysqli::query",
            &query.name,
        );
        report.check(
            "it names the database",
            query.attribute("network.peer.address").is_some(),
            "an address",
            format_args!("{query:?}"),
        );
        report.check(
            "it lasts as long as the query",
            query.duration >= Duration::from_secs(u64::from(SLOW_SECONDS)) - Duration::from_millis(1),
            format_args!("{SLOW_SECONDS} s"),
            format_args!("{:?}", query.duration),
        );
    } else {
        report.skip(
            "spans of waits",
            "the kernel programs do not run here (the error log says why)",
        );
    }
    let services = jaeger.services()?;
    report.check(
        "the service is listed",
        services.iter().any(|name| name == front::SERVICE),
        front::SERVICE,
        format_args!("{services:?}"),
    );
    Ok(())
}
