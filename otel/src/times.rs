//! Where a request's time went: on a CPU, waiting for one, or blocked, and then for what;
//! as attributes of its span. What is not known is not there.

use glasspool_abi::times::{CAUSES, Known};
use opentelemetry::KeyValue;

use crate::semconv::name;

/// Words for the things to be blocked for, in the order of [`glasspool_abi::times::Times`].
pub const CAUSE_NAMES: [&str; CAUSES] = ["network", "disk", "lock", "sleep", "pipe", "other"];

const BLOCKED: [&str; CAUSES] = [
    name::PHP_BLOCKED_NETWORK,
    name::PHP_BLOCKED_DISK,
    name::PHP_BLOCKED_LOCK,
    name::PHP_BLOCKED_SLEEP,
    name::PHP_BLOCKED_PIPE,
    name::PHP_BLOCKED_OTHER,
];

/// How a request's time splits up, nanoseconds. The worker's word: any numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// On a CPU.
    pub on_cpu_ns: u64,
    /// Waiting for a CPU.
    pub runqueue_ns: u64,
    /// Blocked, whatever for.
    pub blocked_ns: u64,
    /// The same for each of [`CAUSE_NAMES`], where that is known.
    pub by_cause: Option<[u64; CAUSES]>,
}

impl Spent {
    /// That of a request whose worker was busy with it for `busy_ns` and used `cpu_ns` of
    /// CPU time; `None` if nothing is known.
    ///
    /// Where only the scheduler's counters are known, what is left of the time was blocked.
    pub fn new(times: &Known, busy_ns: u64, cpu_ns: u64) -> Option<Spent> {
        match times {
            Known::Nothing => None,
            Known::RunQueue(runqueue_ns) => Some(Spent {
                on_cpu_ns: cpu_ns,
                runqueue_ns: *runqueue_ns,
                blocked_ns: busy_ns.saturating_sub(cpu_ns).saturating_sub(*runqueue_ns),
                by_cause: None,
            }),
            Known::All(times) => Some(Spent {
                on_cpu_ns: times.on_cpu_ns,
                runqueue_ns: times.runqueue_ns,
                blocked_ns: times.blocked_total_ns(),
                by_cause: Some(times.blocked_ns),
            }),
        }
    }

    /// The attributes of the span.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let parts = [
            (name::PHP_TIME_ON_CPU, self.on_cpu_ns),
            (name::PHP_TIME_RUNQUEUE, self.runqueue_ns),
            (name::PHP_TIME_BLOCKED, self.blocked_ns),
        ];
        let causes = BLOCKED.into_iter().zip(self.by_cause.into_iter().flatten());
        let causes = causes.filter(|(_, ns)| *ns != 0);
        let all = parts.into_iter().chain(causes);
        all.map(|(key, ns)| KeyValue::new(key, seconds(ns)))
    }
}

pub(crate) fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use glasspool_abi::times::Times;

    use super::*;

    fn told(known: &Known) -> Vec<(String, String)> {
        let spent = Spent::new(known, 1_000_000_000, 200_000_000);
        let pairs = spent.iter().flat_map(Spent::attributes);
        pairs
            .map(|pair| (pair.key.to_string(), pair.value.to_string()))
            .collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn what_is_known_is_told_and_nothing_else() {
        assert_eq!(told(&Known::Nothing), []);
        assert_eq!(
            told(&Known::RunQueue(50_000_000)),
            pairs([
                ("php.time.on_cpu", "0.2"),
                ("php.time.runqueue", "0.05"),
                ("php.time.blocked", "0.75"),
            ])
        );
        let times = Times {
            on_cpu_ns: 100_000_000,
            runqueue_ns: 0,
            blocked_ns: [500_000_000, 0, 0, 0, 0, 400_000_000],
            ..Times::default()
        };
        assert_eq!(
            told(&Known::All(times)),
            pairs([
                ("php.time.on_cpu", "0.1"),
                ("php.time.runqueue", "0"),
                ("php.time.blocked", "0.9"),
                ("php.blocked.network", "0.5"),
                ("php.blocked.other", "0.4"),
            ])
        );
    }

    #[test]
    fn numbers_that_make_no_sense_are_told_as_numbers() {
        let wild = Times::from_words(&[u64::MAX; Times::WORDS]);
        let all = Spent::new(&Known::All(wild), 0, 0).expect("is known");
        assert_eq!(all.blocked_ns, u64::MAX);
        let counters = Spent::new(&Known::RunQueue(u64::MAX), 5, u64::MAX).expect("is known");
        assert_eq!(counters.blocked_ns, 0);
        assert!(all.attributes().all(|pair| match pair.value {
            opentelemetry::Value::F64(seconds) => seconds.is_finite(),
            _ => false,
        }));
    }
}
