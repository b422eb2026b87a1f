use proptest::prelude::*;

use super::super::tests::{MS, query};
use super::*;

#[test]
fn the_longest_waits_are_kept_and_the_rest_is_counted() {
    let mut collector = Collector::default();
    let many = 3 * MOST_SPANS as u64;
    for n in 0..many {
        collector.add(&query(1, 1, 10 + n), 10 * MS);
    }
    let taken = collector.take(1);
    assert_eq!(taken.spans.len(), MOST_SPANS);
    let shortest = taken.spans.iter().map(|span| span.blocked_ns).min();
    assert_eq!(shortest, Some((10 + many - MOST_SPANS as u64) * MS));
    assert_eq!(taken.without_span, many - MOST_SPANS as u64);
    let [place] = &taken.places[..] else {
        panic!("{} places", taken.places.len());
    };
    assert_eq!(place.waits, many);
    assert!(
        taken
            .spans
            .iter()
            .all(|span| Arc::ptr_eq(&span.stacktrace, &taken.spans[0].stacktrace)),
        "one stack is kept once"
    );
}

#[test]
fn requests_do_not_get_each_others_waits() {
    let mut collector = Collector::default();
    for request in [1, 2, 2, 0, 3] {
        collector.add(&query(1, request, 20), 10 * MS);
    }
    assert_eq!([1, 2, 3].map(|number| collector.came(number)), [1, 2, 1]);
    assert_eq!(collector.take(2).spans.len(), 2);
    assert_eq!([1, 2, 3].map(|number| collector.came(number)), [0, 0, 1]);
    assert_eq!(collector.add(&query(1, 2, 20), 0), Added::Late);
    collector.end(3);
    assert_eq!(collector.take(3), RequestWaits::default());
}

proptest! {
    #[test]
    fn whatever_a_worker_calls_its_requests_little_is_kept(
        waits in proptest::collection::vec((any::<u64>(), 0u64..100, 0u32..200), 0..600),
    ) {
        let mut collector = Collector::default();
        for (request, blocked_ms, line) in &waits {
            let mut wait = query(1, *request, *blocked_ms);
            wait.frames[1].line = Some(*line);
            collector.add(&wait, 10 * MS);
            let [requests, spans, places] = collector.kept();
            prop_assert!(requests <= 32 && spans <= 2 * MOST_SPANS && places <= 32 * 64);
        }
        for (request, _, _) in &waits {
            let taken = collector.take(*request);
            prop_assert!(taken.spans.len() <= MOST_SPANS && taken.places.len() <= 64);
        }
    }
}
