//! `-t` and `-tt`: everything that can be known to be wrong without starting.
//!
//! As in php-fpm, log files are opened, and so created, and sockets are left alone.

use std::path::Path;
use std::process::ExitCode;

use super::CONFIG;
use super::flags::Flags;
use super::load::{check_accounts, fpm_conf, load, open_log, say_failure, say_lines, standing};
use crate::config::{LogLevel, Settings};
use crate::logs::{self, Errno, ErrorLog};

pub(super) fn test(flags: &Flags) -> ExitCode {
    let settings = match load(flags) {
        Ok(settings) => settings,
        Err(failure) => {
            say_failure(flags, &failure);
            return ExitCode::from(CONFIG);
        }
    };
    let log = match open_log(&settings.global, standing(flags, settings.global.daemonize)) {
        Ok(log) => log,
        Err(lines) => {
            say_lines(&ErrorLog::stderr(settings.global.log_level), &lines);
            return ExitCode::from(CONFIG);
        }
    };
    for notice in &settings.notices {
        log.at(notice.level, &notice.text);
    }
    let fit = open_pool_logs(&settings).and_then(|()| check_accounts(flags, &settings));
    if let Err(lines) = fit {
        say_lines(&log, &lines);
        return ExitCode::from(CONFIG);
    }
    if flags.tests > 1 {
        // Uncut: a dump that leaves out the end of a long value is of no use.
        for line in settings.dump() {
            log.whole(LogLevel::Notice, line);
        }
    }
    let path = fpm_conf(flags);
    log.notice(format_args!(
        "configuration file {} test is successful",
        path.display()
    ));
    // php-fpm 8.2 has this newline in its message.
    if log.takes(LogLevel::Notice) {
        log.raw(b"\n");
    }
    ExitCode::SUCCESS
}

/// Opens the pools' access logs and slow logs, as a start would, and closes them again.
///
/// # Errors
/// The lines to end with.
pub(super) fn open_pool_logs(settings: &Settings) -> Result<(), Vec<(LogLevel, String)>> {
    let open = |path: &Path, what: String| {
        logs::open_log(path).map(drop).map_err(|e| {
            let lines = [
                format!("{what}: {}", Errno(&e)),
                "failed to post process the configuration".to_owned(),
                "FPM initialization failed".to_owned(),
            ];
            lines.map(|line| (LogLevel::Error, line)).to_vec()
        })
    };
    for pool in &settings.pools {
        if let Some(path) = &pool.slowlog {
            let (name, shown) = (&pool.name, path.display());
            open(
                path,
                format!("[pool {name}] Unable to create or open slowlog({shown})"),
            )?;
        }
    }
    for pool in &settings.pools {
        if let Some(path) = &pool.access_log {
            open(path, format!("failed to open access log ({})", path.display()))?;
        }
    }
    Ok(())
}
