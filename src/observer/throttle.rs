//! Log lines that a worker can cause must not fill the disk. Pure.

/// Lets so many through per period and counts the rest.
#[derive(Debug)]
pub(super) struct Throttle {
    burst: u32,
    period_ns: u64,
    /// Start of the present period, monotonic.
    since: u64,
    used: u32,
    held_back: u64,
}

impl Throttle {
    pub(super) fn new(burst: u32, period_ns: u64) -> Throttle {
        Throttle {
            burst,
            period_ns,
            since: 0,
            used: 0,
            held_back: 0,
        }
    }

    /// Whether one may pass at `now`; if so, how many were held back since the last one.
    pub(super) fn pass(&mut self, now: u64) -> Option<u64> {
        if self.used == 0 || now.saturating_sub(self.since) >= self.period_ns {
            self.since = now;
            self.used = 0;
        }
        if self.used >= self.burst {
            self.held_back += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.held_back))
    }

    /// When it is time to tell how many are held back, if any are, though none comes.
    pub(super) fn due(&self) -> Option<u64> {
        (self.held_back > 0).then(|| self.since.saturating_add(self.period_ns))
    }

    /// How many are held back, which are told now.
    pub(super) fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

/// Adds up something and tells the sum, at most once per period.
#[derive(Debug)]
pub(super) struct Tally {
    sum: u64,
    period_ns: u64,
    /// When it may be told again, monotonic.
    next: u64,
}

impl Tally {
    pub(super) fn new(period_ns: u64) -> Tally {
        Tally {
            sum: 0,
            period_ns,
            next: 0,
        }
    }

    pub(super) fn add(&mut self, count: u64) {
        self.sum = self.sum.saturating_add(count);
    }

    /// The sum since it was last told, if there is any and it is time.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        if self.sum == 0 || now < self.next {
            return None;
        }
        self.next = now.saturating_add(self.period_ns);
        Some(std::mem::take(&mut self.sum))
    }

    /// The same, due or not.
    pub(super) fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.sum)).filter(|sum| *sum > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_its_length_told() {
        let mut throttle = Throttle::new(2, 100);
        let passed: Vec<_> = (0..10).map(|now| throttle.pass(now)).collect();
        assert_eq!(passed[..3], [Some(0), Some(0), None]);
        assert!(passed[3..].iter().all(Option::is_none));
        assert_eq!(throttle.pass(100), Some(8));
        assert_eq!(throttle.pass(101), Some(0));
    }

    #[test]
    fn what_is_held_back_is_told_though_nothing_more_comes() {
        let mut throttle = Throttle::new(1, 100);
        assert_eq!((throttle.pass(7), throttle.due()), (Some(0), None));
        assert_eq!((throttle.pass(8), throttle.pass(9)), (None, None));
        assert_eq!((throttle.due(), throttle.rest()), (Some(107), 2));
        assert_eq!((throttle.due(), throttle.rest()), (None, 0));
        assert_eq!(throttle.pass(107), Some(0));
    }

    #[test]
    fn a_sum_is_told_once_per_period() {
        let mut tally = Tally::new(100);
        assert_eq!(tally.due(5), None);
        tally.add(3);
        assert_eq!(tally.due(5), Some(3));
        tally.add(u64::MAX);
        tally.add(1);
        assert_eq!(tally.due(50), None);
        assert_eq!(tally.due(105), Some(u64::MAX));
        assert_eq!(tally.rest(), None);
    }
}
