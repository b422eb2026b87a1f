//! A slow page is explained: on its span, by what it waited for, in the slowlog, and at
//! once as a log record.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::server::Pool;
use super::site::Site;
use super::stand::{Setting, Stand, Transport};
use super::traced::{Caller, join};
use super::waits;
use crate::report::Report;

/// What the page's query sleeps.
pub(super) const SLEEPS: Duration = Duration::from_secs(3);
pub(super) const EVENT: &str = "php.request.slow";
const QUERY: &str = "wpdb->query";

/// `/?slow_sql=3` with a limit of one second.
pub(super) fn check(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let stand = Stand::start(setting, site, &Pool::of(4), Transport::Grpc)?;
    if setting.account.owner().is_some() {
        let found = stand.server.capabilities()?;
        report.equal(
            "slow page: the server has no capability and can get none",
            vec![0; 5],
            found,
        );
    }
    // Not the first request: what PHP has to compile is not what is slow here.
    stand.client().get("/")?;
    let caller = Caller::new();
    let reply = join(caller.get_meanwhile(stand.client(), "/?slow_sql=3"))?;
    report.equal("slow page: status", 200, reply.status);
    let accounts = stand.finish_exactly(report, "slow page")?;
    let slowlog = normal(&accounts.slowlog);
    // php-fpm's own does not name classes.
    let query = if setting.is_traced() { QUERY } else { "query()" };
    report.contains("slow page: the slowlog has its stack", query, &slowlog);
    if !setting.is_traced() {
        report.skip(
            "slow page: span, event and log record",
            "the server under test makes none",
        );
        return Ok(());
    }
    let trace_line = slowlog
        .lines()
        .any(|line| line.contains("trace_id") && line.contains(&caller.trace));
    report.check(
        "slow page: the slowlog names the trace",
        trace_line,
        &caller.trace,
        "no such line",
    );

    let spans = accounts.received.trace(&caller.trace);
    report.equal("slow page: one span", 1, spans.len());
    let span = spans.first().context("no span of that trace")?;
    report.equal(
        "slow page: the span's parent is the caller's",
        &caller.span,
        &span.parent(),
    );
    let took = span.duration();
    report.check(
        "slow page: its span lasts at least 3 s",
        took >= SLEEPS,
        "3 s",
        format_args!("{took:?}"),
    );

    waits::check(setting, site, &accounts.received, span, report)?;

    let events = span.events(EVENT, "code.stacktrace");
    let (at, stack) = events.first().with_context(|| format!("no event {EVENT}"))?;
    let in_time = (Duration::from_secs(1)..=Duration::from_millis(1100)).contains(at);
    report.check(
        "slow page: its first event is at 1.0-1.1 s",
        in_time,
        "1.0-1.1 s",
        format_args!("{at:?}"),
    );
    report.contains("slow page: the event has the stack", QUERY, &normal(stack));
    report.check(
        "slow page: the stack names the test's own function",
        normal(stack).contains("Test_Pages->slow_sql"),
        "Test_Pages::slow_sql",
        stack,
    );

    let log = accounts.received.log(EVENT, &caller.trace);
    let log = log.with_context(|| format!("no log record {EVENT} of that trace"))?;
    let early = reply.at.saturating_duration_since(log.at);
    let what = "slow page: the log record arrived before the request ended";
    report.check(
        what,
        log.at < reply.at,
        "before",
        format_args!("{early:?} before"),
    );
    let stack = normal(&log.attribute("code.stacktrace").unwrap_or_default());
    report.contains("slow page: the log record has the stack", QUERY, &stack);
    Ok(())
}

/// Methods are `wpdb->query` in WordPress's own words and `wpdb::query` in PHP's.
fn normal(stack: &str) -> String {
    stack.replace("::", "->")
}
