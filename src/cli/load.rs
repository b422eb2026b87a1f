//! From flags to a checked configuration and an error log: what every way of starting,
//! testing and asking shares.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::flags::Flags;
use crate::config::{
    self, Environment, Global, LoadFailure, LoadRequest, LogLevel, LogTarget, Settings, SystemAccounts,
};
use crate::logs::{Errno, ErrorLog, Standing};
use crate::supervisor;

/// Reads and checks the configuration that the flags name.
pub(super) fn load(flags: &Flags) -> Result<Settings, LoadFailure> {
    let request = request(flags);
    let mut settings = config::load(&request)?;
    let php = &mut settings.overlay.php;
    if php.binary.is_none() {
        php.binary = version_wanted(flags, &request.fpm_conf).and_then(php_of_version);
    }
    Ok(settings)
}

/// Whether the users and groups that the pools name exist.
///
/// # Errors
/// The lines to end with.
pub(super) fn check_accounts(flags: &Flags, settings: &Settings) -> Result<(), Vec<(LogLevel, String)>> {
    config::check_accounts(settings, &request(flags)).map_err(|failure| failure.lines())
}

fn request(flags: &Flags) -> LoadRequest<'static> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    LoadRequest {
        fpm_conf: fpm_conf(flags),
        overlay: flags.overlay.clone(),
        prefix: flags.prefix.clone(),
        pid: flags.pid.clone(),
        daemonize: flags.daemonize,
        environment: std::env::vars_os().filter_map(text).collect::<Environment>(),
        euid_root: nix::unistd::geteuid().is_root(),
        allow_root: flags.allow_root,
        lookup: &SystemAccounts,
    }
}

/// The PHP to ask about itself: the one that the configuration names, else the one of the
/// version that is meant.
pub(super) fn php_binary(flags: &Flags) -> Option<PathBuf> {
    let fpm_conf = fpm_conf(flags);
    let named = config::hosted_php(&fpm_conf).and_then(|php| php.binary);
    named.or_else(|| version_wanted(flags, &fpm_conf).and_then(php_of_version))
}

/// The configuration's file: the one named, else the one below the prefix, else the one
/// for the version that the program is called by, else the newest one. php.ini is not
/// asked for its `fpm.config`, because only PHP knows which php.ini that is.
pub(super) fn fpm_conf(flags: &Flags) -> PathBuf {
    let defined = flags.php.define.iter().rev().find_map(|entry| {
        let (name, file) = entry.split_once('=')?;
        (name.trim() == "fpm.config" && !file.trim().is_empty()).then(|| PathBuf::from(file.trim()))
    });
    match (flags.fpm_config.as_ref().or(defined.as_ref()), &flags.prefix) {
        (Some(file), _) => file.clone(),
        (None, Some(prefix)) => prefix.join("etc/php-fpm.conf"),
        (None, None) => {
            let called = version_called(&flags.called_as);
            debian_conf(Path::new("/etc/php"), called).unwrap_or_else(|| "/etc/php-fpm.conf".into())
        }
    }
}

/// The version that the program is called by, else the one in the configuration's path
/// where Debian's packages put it.
fn version_wanted(flags: &Flags, fpm_conf: &Path) -> Option<(u32, u32)> {
    let below = fpm_conf.strip_prefix("/etc/php").ok();
    let named = || version(below?.iter().next()?.to_str()?);
    version_called(&flags.called_as).or_else(named)
}

/// A PHP of that version that can host an engine, in php-fpm's place if that is a link to
/// this program: beside a diverted one (dpkg-divert(1)) before another kind.
fn php_of_version((major, minor): (u32, u32)) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .filter(|folder| folder.is_absolute())
        .collect();
    let names = [
        ("php-fpm", ""),
        ("php-fpm", ".distrib"),
        ("php-cgi", ""),
        ("php", ""),
    ];
    let files = names.iter().flat_map(|(kind, end)| {
        let name = format!("{kind}{major}.{minor}{end}");
        folders.iter().map(move |folder| folder.join(&name))
    });
    files
        .filter(|file| file.is_file())
        .find(|file| supervisor::choose(Some(file)).is_ok())
}

