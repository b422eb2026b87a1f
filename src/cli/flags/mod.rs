//! php-fpm's command line, by the rules of PHP's own getopt: pure, arguments in and what
//! is asked for out.
//!
//! Flags without a value may share a dash, and the last of them may take one (`-ntd x=1`).
//! A value may be attached (`-y/a.conf`, `-y=/a.conf`) or follow, whatever it looks like.
//! Long names are not abbreviated and ignore a value that they have no use for. `-h`,
//! `-m` and `-v` act when they are met, so nothing right of them counts, mistakes
//! included; `-i` waits for the other flags.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use glasspool_abi::control::About;

/// A command line made sense of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It makes none.
    Wrong,
    /// What the flags are.
    Help,
    /// Something about PHP.
    About(About, PhpFlags),
    /// To test the configuration, or to start.
    Fpm(Flags),
}

/// Flags about PHP itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PhpFlags {
    /// php.ini, or the folder to look for it in.
    pub(super) ini: Option<PathBuf>,
    /// Read no php.ini and no scan directory.
    pub(super) no_ini: bool,
    /// Compile with information for debuggers and profilers.
    pub(super) extended_info: bool,
    /// INI entries `name=value`; without a value it is 1.
    pub(super) define: Vec<String>,
}

/// All other flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// The program's own name in the call, which may say a version of PHP.
    pub(super) called_as: OsString,
    pub(super) php: PhpFlags,
    /// php-fpm.conf.
    pub(super) fpm_config: Option<PathBuf>,
    /// `glasspool.toml`; php-fpm has no such flag.
    pub(super) overlay: Option<PathBuf>,
    /// Where relative paths start.
    pub(super) prefix: Option<PathBuf>,
    /// Pid file, unless the configuration names one.
    pub(super) pid: Option<PathBuf>,
    /// How often the test of the configuration was asked for; from two on, with a dump.
    pub(super) tests: u32,
    pub(super) allow_root: bool,
    /// Whether to go into the background; `None` leaves it to the configuration.
    pub(super) daemonize: Option<bool>,
    /// Log to standard error although it is no terminal.
    pub(super) force_stderr: bool,
}

/// What a flag means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Ini,
    NoIni,
    Define,
    ExtendedInfo,
    Help,
    Info,
    Modules,
    Version,
    FpmConfig,
    Overlay,
    Prefix,
    Pid,
    Test,
    AllowRoot,
    Daemonize,
    Foreground,
    ForceStderr,
}

/// Short name, whether there is a value, long name, meaning.
const FLAGS: &[(Option<u8>, bool, &str, Flag)] = &[
    (Some(b'c'), true, "php-ini", Flag::Ini),
    (Some(b'n'), false, "no-php-ini", Flag::NoIni),
    (Some(b'd'), true, "define", Flag::Define),
    (Some(b'e'), false, "profile-info", Flag::ExtendedInfo),
    (Some(b'h'), false, "help", Flag::Help),
    (Some(b'?'), false, "usage", Flag::Help),
    (Some(b'i'), false, "info", Flag::Info),
    (Some(b'm'), false, "modules", Flag::Modules),
    (Some(b'v'), false, "version", Flag::Version),
    (Some(b'y'), true, "fpm-config", Flag::FpmConfig),
    (None, true, "config", Flag::Overlay),
    (Some(b'p'), true, "prefix", Flag::Prefix),
    (Some(b'g'), true, "pid", Flag::Pid),
    (Some(b't'), false, "test", Flag::Test),
    (Some(b'R'), false, "allow-to-run-as-root", Flag::AllowRoot),
    (Some(b'D'), false, "daemonize", Flag::Daemonize),
    (Some(b'F'), false, "nodaemonize", Flag::Foreground),
    (Some(b'O'), false, "force-stderr", Flag::ForceStderr),
];

/// Whether an argument is one of the flags above, so that whoever uses it means php-fpm.
/// Help and version in full are left to our own command line.
pub(super) fn is_php_fpms(argument: &OsStr) -> bool {
    match argument.as_bytes() {
        b"--help" | b"--version" | b"-h" | b"-?" => false,
        [b'-', b'-', long @ ..] => {
            let name = long.split(|byte| *byte == b'=').next().unwrap_or_default();
            FLAGS.iter().any(|flag| flag.2.as_bytes() == name)
        }
        [b'-', short, ..] => by_short(*short).is_some(),
        _ => false,
    }
}

