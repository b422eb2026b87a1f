//! `[global]` as a whole.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::{blamed, or, priority};
use crate::config::LoadRequest;
use crate::config::directives::{RawGlobal, Slot, given};
use crate::config::effective::{
    DEFAULT_LOG_LIMIT, EmergencyRestart, Global, LogLevel, LogTarget, Notice, Syslog,
};
use crate::config::error::{ConfigError, Fault, Shown};
use crate::config::overlay::LogForm;

/// Shortest limit of a log line that php-fpm takes, in bytes.
const MIN_LOG_LIMIT: usize = 512;
/// php-fpm's `systemd_interval`.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn check(
    raw: &RawGlobal,
    request: &LoadRequest<'_>,
    state: &Path,
    notices: &mut Vec<Notice>,
) -> Result<Global, ConfigError> {
    let pid = given(&raw.pid).map(|pid| Path::new(&pid.value));
    let pid = pid.or(request.pid.as_deref()).map(|pid| state.join(pid));
    let log_limit = log_limit(&raw.log_limit)?;
    let process_max = u32::try_from(or(&raw.process_max, 0))
        .map_err(|_negative| refused(&raw.process_max, "process.max", Fault::ProcessMax))?;
    let nice =
        priority(&raw.priority).map_err(|()| refused(&raw.priority, "process.priority", Fault::Priority))?;
    mechanism(&raw.events_mechanism, notices)?;
    Ok(Global {
        error_log: Some(error_log(&raw.error_log, state)),
        pid,
        log_level: or(&raw.log_level, LogLevel::default()),
        log_limit,
        // `glasspool.toml` says it.
        error_form: LogForm::default(),
        log_buffering: or(&raw.log_buffering, true),
        syslog: syslog(raw),
        emergency_restart: emergency_restart(raw),
        process_control_timeout: positive(&raw.process_control_timeout),
        process_max: NonZeroU32::new(process_max),
        priority: nice,
        daemonize: request.daemonize.unwrap_or(or(&raw.daemonize, true)),
        rlimit_files: files(&raw.rlimit_files),
        rlimit_core: core(&raw.rlimit_core),
        systemd_interval: Some(or(&raw.systemd_interval, NOTIFY_INTERVAL)).filter(|time| !time.is_zero()),
    })
}

/// A time above zero; zero is php-fpm's way to say "never".
pub(super) fn positive(slot: &Slot<Duration>) -> Option<Duration> {
    Some(or(slot, Duration::ZERO)).filter(|time| !time.is_zero())
}

/// RLIMIT_NOFILE; 0 leaves it as it is.
pub(super) fn files(slot: &Slot<i32>) -> Option<u64> {
    u64::try_from(or(slot, 0)).ok().filter(|limit| *limit != 0)
}

/// RLIMIT_CORE; 0 leaves it as it is.
pub(super) fn core(slot: &Slot<u64>) -> Option<u64> {
    Some(or(slot, 0)).filter(|limit| *limit != 0)
}

fn error_log(slot: &Slot<String>, state: &Path) -> LogTarget {
    match given(slot).map(|log| log.value.as_str()) {
        Some(log) if log.eq_ignore_ascii_case("syslog") => LogTarget::Syslog,
        log => LogTarget::File(state.join(log.unwrap_or("log/php-fpm.log"))),
    }
}

fn log_limit(slot: &Slot<i32>) -> Result<usize, ConfigError> {
    let Some(limit) = slot else {
        return Ok(DEFAULT_LOG_LIMIT);
    };
    let allowed = usize::try_from(limit.value)
        .ok()
        .filter(|limit| *limit >= MIN_LOG_LIMIT);
    allowed.ok_or_else(|| {
        let fault = Fault::LogLimit { limit: MIN_LOG_LIMIT };
        refused(slot, "log_limit", fault)
    })
}

fn syslog(raw: &RawGlobal) -> Syslog {
    let default = Syslog::default();
    Syslog {
        ident: raw
            .syslog_ident
            .as_ref()
            .map_or(default.ident, |ident| ident.value.clone()),
        facility: or(&raw.syslog_facility, default.facility),
    }
}

/// Off unless both are above zero; php-fpm takes a negative threshold, which nothing ever reaches.
fn emergency_restart(raw: &RawGlobal) -> Option<EmergencyRestart> {
    let threshold = u32::try_from(or(&raw.emergency_threshold, 0)).ok();
    Some(EmergencyRestart {
        threshold: threshold.and_then(NonZeroU32::new)?,
        interval: positive(&raw.emergency_interval)?,
    })
}

fn mechanism(slot: &Slot<String>, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    let Some(mechanism) = slot else {
        return Ok(());
    };
    let name = mechanism.value.to_ascii_lowercase();
    match name.as_str() {
        "epoll" | "auto" => Ok(()),
        "poll" | "select" => {
            notices.push(Notice {
                level: LogLevel::Notice,
                place: Some(mechanism.place.clone()),
                text: format!(
                    "[{}] 'events.mechanism = {name}' is taken for epoll",
                    mechanism.place
                ),
            });
            Ok(())
        }
        _ => {
            let name = Shown::from(mechanism.value.as_str());
            Err(refused(slot, "events.mechanism", Fault::EventMechanism { name }))
        }
    }
}

/// Blames a line that is there.
fn refused<T: std::fmt::Display>(slot: &Slot<T>, directive: &str, fault: Fault) -> ConfigError {
    match slot {
        Some(placed) => blamed(&placed.place, directive, slot, fault),
        None => ConfigError::without_place(fault),
    }
}
