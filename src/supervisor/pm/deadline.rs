//! `request_terminate_timeout`: whether a request has run too long, and what its worker
//! is sent for it.

use std::time::Duration;

use glasspool_abi::slot::Stage;
use rustix::process::Signal;

use crate::config::Pool;

/// Least time between two signals to the same worker, as in php-fpm.
const LEAST_PERIOD: Duration = Duration::from_millis(130);
/// A worker that is still there so long after its first SIGTERM blocks it, and is killed.
/// php-fpm goes on sending SIGTERM for ever.
const DEAF_AFTER: Duration = Duration::from_secs(5);

/// What is configured for one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Limit {
    pub(in crate::supervisor) after: Duration,
    /// Whether it also counts once the response is complete.
    pub(in crate::supervisor) finished_too: bool,
}

impl Limit {
    /// That of a configured pool, if it has one.
    pub(in crate::supervisor) fn of(pool: &Pool) -> Option<Limit> {
        Some(Limit {
            after: pool.terminate_after?,
            finished_too: pool.terminate_finished,
        })
    }
}

/// php-fpm's period for these limits: a third of the shortest. `None` without any.
pub(in crate::supervisor) fn period(limits: impl Iterator<Item = Duration>) -> Option<Duration> {
    limits.min().map(|least| (least / 3).max(LEAST_PERIOD))
}

/// What a worker's slot says. Times are monotonic nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Sight {
    /// `None` is a number that is no stage.
    pub(in crate::supervisor) stage: Option<Stage>,
    /// When the first byte of the request under way came.
    pub(in crate::supervisor) started: Option<u64>,
}

/// The signals that a worker was sent for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Strike {
    /// Which request: when it started.
    pub(in crate::supervisor) started: u64,
    pub(in crate::supervisor) first: u64,
    pub(in crate::supervisor) last: u64,
}

/// What is to be done about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Verdict {
    /// Nothing runs that has a limit.
    Untimed,
    /// Look again in this time.
    Later(Duration),
    /// It has run this long: send the signal and remember the strike.
    Overdue {
        elapsed: Duration,
        signal: Signal,
        strike: Strike,
    },
}

/// Judges one worker. A silent kept connection is not a request and is never timed:
/// php-fpm kills its worker (php bug 78405).
pub(in crate::supervisor) fn judge(
    sight: Sight,
    before: Option<Strike>,
    limit: &Limit,
    period: Duration,
    now: u64,
) -> Verdict {
    // A number that is no stage was written by no worker of ours: no way out of the limit.
    let timed = match sight.stage {
        Some(Stage::Accepting) => false,
        Some(Stage::End | Stage::Finished) => limit.finished_too,
        Some(Stage::ReadingHeaders | Stage::Info | Stage::Executing) | None => true,
    };
    let Some(started) = sight.started.filter(|_| timed) else {
        return Verdict::Untimed;
    };
    let elapsed = Duration::from_nanos(now.saturating_sub(started));
    if elapsed < limit.after {
        return Verdict::Later(limit.after - elapsed);
    }
    let Some(before) = before.filter(|strike| strike.started == started) else {
        return Verdict::Overdue {
            elapsed,
            signal: Signal::TERM,
            strike: Strike {
                started,
                first: now,
                last: now,
            },
        };
    };
    let since = |then| Duration::from_nanos(now.saturating_sub(then));
    if since(before.last) < period {
        return Verdict::Later(period - since(before.last));
    }
    Verdict::Overdue {
        elapsed,
        signal: if since(before.first) < DEAF_AFTER {
            Signal::TERM
        } else {
            Signal::KILL
        },
        strike: Strike { last: now, ..before },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const LIMIT: Limit = Limit {
        after: Duration::from_secs(3),
        finished_too: false,
    };
    const PERIOD: Duration = Duration::from_secs(1);

    fn sight(stage: Stage, started: u64) -> Sight {
        Sight {
            stage: Some(stage),
            started: Some(started),
        }
    }

    #[test]
    fn only_requests_under_way_are_timed() {
        let verdict = |sight, finished_too| {
            let limit = Limit {
                finished_too,
                ..LIMIT
            };
            judge(sight, None, &limit, PERIOD, 100 * S)
        };
        let is_overdue = |verdict| matches!(verdict, Verdict::Overdue { .. });
        use Stage::*;
        // Stage, overdue, overdue with track_finished.
        for (stage, plain, tracked) in [
            (Accepting, false, false),
            (ReadingHeaders, true, true),
            (Info, true, true),
            (Executing, true, true),
            (End, false, true),
            (Finished, false, true),
        ] {
            assert_eq!(is_overdue(verdict(sight(stage, S), false)), plain, "{stage:?}");
            assert_eq!(is_overdue(verdict(sight(stage, S), true)), tracked, "{stage:?}");
        }
        let junk = Sight {
            stage: None,
            started: Some(S),
        };
        assert!(is_overdue(verdict(junk, false)));
        let silent = Sight {
            stage: Some(ReadingHeaders),
            started: None,
        };
        assert_eq!(verdict(silent, true), Verdict::Untimed);
        // A start in the future is a lie, and no panic.
        assert_eq!(
            verdict(sight(Executing, u64::MAX), false),
            Verdict::Later(LIMIT.after)
        );
    }

    #[test]
    fn a_worker_is_told_again_each_period_and_killed_if_it_does_not_listen() {
        let (mut strike, mut now, mut told) = (None, 10 * S, Vec::new());
        for _ in 0..20 {
            match judge(sight(Stage::Executing, 10 * S), strike, &LIMIT, PERIOD, now) {
                Verdict::Untimed => panic!("it runs"),
                Verdict::Later(wait) => now += u64::try_from(wait.as_nanos()).expect("short"),
                Verdict::Overdue {
                    elapsed,
                    signal,
                    strike: next,
                } => {
                    told.push((elapsed.as_secs(), signal));
                    strike = Some(next);
                }
            }
        }
        let (term, kill) = (Signal::TERM, Signal::KILL);
        let expected = [(3, term), (4, term), (5, term), (6, term), (7, term), (8, kill)];
        assert_eq!(told[..6], expected);
        // The next request starts with a clean sheet.
        let next = judge(sight(Stage::Executing, now), strike, &LIMIT, PERIOD, now + 3 * S);
        assert!(matches!(
            next,
            Verdict::Overdue {
                signal: Signal::TERM,
                ..
            }
        ));
    }

    #[test]
    fn the_period_is_a_third_of_the_shortest_limit() {
        let of = |limits: &[u64]| period(limits.iter().map(|ms| Duration::from_millis(*ms)));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3000, 30_000]), Some(Duration::from_secs(1)));
        assert_eq!(of(&[300]), Some(LEAST_PERIOD));
    }
}
