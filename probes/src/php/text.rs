//! Strings of the target, made fit to print, to store and to count by.

use super::offsets::{Offsets, u64_at};

/// Longest function or class name kept, bytes of the target.
pub(crate) const NAME_CAP: usize = 256;
/// Longest file name kept, bytes of the target.
pub(crate) const PATH_CAP: usize = 512;

/// What a `zend_string` holds, from its readable bytes; `None` if they end before
/// its text does.
///
/// - Longer than `cap`: cut, and ended with `…`.
/// - Ends at the first NUL: the name of an anonymous class goes on behind one with
///   file, line and a counter, which PHP does not print either.
/// - Control and direction-changing characters and invalid UTF-8 become U+FFFD: a
///   function name must not be able to forge a log line or colour a terminal.
pub(super) fn zend_string(bytes: &[u8], offsets: &Offsets, cap: usize) -> Option<String> {
    let len = usize::try_from(u64_at(bytes, offsets.string_len)?).unwrap_or(usize::MAX);
    let text = bytes.get(offsets.string_val..)?.get(..len.min(cap))?;
    let text = text.split(|&byte| byte == 0).next().unwrap_or(text);
    Some(clean(text, text.len() == cap && len > cap))
}

/// What a C string holds, by the same rules; `None` if `bytes` end before it does and
/// before `cap`.
pub(crate) fn c_string(bytes: &[u8], cap: usize) -> Option<String> {
    let bytes = bytes.get(..cap).unwrap_or(bytes);
    match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => Some(clean(&bytes[..end], false)),
        None if bytes.len() == cap => Some(clean(bytes, true)),
        None => None,
    }
}

/// `text` without what could do harm; ended with `…` if it has been cut.
pub(super) fn clean(text: &[u8], cut: bool) -> String {
    let mut clean: String = match std::str::from_utf8(text) {
        // Nearly every name; no byte of it needs a second look.
        Ok(plain) if text.iter().all(|byte| (b' '..=b'~').contains(byte)) => plain.to_owned(),
        _ => String::from_utf8_lossy(text).chars().map(harmless).collect(),
    };
    if cut {
        // The cut may have gone through a character.
        clean.truncate(clean.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        clean.push('…');
    }
    clean
}

/// `text` in quotes, with what could do harm, quotes and backslashes escaped; ended with
/// `…` if it has been cut.
pub(super) fn escaped(text: &str, cut: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c == harmless(c) => out.push(c),
            c => out.extend(c.escape_default()),
        }
    }
    out.push('"');
    if cut {
        out.push('…');
    }
    out
}

fn harmless(c: char) -> char {
    match c {
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn read(text: &[u8], len: u64) -> Option<String> {
        let offsets = Offsets::new(&testing::layout()).unwrap();
        let mut bytes = vec![0; 16];
        bytes.extend(len.to_le_bytes());
        bytes.extend(text);
        zend_string(&bytes, &offsets, 8)
    }

    #[test]
    fn text_is_bounded_and_harmless() {
        assert_eq!(read(b"run", 3).as_deref(), Some("run"));
        assert_eq!(
            read(b"a\x1b[31m\n\xff", 8).as_deref(),
            Some("a\u{fffd}[31m\u{fffd}\u{fffd}")
        );
        assert_eq!(read("a\u{202e}b".as_bytes(), 5).as_deref(), Some("a\u{fffd}b"));
        assert_eq!(read(b"c@a\0/x/y", 8).as_deref(), Some("c@a"));
        assert_eq!(read("1234567é".as_bytes(), 9).as_deref(), Some("1234567…"));
        assert_eq!(read(b"12345678", u64::MAX).as_deref(), Some("12345678…"));
    }

    #[test]
    fn a_value_is_quoted_so_that_it_cannot_end_its_quotes() {
        assert_eq!(
            escaped("a\"b\\\n\x1b\u{202e}é", false),
            r#""a\"b\\\n\u{1b}\u{202e}é""#
        );
        assert_eq!(escaped("", true), "\"\"…");
    }

    #[test]
    fn a_c_string_ends_or_is_cut() {
        assert_eq!(c_string(b"run\0after", 8).as_deref(), Some("run"));
        assert_eq!(c_string(b"12345678", 8).as_deref(), Some("12345678…"));
        assert_eq!(c_string(b"12345", 8), None);
        assert_eq!(c_string(b"", 8), None);
    }

    #[test]
    fn a_length_past_the_readable_bytes_is_refused() {
        assert_eq!(read(b"run", 4), None);
        assert_eq!(
            zend_string(b"short", &Offsets::new(&testing::layout()).unwrap(), 8),
            None
        );
    }
}
