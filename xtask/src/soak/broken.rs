//! Input that a reload must refuse, with the old generation going on.

use std::fmt::{self, Display};
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::site::{Changes, Site};
use crate::run::run;

/// The C side of an extension that does not survive being asked what it is.
const CRASH: &str = "#include <signal.h>\nvoid *get_module(void) { raise(SIGSEGV); return 0; }\n";

/// One way to break it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// php-fpm.conf does not parse.
    Syntax,
    /// A pool runs as a user that does not exist.
    UnknownUser,
    /// A pool listens where somebody else does.
    BusySocket,
    /// PHP does not start with this php.ini: a script to preload has an error.
    FatalIni,
    /// The engine is killed while it starts.
    KillingIni,
    /// An extension crashes when it is loaded.
    CrashingExtension,
    /// A pool's own extension does: the engine starts, and no worker serves.
    CrashingWorker,
}

/// A broken site; repair it to go on.
#[derive(Debug)]
pub(super) struct Spoilt {
    /// The somebody else.
    _busy: Option<TcpListener>,
}

impl Kind {
    /// All that can be tried. Without root the user of a pool is only a word.
    pub(super) fn all(is_root: bool) -> Vec<Self> {
        let mut kinds = vec![
            Self::Syntax,
            Self::UnknownUser,
            Self::BusySocket,
            Self::FatalIni,
            Self::KillingIni,
            Self::CrashingExtension,
            Self::CrashingWorker,
        ];
        kinds.retain(|kind| is_root || *kind != Self::UnknownUser);
        kinds
    }

    /// A word that the refusal must contain.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Syntax => "no_such_directive",
            Self::UnknownUser => "glasspool-nobody",
            Self::BusySocket => "in use",
            Self::FatalIni | Self::KillingIni | Self::CrashingExtension => "PHP",
            Self::CrashingWorker => "[pool unix]",
        }
    }

    /// Breaks the files of the site.
    pub(super) fn spoil(self, site: &Site) -> Result<Spoilt> {
        let mut changes = Changes::default();
        let mut ini = String::new();
        let mut busy = None;
        match self {
            Self::Syntax => changes.global = "no_such_directive = 1\n".to_owned(),
            Self::UnknownUser => changes.user = Some("glasspool-nobody".to_owned()),
            Self::BusySocket => {
                let listener = TcpListener::bind("127.0.0.1:0").context("cannot bind 127.0.0.1")?;
                changes.listen = match listener.local_addr()? {
                    std::net::SocketAddr::V4(address) => Some(address),
                    std::net::SocketAddr::V6(address) => bail!("127.0.0.1 became {address}"),
                };
                busy = Some(listener);
            }
            Self::FatalIni => ini = preload(site, "<?php no_such_function();\n")?,
            Self::KillingIni => ini = preload(site, "<?php posix_kill(posix_getpid(), SIGKILL);\n")?,
            Self::CrashingExtension => ini = format!("extension = {}\n", crashing_extension(site)?),
            Self::CrashingWorker => {
                changes.pool = format!("php_admin_value[extension] = {}", crashing_extension(site)?);
            }
        }
        site.write(&changes, &ini)?;
        Ok(Spoilt { _busy: busy })
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "a syntax error",
            Self::UnknownUser => "an unknown user",
            Self::BusySocket => "a busy socket",
            Self::FatalIni => "a php.ini that PHP does not start with",
            Self::KillingIni => "a php.ini that kills the engine",
            Self::CrashingExtension => "an extension that crashes at start",
            Self::CrashingWorker => "a pool whose workers crash at start",
        })
    }
}

/// php.ini lines that run this script while PHP starts.
fn preload(site: &Site, script: &str) -> Result<String> {
    let path = site.dir().join("preload.php");
    std::fs::write(&path, script)?;
    let mut ini = format!("opcache.preload = {}\n", path.display());
    if let Some(user) = site.user() {
        ini.push_str(&format!("opcache.preload_user = {user}\n"));
    }
    Ok(ini)
}

/// Builds the extension, once; its path.
fn crashing_extension(site: &Site) -> Result<String> {
    let object = site.dir().join("crash.so");
    if !object.exists() {
        let source = site.dir().join("crash.c");
        std::fs::write(&source, CRASH)?;
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&object)
            .arg(&source))?;
    }
    Ok(object.display().to_string())
}
