//! Processes that do the same, as one. Pure.

use std::collections::HashMap;

use glasspool_abi::Pid;

use crate::inspect::look::{Line, Seen};

/// Processes of one pool with the same stack, waiting for the same; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group<'a> {
    /// By id.
    pub(super) members: Vec<&'a Seen>,
}

/// What is the same in all of a group. How long they wait, their requests and the
/// numbers of their descriptors are not.
#[derive(PartialEq, Eq, Hash)]
struct Alike<'a> {
    pool: Option<&'a str>,
    lines: &'a [Line],
    cut: bool,
    doubt: Option<&'a str>,
    wait: Option<&'a str>,
    native: &'a [String],
}

impl<'a> Alike<'a> {
    fn of(seen: &'a Seen) -> Alike<'a> {
        Alike {
            pool: seen.pool.as_deref(),
            lines: &seen.lines,
            cut: seen.cut,
            doubt: seen.doubt.as_deref(),
            wait: seen.wait.as_ref().map(|wait| wait.alike.as_str()),
            native: &seen.native,
        }
    }
}

/// Groups, the largest first, then by the lowest id.
pub(super) fn group(all: &[Seen]) -> Vec<Group<'_>> {
    let mut places: HashMap<Alike<'_>, usize> = HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for seen in all {
        let place = *places.entry(Alike::of(seen)).or_insert_with(|| {
            groups.push(Group { members: Vec::new() });
            groups.len() - 1
        });
        groups[place].members.push(seen);
    }
    for group in &mut groups {
        group.members.sort_by_key(|seen| seen.pid);
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.members.len()), group.first().pid));
    groups
}

/// Each process by itself, by id.
pub(super) fn singly(all: &[Seen]) -> Vec<Group<'_>> {
    let mut groups: Vec<_> = all.iter().map(|seen| Group { members: vec![seen] }).collect();
    groups.sort_by_key(|group| group.first().pid);
    groups
}

impl<'a> Group<'a> {
    /// The one that stands for all.
    pub(super) fn first(&self) -> &'a Seen {
        self.members
            .first()
            .expect("a group is made for its first member")
    }

    /// All ids.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.members.iter().map(|seen| seen.pid)
    }

    /// Requests with their numbers, the most frequent first.
    pub(super) fn requests(&self) -> Vec<(String, usize)> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for request in self.members.iter().filter_map(|seen| seen.request.as_ref()) {
            *counts.entry(request.words()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inspect::testing::{blocked, idle, running};

    fn some() -> impl Strategy<Value = Vec<Seen>> {
        let one = (0..4, 0..3usize, any::<bool>()).prop_map(|(kind, depth, pool)| {
            let mut seen = match kind {
                0 => running(0),
                1 => idle(0),
                _ => blocked(0),
            };
            let keep = seen.lines.len().saturating_sub(depth);
            seen.lines.truncate(keep);
            seen.pool = pool.then(|| "www".to_owned());
            seen
        });
        proptest::collection::vec(one, 0..40).prop_map(|mut all| {
            for (pid, seen) in (1..).zip(&mut all) {
                seen.pid = Pid(pid);
            }
            all
        })
    }

    proptest! {
        #[test]
        fn everybody_is_in_one_group_with_those_alike(all in some()) {
            let groups = group(&all);
            let mut pids: Vec<Pid> = groups.iter().flat_map(Group::pids).collect();
            pids.sort();
            prop_assert_eq!(pids, all.iter().map(|seen| seen.pid).collect::<Vec<_>>());
            for group in &groups {
                let first = Alike::of(group.first());
                prop_assert!(group.members.iter().all(|seen| Alike::of(seen) == first));
            }
            for (index, one) in groups.iter().enumerate() {
                for other in &groups[index + 1..] {
                    prop_assert!(Alike::of(one.first()) != Alike::of(other.first()));
                    prop_assert!(one.members.len() >= other.members.len());
                }
            }
        }

        #[test]
        fn the_order_they_come_in_does_not_matter(all in some(), seed in any::<u64>()) {
            let mut shuffled = all.clone();
            shuffled.sort_by_key(|seen| u64::from(seen.pid.0.unsigned_abs()).wrapping_mul(seed | 1));
            let pids = |all: &[Seen]| {
                let groups = group(all);
                groups.iter().map(|group| group.pids().collect()).collect::<Vec<Vec<Pid>>>()
            };
            prop_assert_eq!(pids(&all), pids(&shuffled));
        }
    }

    #[test]
    fn different_requests_and_times_are_one_group_different_waits_are_two() {
        let mut all = vec![blocked(1), blocked(2), blocked(3)];
        all[1].request = None;
        all[1].age = None;
        assert_eq!(group(&all).len(), 1);
        if let Some(wait) = &mut all[2].wait {
            wait.alike = "poll, tcp 10.0.3.8:3306".to_owned();
        }
        let groups = group(&all);
        let pids: Vec<Vec<i32>> = groups
            .iter()
            .map(|group| group.pids().map(|pid| pid.0).collect())
            .collect();
        assert_eq!(pids, [vec![1, 2], vec![3]]);
    }
}