/// `8.2` of `php-fpm8.2`.
fn version_called(argv0: &OsStr) -> Option<(u32, u32)> {
    let name = Path::new(argv0).file_name()?.to_str()?;
    version(name.strip_prefix("php-fpm")?)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `VERSION/fpm/php-fpm.conf`, where Debian's packages put it.
fn debian_conf(folder: &Path, called: Option<(u32, u32)>) -> Option<PathBuf> {
    let conf = |(major, minor)| folder.join(format!("{major}.{minor}/fpm/php-fpm.conf"));
    if let Some(called) = called.map(conf).filter(|conf| conf.is_file()) {
        return Some(called);
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let versions = entries.filter_map(|entry| version(entry.ok()?.file_name().to_str()?));
    versions
        .filter(|version| conf(*version).is_file())
        .max()
        .map(conf)
}

/// Opens the error log that the configuration names, or says why not in php-fpm's words.
pub(super) fn open_log(global: &Global, standing: Standing) -> Result<ErrorLog, Vec<(LogLevel, String)>> {
    ErrorLog::open(global, standing).map_err(|e| {
        let path = match &global.error_log {
            Some(LogTarget::File(path)) => path.display().to_string(),
            Some(LogTarget::Syslog) | None => "syslog".to_owned(),
        };
        let lines = [
            format!("failed to open error_log ({path}): {}", Errno(&e)),
            "failed to post process the configuration".to_owned(),
            "FPM initialization failed".to_owned(),
        ];
        lines.map(|line| (LogLevel::Error, line)).to_vec()
    })
}

/// Where standard error stands, given what the configuration says of the background.
pub(super) fn standing(flags: &Flags, daemonize: bool) -> Standing {
    Standing {
        foreground: !flags.daemonize.unwrap_or(daemonize),
        force_stderr: flags.force_stderr,
    }
}

/// Says why there is no configuration: to standard error, and to the error log if the
/// mistake was found after the log was known.
pub(super) fn say_failure(flags: &Flags, failure: &LoadFailure) {
    let lines = failure.lines();
    let log = match &failure.global {
        Some(global) => open_log(global, standing(flags, global.daemonize)),
        None => Ok(ErrorLog::stderr(LogLevel::Notice)),
    };
    match log {
        Ok(log) => say_lines(&log, &lines),
        // Its own trouble comes first in php-fpm too.
        Err(trouble) => say_lines(&ErrorLog::stderr(LogLevel::Notice), &trouble),
    }
}

/// Lines as they are, uncut: what to do stands at their end.
pub(super) fn say_lines(log: &ErrorLog, lines: &[(LogLevel, String)]) {
    for (level, line) in lines {
        log.whole(*level, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_named_wins_then_the_version_called_then_the_highest_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = |called| debian_conf(folder.path(), called);
        let conf = |version: &str| Some(folder.path().join(version).join("fpm/php-fpm.conf"));
        assert_eq!(found(None), None);
        for version in ["8.2", "8.10", "7.4", "mods"] {
            std::fs::create_dir_all(folder.path().join(version).join("fpm")).expect("makes");
            std::fs::write(folder.path().join(version).join("fpm/php-fpm.conf"), "").expect("writes");
        }
        std::fs::create_dir_all(folder.path().join("9.0/cli")).expect("makes");
        assert_eq!(found(None), conf("8.10"));
        assert_eq!(
            found(version_called(OsStr::new("/usr/sbin/php-fpm8.2"))),
            conf("8.2")
        );
        assert_eq!(found(version_called(OsStr::new("php-fpm9.0"))), conf("8.10"));
        let mut flags = Flags {
            prefix: Some("/opt".into()),
            ..Flags::default()
        };
        assert_eq!(fpm_conf(&flags), Path::new("/opt/etc/php-fpm.conf"));
        flags.php.define = vec!["fpm.config = /a.conf".to_owned(), "fpm.config=".to_owned()];
        assert_eq!(fpm_conf(&flags), Path::new("/a.conf"));
        flags.fpm_config = Some("b.conf".into());
        assert_eq!(fpm_conf(&flags), Path::new("b.conf"));
        for other in ["php-fpm", "glasspool", "php-fpm8", ""] {
            assert_eq!(version_called(OsStr::new(other)), None, "{other}");
        }
    }
}
