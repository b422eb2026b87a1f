//! Stopping workers: which signal first, and what follows when they take their time.

use std::time::Duration;

use glasspool_abi::control::Doom;
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
    /// Why requests under way end by it; `None` where they do not.
    pub(in crate::supervisor) doom: Option<Doom>,
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
            doom: None,
            patience: process_control_timeout,
        },
        Reason::AtOnce => Push {
            signal: Signal::TERM,
            doom: Some(Doom::Stop),
            patience: Some(process_control_timeout.unwrap_or(NEXT)),
        },
    }
}

/// The signal after this one.
pub(in crate::supervisor) fn next(after: Signal) -> Push {
    let (signal, doom) = if after == Signal::QUIT {
        (Signal::TERM, Doom::Drain)
    } else {
        (Signal::KILL, Doom::Deaf)
    };
    Push {
        signal,
        doom: Some(doom),
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
    fn every_signal_but_the_graceful_one_dooms_requests() {
        let graceful = first(Reason::Graceful, None);
        let pushed = next(graceful.signal);
        let dooms = [graceful, pushed, next(pushed.signal), first(Reason::AtOnce, None)];
        let expected = [None, Some(Doom::Drain), Some(Doom::Deaf), Some(Doom::Stop)];
        assert_eq!(dooms.map(|push| push.doom), expected);
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
