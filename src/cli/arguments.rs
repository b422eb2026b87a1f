//! php-fpm's flags as our own commands take them: described, and for people.

use std::path::PathBuf;

use clap::Args;

use super::flags::{Flags, PhpFlags};

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  glasspool run                                      the newest php-fpm.conf below /etc/php
  glasspool run -y /etc/php/8.2/fpm/php-fpm.conf
  glasspool run -y site.conf -p /srv/site --config /srv/site/glasspool.toml
Exit status: 0 after a clean stop, 64 wrong arguments, 70 PHP did not start, 78 what the
configuration or the machine does not allow.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  glasspool check                                    the newest php-fpm.conf below /etc/php
  glasspool check -y /etc/php/8.2/fpm/php-fpm.conf
  glasspool check -y site.conf --config next.toml    with another glasspool.toml
Nothing is started.
Exit status: 0 it is well, 64 wrong arguments, 78 it is not (standard error says why).";

/// Flags as php-fpm has them.
#[derive(Debug, Default, Args)]
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
    /// Pid file, where the configuration names none
    #[arg(short = 'g', long, value_name = "FILE")]
    pid: Option<PathBuf>,
    /// php.ini, or the folder to look for it in
    #[arg(short = 'c', long, value_name = "PATH")]
    php_ini: Option<PathBuf>,
    /// Read no php.ini and no folder of further ones
    #[arg(short = 'n', long)]
    no_php_ini: bool,
    /// Define an INI entry; without a value it is 1
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    define: Vec<String>,
    /// Compile with information for debuggers and profilers
    #[arg(short = 'e', long)]
    profile_info: bool,
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

impl FpmArguments {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            called_as: std::env::args_os().next().unwrap_or_default(),
            php: PhpFlags {
                ini: self.php_ini.clone(),
                no_ini: self.no_php_ini,
                extended_info: self.profile_info,
                define: self.define.clone(),
            },
            fpm_config: self.fpm_config.clone(),
            overlay: self.config.clone(),
            prefix: self.prefix.clone(),
            pid: self.pid.clone(),
            tests: 0,
            allow_root: self.allow_to_run_as_root,
            daemonize: Some(false),
            force_stderr: self.force_stderr,
        }
    }
}
