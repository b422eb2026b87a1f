//! The parameters of a request, in one arena that C code can read in place.
//!
//! Every name and every value is followed by a NUL byte in the arena. A value may itself contain NUL bytes;
//! C code that does not take the length sees it cut there, as with php-fpm.

use std::fmt;

/// Up to this many parameters, comparing each with each is faster than sorting. Web servers send 20 to 50.
const FEW: usize = 64;

/// An ordered list of names and values; each name once.
///
/// Lookup walks over the list and compares lengths first, which beats hashing for the few dozen parameters
/// of a web request. Pointers into it are good until the next change.
#[derive(Default, Clone)]
pub struct Params {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

/// Places in the arena; the NUL byte after each is not part of it.
#[derive(Clone, Copy)]
struct Entry {
    name: Span,
    value: Span,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

// === impl Params ===

impl Params {
    /// An empty list, without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes everything and keeps the memory for the next request.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// Adds a parameter. If the name is there already, the new value takes the old one's place in the order,
    /// as in php-fpm; a thousand names added this way cost half a million comparisons of lengths.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.set(name, value);
    }

    /// Gives `name` this value: in its place if the name is there, else at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let Some(index) = self.position(name) else {
            self.append(name, value);
            return;
        };
        let old = self.entries[index].value;
        self.entries[index].value = if value.len() <= old.len {
            // Overwriting keeps the arena from growing when a value is set again and again.
            self.arena[old.start..][..value.len()].copy_from_slice(value);
            self.arena[old.start + value.len()] = 0;
            Span {
                start: old.start,
                len: value.len(),
            }
        } else {
            self.store(value)
        };
    }

    /// Removes a parameter; tells whether it was there. Its bytes stay in the arena until [`Params::clear`].
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let found = self.position(name);
        if let Some(index) = found {
            self.entries.remove(index);
        }
        found.is_some()
    }

    /// The value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.position(name)
            .map(|index| self.bytes_of(self.entries[index].value))
    }

    /// The value of `name` with the NUL byte that follows it.
    pub fn value_with_nul(&self, name: &[u8]) -> Option<&[u8]> {
        self.position(name)
            .map(|index| self.bytes_with_nul(self.entries[index].value))
    }

    /// Names and values in order of arrival.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.entries
            .iter()
            .map(|entry| (self.bytes_of(entry.name), self.bytes_of(entry.value)))
    }

    /// As [`Params::iter`], each name and each value with the NUL byte that follows it.
    pub fn iter_with_nul(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.entries
            .iter()
            .map(|entry| (self.bytes_with_nul(entry.name), self.bytes_with_nul(entry.value)))
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the arena in use: names, values and their NUL bytes, replaced and removed ones included.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Bytes of heap held.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Adds a parameter without looking for its name. [`Params::settle`] is due before anyone reads.
    pub(crate) fn append(&mut self, name: &[u8], value: &[u8]) {
        let name = self.store(name);
        let value = self.store(value);
        self.entries.push(Entry { name, value });
    }

    /// Makes every name appear once: at its first place, with its last value.
    pub(crate) fn settle(&mut self) {
        if self.entries.len() <= FEW {
            self.settle_few()
        } else {
            self.settle_many()
        }
    }

    fn settle_few(&mut self) {
        let mut kept = 0;
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            match self.entries[..kept]
                .iter()
                .position(|earlier| self.same_name(earlier, &entry))
            {
                Some(earlier) => self.entries[earlier].value = entry.value,
                None => {
                    self.entries[kept] = entry;
                    kept += 1;
                }
            }
        }
        self.entries.truncate(kept);
    }

    /// Sorts, so that a request with thousands of names, all of one length and alike but for the end, costs n
    /// log n comparisons. Allocates; only requests that are out of the ordinary come here.
    fn settle_many(&mut self) {
        let name_of = |index: &usize| self.bytes_of(self.entries[*index].name);
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        // The sort is stable: a run of equal names is in order of arrival.
        let mut repeated = vec![false; self.entries.len()];
        let runs: Vec<&[usize]> = order.chunk_by(|a, b| name_of(a) == name_of(b)).collect();
        for run in runs {
            if let [first, .., last] = *run {
                self.entries[first].value = self.entries[last].value;
                run[1..].iter().for_each(|&index| repeated[index] = true);
            }
        }
        let mut repeated = repeated.into_iter();
        self.entries.retain(|_| repeated.next() == Some(false));
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.name.len == name.len() && self.bytes_of(entry.name) == name)
    }

    fn same_name(&self, a: &Entry, b: &Entry) -> bool {
        a.name.len == b.name.len && self.bytes_of(a.name) == self.bytes_of(b.name)
    }

    fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.arena.push(0);
        Span {
            start,
            len: bytes.len(),
        }
    }

    fn bytes_of(&self, span: Span) -> &[u8] {
        &self.arena[span.start..][..span.len]
    }

    fn bytes_with_nul(&self, span: Span) -> &[u8] {
        &self.arena[span.start..][..=span.len]
    }
}

