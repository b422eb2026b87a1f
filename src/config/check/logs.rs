//! Log files of a pool: whether they can be written, and in the format asked for.
//!
//! php-fpm makes the files to find out, even for a test of the configuration, and leaves files of root behind. Here
//! they are only looked at; they are made when the pools start.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{blamed, pool_fault};
use crate::config::access_format;
use crate::config::directives::{RawPool, Slot};
use crate::config::effective::{LogLevel, Notice, Pool};
use crate::config::error::{ConfigError, Fault, PoolFault, Shown};

/// Refuses an access log that could not be written.
pub(super) fn openable(raw: &RawPool, pool: &Pool) -> Result<(), ConfigError> {
    let Some(file) = &pool.access_log else {
        return Ok(());
    };
    let fault = |path| Fault::AccessLog { path };
    refuse_unwritable(raw, "access.log", &raw.lines.access_log, file, fault)
}

/// Refuses a slowlog that could not be written.
pub(super) fn slowlog(raw: &RawPool, file: &Path) -> Result<(), ConfigError> {
    let fault = |path| Fault::Slowlog { path };
    refuse_unwritable(raw, "slowlog", &raw.lines.slowlog, file, fault)
}

/// Refuses a format with codes that nobody knows; only where there is a log, as in php-fpm.
pub(super) fn format(raw: &RawPool, pool: &Pool, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    let (Some(_), Err(warning)) = (&pool.access_log, access_format::check(&pool.access_format)) else {
        return Ok(());
    };
    let slot = &raw.lines.access_format;
    notices.push(Notice {
        level: LogLevel::Warning,
        place: slot.as_ref().map(|format| format.place.clone()),
        text: warning,
    });
    let format = Shown::from(pool.access_format.as_str());
    let fault = pool_fault(&raw.name, PoolFault::AccessFormat { format });
    Err(blamed(&raw.place, "access.format", slot, fault))
}

fn refuse_unwritable(
    raw: &RawPool,
    directive: &str,
    slot: &Slot<String>,
    file: &Path,
    fault: impl FnOnce(Shown) -> Fault,
) -> Result<(), ConfigError> {
    appendable(file).map_err(|reason| {
        let fault = fault(Shown::from(file));
        blamed(&raw.place, directive, slot, fault).because(reason)
    })
}

/// Whether the file could be opened for appending, and made if it is not there.
fn appendable(file: &Path) -> io::Result<()> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(Errno::EISDIR.into()),
        Ok(_) => permitted(file, Access::WRITE_OK),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().unwrap_or(Path::new("/"));
            permitted(folder, Access::WRITE_OK | Access::EXEC_OK)
        }
        Err(e) => Err(e),
    }
}

fn permitted(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}