/// Makes sense of the arguments, the program's name first.
pub(super) fn parse(argv: &[OsString]) -> Asked {
    let (called_as, arguments) = match argv {
        [called_as, arguments @ ..] => (called_as.clone(), arguments),
        [] => (OsString::new(), argv),
    };
    let mut flags = Flags {
        called_as,
        ..Flags::default()
    };
    let mut info = false;
    let mut rest = arguments.iter().map(|argument| argument.as_bytes());
    let mut extra = false;
    while let Some(argument) = rest.next() {
        let met = match argument {
            b"--" => {
                extra = rest.next().is_some();
                break;
            }
            [b'-', b'-', long @ ..] => long_flag(long, &mut rest).map(|met| vec![met]),
            [b'-', short @ ..] if !short.is_empty() => cluster(short, &mut rest),
            _ => {
                extra = true;
                break;
            }
        };
        // What comes first in a cluster acts before the mistake behind it is met.
        let (met, whole) = match met {
            Ok(met) => (met, true),
            Err(met) => (met, false),
        };
        for (flag, value) in met {
            match flag {
                Flag::Help => return Asked::Help,
                Flag::Modules => return Asked::About(About::Modules, flags.php),
                Flag::Version => return Asked::About(About::Version, flags.php),
                Flag::Info => info = true,
                other => {
                    if !flags.set(other, value.unwrap_or_default()) {
                        return Asked::Wrong;
                    }
                }
            }
        }
        if !whole {
            return Asked::Wrong;
        }
    }
    match (info, extra) {
        (true, _) => Asked::About(About::Info, flags.php),
        (false, true) => Asked::Wrong,
        (false, false) => Asked::Fpm(flags),
    }
}

/// A flag with its value, if it takes one.
type Met = (Flag, Option<OsString>);

fn by_short(short: u8) -> Option<(bool, Flag)> {
    let found = FLAGS.iter().find(|flag| flag.0 == Some(short));
    found.map(|flag| (flag.1, flag.3))
}

fn long_flag<'a>(long: &[u8], rest: &mut impl Iterator<Item = &'a [u8]>) -> Result<Met, Vec<Met>> {
    let mut parts = long.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let attached = parts.next();
    let found = FLAGS.iter().find(|flag| flag.2.as_bytes() == name);
    match (found, attached) {
        (None, _) => Err(vec![]),
        (Some((_, false, _, flag)), _) => Ok((*flag, None)),
        (Some((_, true, _, flag)), Some(value)) if !value.is_empty() => Ok((*flag, Some(owned(value)))),
        // Unlike with a short name, nothing after the sign is no value.
        (Some((_, true, ..)), Some(_)) => Err(vec![]),
        (Some((_, true, _, flag)), None) => match rest.next() {
            Some(value) => Ok((*flag, Some(owned(value)))),
            None => Err(vec![]),
        },
    }
}

/// The flags behind one dash; on a mistake, those before it.
fn cluster<'a>(mut short: &[u8], rest: &mut impl Iterator<Item = &'a [u8]>) -> Result<Vec<Met>, Vec<Met>> {
    let mut met = Vec::new();
    while let [name, others @ ..] = short {
        match by_short(*name) {
            None => return Err(met),
            Some((false, flag)) => {
                met.push((flag, None));
                short = others;
            }
            Some((true, flag)) => {
                let value = match others {
                    [] => rest.next(),
                    [b'=', value @ ..] | value => Some(value),
                };
                let Some(value) = value else { return Err(met) };
                met.push((flag, Some(owned(value))));
                return Ok(met);
            }
        }
    }
    Ok(met)
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

impl Flags {
    /// Notes a flag; false where its value is no text.
    fn set(&mut self, flag: Flag, value: OsString) -> bool {
        // An empty path is as good as none.
        let path = |value: OsString| Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
        match flag {
            Flag::Ini => self.php.ini = path(value),
            Flag::NoIni => self.php.no_ini = true,
            Flag::Define => match value.into_string() {
                Ok(text) => self.php.define.push(text),
                Err(_) => return false,
            },
            Flag::ExtendedInfo => self.php.extended_info = true,
            Flag::FpmConfig => self.fpm_config = path(value),
            Flag::Overlay => self.overlay = path(value),
            Flag::Prefix => self.prefix = path(value),
            Flag::Pid => self.pid = path(value),
            Flag::Test => self.tests = self.tests.saturating_add(1),
            Flag::AllowRoot => self.allow_root = true,
            Flag::Daemonize => self.daemonize = Some(true),
            Flag::Foreground => self.daemonize = Some(false),
            Flag::ForceStderr => self.force_stderr = true,
            // These act by themselves.
            Flag::Help | Flag::Info | Flag::Modules | Flag::Version => {}
        }
        true
    }
}