/// Names and lengths only: values hold cookies and passwords, which must not reach a log by accident.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self
            .iter()
            .map(|(name, value)| (name.escape_ascii().to_string(), value.len()));
        f.debug_map().entries(lengths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(params: &Params) -> Vec<(&[u8], &[u8])> {
        params.iter().collect()
    }

    #[test]
    fn set_keeps_the_place_and_remove_gives_it_up() {
        let mut params = Params::new();
        params.push(b"A", b"one");
        params.push(b"B", b"two");
        params.set(b"A", b"a longer value");
        params.set(b"C", b"");
        assert_eq!(
            listed(&params),
            [(&b"A"[..], &b"a longer value"[..]), (b"B", b"two"), (b"C", b"")]
        );
        assert!(params.remove(b"A"));
        assert!(!params.remove(b"A"));
        assert_eq!(params.get(b"A"), None);
        assert_eq!(params.len(), 2);
        params.clear();
        assert!(params.is_empty());
        assert_eq!(params.get(b"B"), None);
    }

    #[test]
    fn everything_is_followed_by_nul() {
        let mut params = Params::new();
        params.push(b"NAME", b"value");
        params.push(b"EMPTY", b"");
        params.set(b"NAME", b"val");
        assert_eq!(params.value_with_nul(b"NAME"), Some(&b"val\0"[..]));
        assert_eq!(params.value_with_nul(b"EMPTY"), Some(&b"\0"[..]));
        assert_eq!(params.value_with_nul(b"NONE"), None);
        let all: Vec<_> = params.iter_with_nul().collect();
        assert_eq!(all, [(&b"NAME\0"[..], &b"val\0"[..]), (b"EMPTY\0", b"\0")]);
    }

    #[test]
    fn setting_a_value_again_and_again_takes_no_more_memory() {
        let mut params = Params::new();
        params.push(b"HTTP_TRACEPARENT", &[b'0'; 55]);
        let bytes = params.bytes();
        for digit in 0..100 {
            params.set(b"HTTP_TRACEPARENT", &[digit; 55]);
        }
        assert_eq!(params.bytes(), bytes);
        assert_eq!(params.get(b"HTTP_TRACEPARENT"), Some(&[99; 55][..]));
    }

    #[test]
    fn both_ways_of_settling_agree() {
        for count in [0, 1, 5, FEW, FEW + 1, 500] {
            let mut few = Params::new();
            for index in 0..count {
                few.append(
                    format!("N{}", (index * 7) % 40).as_bytes(),
                    index.to_string().as_bytes(),
                );
            }
            let mut many = few.clone();
            few.settle_few();
            many.settle_many();
            assert_eq!(listed(&few), listed(&many));
            assert_eq!(few.len(), count.min(40));
            let last = count.checked_sub(1).map(|last| last.to_string());
            let name = format!("N{}", (count.saturating_sub(1) * 7) % 40);
            assert_eq!(few.get(name.as_bytes()), last.as_ref().map(String::as_bytes));
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let mut params = Params::new();
        params.push(b"HTTP_COOKIE", b"secret");
        assert_eq!(format!("{params:?}"), r#"{"HTTP_COOKIE": 6}"#);
    }
}
