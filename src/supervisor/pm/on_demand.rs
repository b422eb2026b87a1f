//! `pm = ondemand`: no worker until a connection waits, and none long after the last.

use std::time::{Duration, Instant};

use super::{Action, Turn};
use crate::config::LogLevel;

/// Connections wait. php-fpm adds one worker per event of the listening socket, and none
/// when any worker is idle, so a burst that arrives at once is served one by one
/// (php bug 69724); here as many are added as there are connections without a worker. And
/// a pool is full only when a connection waits that nobody is going to take.
pub(super) fn demand(turn: &mut Turn<'_>, waiting: u32) {
    let counts = turn.counts;
    let lacking = waiting.saturating_sub(counts.idle + counts.coming);
    if lacking == 0 {
        return;
    }
    let unmet = turn.scheduler.wanted > counts.staying();
    let count = lacking.min(turn.room());
    turn.scheduler.wanted = counts.staying() + count;
    if count > 0 && !unmet {
        turn.scheduler.warned = false;
        turn.say(
            LogLevel::Debug,
            "got accept without idle child available .... I forked",
        );
    }
    // One that was told to end makes room in a moment.
    if count < lacking && counts.retired == 0 {
        turn.reached(format!(
            "server reached max_children setting ({}), consider raising it",
            turn.rules.max_children
        ));
    }
}

/// Once a second. php-fpm looks at one idle worker a second, the one that was started
/// first, so one busy veteran keeps all idle ones; here each is ended when its time is over.
pub(super) fn tick(turn: &mut Turn<'_>, idle_timeout: Duration, now: Instant) {
    let counts = turn.counts;
    turn.say(
        LogLevel::Debug,
        format!(
            "currently {} active children, {} spare children",
            counts.running() - counts.idle,
            counts.idle
        ),
    );
    turn.kill_the_deaf();
    let over = turn
        .idle()
        .filter(|(_, since)| now.saturating_duration_since(*since) >= idle_timeout);
    let over: Vec<Action> = over.map(|(member, _)| Action::Retire(member.id)).collect();
    let retired = u32::try_from(over.len()).unwrap_or(u32::MAX);
    turn.actions.extend(over);
    turn.scheduler.wanted = counts.staying().saturating_sub(retired);
}
