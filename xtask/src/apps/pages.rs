//! What workers share, and what they do after an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::server::Pool;
use super::sink::Received;
use super::site::Site;
use super::stand::{Setting, Stand, Transport};
use super::traced::{Caller, join};
use crate::report::Report;

/// Rounds of two requests at the same time until both workers have answered.
const ROUNDS: u32 = 20;
/// In which a span arrives after its request: PHP's work and an export's delay.
const SPAN_TIME: Duration = Duration::from_secs(20);

/// Two workers, one opcache.
pub(super) fn check_opcache(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let stand = Stand::start(setting, site, &Pool::of(2), Transport::Http)?;
    // The one that compiles; two at the same time could both do it.
    let first = stand.client().get("/probe/hold.php")?.json()?;
    let mut pids = BTreeSet::from([first["pid"].to_string()]);
    let mut last = first;
    for _ in 0..ROUNDS {
        let both = [(); 2].map(|()| Caller::new().get_meanwhile(stand.client(), "/probe/hold.php?ms=200"));
        for thread in both {
            last = join(thread)?.json()?;
            pids.insert(last["pid"].to_string());
        }
        if pids.len() == 2 {
            break;
        }
    }
    report.equal("opcache: both workers have answered", 2, pids.len());
    let found = (last["misses"].as_u64(), last["scripts"].as_u64());
    report.equal(
        "opcache: one miss and one script in all",
        (Some(1), Some(1)),
        found,
    );
    stand.finish_exactly(report, "opcache")?;
    Ok(())
}

/// `fastcgi_finish_request()`.
pub(super) fn check_early_answer(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let mut stand = Stand::start(setting, site, &Pool::of(2), Transport::Http)?;
    let caller = Caller::new();
    let reply = caller.get(&mut stand.client(), "/probe/early.php")?;
    report.contains("early answer: its text", "answered", &reply.text());
    let at_once = reply.took < Duration::from_millis(500);
    report.check(
        "early answer: comes at once",
        at_once,
        "< 500 ms",
        format_args!("{:?}", reply.took),
    );
    // A server that is told to finish interrupts `usleep`, as php-fpm does.
    let trace = caller.trace.as_str();
    let span_came = |received: &Received| !received.trace(trace).is_empty();
    if setting.is_traced() && !stand.sink.wait_until(SPAN_TIME, span_came)? {
        bail!("no span of that trace within {SPAN_TIME:?}");
    }
    let accounts = stand.finish_exactly(report, "early answer")?;
    if !setting.is_traced() {
        report.skip(
            "early answer: later work on the span",
            "the server under test makes none",
        );
        return Ok(());
    }
    let spans = accounts.received.trace(&caller.trace);
    let span = spans.first().context("no span of that trace")?;
    let later = span.attribute("php.request.post_response_duration");
    let seconds = later.as_deref().and_then(|text| text.parse::<f64>().ok());
    report.check(
        "early answer: the work after it is on the span",
        seconds.is_some_and(|seconds| (0.5..5.0).contains(&seconds)),
        "post_response_duration of at least 0.5 s",
        format_args!("{later:?}"),
    );
    let took = span.duration();
    report.check(
        "early answer: the span ends with the answer",
        took < Duration::from_millis(500),
        "< 500 ms",
        format_args!("{took:?}"),
    );
    Ok(())
}
