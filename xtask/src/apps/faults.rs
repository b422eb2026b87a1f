//! Processes that are killed, and what must go on all the same.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::load::{Load, Outcome};
use super::server::{Pool, Role};
use super::site::{Page, Site};
use super::slow::EVENT;
use super::stand::{Setting, Stand, Transport};
use super::traced::{Caller, join};
use crate::process::kill;
use crate::report::Report;

/// Longest that a check puts load on the server; it is ended when the check has seen enough.
const LOAD_TIME: Duration = Duration::from_secs(120);
/// In which a killed process must have been replaced.
const REPLACE_TIME: Duration = Duration::from_secs(30);

/// SIGKILL to a worker in the middle of a request.
pub(super) fn kill_worker(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let mut stand = Stand::start(setting, site, &Pool::of(4), Transport::Grpc)?;
    let load = Load::start(stand.base(), &bystanders(), 2, LOAD_TIME);
    let caller = Caller::new();
    let victim = caller.get_meanwhile(stand.client(), "/?slow_sql=5");
    let log = stand
        .sink
        .wait_for_log(Duration::from_secs(4), EVENT, &caller.trace)?;
    let pid = log.attribute("process.pid").and_then(|text| text.parse().ok());
    let pid: u32 = pid.context("the log record has no process.pid")?;
    let before = stand.server.processes(Role::Worker)?;
    report.check(
        "killed worker: it was one of the pool's",
        before.contains(&pid),
        pid,
        format_args!("{before:?}"),
    );
    stand.server.process.catch_up();
    kill(pid, Signal::KILL)?;
    let reply = join(victim)?;
    report.equal("killed worker: its client gets 502", 502, reply.status);
    let new = stand.server.wait_for_new_worker(REPLACE_TIME)?;
    let after = stand.server.processes(Role::Worker)?;
    report.check(
        "killed worker: a new one takes its place",
        after.len() == 4 && after.contains(&new) && !after.contains(&pid),
        format_args!("4 workers, {new} among them, {pid} not"),
        format_args!("{after:?}"),
    );
    undisturbed(report, "killed worker", &load.stop());
    let accounts = stand.finish_exactly(report, "killed worker")?;
    let spans = accounts.received.trace(&caller.trace);
    report.equal("killed worker: one span for its request", 1, spans.len());
    let span = spans.first().context("no span of that trace")?;
    let found = (span.is_error(), span.attribute("error.type"));
    report.equal(
        "killed worker: the span is an error named after the signal",
        (true, Some("SIGKILL".to_owned())),
        found,
    );
    let errors = accounts
        .received
        .notable
        .iter()
        .filter(|span| span.is_error())
        .count();
    report.equal("killed worker: no other span is an error", 1, errors);
    Ok(())
}

/// SIGKILL to the observer under load.
pub(super) fn kill_observer(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let mut stand = Stand::start(setting, site, &Pool::of(4), Transport::Grpc)?;
    let load = Load::start(stand.base(), &bystanders(), 4, LOAD_TIME);
    let some = stand
        .sink
        .wait_until(REPLACE_TIME, |received| received.server_spans > 100)?;
    report.check(
        "killed observer: spans came before",
        some,
        "more than 100",
        "fewer",
    );
    let [observer] = stand.server.processes(Role::Observer)?[..] else {
        anyhow::bail!(
            "not exactly one observer: {:?}",
            stand.server.processes(Role::Observer)?
        );
    };
    kill(observer, Signal::KILL)?;
    let killed = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    // A second is longer than anything that was on its way out of the old one.
    let later = killed + 1_000_000_000;
    let again = stand
        .sink
        .wait_until(REPLACE_TIME, |received| received.latest_start > later)?;
    report.check(
        "killed observer: spans go on after its restart",
        again,
        "spans of later requests",
        "none",
    );
    let now = stand.server.processes(Role::Observer)?;
    report.check(
        "killed observer: there is one, another",
        now.len() == 1 && now[0] != observer,
        "one",
        format_args!("{now:?}"),
    );
    undisturbed(report, "killed observer", &load.stop());
    let accounts = stand.finish()?;
    let requests = accounts.requests();
    let distinct = accounts.received.server_spans - accounts.received.repeated;
    let missing = i128::from(requests) - i128::from(distinct);
    report.progress(format_args!(
        "killed observer: {requests} requests, {distinct} spans, {missing} missing, {} twice",
        accounts.received.repeated
    ));
    report.equal("killed observer: no span twice", 0, accounts.received.repeated);
    let told = accounts.told_losses();
    let what = format!(
        "killed observer: of {requests} requests the spans that are missing are those it says it lost"
    );
    match told {
        None if missing != 0 => report.skip(
            what,
            format_args!("{missing} missing, and nothing said of losses"),
        ),
        told => {
            // The batch that was being sent when it died may have arrived all the same.
            let told = i128::from(told.unwrap_or(0));
            let known = (missing..=missing + BATCH).contains(&told);
            report.check(
                what,
                known,
                format_args!("{missing}, or up to {BATCH} more"),
                told,
            );
        }
    }
    Ok(())
}

