//! The pid file: written when the start has succeeded, removed at a clean stop only.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use glasspool_abi::Pid;

use super::error::StartError;
use crate::logs::{Errno, ErrorLog};

/// A pid file that is ours.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Replaces what is there: the decimal number without a newline, mode 0644, as php-fpm.
    pub(super) fn write(path: &Path, pid: Pid) -> Result<PidFile, StartError> {
        let removed = match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        };
        let written = removed
            .and_then(|()| {
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o644)
                    .open(path)
            })
            .and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
        written.map_err(|source| StartError::PidFile {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(PidFile(path.to_path_buf()))
    }

    /// Removes it; a failure is a line in the log.
    pub(super) fn remove(self, log: &ErrorLog) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            log.error(format_args!(
                "Unable to remove the PID file ({}).: {}",
                self.0.display(),
                Errno(&e)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;

    #[test]
    fn an_old_file_is_replaced_and_the_new_one_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        std::fs::write(&path, "1234567890").expect("writes");
        let file = PidFile::write(&path, Pid(42)).expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "42");
        file.remove(&ErrorLog::stderr(LogLevel::Alert));
        assert!(!path.exists());
        let nowhere = folder.path().join("no/pid");
        assert!(matches!(
            PidFile::write(&nowhere, Pid(42)),
            Err(StartError::PidFile { .. })
        ));
    }
}
