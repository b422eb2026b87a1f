//! The log files that an operator knows from php-fpm, in php-fpm's own formats.
//!
//! Start with `error_log`, then `destinations` for who sees a line. `line` is pure text, `json` what becomes of it where that is wanted, `sink` writes
//! without waiting, `syslog` is the way to the system's log daemon, `audience` tells lines to
//! somebody beside the log. Slow logs and access logs are only opened here; the observer and
//! the workers write them.

mod audience;
mod destinations;
mod error_log;
mod json;
mod line;
mod sink;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno as RawErrno;

pub use audience::{Heard, Listener, MAX_TOLD_BYTES, Told};
pub use error_log::{Errno, ErrorLog, LINE_LIMIT, Prepared, Standing};

pub use json::RequestIds;
pub(crate) use json::{child_of, pool_of};

/// Opens a log the way php-fpm does: appending, created readable by its owner only.
///
/// Unlike there, a FIFO without a reader does not make the caller wait, is kept open for
/// the next reader when one leaves, and loses what it has no room for. `/dev/stderr` also
/// works where that is a socket, as under systemd.
pub fn open_log(path: &Path) -> io::Result<File> {
    let open = |options: &mut OpenOptions, flags: OFlags| {
        let flags = (flags | OFlags::NOCTTY).bits().cast_signed();
        options.append(true).mode(0o600).custom_flags(flags).open(path)
    };
    if path.metadata().is_ok_and(|there| there.file_type().is_fifo()) {
        // Opened for reading too, it is never without a reader (fifo(7)).
        return open(OpenOptions::new().read(true), OFlags::NONBLOCK);
    }
    let opened = open(OpenOptions::new().create(true), OFlags::empty());
    match (&opened, standard_stream(path)) {
        // A socket cannot be opened by its name below /proc (proc_pid_fd(5)).
        (Err(e), Some(stream)) if RawErrno::from_io_error(e) == Some(RawErrno::NXIO) => {
            Ok(File::from(stream.try_clone_to_owned()?))
        }
        _ => opened,
    }
}

fn standard_stream(path: &Path) -> Option<BorrowedFd<'static>> {
    match path.to_str()? {
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(rustix::stdio::stderr()),
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(rustix::stdio::stdout()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_without_a_reader_is_opened_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("makes");
        let log = open_log(&path).expect("opens");
        rustix::io::write(&log, b"kept for the next reader").expect("has room");
    }
}
