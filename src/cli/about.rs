//! `-v`, `-m`, `-i`: what PHP says of itself, on standard output.

use std::ffi::OsStr;
use std::process::ExitCode;

use glasspool_abi::control::About;

use super::flags::{Flags, PhpFlags};
use super::load;
use crate::config::LogLevel;
use crate::logs::ErrorLog;
use crate::supervisor::{self, AskedPhp};

pub(super) fn print(called_as: &OsStr, about: About, php: PhpFlags) -> ExitCode {
    let flags = Flags {
        called_as: called_as.to_owned(),
        ..Flags::default()
    };
    let asked = AskedPhp {
        binary: load::php_binary(&flags),
        ini: php.ini,
        no_ini: php.no_ini,
        extended_info: php.extended_info,
        define: php.define,
    };
    match supervisor::describe(asked, about, rustix::stdio::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            ErrorLog::stderr(LogLevel::Notice).fatal(&e);
            ExitCode::from(e.exit_code())
        }
    }
}
