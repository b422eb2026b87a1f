//! Stopping workers: which signal first, and what follows when they take their time.

use std::time::Duration;

use rustix::process::Signal;

/// Between two signals after the first.
const NEXT: Duration = Duration::from_secs(1);

/// Why workers are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Reason {
    /// They have a successor, or the supervisor finishes: requests under way go on.
    Graceful,
    /// The supervisor was told to terminate.
    AtOnce,
}

/// A signal that every worker is sent, and how long they have then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Push {
    pub(in crate::supervisor) signal: Signal,
    /// `None` is without limit.
    pub(in crate::supervisor) patience: Option<Duration>,
}

/// The first signal. Without a `process_control_timeout` php-fpm waits about a second
/// even where it was asked for grace, and so breaks off the requests of every reload;
/// here grace is then without limit.
pub(in crate::supervisor) fn first(reason: Reason, process_control_timeout: Option<Duration>) -> Push {
    match reason {
        Reason::Graceful => Push {
            signal: Signal::QUIT,
            patience: process_control_timeout,
        },
        Reason::AtOnce => Push {
            signal: Signal::TERM,
            patience: Some(process_control_timeout.unwrap_or(NEXT)),
        },
    }
}

/// The signal after this one.
pub(in crate::supervisor) fn next(after: Signal) -> Push {
    let signal = if after == Signal::QUIT {
        Signal::TERM
    } else {
        Signal::KILL
    };
    Push {
        signal,
        patience: Some(NEXT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(reason: Reason, timeout: Option<u64>) -> Vec<(Signal, Option<u64>)> {
        let mut push = first(reason, timeout.map(Duration::from_secs));
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push((push.signal, push.patience.map(|time| time.as_secs())));
            if push.patience.is_none() {
                break;
            }
            push = next(push.signal);
        }
        seen
    }

    #[test]
    fn each_signal_is_followed_by_a_stronger_one_until_kill() {
        use Reason::*;
        let (quit, term, kill) = (Signal::QUIT, Signal::TERM, Signal::KILL);
        let one = Some(1);
        assert_eq!(
            walk(Graceful, Some(10)),
            [(quit, Some(10)), (term, one), (kill, one), (kill, one)]
        );
        assert_eq!(walk(Graceful, None), [(quit, None)]);
        assert_eq!(
            walk(AtOnce, Some(10)),
            [(term, Some(10)), (kill, one), (kill, one), (kill, one)]
        );
        assert_eq!(
            walk(AtOnce, None),
            [(term, one), (kill, one), (kill, one), (kill, one)]
        );
    }
}
