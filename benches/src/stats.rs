//! Medians, and ratios of what was measured in pairs.
//!
//! A machine's speed wanders: other guests, clock frequency, page cache. Two values taken right after each other
//! share most of that, so each round gives one ratio and the median of the ratios is quoted, with its range,
//! not the ratio of two medians.

use serde::Serialize;

/// Median and range of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value; of an even number the mean of the two middle ones.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of the finite values; `None` if there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        Some(Self {
            median: f64::midpoint(sorted[lower], sorted[upper]),
            min,
            max,
        })
    }
}

/// Candidate divided by stock, pair by pair. Pairs without a value, or with a stock of 0, are left out.
pub fn paired_ratio(stock: &[Option<f64>], candidate: &[Option<f64>]) -> Option<Summary> {
    let pairs = stock.iter().zip(candidate);
    Summary::of(
        pairs.filter_map(|(stock, candidate)| Some((*candidate)? / (*stock).filter(|stock| *stock != 0.0)?)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_of_few() {
        let summary = |values: &[f64]| Summary::of(values.iter().copied());
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[f64::NAN]), None);
        assert_eq!(
            summary(&[3.0]),
            Some(Summary {
                median: 3.0,
                min: 3.0,
                max: 3.0
            })
        );
        assert_eq!(
            summary(&[4.0, 1.0]),
            Some(Summary {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(
            summary(&[9.0, 1.0, 2.0]),
            Some(Summary {
                median: 2.0,
                min: 1.0,
                max: 9.0
            })
        );
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine halves its speed in the second round; the ratio does not move.
        let stock = [Some(100.0), Some(50.0), Some(110.0)];
        let candidate = [Some(200.0), Some(100.0), Some(220.0)];
        let ratio = paired_ratio(&stock, &candidate).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn pairs_with_a_hole_are_left_out() {
        let ratio = paired_ratio(&[Some(2.0), None, Some(0.0)], &[Some(1.0), Some(5.0), Some(7.0)]).unwrap();
        assert_eq!((ratio.median, ratio.max), (0.5, 0.5));
        assert_eq!(paired_ratio(&[None], &[Some(1.0)]), None);
    }

    proptest! {
        #[test]
        fn a_median_lies_in_its_range(values in proptest::collection::vec(-1e9..1e9, 1..40)) {
            let summary = Summary::of(values.iter().copied()).unwrap();
            prop_assert!(summary.min <= summary.median && summary.median <= summary.max);
            let below = values.iter().filter(|value| **value < summary.median).count();
            let above = values.iter().filter(|value| **value > summary.median).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }
    }
}
