//! Limits and priority of the supervisor's own process, which everything it starts
//! inherits.

use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t, setrlimit};

use crate::config::Global;
use crate::logs::{Errno, ErrorLog};

/// `rlimit_files` and `rlimit_core`.
///
/// # Errors
/// The line to log when the system refuses one.
pub(super) fn set_limits(global: &Global) -> Result<(), String> {
    let files = (Resource::RLIMIT_NOFILE, "rlimit_files", "RLIMIT_NOFILE");
    let core = (Resource::RLIMIT_CORE, "rlimit_core", "RLIMIT_CORE");
    for ((resource, directive, name), value) in [(files, global.rlimit_files), (core, global.rlimit_core)] {
        let Some(value) = value else { continue };
        let limit: rlim_t = if value == u64::MAX { RLIM_INFINITY } else { value };
        setrlimit(resource, limit, limit).map_err(|e| {
            // No limit is -1 to php-fpm. Its message speaks of a pool here, too.
            let shown = if value == u64::MAX { "-1".to_owned() } else { value.to_string() };
            format!(
                "failed to set {directive} for this pool. Please check your system limits or decrease {directive}. \
                 setrlimit({name}, {shown}): {}",
                Errno(&io::Error::from(e))
            )
        })?;
    }
    Ok(())
}

/// `process.priority`; without root it is not to be had, and that is said.
///
/// # Errors
/// The line to log when the system refuses it.
pub(super) fn set_priority(global: &Global, log: &ErrorLog) -> Result<(), String> {
    let Some(priority) = global.priority else {
        return Ok(());
    };
    if !nix::unistd::geteuid().is_root() {
        log.notice("'process.priority' directive is ignored when FPM is not running as root");
        return Ok(());
    }
    rustix::process::setpriority_process(None, priority).map_err(|e| {
        let reason = io::Error::from(e);
        format!(
            "Unable to set priority for the master process: {}",
            Errno(&reason)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_cannot_be_had_is_told_in_php_fpms_words() {
        // The kernel lets nobody open more files than fs.nr_open.
        let global = Global {
            rlimit_files: Some(u64::MAX - 1),
            ..Global::default()
        };
        let line = set_limits(&global).expect_err("too many");
        let expected = "failed to set rlimit_files for this pool. Please check your system limits or decrease \
                        rlimit_files. setrlimit(RLIMIT_NOFILE, 18446744073709551614): Operation not permitted (1)";
        assert_eq!(line, expected);
        assert_eq!(set_limits(&Global::default()), Ok(()));
    }
}
