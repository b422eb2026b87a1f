//! `tracestate` (W3C Trace Context level 2, section 3.3) and `baggage` (W3C Baggage,
//! section 3): lists that are passed on as they are, or not at all.
//!
//! Several headers of one name arrive as one value, joined by commas (RFC 9110 section
//! 5.3), so that members are the unit here and never headers. Nothing is decoded:
//! what the members mean is their owners' business. All checks take one pass and no
//! memory.

use std::borrow::Cow;

use super::trim_blanks;

/// Members of a `tracestate` list at most (section 3.3.1.1).
const TRACESTATE_MEMBERS: usize = 32;
/// Bytes of `tracestate` that are kept with a span; the recommendation asks everybody to
/// carry 512 or more (section 3.3.1.5). PHP is handed the whole list.
pub const TRACESTATE_BYTES: usize = 512;
/// A longer member goes first when a list has to be cut (same section).
const LONG_MEMBER: usize = 128;
/// Members of a `baggage` list at most (W3C Baggage, section 3.3.2).
const BAGGAGE_MEMBERS: usize = 64;
/// Bytes of a `baggage` list at most (same section).
const BAGGAGE_BYTES: usize = 8192;

/// Members without the blanks around them. Empty ones are allowed, and are none.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(trim_blanks)
        .filter(|member| !member.is_empty())
}

/// Whether a `tracestate` value can be passed on: at most 32 members, each `key=value` as
/// the recommendation has them. A list that fails is dropped whole; the `traceparent`
/// beside it stays.
pub fn tracestate_is_valid(list: &[u8]) -> bool {
    members(list).zip(1..).all(|(member, number)| {
        number <= TRACESTATE_MEMBERS
            && split_at(member, b'=').is_some_and(|(key, value)| is_state_key(key) && is_state_value(value))
    })
}

/// A lower-case letter or a digit, then up to 255 of those and of `_-*/@` (level 2 knows
/// no other rule for tenants).
fn is_state_key(key: &[u8]) -> bool {
    let is_first = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    key.first().is_some_and(is_first)
        && key.len() <= 256
        && key
            .iter()
            .all(|byte| is_first(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@'))
}

/// Up to 256 printable characters but comma and equals sign; blanks at its end are no
/// part of it, and something has to be left.
fn is_state_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}

/// What is kept of a valid `tracestate` list: all of it up to [`TRACESTATE_BYTES`]; of a
/// longer one the members longer than 128 bytes go first, then those on the right, which
/// are the oldest. Allocates for long lists only.
pub fn shorten_tracestate(list: &[u8]) -> Cow<'_, [u8]> {
    if list.len() <= TRACESTATE_BYTES {
        return Cow::Borrowed(list);
    }
    let mut kept: Vec<u8> = Vec::with_capacity(TRACESTATE_BYTES);
    for member in members(list).filter(|member| member.len() <= LONG_MEMBER) {
        if kept.len() + 1 + member.len() > TRACESTATE_BYTES {
            break;
        }
        if !kept.is_empty() {
            kept.push(b',');
        }
        kept.extend_from_slice(member);
    }
    Cow::Owned(kept)
}

/// Whether a `baggage` value can be passed on: at most 64 members and 8192 bytes, each
/// `key=value` with optional `;property` or `;property=value` behind it.
pub fn baggage_is_valid(list: &[u8]) -> bool {
    list.len() <= BAGGAGE_BYTES
        && members(list).zip(1..).all(|(member, number)| {
            let mut parts = member.split(|byte| *byte == b';').map(trim_blanks);
            number <= BAGGAGE_MEMBERS
                && parts.next().is_some_and(is_baggage_pair)
                && parts.all(|property| is_token(property) || is_baggage_pair(property))
        })
}

fn is_baggage_pair(pair: &[u8]) -> bool {
    split_at(pair, b'=').is_some_and(|(key, value)| {
        is_token(trim_blanks(key)) && trim_blanks(value).iter().all(is_baggage_octet)
    })
}

