//! Text to typed value, for the types that php-fpm's directives have.

use std::time::Duration;

use super::effective::{LogLevel, Mode};
use super::error::BadValue;

/// The process managers php-fpm has; which of them work is decided by the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessManager {
    Static,
    Dynamic,
    OnDemand,
}

/// An optional `-` and digits; nothing at all is 0.
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

/// Digits with an optional unit; seconds without one. php-fpm counts `ab3` as 0, here it is refused.
pub(super) fn time(text: &str) -> Result<Duration, BadValue> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let seconds: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ if digits.is_empty() => return Err(BadValue::Time),
        _ => return Err(BadValue::TimeSuffix),
    };
    // php-fpm's times are 32 bit numbers of seconds.
    let count = digits.parse::<u32>().map_err(|_no_number| BadValue::Time)?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
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

pub(super) fn process_manager(text: &str) -> Result<ProcessManager, BadValue> {
    match text.to_ascii_lowercase().as_str() {
        "static" => Ok(ProcessManager::Static),
        "dynamic" => Ok(ProcessManager::Dynamic),
        "ondemand" => Ok(ProcessManager::OnDemand),
        _ => Err(BadValue::ProcessManager),
    }
}

/// Octal digits. php-fpm takes what strtoul makes of the text (`rw` is 0); here it is refused.
pub(super) fn mode(text: &str) -> Result<Mode, BadValue> {
    let octal = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let bits = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    bits.filter(|bits| *bits <= 0o777).map(Mode).ok_or(BadValue::Mode)
}
