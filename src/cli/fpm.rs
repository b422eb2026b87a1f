//! `glasspool`, `glasspool run`, `glasspool check`: pools from a php-fpm.conf.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::Failure;
use crate::config::{self, Environment, LoadRequest, Settings, SystemAccounts};
use crate::logs::ErrorLog;
use crate::supervisor::{self, EngineSource, Launch};

/// Flags as php-fpm has them.
#[derive(Debug, Args)]
pub struct FpmArguments {
    /// php-fpm.conf [default: PREFIX/etc/php-fpm.conf, else the newest /etc/php/*/fpm/php-fpm.conf]
    #[arg(short = 'y', long, value_name = "FILE")]
    fpm_config: Option<PathBuf>,
    /// glasspool.toml [default: beside php-fpm.conf, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where relative paths of the configuration start
    #[arg(short, long, value_name = "PREFIX")]
    prefix: Option<PathBuf>,
    /// php.ini, or the folder to look for it in
    #[arg(short = 'c', long, value_name = "PATH")]
    php_ini: Option<PathBuf>,
    /// Define an INI entry; without a value it is 1
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    define: Vec<String>,
    /// Allow pools to run as root
    #[arg(short = 'R', long)]
    allow_to_run_as_root: bool,
    /// Stay in the foreground, as always
    #[arg(short = 'F', long)]
    nodaemonize: bool,
    /// Log to standard error even when it is no terminal
    #[arg(short = 'O', long)]
    force_stderr: bool,
}

pub(super) fn run(arguments: &FpmArguments) -> Result<ExitCode, Failure> {
    let settings = load(arguments)?;
    let log = open_log(arguments, &settings)?;
    let mut launch = Launch::new(settings, log.clone());
    launch.allow_root = arguments.allow_to_run_as_root;
    launch.ini = arguments.php_ini.clone();
    launch.define = arguments.define.clone();
    match supervisor::run(launch) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Failure {
            code: e.exit_code(),
            error: e.into(),
            log,
        }),
    }
}

pub(super) fn check(arguments: &FpmArguments, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let settings = load(arguments)?;
    let path = fpm_conf(arguments);
    for notice in &settings.notices {
        say(&notice.text);
    }
    let launch = Launch::new(settings, ErrorLog::stderr(config::LogLevel::Notice));
    if let EngineSource::Php { binary } = &launch.engine {
        let host = supervisor::choose(binary.as_deref()).map_err(Failure::config)?;
        say(&format!(
            "PHP: {} ({}), hosting {}",
            host.binary.display(),
            host.build,
            host.object.display()
        ));
    }
    for pool in &launch.settings.pools {
        let slow = match pool.slow_after {
            Some(after) => format!("requests slower than {after:?} are explained"),
            None => "no request is looked into".to_owned(),
        };
        say(&format!(
            "[pool {}] {} workers on {}; {slow}",
            pool.name,
            pool.max_children,
            supervisor::listen_name(&pool.listen)
        ));
    }
    say(&format!(
        "configuration file {} test is successful",
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn load(arguments: &FpmArguments) -> Result<Settings, Failure> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let request = LoadRequest {
        fpm_conf: fpm_conf(arguments),
        overlay: arguments.config.clone(),
        prefix: arguments.prefix.clone(),
        environment: std::env::vars_os().filter_map(text).collect::<Environment>(),
        euid_root: nix::unistd::geteuid().is_root() && !arguments.allow_to_run_as_root,
        lookup: &SystemAccounts,
    };
    config::load(&request).map_err(Failure::config)
}

/// php-fpm's rule: the file when standard error is no terminal.
fn open_log(arguments: &FpmArguments, settings: &Settings) -> Result<ErrorLog, Failure> {
    let level = settings.global.log_level;
    match &settings.global.error_log {
        Some(path) if !arguments.force_stderr && !std::io::stderr().is_terminal() => {
            let opened = ErrorLog::file(path, level);
            opened
                .with_context(|| format!("failed to open error_log ({})", path.display()))
                .map_err(Failure::config)
        }
        Some(_) | None => Ok(ErrorLog::stderr(level)),
    }
}

fn fpm_conf(arguments: &FpmArguments) -> PathBuf {
    match (&arguments.fpm_config, &arguments.prefix) {
        (Some(file), _) => file.clone(),
        (None, Some(prefix)) => prefix.join("etc/php-fpm.conf"),
        (None, None) => newest_conf(Path::new("/etc/php")).unwrap_or_else(|| "/etc/php-fpm.conf".into()),
    }
}

/// `VERSION/fpm/php-fpm.conf` of the highest version, where Debian's packages put it.
fn newest_conf(folder: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(folder).ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let (major, minor) = name.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let conf = |(major, minor)| folder.join(format!("{major}.{minor}/fpm/php-fpm.conf"));
    let mut found: Vec<(u32, u32)> = versions.filter(|version| conf(*version).is_file()).collect();
    found.sort();
    found.pop().map(conf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_is_found_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(newest_conf(folder.path()), None);
        for version in ["8.2", "8.10", "7.4", "mods"] {
            std::fs::create_dir_all(folder.path().join(version).join("fpm")).expect("makes");
            std::fs::write(folder.path().join(version).join("fpm/php-fpm.conf"), "").expect("writes");
        }
        std::fs::create_dir_all(folder.path().join("9.0/cli")).expect("makes");
        assert_eq!(
            newest_conf(folder.path()),
            Some(folder.path().join("8.10/fpm/php-fpm.conf"))
        );
    }
}