/// Spans in one export at most.
const BATCH: i128 = 512;

/// SIGKILL to the engine.
pub(super) fn kill_engine(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    const MAX_REQUESTS: u32 = 100;
    let pool = Pool {
        max_requests: MAX_REQUESTS,
        ..Pool::of(4)
    };
    let mut stand = Stand::start(setting, site, &pool, Transport::Http)?;
    let callers = [Caller::new(), Caller::new()];
    let running: Vec<_> = callers
        .iter()
        .map(|caller| caller.get_meanwhile(stand.client(), "/?slow_sql=3"))
        .collect();
    for caller in &callers {
        stand
            .sink
            .wait_for_log(Duration::from_secs(4), EVENT, &caller.trace)?;
    }
    let [engine] = stand.server.processes(Role::Engine)?[..] else {
        anyhow::bail!(
            "not exactly one engine: {:?}",
            stand.server.processes(Role::Engine)?
        );
    };
    let before: BTreeSet<u32> = stand.server.processes(Role::Worker)?.into_iter().collect();
    stand.server.process.catch_up();
    kill(engine, Signal::KILL)?;
    for thread in running {
        report.equal(
            "killed engine: a request under way is answered",
            200,
            join(thread)?.status,
        );
    }
    // Any worker that is left of the old engine, or one of the new.
    let victim = *stand
        .server
        .processes(Role::Worker)?
        .first()
        .context("no worker is left")?;
    kill(victim, Signal::KILL)?;
    let new = stand.server.wait_for_new_worker(REPLACE_TIME)?;
    report.check(
        "killed engine: a killed worker is replaced",
        !before.contains(&new),
        "a new pid",
        new,
    );
    let mut pids = BTreeSet::new();
    let mut failed = 0;
    let mut client = stand.client();
    for _ in 0..MAX_REQUESTS * 6 {
        let reply = client.get("/probe/hello.php")?;
        failed += u32::from(reply.status != 200);
        pids.insert(
            reply
                .text()
                .trim()
                .trim_start_matches("hello from ")
                .parse::<u32>()
                .unwrap_or(0),
        );
    }
    report.equal("killed engine: no request fails after it", 0, failed);
    let new = pids.iter().filter(|pid| !before.contains(pid)).count();
    report.check(
        "killed engine: workers of the new one answer",
        new >= 2,
        "at least 2",
        new,
    );
    let engines = stand.server.processes(Role::Engine)?;
    let replaced = engines.len() == 1 && engines[0] != engine;
    report.check(
        "killed engine: there is one, another",
        replaced,
        "one",
        format_args!("{engines:?}"),
    );
    stand.finish_exactly(report, "killed engine")?;
    Ok(())
}

/// Light pages of both kinds for those who must not notice anything.
fn bystanders() -> Vec<Page> {
    let page = |path: &str, text: &str| Page {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    vec![page("/probe/hello.php", "hello from"), page("/about/", ">About<")]
}

fn undisturbed(report: &mut Report, what: &str, outcome: &Outcome) {
    let Outcome {
        requests,
        failed,
        messages,
        ..
    } = outcome;
    report.check(
        format_args!("{what}: all {requests} other requests are answered"),
        *failed == 0 && *requests > 0,
        "none failed",
        format_args!("{failed} failed: {messages:?}"),
    );
}
