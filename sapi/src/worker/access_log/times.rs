//! Where the time of a request went, in its line: until the line is written, so without
//! shutdown functions, which are on the span.

use glasspool_abi::times::{CAUSES, Known};

use super::number;

/// What `%{blocked_…}x` stands for, in the order of the causes.
pub(super) const BLOCKED: [&str; CAUSES] = [
    "blocked_network",
    "blocked_disk",
    "blocked_lock",
    "blocked_sleep",
    "blocked_pipe",
    "blocked_other",
];

/// What a line may say of it. All but [`Part::Waits`] are times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `%{queue_time}x`: before the request came to the worker
    Queue,
    /// `%{on_cpu}x`
    OnCpu,
    /// `%{runqueue}x`
    RunQueue,
    /// `%{blocked}x`
    Blocked,
    /// `%{blocked_network}x` and others, by place in [`BLOCKED`]
    BlockedFor(usize),
    /// `%{waits}x`: how many times it blocked
    Waits,
}

impl Part {
    /// By its word in a format, in lower case.
    pub(super) fn named(word: &str) -> Option<Part> {
        Some(match word {
            "queue_time" => Part::Queue,
            "on_cpu" => Part::OnCpu,
            "runqueue" => Part::RunQueue,
            "blocked" => Part::Blocked,
            "waits" => Part::Waits,
            word => Part::BlockedFor(BLOCKED.iter().position(|known| *known == word)?),
        })
    }

    /// Whether the worker's account has to be asked.
    pub(super) fn is_accounted(self) -> bool {
        self != Part::Queue
    }

    /// Nanoseconds, or how many; `None` if it is not known.
    pub(super) fn value(self, queued_ns: Option<u64>, times: &Known) -> Option<u64> {
        match (self, times) {
            (Part::Queue, _) => queued_ns,
            (Part::RunQueue, Known::RunQueue(ns)) => Some(*ns),
            (Part::OnCpu, Known::All(times)) => Some(times.on_cpu_ns),
            (Part::RunQueue, Known::All(times)) => Some(times.runqueue_ns),
            (Part::Blocked, Known::All(times)) => Some(times.blocked_total_ns()),
            (Part::BlockedFor(cause), Known::All(times)) => times.blocked_ns.get(cause).copied(),
            (Part::Waits, Known::All(times)) => Some(times.waits),
            (_, Known::Nothing | Known::RunQueue(_)) => None,
        }
    }

    /// Adds it to a line: seconds, a number, or `-`.
    pub(super) fn write(self, line: &mut Vec<u8>, queued_ns: Option<u64>, times: &Known) {
        match (self, self.value(queued_ns, times)) {
            (_, None) => line.push(b'-'),
            (Part::Waits, Some(waits)) => number(line, format_args!("{waits}")),
            (_, Some(ns)) => number(line, format_args!("{}", Seconds(ns))),
        }
    }
}

/// So many nanoseconds, shown as seconds with six digits.
pub(super) struct Seconds(pub(super) u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = self.0 / 1_000;
        write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::times::Times;

    use super::*;

    const WORDS: [&str; 5] = ["queue_time", "on_cpu", "runqueue", "blocked", "waits"];

    fn all(queued_ns: Option<u64>, times: &Known) -> Vec<String> {
        let written = WORDS.iter().chain(&BLOCKED).map(|word| {
            let mut line = Vec::new();
            let part = Part::named(word).expect("a word");
            part.write(&mut line, queued_ns, times);
            String::from_utf8(line).expect("is text")
        });
        written.collect()
    }

    #[test]
    fn what_is_known_is_in_seconds_and_the_rest_a_dash() {
        let times = Times {
            on_cpu_ns: 1_500_000_999,
            runqueue_ns: 2_000,
            blocked_ns: [1_000, 2_000, 3_000, 4_000_000_000, 0, 5_000],
            waits: 6,
            ..Times::default()
        };
        assert_eq!(
            all(Some(10_000_000), &Known::All(times)),
            [
                "0.010000", "1.500000", "0.000002", "4.000011", "6", "0.000001", "0.000002", "0.000003",
                "4.000000", "0.000000", "0.000005"
            ]
        );
        let mut some = vec!["-"; 11];
        some[2] = "0.004000";
        assert_eq!(all(None, &Known::RunQueue(4_000_000)), some);
        assert_eq!(all(None, &Known::Nothing), vec!["-"; 11]);
        assert_eq!(Part::named("blocked_"), None);
    }
}
