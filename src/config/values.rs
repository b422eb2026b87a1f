//! Text to typed value, for the types that php-fpm's directives have.

use std::time::Duration;

use super::effective::{LogLevel, Mode};
use super::error::BadValue;

/// `pm`, before the numbers that belong to it are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManagerName {
    Static,
    Dynamic,
    OnDemand,
}

/// An optional `-` and digits; nothing at all is 0.
///
/// Refused though php-fpm takes it: `-` alone (0 there) and what 32 bits cannot hold (wrapped there).
pub(super) fn integer(text: &str) -> Result<i32, BadValue> {
    if text.is_empty() {
        return Ok(0);
    }
    // `parse` would also take a leading `+`, php-fpm does not.
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(BadValue::Integer)
}

/// An [`integer`] that is not negative.
pub(super) fn count(text: &str) -> Result<i32, BadValue> {
    let value = integer(text).map_err(|_no_number| BadValue::Count)?;
    if value < 0 {
        Err(BadValue::Count)
    } else {
        Ok(value)
    }
}

/// A time, and whether it was written as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) value: Duration,
    /// Digits and a unit and nothing else. php-fpm only looks at the last character for the unit and makes of the
    /// rest what atoi(3) makes of it: `ab3` is 0 seconds, `3 s` is 3.
    pub(super) plain: bool,
}

/// Seconds, or a number with `s`, `m`, `h` or `d`.
///
/// Refused though php-fpm takes it: negative times, which end every request at once there, and what its 32 bit
/// number of seconds cannot hold.
pub(super) fn time(text: &str) -> Result<Time, BadValue> {
    let (head, seconds) = match text.as_bytes().last() {
        None => return Err(BadValue::Time),
        Some(b'0'..=b'9') => (text, 1),
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 60 * 60),
        Some(b'd') => (&text[..text.len() - 1], 24 * 60 * 60),
        Some(_) => return Err(BadValue::TimeSuffix),
    };
    let number = head.trim_start();
    if number.starts_with('-') {
        return Err(BadValue::Time);
    }
    let number = number.strip_prefix('+').unwrap_or(number);
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let digits = &number[..end];
    let count: u64 = match digits {
        "" => 0,
        digits => digits.parse().map_err(|_too_large| BadValue::Time)?,
    };
    let value = count
        .checked_mul(seconds)
        .filter(|all| i32::try_from(*all).is_ok());
    Ok(Time {
        value: Duration::from_secs(value.ok_or(BadValue::Time)?),
        plain: !digits.is_empty() && digits == head,
    })
}

/// Lower case only: unquoted words in any case have become `1` and nothing before they come here.
pub(super) fn boolean(text: &str) -> Result<bool, BadValue> {
    match text {
        "1" | "yes" | "true" | "on" => Ok(true),
        "" | "0" | "no" | "none" | "false" | "off" => Ok(false),
        _ => Err(BadValue::Boolean),
    }
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, BadValue> {
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(LogLevel::Debug),
        "notice" => Ok(LogLevel::Notice),
        "warning" | "warn" => Ok(LogLevel::Warning),
        "error" => Ok(LogLevel::Error),
        "alert" => Ok(LogLevel::Alert),
        _ => Err(BadValue::LogLevel),
    }
}

/// The facility's number, see syslog(3).
pub(super) fn facility(text: &str) -> Result<u8, BadValue> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    const LOCAL: [&str; 8] = [
        "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ];
    let known = (0..).zip(NAMES).chain((16..).zip(LOCAL));
    let mut found = known.filter(|(_, name)| name.eq_ignore_ascii_case(text));
    found.next().map(|(number, _)| number).ok_or(BadValue::Facility)
}

/// Bytes; `u64::MAX` is without limit.
pub(super) fn core_limit(text: &str) -> Result<u64, BadValue> {
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(u64::MAX);
    }
    let bytes = integer(text).map_err(|_no_number| BadValue::CoreNumber)?;
    u64::try_from(bytes).map_err(|_negative| BadValue::CoreLimit)
}

pub(super) fn manager(text: &str) -> Result<ManagerName, BadValue> {
    match text.to_ascii_lowercase().as_str() {
        "static" => Ok(ManagerName::Static),
        "dynamic" => Ok(ManagerName::Dynamic),
        "ondemand" => Ok(ManagerName::OnDemand),
        _ => Err(BadValue::ProcessManager),
    }
}

/// Octal digits; nothing at all is the default. php-fpm takes what strtoul(3) makes of the text: `rw` is 0, a socket
/// that nobody may use. Here it is refused.
pub(super) fn mode(text: &str) -> Result<Mode, BadValue> {
    if text.is_empty() {
        return Ok(Mode::default());
    }
    let octal = text.len() <= 8 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let bits = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    bits.filter(|bits| *bits <= 0o777).map(Mode).ok_or(BadValue::Mode)
}
