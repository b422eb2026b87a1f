//! Texts of unknown origin, made fit for each format. What other requests hold (URI,
//! user, method) comes from clients, so any byte may occur.

use std::fmt::Write;

/// Stands for what a format cannot express.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// As content of an HTML or XML element. Characters that XML 1.0 (section 2.2) does
/// not allow, and bytes that are not UTF-8, become U+FFFD. php-fpm leaves the former
/// in, and drops a whole text for one of the latter.
pub(crate) fn markup(out: &mut String, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\t' | '\n' | '\r' => out.push(character),
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push(REPLACEMENT),
                _ => out.push(character),
            }
        }
        if !chunk.invalid().is_empty() {
            out.push(REPLACEMENT);
        }
    }
}

/// As a JSON string without its quotes, in the form PHP's json_encode() gives it:
/// ASCII only, slashes escaped, bytes that are not UTF-8 left out.
pub(crate) fn json(out: &mut String, text: &[u8]) {
    for character in text.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        match character {
            '"' | '\\' | '/' => out.extend(['\\', character]),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            ' '..='\x7f' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a String takes everything");
                }
            }
        }
    }
}

/// As part of a line: control characters, which could begin another line, and bytes
/// that are not UTF-8 are shown as `\xHH`.
pub(crate) fn line(out: &mut String, text: &[u8]) {
    let hex = |out: &mut String, byte: u8| {
        write!(out, "\\x{byte:02x}").expect("a String takes everything");
    };
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    hex(out, byte);
                }
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            hex(out, *byte);
        }
    }
}

/// As part of a HELP line of OpenMetrics 1.0: backslash, quote and line feed have
/// escapes of their own.
pub(crate) fn help(out: &mut String, text: &[u8]) {
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(escape: fn(&mut String, &[u8]), text: &[u8]) -> String {
        let mut out = String::new();
        escape(&mut out, text);
        out
    }

    #[test]
    fn as_php_fpm_where_it_is_well_formed() {
        let text = "/slow/<i>\"&'/\\ é€😀\u{2028}\x7f".as_bytes();
        assert_eq!(
            with(markup, text),
            "/slow/&lt;i&gt;&quot;&amp;'/\\ é€😀\u{2028}\x7f"
        );
        assert_eq!(
            with(json, text),
            "\\/slow\\/<i>\\\"&'\\/\\\\ \\u00e9\\u20ac\\ud83d\\ude00\\u2028\x7f"
        );
        assert_eq!(with(json, b"x\x01\x02\n\ty"), "x\\u0001\\u0002\\n\\ty");
    }

    #[test]
    fn what_a_format_cannot_say() {
        let text = b"a\0\xff\xc3x\x1b\nb";
        assert_eq!(with(markup, text), "a\u{fffd}\u{fffd}\u{fffd}x\u{fffd}\nb");
        assert_eq!(with(json, text), "a\\u0000x\\u001b\\nb");
        assert_eq!(with(line, text), "a\\x00\\xff\\xc3x\\x1b\\x0ab");
        assert_eq!(with(line, "\u{85}".as_bytes()), "\\xc2\\x85");
        assert_eq!(with(help, b"a\\\"\nb\xff"), "a\\\\\\\"\\nb\u{fffd}");
    }
}
