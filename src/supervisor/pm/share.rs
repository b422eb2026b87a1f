//! `process.max`: workers of all pools together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// php-fpm's words when it is reached; told once until a worker can be started again.
pub(in crate::supervisor) const REACHED: &str = "The maximum number of processes has been reached. Please review your configuration and consider raising 'process.max'";

/// What a pool has, and what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Claim {
    pub(in crate::supervisor) has: u32,
    pub(in crate::supervisor) lacking: u32,
}

/// Divides `room` new workers among pools, each to the one that has the fewest, so that no
/// pool is left without because another wants many: php-fpm fills the first pools of the
/// file. Gives out all of it unless less is wanted. Cost: at most `room` steps.
pub(in crate::supervisor) fn share(claims: &[Claim], room: u32) -> Vec<u32> {
    let wanted: u64 = claims.iter().map(|claim| u64::from(claim.lacking)).sum();
    if wanted <= u64::from(room) {
        return claims.iter().map(|claim| claim.lacking).collect();
    }
    let mut given = vec![0; claims.len()];
    let hungry = claims.iter().enumerate().filter(|(_, claim)| claim.lacking > 0);
    let mut poorest: BinaryHeap<_> = hungry.map(|(index, claim)| Reverse((claim.has, index))).collect();
    for _ in 0..room {
        let Some(Reverse((has, index))) = poorest.pop() else {
            break;
        };
        given[index] += 1;
        if given[index] < claims[index].lacking {
            poorest.push(Reverse((has.saturating_add(1), index)));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(pairs: &[(u32, u32)]) -> Vec<Claim> {
        let claim = |(has, lacking): &(u32, u32)| Claim {
            has: *has,
            lacking: *lacking,
        };
        pairs.iter().map(claim).collect()
    }

    #[test]
    fn every_pool_gets_some_before_one_gets_all() {
        /// What each has and lacks, what there is to give, what each gets.
        type Row = (&'static [(u32, u32)], u32, &'static [u32]);
        let table: [Row; 9] = [
            (&[], 5, &[]),
            (&[(0, 3), (0, 2)], 10, &[3, 2]),
            (&[(0, 10), (0, 10)], 5, &[3, 2]),
            (&[(0, 100), (0, 1), (0, 1)], 5, &[3, 1, 1]),
            (&[(0, 0), (7, 4)], 2, &[0, 2]),
            (&[(0, 4), (0, 4)], 0, &[0, 0]),
            // The place of one that has died goes to its own pool, not to the first.
            (&[(3, 6), (1, 8)], 1, &[0, 1]),
            (&[(5, 9), (1, 9)], 6, &[1, 5]),
            (&[(0, u32::MAX), (0, u32::MAX)], 3, &[2, 1]),
        ];
        for (pairs, room, expected) in table {
            assert_eq!(share(&claims(pairs), room), expected, "{pairs:?} {room}");
        }
    }

    proptest! {
        #[test]
        fn all_is_given_out_fairly_and_nobody_gets_more_than_it_lacks(
            pairs in proptest::collection::vec((0u32..50, 0u32..200), 0..50), room in 0u32..5000
        ) {
            let claims = claims(&pairs);
            let given = share(&claims, room);
            let wanted: u32 = claims.iter().map(|claim| claim.lacking).sum();
            prop_assert_eq!(given.iter().sum::<u32>(), wanted.min(room));
            prop_assert!(given.iter().zip(&claims).all(|(given, claim)| *given <= claim.lacking));
            // Who was given something has no more than one more than who goes on lacking.
            let pools = || given.iter().zip(&claims);
            let richest = pools().filter(|(given, _)| **given > 0).map(|(given, claim)| claim.has + given).max();
            let starved = pools().filter(|(given, claim)| **given < claim.lacking);
            let poorest = starved.map(|(given, claim)| claim.has + given).min();
            if let (Some(richest), Some(poorest)) = (richest, poorest) {
                prop_assert!(richest <= poorest + 1, "{richest} {poorest}");
            }
        }
    }
}
