//! A pool's root and working directory.

use std::path::PathBuf;

use super::pool::Checker;
use crate::config::directives::{Placed, given};
use crate::config::effective::{LogLevel, Notice};
use crate::config::error::{ConfigError, Place, PoolFault, Shown};

impl Checker<'_> {
    /// `chroot` and, as seen inside it, `chdir`.
    pub(super) fn directories(&mut self) -> Result<(Option<PathBuf>, Option<PathBuf>), ConfigError> {
        let lines = &self.raw.lines;
        let chroot = match given(&lines.chroot) {
            None => None,
            Some(Placed { value, place }) => Some(self.chroot(value, place)?),
        };
        let Some(Placed { value, .. }) = given(&lines.chdir) else {
            return Ok((chroot, None));
        };
        let chdir = self.prefix.join(value);
        let shown = Shown::from(chdir.as_path());
        let missing = match &chroot {
            None => (!chdir.is_dir()).then_some(PoolFault::ChdirMissing { path: shown }),
            Some(root) => {
                let whole = root.join(chdir.strip_prefix("/").unwrap_or(&chdir));
                (!whole.is_dir()).then(|| PoolFault::ChdirInChroot {
                    chdir: shown,
                    chroot: Shown::from(root.as_path()),
                    whole: Shown::from(whole.as_path()),
                })
            }
        };
        missing.map_or(Ok((chroot, Some(chdir))), |fault| {
            Err(self.fault("chdir", &lines.chdir, fault))
        })
    }

    fn chroot(&mut self, value: &str, place: &Place) -> Result<PathBuf, ConfigError> {
        const VARIABLE: &str = "$prefix";
        let slot = &self.raw.lines.chroot;
        let path = match value.strip_prefix(VARIABLE) {
            Some(rest) => self.prefix.join(rest.trim_start_matches('/')),
            None if value.contains(VARIABLE) && !value.starts_with('/') => {
                self.notices.push(Notice {
                    level: LogLevel::Error,
                    place: Some(place.clone()),
                    text: format!("'{VARIABLE}' must be use at the beginning of the value"),
                });
                let path = Shown::from(value);
                return Err(self.fault("chroot", slot, PoolFault::ChrootStart { path }));
            }
            None => self.prefix.join(value),
        };
        if path.is_dir() {
            return Ok(path);
        }
        let shown = Shown::from(path.as_path());
        Err(self.fault("chroot", slot, PoolFault::ChrootMissing { path: shown }))
    }
}
