//! Which worker has which page of the kernel programs' map.

use std::collections::VecDeque;

/// The pages that are free. One that is given back is used again as late as can be: an
/// observer that is behind may still read what its worker left there.
#[derive(Debug)]
pub(super) struct Pages {
    number: u32,
    /// Pages from here on have never been used.
    unused: u32,
    /// Used ones that are free again, the one that rests longest first.
    free: VecDeque<u32>,
}

impl Pages {
    /// Of a map of so many.
    pub(super) fn new(number: u32) -> Pages {
        Pages {
            number,
            unused: 0,
            free: VecDeque::new(),
        }
    }

    /// A page, and whether a worker before has left something there.
    pub(super) fn take(&mut self) -> Option<(u32, bool)> {
        if self.unused < self.number {
            self.unused += 1;
            return Some((self.unused - 1, false));
        }
        self.free.pop_front().map(|page| (page, true))
    }

    /// The worker is gone, and observers have been told.
    pub(super) fn give_back(&mut self, page: u32) {
        self.free.push_back(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_rests_as_long_as_there_are_others_and_there_is_an_end_to_them() {
        let mut pages = Pages::new(3);
        assert_eq!(pages.take(), Some((0, false)));
        pages.give_back(0);
        assert_eq!([pages.take(), pages.take()], [Some((1, false)), Some((2, false))]);
        pages.give_back(2);
        assert_eq!([pages.take(), pages.take()], [Some((0, true)), Some((2, true))]);
        assert_eq!(pages.take(), None);
    }
}
