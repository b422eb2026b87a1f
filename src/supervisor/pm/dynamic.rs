//! `pm = dynamic`: keeps the number of idle workers between two limits.

use super::Turn;
use crate::config::LogLevel;

/// Idle workers, and how fast they are added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) least: u32,
    pub(super) most: u32,
    /// Most workers started in one second.
    pub(super) rate: u32,
}

/// From this rate on php-fpm says that the pool seems busy.
const BUSY_RATE: u32 = 8;

/// Once a second. Three differences from php-fpm, for pools whose workers take long to
/// start: one that is on its way counts as idle-to-be, so that the next second does not
/// ask for it again; the rate does not rise while workers that were asked for cannot be
/// had; and it never exceeds the configured one, whatever the powers of two are.
pub(super) fn tick(turn: &mut Turn<'_>, spare: &Spare) {
    let counts = turn.counts;
    let (idle, running) = (counts.idle, counts.running());
    let rate = turn.scheduler.spawn_rate;
    turn.say(
        LogLevel::Debug,
        format!(
            "currently {} active children, {idle} spare children, {running} running children. Spawning rate {rate}",
            running - idle
        ),
    );
    turn.kill_the_deaf();
    let unmet = turn.scheduler.wanted > counts.staying();
    turn.scheduler.wanted = counts.staying();
    if idle > spare.most {
        if let Some((oldest, _)) = turn.idle().min_by_key(|(member, _)| (member.born, member.id)) {
            turn.actions.push(super::Action::Retire(oldest.id));
            turn.scheduler.wanted -= 1;
        }
        turn.scheduler.spawn_rate = 1;
        return;
    }
    let lacking = spare.least.saturating_sub(idle + counts.coming);
    if lacking == 0 {
        turn.scheduler.spawn_rate = 1;
        return;
    }
    let count = rate.min(lacking).min(turn.room());
    if count == 0 {
        // One that was told to end makes room in a moment.
        if counts.retired == 0 {
            turn.reached(format!(
                "server reached pm.max_children setting ({}), consider raising it",
                turn.rules.max_children
            ));
        }
        turn.scheduler.spawn_rate = 1;
        return;
    }
    turn.scheduler.wanted += count;
    if unmet {
        return;
    }
    if rate >= BUSY_RATE {
        turn.say(
            LogLevel::Warning,
            format!(
                "seems busy (you may need to increase pm.start_servers, or pm.min/max_spare_servers), spawning {count} children, there are {idle} idle, and {running} total children"
            ),
        );
    }
    turn.scheduler.warned = false;
    turn.say(
        LogLevel::Debug,
        format!("{count} child(ren) have been created dynamically"),
    );
    turn.scheduler.spawn_rate = rate.saturating_mul(2).min(spare.rate);
}
