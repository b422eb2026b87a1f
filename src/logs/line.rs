//! What a line of the error log looks like.

use std::io::{self, Write};
use std::panic::Location;
use std::path::Path;

use jiff::Zoned;

use crate::config::LogLevel;

/// Which of the two forms a log has: a file's lines say the time, syslog adds its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    File,
    Syslog,
}

/// What stands in front of the message. `place` is given when the log is at debug level,
/// which adds microseconds and the place in the source, as php-fpm does.
pub(super) fn head(form: Form, now: &Zoned, level: LogLevel, place: Option<&Location<'_>>) -> Vec<u8> {
    let mut head = Vec::with_capacity(96);
    let mut write = || -> io::Result<()> {
        match (form, place) {
            (Form::File, None) => write!(head, "[{}] {}: ", now.strftime("%d-%b-%Y %H:%M:%S"), name(level)),
            (Form::File, Some(place)) => {
                let time = now.strftime("%d-%b-%Y %H:%M:%S%.6f");
                write!(head, "[{time}] {}: pid {}, ", name(level), std::process::id())?;
                write_place(&mut head, place)
            }
            (Form::Syslog, place) => {
                write!(head, "[{}] ", name(level))?;
                place.map_or(Ok(()), |place| write_place(&mut head, place))
            }
        }
    };
    write().expect("writing to a vector does not fail");
    head
}

fn write_place(head: &mut Vec<u8>, place: &Location<'_>) -> io::Result<()> {
    let stem = Path::new(place.file()).file_stem().unwrap_or_default();
    write!(head, "{}(), line {}: ", stem.to_string_lossy(), place.line())
}

/// Head and message as one line with its newline. What is longer than `limit` (without
/// the newline) is cut there and ends in dots.
pub(super) fn line(mut head: Vec<u8>, message: &[u8], limit: Option<usize>) -> Vec<u8> {
    let one_line = message.iter().map(|byte| match byte {
        b'\n' => b' ',
        other => *other,
    });
    head.extend(one_line);
    if let Some(limit) = limit.filter(|limit| head.len() > *limit) {
        head.truncate(limit.saturating_sub(3));
        head.extend(b"...");
    }
    head.push(b'\n');
    head
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "DEBUG",
        LogLevel::Notice => "NOTICE",
        LogLevel::Warning => "WARNING",
        LogLevel::Error => "ERROR",
        LogLevel::Alert => "ALERT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Zoned {
        "2026-03-01T04:05:06.000789+01:00[+01:00]"
            .parse()
            .expect("a time")
    }

    fn written(form: Form, place: Option<&Location<'_>>, message: &[u8], limit: Option<usize>) -> String {
        let head = head(form, &moment(), LogLevel::Warning, place);
        String::from_utf8(line(head, message, limit)).expect("text")
    }

    #[test]
    fn lines_are_php_fpms() {
        let place = Location::caller();
        let (pid, line) = (std::process::id(), place.line());
        for (form, place, expected) in [
            (
                Form::File,
                None,
                "[01-Mar-2026 04:05:06] WARNING: ready\n".to_owned(),
            ),
            (
                Form::File,
                Some(place),
                format!("[01-Mar-2026 04:05:06.000789] WARNING: pid {pid}, line(), line {line}: ready\n"),
            ),
            (Form::Syslog, None, "[WARNING] ready\n".to_owned()),
            (
                Form::Syslog,
                Some(place),
                format!("[WARNING] line(), line {line}: ready\n"),
            ),
        ] {
            assert_eq!(written(form, place, b"ready", Some(1024)), expected);
        }
    }

    #[test]
    fn a_message_stays_one_line_of_bounded_length() {
        assert!(written(Form::File, None, b"a\nb", None).ends_with("WARNING: a b\n"));
        let long = written(Form::File, None, &[b'x'; 5000], Some(512));
        assert_eq!(long.len(), 512 + 1);
        assert!(long.ends_with("xxx...\n"));
        assert!(written(Form::File, None, &[b'x'; 5000], None).len() > 5000);
    }
}
