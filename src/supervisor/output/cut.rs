//! Cuts a stream of text into lines of bounded length.

/// What a worker writes at the end of each request: it ends the line, and is no text.
pub(super) const MARKER: &[u8] = b"\0fscf\0";

/// A stream that is being cut.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// The start of a line whose end has not come yet, at most as long as a line.
    pending: Vec<u8>,
    /// The start of what may become a marker. It comes after `pending`.
    doubtful: Vec<u8>,
}

impl Cutter {
    /// Takes more of the stream and gives out every line that is complete: ended by a
    /// newline, by a marker (if the stream `is_marked`), or `room` bytes long with more to
    /// follow. Beside it stands how many markers came before it in these bytes; returned is
    /// how many there are.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        room: usize,
        is_marked: bool,
        mut each: impl FnMut(&[u8], u64),
    ) -> u64 {
        let mut markers = 0;
        let mut text = std::mem::take(&mut self.doubtful);
        text.extend(bytes);
        let mut rest = &text[..];
        while is_marked && let Some(at) = find(rest, MARKER) {
            self.add(&rest[..at], room, &mut |line| each(line, markers));
            self.end_line(&mut |line| each(line, markers));
            markers += 1;
            rest = &rest[at + MARKER.len()..];
        }
        let doubtful = if is_marked { start_of_marker(rest) } else { 0 };
        let (certain, doubtful) = rest.split_at(rest.len() - doubtful);
        self.add(certain, room, &mut |line| each(line, markers));
        self.doubtful.extend(doubtful);
        markers
    }

    /// Gives up what is held; nothing more will come to end it. May be longer than a line
    /// by less than a marker.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.pending);
        rest.append(&mut self.doubtful);
        rest
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.doubtful.is_empty()
    }

    /// Bytes of a marker that the last bytes may be.
    pub(super) fn matched(&self) -> usize {
        self.doubtful.len()
    }

    fn add(&mut self, text: &[u8], room: usize, each: &mut impl FnMut(&[u8])) {
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, is_ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            // The room may have become less since the pending text was taken.
            while self.pending.len() + text.len() > room {
                let (head, tail) = text.split_at(room.saturating_sub(self.pending.len()));
                self.pending.extend(head);
                each(&self.pending);
                self.pending.clear();
                text = tail;
            }
            self.pending.extend(text);
            if is_ended {
                self.end_line(each);
            }
        }
    }

    /// Empty lines are left out, as php-fpm does.
    fn end_line(&mut self, each: &mut impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            each(&self.pending);
            self.pending.clear();
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// How many bytes at the end of the text may be the start of a marker.
fn start_of_marker(text: &[u8]) -> usize {
    let most = text.len().min(MARKER.len() - 1);
    (1..=most)
        .rev()
        .find(|length| text.ends_with(&MARKER[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 1023;

    fn cut(parts: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut cutter, mut seen) = (Cutter::default(), Vec::new());
        for part in parts {
            cutter.push(part, ROOM, true, |line, _| seen.push(line.to_vec()));
        }
        (seen, cutter.finish())
    }

    fn lines(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, rest) = cut(parts);
        lines.push(rest);
        lines
    }

    #[test]
    fn lines_are_put_together_from_their_parts_and_empty_ones_are_none() {
        let (seen, pending) = cut(&[b"one\ntw", b"o", b"\n\nthree"]);
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(pending, b"three");
    }

    #[test]
    fn long_lines_go_on_in_the_next() {
        let (a, b) = ([b'a'; 100], [b'b'; 2500]);
        let (seen, pending) = cut(&[&a, &b, b"\n"]);
        let expected = [
            [&a[..], &b[..923]].concat(),
            b[..1023].to_vec(),
            b[..554].to_vec(),
        ];
        assert_eq!((seen, pending), (expected.to_vec(), vec![]));
        // One that just fits is not followed by an empty one.
        let full = [b'a'; ROOM];
        assert_eq!(cut(&[&full, b"\n"]), (vec![full.to_vec()], vec![]));
    }

    #[test]
    fn a_marker_ends_the_line_however_it_is_split() {
        let text = b"before\0fscf\0after";
        for at in 0..text.len() {
            let (start, end) = text.split_at(at);
            assert_eq!(
                lines(&[start, end]),
                [b"before".to_vec(), b"after".to_vec()],
                "{at}"
            );
        }
        // At the end of a request without output there is nothing to end.
        assert_eq!(cut(&[MARKER, MARKER]), (vec![], vec![]));
        assert_eq!(cut(&[b"line\n", MARKER]), (vec![b"line".to_vec()], vec![]));
    }

    #[test]
    fn what_only_begins_like_a_marker_is_text() {
        let long = [b'a'; 1021];
        assert_eq!(
            lines(&[&long, b"\0f", b"abc"]),
            [[&long[..], b"\0f"].concat(), b"abc".to_vec()]
        );
        for text in [&b"\0"[..], b"a\0fscf", b"\0fsc\0fscX", b"\0\0fs", b"x\0fscf "] {
            assert_eq!(lines(&[text]), [text.to_vec()], "{text:?}");
        }
        assert_eq!(
            lines(&[b"a\0\0fscf\0b"]),
            [b"a\0".to_vec(), b"b".to_vec()],
            "an earlier NUL is text"
        );
    }

    #[test]
    fn a_stream_without_markers_may_hold_their_bytes() {
        let (mut cutter, mut seen) = (Cutter::default(), Vec::new());
        cutter.push(b"a\0fscf\0b\n", ROOM, false, |line, _| seen.push(line.to_vec()));
        assert_eq!(seen, [b"a\0fscf\0b".to_vec()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn nothing_is_lost_and_no_line_is_too_long(
            parts in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(0), Just(b'f'), Just(b's'), Just(b'c'), Just(b'\n'), any::<u8>()], 0..120),
                0..6,
            ),
            rooms in proptest::collection::vec(1usize..80, 12),
        ) {
            let (mut cutter, mut seen) = (Cutter::default(), Vec::new());
            for (part, room) in parts.iter().zip(&rooms) {
                let before = cutter.pending.len();
                cutter.push(part, *room, true, |line, _| seen.push((line.to_vec(), (*room).max(before))));
                prop_assert!(cutter.pending.len() <= (*room).max(before));
                prop_assert!(cutter.doubtful.len() < MARKER.len());
            }
            for (line, room) in &seen {
                prop_assert!(line.len() <= *room && !line.contains(&b'\n'));
            }
            let given = parts.concat();
            let mut kept: Vec<u8> = seen.iter().flat_map(|(line, _)| line.clone()).collect();
            kept.extend(cutter.finish());
            prop_assert_eq!(kept, without_ends(&given));
        }

        #[test]
        fn how_it_was_read_does_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(0), Just(b'f'), Just(b's'), Just(b'c'), Just(b'\n'), Just(b'x')], 0..200),
            at in 0usize..200,
        ) {
            let (start, end) = text.split_at(at.min(text.len()));
            prop_assert_eq!(lines(&[start, end]), lines(&[&text]));
        }
    }

    /// The text less its markers, found from the left, and less its newlines.
    fn without_ends(text: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut rest = text;
        while let Some((first, tail)) = rest.split_first() {
            match rest.strip_prefix(MARKER) {
                Some(after) => rest = after,
                None => {
                    kept.push(*first);
                    rest = tail;
                }
            }
        }
        kept.retain(|byte| *byte != b'\n');
        kept
    }
}
