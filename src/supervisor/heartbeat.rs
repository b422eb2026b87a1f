//! `request_terminate_timeout`: finds requests that have run too long, and ends their
//! workers. What is too long is decided in `pm::deadline`.

use std::time::{Duration, Instant};

use glasspool_abi::control::Doom;
use rustix::process::Signal;

use super::monotonic_ns;
use super::pm::deadline::{Limit, Verdict, judge, period};
use super::run::Supervisor;
use super::scoreboard::Request;

/// Least time between two looks, however many requests end their time one after another.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// When requests are looked at next. php-fpm looks each period, so a request may exceed
/// its time by a third; here the next look is when the first of them is due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heartbeat {
    beat: Option<Beat>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    period: Duration,
    /// The shortest limit: a request that begins now is not due earlier.
    shortest: Duration,
    next: Instant,
}

impl Heartbeat {
    /// For pools with these limits; does nothing without any.
    pub(super) fn new(limits: impl Iterator<Item = Duration> + Clone, now: Instant) -> Heartbeat {
        let beat = limits.clone().min().zip(period(limits));
        Heartbeat {
            beat: beat.map(|(shortest, period)| Beat {
                period,
                shortest,
                next: now + shortest,
            }),
        }
    }

    /// What php-fpm says of it at debug level.
    pub(super) fn announcement(&self) -> Option<String> {
        let period = self.beat?.period.as_millis();
        Some(format!("heartbeat have been set up with a timeout of {period}ms"))
    }

    /// When it beats next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.beat.map(|beat| beat.next)
    }
}

impl Supervisor {
    /// Looks at every request that has a limit, if it is time.
    pub(super) fn beat(&mut self, now: Instant) {
        let Some(beat) = self.heartbeat.beat.filter(|beat| beat.next <= now) else {
            return;
        };
        let (mut wait, mut doomed) = (beat.shortest, Vec::new());
        for (id, worker) in &mut self.workers {
            let Some(pool) = self.pools.get(&worker.pool()) else {
                continue;
            };
            let Some(limit) = Limit::of(&pool.config) else {
                continue;
            };
            let Some((pid, gauge)) = worker.gauge() else {
                continue;
            };
            match judge(gauge.sight(), gauge.strike, &limit, beat.period, monotonic_ns()) {
                Verdict::Untimed => {}
                Verdict::Later(time) => wait = wait.min(time),
                Verdict::Overdue {
                    elapsed,
                    signal,
                    strike,
                } => {
                    wait = wait.min(beat.period);
                    gauge.strike = Some(strike);
                    let told = told(&gauge.request(), elapsed);
                    doomed.push((*id, signal));
                    // What is told elsewhere names no query, which may hold secrets; the kill is
                    // told there all the same.
                    self.log.untold().warning(format_args!(
                        "[pool {}] child {pid}, {told}, terminating",
                        pool.name
                    ));
                }
            }
        }
        for (id, signal) in doomed {
            let doom = if signal == Signal::KILL {
                Doom::Deaf
            } else {
                Doom::Timeout
            };
            self.kill(id, signal, doom, now);
        }
        let next = now + wait.max(LEAST_PAUSE);
        self.heartbeat.beat = Some(Beat { next, ..beat });
    }
}

/// A request that ran too long, in php-fpm's words.
fn told(request: &Request, elapsed: Duration) -> String {
    let Request {
        method,
        uri,
        query,
        script,
        user: _,
    } = request;
    format!(
        "script '{}' (request: \"{} {}{}{}\") execution timed out ({}.{:06} sec)",
        printable(script),
        printable(method),
        printable(uri),
        if query.is_empty() { "" } else { "?" },
        printable(query),
        elapsed.as_secs(),
        elapsed.subsec_micros(),
    )
}

/// A text that cannot break a log line: php-fpm does this with the script's path only.
fn printable(text: &[u8]) -> String {
    let printable = |byte: &u8| match byte {
        0x20..=0x7f => char::from(*byte),
        _ => '.',
    };
    text.iter().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_php_fpms_and_stay_one_line() {
        let mut request = Request {
            method: b"GET".to_vec(),
            uri: b"/a.php".to_vec(),
            query: b"x=1\n2".to_vec(),
            script: "/srv/\u{e9}\t.php".into(),
            user: vec![],
        };
        let elapsed = Duration::from_micros(3_000_155);
        assert_eq!(
            told(&request, elapsed),
            "script '/srv/....php' (request: \"GET /a.php?x=1.2\") execution timed out (3.000155 sec)"
        );
        request.query.clear();
        assert!(told(&request, elapsed).contains("\"GET /a.php\")"));
    }

    #[test]
    fn without_a_limit_there_is_no_heartbeat() {
        let now = Instant::now();
        let of = |limits: &[u64]| Heartbeat::new(limits.iter().map(|s| Duration::from_secs(*s)), now);
        assert_eq!((of(&[]).due(), of(&[]).announcement()), (None, None));
        let heartbeat = of(&[30, 3]);
        assert_eq!(heartbeat.due(), Some(now + Duration::from_secs(3)));
        let said = heartbeat.announcement();
        let expected = "heartbeat have been set up with a timeout of 1000ms";
        assert_eq!(said.as_deref(), Some(expected));
    }
}
