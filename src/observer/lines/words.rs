//! What a line says of itself: how much it matters, what of it is its message, and whether
//! more lines belong to it. Pure.
//!
//! The words are those of PHP (`main/main.c`, `php_error_cb`: `PHP Warning:  … in FILE on
//! line N`) and of php-fpm's workers (`NOTICE: PHP message: …`, which ours speak too).

use glasspool_abi::control::OutputStream;
use glasspool_otel::line::Weight;

/// What a worker puts before what it says itself.
const HEADS: [(&str, Weight); 5] = [
    ("DEBUG: ", Weight::Debug),
    ("NOTICE: ", Weight::Info),
    ("WARNING: ", Weight::Warn),
    ("ERROR: ", Weight::Error),
    ("ALERT: ", Weight::Error),
];
/// What it puts before what PHP says.
const PHP: &str = "PHP message: ";
/// Levels as PHP words them.
const LEVELS: [(&str, Weight); 9] = [
    ("PHP Fatal error: ", Weight::Error),
    ("PHP Parse error: ", Weight::Error),
    ("PHP Recoverable fatal error: ", Weight::Error),
    ("PHP Warning: ", Weight::Warn),
    ("PHP Notice: ", Weight::Info),
    ("PHP Deprecated: ", Weight::Info),
    ("PHP Strict Standards: ", Weight::Info),
    ("PHP Unknown error: ", Weight::Info),
    ("PHP Startup: ", Weight::Warn),
];
/// Longest text of a place between a head and a message, which `log_level = debug` adds.
const PLACE_BYTES: usize = 100;

/// A line, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words<'a> {
    /// Without what stands before the message.
    pub(super) message: &'a str,
    pub(super) weight: Weight,
    /// Whether lines after it may belong to it.
    pub(super) follow: Follow,
}

/// Which of the next lines belong to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    None,
    /// Those of a stack trace.
    Trace,
    /// All until one ends the message.
    All,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str, stream: OutputStream) -> Words<'a> {
        let said = match stream {
            OutputStream::Stderr => head(line),
            OutputStream::Stdout => None,
        };
        let rest = said.map_or(line, |(rest, _)| rest);
        let php = rest.strip_prefix(PHP);
        let message = php.unwrap_or(rest);
        let stamped = after_stamp(message).unwrap_or(message);
        let level = LEVELS.iter().find(|(word, _)| stamped.starts_with(word));
        let message = if level.is_some() { stamped } else { message };
        let weight = match (level, said, stream) {
            (Some((_, weight)), _, _) | (None, Some((_, weight)), _) => *weight,
            (None, None, OutputStream::Stdout) => Weight::Info,
            (None, None, OutputStream::Stderr) => Weight::Warn,
        };
        let follow = match (level, php) {
            (Some(_), _) if !ends_message(message) => Follow::All,
            (Some(_), _) | (None, Some(_)) => Follow::Trace,
            (None, None) => Follow::None,
        };
        Words {
            message,
            weight,
            follow,
        }
    }
}