/// `token` of RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// Printable ASCII without blank, quotation mark, comma, semicolon and backslash.
fn is_baggage_octet(byte: &u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

fn split_at(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == mark)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> String {
        (0..count)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",")
    }

    #[test]
    fn tracestate_rules() {
        let long = |length: usize| "z".repeat(length);
        let table = [
            (
                "two members",
                "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7".to_owned(),
                true,
            ),
            (
                "blanks around members",
                "foo=1 \t , \t bar=2,  baz=3 ".to_owned(),
                true,
            ),
            (
                "empty members, of headers that were joined",
                ",foo=1,,bar=2, ,".to_owned(),
                true,
            ),
            ("nothing", String::new(), true),
            ("a key twice", "foo=1,foo=1".to_owned(), true),
            ("every character of a key", "0az_-*/@=1".to_owned(), true),
            ("a tenant", "fw529a3039@dt=FfC4".to_owned(), true),
            ("a key that starts with a digit", "0foo=1".to_owned(), true),
            ("blanks inside and before a value", "foo= a b".to_owned(), true),
            (
                "every mark in a value",
                r##"foo=!"#$%&'()*+-./:;<>?@[\]^_`{|}~"##.to_owned(),
                true,
            ),
            ("a key of 256", format!("{}=1", long(256)), true),
            ("a value of 256", format!("a={}", long(256)), true),
            ("32 members", many(32), true),
            (
                "more than 512 bytes",
                many(32).replace("=v", "=0123456789012345678"),
                true,
            ),
            ("33 members", many(33), false),
            ("a key of 257", format!("{}=1", long(257)), false),
            ("a value of 257", format!("a={}", long(257)), false),
            ("no equals sign", "foo".to_owned(), false),
            ("no key", "=1".to_owned(), false),
            ("no value", "foo=".to_owned(), false),
            ("a value of blanks", "foo=  ".to_owned(), false),
            ("a blank after the key", "foo =1".to_owned(), false),
            ("a key in upper case", "FOO=1".to_owned(), false),
            ("a dot in a key", "foo.bar=1".to_owned(), false),
            ("a key that starts with a mark", "@foo=1".to_owned(), false),
            ("an equals sign in a value", "foo=bar=baz".to_owned(), false),
            ("a control character", "foo=a\x01".to_owned(), false),
            ("a tab in a value", "foo=a\tb".to_owned(), false),
            ("a letter beyond ASCII", "foo=\u{e4}".to_owned(), false),
            ("one bad member of two", "foo=1,bar".to_owned(), false),
        ];
        for (what, list, expected) in table {
            assert_eq!(tracestate_is_valid(list.as_bytes()), expected, "{what}: {list:?}");
        }
    }

    #[test]
    fn a_long_list_loses_its_long_members_and_then_its_oldest() {
        let short = b"a=1,b=2";
        assert_eq!(shorten_tracestate(short), Cow::Borrowed(&short[..]));
        let long = format!(
            "a=1,big={},{}",
            "x".repeat(200),
            many(32).replace("=v", "=0123456789012345")
        );
        let kept = shorten_tracestate(long.as_bytes()).into_owned();
        let kept = String::from_utf8(kept).expect("text");
        assert!(
            kept.starts_with("a=1,k0=0123456789012345,k1=") && !kept.contains("big"),
            "{kept}"
        );
        assert!(
            kept.len() <= TRACESTATE_BYTES && kept.len() > TRACESTATE_BYTES - 25,
            "{}",
            kept.len()
        );
        assert!(tracestate_is_valid(kept.as_bytes()));
    }

    #[test]
    fn baggage_rules() {
        let table = [
            ("two members", "userId=alice,serverNode=DF%2028".to_owned(), true),
            (
                "properties",
                "key1=value1;property1;property2, key2 = value2, key3=v;p=w".to_owned(),
                true,
            ),
            ("an empty value", "a=".to_owned(), true),
            ("an equals sign in a value", "a=b=c".to_owned(), true),
            ("64 members", many(64), true),
            ("8192 bytes", format!("a={}", "x".repeat(8190)), true),
            ("nothing", String::new(), true),
            ("65 members", many(65), false),
            ("8193 bytes", format!("a={}", "x".repeat(8191)), false),
            ("no equals sign", "a".to_owned(), false),
            ("no key", "=a".to_owned(), false),
            ("a blank in a key", "a b=c".to_owned(), false),
            ("a blank in a value", "a=b c".to_owned(), false),
            ("a quotation mark", "a=\"b\"".to_owned(), false),
            ("a backslash", "a=\\".to_owned(), false),
            ("an empty property", "a=b;".to_owned(), false),
            ("a control character", "a=\x7f".to_owned(), false),
            ("a letter beyond ASCII", "a=\u{e4}".to_owned(), false),
        ];
        for (what, list, expected) in table {
            assert_eq!(baggage_is_valid(list.as_bytes()), expected, "{what}: {list:?}");
        }
    }
}
