//! What the worker itself has to say: lines on its standard error in the form of
//! php-fpm's workers, and their copies to the client as FCGI_STDERR.
//!
//! Standard error leads to the supervisor (`catch_workers_output`) or to the null
//! device, so a line is one write(2) that never waits for long. The level decides about
//! standard error only: the client gets every line, as from php-fpm.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;

use glasspool_abi::control::Severity;

use super::exchange;

/// php-fpm builds lines of its own, unlike those of PHP, in a buffer of this size.
const OWN_LINE_BYTES: usize = 2048;
/// The supervisor takes this out of standard error again and knows that the output of
/// a request ends there.
const END_OF_REQUEST: &[u8] = b"\0fscf\0";

/// How lines look; the same for the life of a worker.
#[derive(Debug, Clone, Copy)]
struct Style {
    least: Severity,
    /// Longest line with its newline, bytes.
    limit: usize,
}

thread_local! {
    static STYLE: Cell<Style> = const { Cell::new(Style { least: Severity::Notice, limit: 1024 }) };
}

/// Where in the program a line comes from, which `log_level = debug` shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) function: &'a str,
    pub(crate) line: u32,
}

/// The place of this call in the function of that name.
macro_rules! here {
    ($function:literal) => {
        $crate::worker::log::Place {
            function: $function,
            line: line!(),
        }
    };
}
pub(crate) use here;

/// Sets how lines look: `log_level` and `log_limit`.
pub(crate) fn configure(least: Severity, limit: u32) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    STYLE.set(Style { least, limit });
}

/// A line about the worker.
pub(crate) fn say(severity: Severity, place: Place<'_>, message: &[u8]) {
    let style = STYLE.get();
    write_line(
        style,
        severity,
        place,
        &fit(style, OWN_LINE_BYTES, severity, place, message),
    );
}

/// A line about the request under way; the client gets it too if `to_client`.
pub(crate) fn say_of_request(severity: Severity, place: Place<'_>, message: &[u8], to_client: bool) {
    spread(OWN_LINE_BYTES, severity, place, message, to_client);
}

/// A message that PHP routes to its SAPI's log.
pub(crate) fn say_for_php(place: Place<'_>, message: &[u8], to_client: bool) {
    let message = [b"PHP message: ", message].concat();
    spread(usize::MAX, Severity::Notice, place, &message, to_client);
}

/// Marks the end of a request's output on standard error.
pub(crate) fn mark_end_of_request() {
    // Nobody to tell if standard error is gone.
    let _gone = rustix::io::write(rustix::stdio::stderr(), END_OF_REQUEST);
}

fn spread(most: usize, severity: Severity, place: Place<'_>, message: &[u8], to_client: bool) {
    let style = STYLE.get();
    let message = fit(style, most, severity, place, message);
    write_line(style, severity, place, &message);
    if to_client {
        exchange::with(|x| x.log_to_client(&message));
    }
}

/// Cuts a message such that its line, newline included, is no longer than allowed.
fn fit<'a>(
    style: Style,
    most: usize,
    severity: Severity,
    place: Place<'_>,
    message: &'a [u8],
) -> Cow<'a, [u8]> {
    let prefix = prefix(style, severity, place).len();
    let room = style.limit.min(most).saturating_sub(prefix + 1);
    if message.len() <= room {
        return Cow::Borrowed(message);
    }
    let kept = &message[..room.saturating_sub(3)];
    Cow::Owned([kept, b"..."].concat())
}

fn write_line(style: Style, severity: Severity, place: Place<'_>, message: &[u8]) {
    if severity < style.least {
        return;
    }
    let line = [prefix(style, severity, place).as_bytes(), message, b"\n"].concat();
    // Nobody to tell if standard error is gone.
    let _gone = std::io::stderr().write_all(&line);
}

fn prefix(style: Style, severity: Severity, place: Place<'_>) -> Cow<'static, str> {
    let word = match severity {
        Severity::Debug => "DEBUG: ",
        Severity::Notice => "NOTICE: ",
        Severity::Warning => "WARNING: ",
        Severity::Error => "ERROR: ",
        Severity::Alert => "ALERT: ",
    };
    if style.least == Severity::Debug {
        Cow::Owned(format!("{word}{}(), line {}: ", place.function, place.line))
    } else {
        Cow::Borrowed(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Place<'_> = Place {
        function: "f",
        line: 7,
    };

    fn fitted(limit: usize, most: usize, message: &[u8]) -> Vec<u8> {
        let style = Style {
            least: Severity::Notice,
            limit,
        };
        fit(style, most, Severity::Notice, NOWHERE, message).into_owned()
    }

    #[test]
    fn a_line_with_its_newline_keeps_the_limit() {
        let room = 1024 - "NOTICE: ".len() - 1;
        let exact = vec![b'x'; room];
        assert_eq!(fitted(1024, usize::MAX, &exact), exact);
        let cut = fitted(1024, usize::MAX, &vec![b'x'; room + 1]);
        assert_eq!(cut.len(), room);
        assert!(cut.ends_with(b"x..."));
        assert_eq!(
            fitted(9000, OWN_LINE_BYTES, &[b'x'; 5000]).len(),
            OWN_LINE_BYTES - 9
        );
    }

    #[test]
    fn debug_shows_the_place() {
        let style = Style {
            least: Severity::Debug,
            limit: 1024,
        };
        assert_eq!(prefix(style, Severity::Notice, NOWHERE), "NOTICE: f(), line 7: ");
    }
}
