//! The log files that an operator knows from php-fpm, in php-fpm's own formats.
//!
//! The supervisor writes the error log. The slow log is only opened here and written
//! by the observer, which may not open files of its own.

mod error_log;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub use error_log::{ErrorLog, LINE_LIMIT};

/// Opens a log the way php-fpm does: appending, created readable by its owner only.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
