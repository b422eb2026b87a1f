//! A bounded queue in front of an exporter: items and bytes are counted, urgent ones
//! (slow, failed, killed) go first, and what is dropped is counted by reason.
//!
//! When it is full the newest ordinary item is the one to go: those already waiting were
//! promised a place. An urgent item takes the place of ordinary ones and is itself dropped
//! only when the queue is full of urgent ones.
//!
//! Pure: no clock, no lock, no I/O.

use std::collections::VecDeque;

/// How much an item matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A request that was slow, failed or killed.
    Urgent,
    /// Any other.
    Ordinary,
}

/// What became of items that were not handed out, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops {
    /// New items refused because the number of items was at its limit.
    pub full_items: u64,
    /// New items refused because their bytes would have passed the limit.
    pub full_bytes: u64,
    /// Waiting ordinary items that made room for urgent ones.
    pub displaced: u64,
}

impl Drops {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full_items + self.full_bytes + self.displaced
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue<T> {
    urgent: Class<T>,
    ordinary: Class<T>,
    max_items: usize,
    max_bytes: usize,
    drops: Drops,
}

#[derive(Debug)]
struct Class<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Queue<T> {
    /// An empty queue with these limits.
    pub fn new(max_items: usize, max_bytes: usize) -> Queue<T> {
        let class = || Class {
            items: VecDeque::new(),
            bytes: 0,
        };
        Queue {
            urgent: class(),
            ordinary: class(),
            max_items,
            max_bytes,
            drops: Drops::default(),
        }
    }

    /// Adds an item of about `bytes` bytes, or counts what had to be dropped for it.
    pub fn push(&mut self, item: T, bytes: usize, priority: Priority) {
        let keeps = match priority {
            Priority::Urgent => (self.urgent.items.len(), self.urgent.bytes),
            Priority::Ordinary => (self.len(), self.bytes()),
        };
        // Asked first for what can never be displaced, so that nothing is displaced in vain.
        if keeps.0 >= self.max_items {
            self.drops.full_items += 1;
            return;
        }
        if bytes > self.max_bytes.saturating_sub(keeps.1) {
            self.drops.full_bytes += 1;
            return;
        }
        while self.len() >= self.max_items || bytes > self.max_bytes - self.bytes() {
            self.ordinary
                .pop_newest()
                .expect("the urgent ones alone leave room, so there are ordinary ones");
            self.drops.displaced += 1;
        }
        match priority {
            Priority::Urgent => self.urgent.push(item, bytes),
            Priority::Ordinary => self.ordinary.push(item, bytes),
        }
    }

    /// Takes up to `max_items` items and about `max_bytes` bytes, at least one item if there
    /// is any: urgent ones first, oldest first.
    pub fn take(&mut self, max_items: usize, max_bytes: usize) -> Vec<T> {
        let mut batch = Vec::with_capacity(max_items.min(self.len()));
        let mut room = max_bytes;
        while batch.len() < max_items {
            let class = if self.urgent.items.is_empty() {
                &mut self.ordinary
            } else {
                &mut self.urgent
            };
            match class.items.front() {
                Some((bytes, _)) if batch.is_empty() || *bytes <= room => room = room.saturating_sub(*bytes),
                _ => break,
            }
            batch.extend(class.pop_oldest());
        }
        batch
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.urgent.items.len() + self.ordinary.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Estimated bytes waiting.
    pub fn bytes(&self) -> usize {
        self.urgent.bytes + self.ordinary.bytes
    }

    /// What was dropped since the queue was made.
    pub fn drops(&self) -> Drops {
        self.drops
    }
}

impl<T> Class<T> {
    fn push(&mut self, item: T, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((bytes, item));
    }

    fn pop_oldest(&mut self) -> Option<T> {
        let (bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }

    fn pop_newest(&mut self) -> Option<T> {
        let (bytes, item) = self.items.pop_back()?;
        self.bytes -= bytes;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urgent_ones_go_first_and_the_newest_ordinary_one_is_dropped() {
        let mut queue = Queue::new(3, 1000);
        for name in ["a", "b", "c", "d"] {
            queue.push(name, 1, Priority::Ordinary);
        }
        queue.push("U", 1, Priority::Urgent);
        assert_eq!(
            queue.drops(),
            Drops {
                full_items: 1,
                full_bytes: 0,
                displaced: 1
            }
        );
        assert_eq!(queue.take(10, 1000), ["U", "a", "b"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn an_item_larger_than_the_queue_displaces_nothing() {
        let mut queue = Queue::new(10, 100);
        queue.push(1, 60, Priority::Ordinary);
        queue.push(2, 101, Priority::Urgent);
        queue.push(3, 50, Priority::Urgent);
        assert_eq!(
            queue.drops(),
            Drops {
                full_items: 0,
                full_bytes: 1,
                displaced: 1
            }
        );
        assert_eq!(queue.take(10, 1000), [3]);
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::new(10, 1000);
        for item in 0..5 {
            queue.push(item, 100, Priority::Ordinary);
        }
        assert_eq!(queue.take(10, 50), [0]);
        assert_eq!(queue.take(10, 250), [1, 2]);
        assert_eq!(queue.take(1, 250), [3]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { bytes: usize, urgent: bool },
        Take { items: usize, bytes: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..120, any::<bool>()).prop_map(|(bytes, urgent)| Step::Push { bytes, urgent }),
            1 => (1usize..5, 0usize..200).prop_map(|(items, bytes)| Step::Take { items, bytes }),
        ]
    }

    proptest! {
        #[test]
        fn limits_hold_and_every_item_is_accounted_for(steps in proptest::collection::vec(step(), 0..80)) {
            let mut queue = Queue::new(8, 400);
            let (mut pushed, mut taken, mut urgent_waiting) = (0u64, 0u64, 0usize);
            for step in steps {
                match step {
                    Step::Push { bytes, urgent } => {
                        let (before, room) = (queue.len(), queue.drops().displaced);
                        queue.push((pushed, urgent), bytes, if urgent { Priority::Urgent } else { Priority::Ordinary });
                        pushed += 1;
                        let kept = queue.len() + usize::try_from(queue.drops().displaced - room).unwrap() > before;
                        urgent_waiting += usize::from(urgent && kept);
                        prop_assert!(urgent || queue.drops().displaced == room, "an ordinary item displaced one");
                    }
                    Step::Take { items, bytes } => {
                        let batch = queue.take(items, bytes);
                        prop_assert!(batch.len() <= items);
                        taken += batch.len() as u64;
                        let urgent = batch.iter().filter(|(_, urgent)| *urgent).count();
                        // Nothing urgent is left behind an ordinary item, and order is kept within a class.
                        if urgent < batch.len() { prop_assert_eq!(urgent, urgent_waiting); }
                        urgent_waiting -= urgent;
                        for class in [true, false] {
                            let ids: Vec<_> = batch.iter().filter(|i| i.1 == class).map(|i| i.0).collect();
                            prop_assert!(ids.is_sorted());
                        }
                    }
                }
                prop_assert!(queue.len() <= 8 && queue.bytes() <= 400);
                prop_assert_eq!(pushed, taken + queue.len() as u64 + queue.drops().total());
                prop_assert_eq!(queue.urgent.items.len(), urgent_waiting);
            }
            while !queue.is_empty() { queue.take(3, 100); }
            prop_assert_eq!(queue.bytes(), 0);
        }
    }
}