/// What is left after what a worker put before it, and what that means.
fn head(line: &str) -> Option<(&str, &Weight)> {
    let (rest, weight) = HEADS
        .iter()
        .find_map(|(word, weight)| Some((line.strip_prefix(word)?, weight)))?;
    // `php_log(), line 237: ` at debug level.
    let place = rest.split_once("(), line ").filter(|(function, _)| {
        function.len() <= PLACE_BYTES && function.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    let after = place.and_then(|(_, rest)| {
        let (number, rest) = rest.split_once(": ")?;
        number.bytes().all(|b| b.is_ascii_digit()).then_some(rest)
    });
    Some((after.unwrap_or(rest), weight))
}

/// `[22-Nov-2026 19:00:00 UTC] `, which PHP writes into a log of its own.
fn after_stamp(message: &str) -> Option<&str> {
    let (stamp, rest) = message.strip_prefix('[')?.split_once("] ")?;
    let bytes = stamp.as_bytes();
    (stamp.len() <= 64 && bytes.first()?.is_ascii_digit() && *bytes.get(2)? == b'-').then_some(rest)
}

/// Whether a line is the last of a message of PHP's own, which names the place at its end;
/// or was cut, as ours are.
pub(super) fn ends_message(line: &str) -> bool {
    let place = line.rsplit_once(" on line ");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    place.is_some_and(|(_, number)| is_number(number)) || line.ends_with("...")
}

/// Whether a line looks like one of a stack trace: PHP's own, or that of Xdebug.
pub(super) fn is_of_trace(line: &str) -> bool {
    let starts_with_number = |text: &str| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
    line.starts_with("Stack trace:")
        || line.starts_with("PHP Stack trace:")
        || line.strip_prefix('#').is_some_and(starts_with_number)
        || line
            .strip_prefix("PHP ")
            .is_some_and(|rest| starts_with_number(rest.trim_start()))
        || line.starts_with("  thrown in ")
        || line.starts_with("Next ")
}

/// Whether a line begins something of its own, whatever was before it.
pub(super) fn begins(line: &str) -> bool {
    head(line).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> (&str, Weight, Follow) {
        let words = Words::of(line, OutputStream::Stderr);
        (words.message, words.weight, words.follow)
    }

    #[test]
    fn the_words_of_php_say_how_much_a_line_matters() {
        for (line, message, weight, follow) in [
            (
                "NOTICE: PHP message: PHP Warning:  no in /a.php on line 3",
                "PHP Warning:  no in /a.php on line 3",
                Weight::Warn,
                Follow::Trace,
            ),
            (
                "NOTICE: PHP message: PHP Fatal error:  Uncaught Exception: x in /a.php:3",
                "PHP Fatal error:  Uncaught Exception: x in /a.php:3",
                Weight::Error,
                Follow::All,
            ),
            (
                "NOTICE: php_log(), line 237: PHP message: PHP Deprecated:  old in /a.php on line 1",
                "PHP Deprecated:  old in /a.php on line 1",
                Weight::Info,
                Follow::Trace,
            ),
            (
                "[22-Nov-2026 19:00:00 UTC] PHP Parse error:  bad in /a.php on line 1",
                "PHP Parse error:  bad in /a.php on line 1",
                Weight::Error,
                Follow::Trace,
            ),
            (
                "NOTICE: PHP message: a word of mine",
                "a word of mine",
                Weight::Info,
                Follow::Trace,
            ),
            (
                "ERROR: Unable to open primary script",
                "Unable to open primary script",
                Weight::Error,
                Follow::None,
            ),
            (
                "what a script wrote",
                "what a script wrote",
                Weight::Warn,
                Follow::None,
            ),
            ("[x] y", "[x] y", Weight::Warn, Follow::None),
            ("", "", Weight::Warn, Follow::None),
        ] {
            assert_eq!(words(line), (message, weight, follow), "{line}");
        }
        let out = Words::of("NOTICE: out", OutputStream::Stdout);
        assert_eq!((out.message, out.weight), ("NOTICE: out", Weight::Info));
    }

    #[test]
    fn a_message_ends_with_its_place_or_where_it_was_cut() {
        for last in [
            "x in /a.php on line 12",
            "  thrown in /a.php on line 3",
            "cut he...",
        ] {
            assert!(ends_message(last), "{last}");
        }
        for more in [
            "Stack trace:",
            "#0 {main}",
            "in /a.php on line ",
            "on line 3 of it",
        ] {
            assert!(!ends_message(more), "{more}");
        }
        for line in [
            "Stack trace:",
            "#0 {main}",
            "PHP   1. {main}() /a.php:0",
            "  thrown in /a.php on line 3",
        ] {
            assert!(is_of_trace(line), "{line}");
        }
        assert!(!is_of_trace("# comment") && !is_of_trace("PHP is fun"));
    }
}
