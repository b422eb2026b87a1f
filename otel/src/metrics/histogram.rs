//! A histogram with the bounds that the conventions give for the duration of HTTP requests.

use std::time::Duration;

use glasspool_abi::trace::{SpanId, TraceId};

/// Upper bounds of the buckets in seconds, inclusive; one more bucket has the rest
/// (semantic conventions 1.44, `docs/http/http-metrics.md`,
/// "Metric: `http.server.request.duration`").
pub const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// The same in nanoseconds: comparing integers is exact and cheap.
const BOUNDS_NS: [u64; DURATION_BOUNDS.len()] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// A request that stands for those of its bucket: the way from a distribution to a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// How long it took, nanoseconds.
    pub ns: u64,
    /// Wall clock at its end, nanoseconds since the epoch.
    pub unix_ns: u64,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its span.
    pub span_id: SpanId,
}

/// Durations by bucket, and their extremes. About 1 KB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    buckets: [u64; DURATION_BOUNDS.len() + 1],
    /// The latest of each bucket (specification/metrics/sdk.md,
    /// "AlignedHistogramBucketExemplarReservoir").
    exemplars: [Option<Exemplar>; DURATION_BOUNDS.len() + 1],
    sum_ns: u128,
    /// Shortest and longest so far; meaningless while nothing was recorded.
    min_ns: u64,
    max_ns: u64,
}

impl Histogram {
    /// Adds one duration, in nanoseconds. Takes some nanoseconds itself.
    pub fn record(&mut self, ns: u64) {
        if self.count() == 0 {
            self.min_ns = ns;
        }
        self.buckets[bucket(ns)] += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// A request whose duration was recorded stands for its bucket from now on.
    pub fn remember(&mut self, exemplar: Exemplar) {
        self.exemplars[bucket(exemplar.ns)] = Some(exemplar);
    }

    /// Durations recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Of these, how many per bucket: one for each of [`DURATION_BOUNDS`] and one above.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The exemplar of each bucket that has one, in the same order.
    pub fn exemplars(&self) -> &[Option<Exemplar>] {
        &self.exemplars
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        const SECOND_NS: u128 = 1_000_000_000;
        let whole = u64::try_from(self.sum_ns / SECOND_NS).unwrap_or(u64::MAX);
        let rest = u32::try_from(self.sum_ns % SECOND_NS).unwrap_or(0);
        Duration::new(whole, rest)
    }

    /// Shortest and longest, if there are any.
    pub fn extremes(&self) -> Option<(Duration, Duration)> {
        (self.count() > 0).then(|| {
            (
                Duration::from_nanos(self.min_ns),
                Duration::from_nanos(self.max_ns),
            )
        })
    }

    /// What was recorded since `before`. Its extremes are unknown and left out by whoever
    /// tells of a difference.
    pub(crate) fn since(&self, before: &Histogram) -> Histogram {
        let mut difference = self.clone();
        for (bucket, before) in difference.buckets.iter_mut().zip(before.buckets) {
            *bucket = bucket.saturating_sub(before);
        }
        for (exemplar, before) in difference.exemplars.iter_mut().zip(before.exemplars) {
            *exemplar = exemplar.filter(|exemplar| Some(*exemplar) != before);
        }
        difference.sum_ns = self.sum_ns.saturating_sub(before.sum_ns);
        difference
    }
}

fn bucket(ns: u64) -> usize {
    BOUNDS_NS.partition_point(|bound| *bound < ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_tables_of_bounds_agree() {
        for (seconds, ns) in DURATION_BOUNDS.into_iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(ns));
        }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut histogram = Histogram::default();
        for ns in [0, 5_000_000, 5_000_001, 10_000_000_000, 10_000_000_001, u64::MAX] {
            histogram.record(ns);
        }
        assert_eq!(histogram.buckets()[..2], [2, 1]);
        assert_eq!(histogram.buckets()[13..], [1, 2]);
        assert_eq!(histogram.count(), 6);
        assert_eq!(
            histogram.extremes(),
            Some((Duration::ZERO, Duration::from_nanos(u64::MAX)))
        );
        assert_eq!(Histogram::default().extremes(), None);
    }

    fn exemplar(ns: u64) -> Exemplar {
        Exemplar {
            ns,
            unix_ns: 7,
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
        }
    }

    #[test]
    fn the_latest_request_of_a_bucket_stands_for_it_and_is_told_once_as_a_difference() {
        let mut histogram = Histogram::default();
        for ns in [6_000_000, 7_000_000, u64::MAX] {
            histogram.record(ns);
            histogram.remember(exemplar(ns));
        }
        let told = |histogram: &Histogram| {
            let told = histogram.exemplars().iter().flatten();
            told.map(|exemplar| exemplar.ns).collect::<Vec<_>>()
        };
        assert_eq!(told(&histogram), [7_000_000, u64::MAX]);
        let before = histogram.clone();
        histogram.remember(exemplar(8_000_000));
        assert_eq!(told(&histogram.since(&before)), [8_000_000]);
    }

    proptest! {
        #[test]
        fn what_came_between_two_moments_is_their_difference(
            early in proptest::collection::vec(any::<u64>(), 0..20),
            late in proptest::collection::vec(any::<u64>(), 0..20),
        ) {
            let mut total = Histogram::default();
            early.iter().for_each(|ns| total.record(*ns));
            let before = total.clone();
            let mut alone = Histogram::default();
            for ns in late {
                total.record(ns);
                alone.record(ns);
            }
            let difference = total.since(&before);
            prop_assert_eq!(difference.buckets(), alone.buckets());
            prop_assert_eq!(difference.sum(), alone.sum());
        }
    }
}
