//! An installed copy of the program in a folder of its own, which everybody can execute:
//! this one may lie where other users are not let in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::build::object_name;

/// The copy, laid out as `make install` does below its prefix; gone when dropped.
#[derive(Debug)]
pub(crate) struct Stage(TempDir);

impl Stage {
    /// Copies program and engine object from the folder of a build.
    pub(crate) fn new(built: &Path) -> Result<Self> {
        let stage = Self(
            tempfile::Builder::new()
                .prefix("glasspool-")
                .tempdir()
                .context("no temporary folder")?,
        );
        let object = object_name()?;
        stage.put(&built.join("glasspool"), "bin/glasspool", 0o755)?;
        stage.put(&built.join(&object), &format!("lib/glasspool/{object}"), 0o644)?;
        Ok(stage)
    }

    /// The prefix.
    pub(crate) fn prefix(&self) -> &Path {
        self.0.path()
    }

    /// The program.
    pub(crate) fn program(&self) -> PathBuf {
        self.prefix().join("bin/glasspool")
    }

    fn put(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let folder = Path::new(to).parent().expect("a file in a folder");
        std::fs::create_dir_all(self.prefix().join(folder))?;
        for folder in folder.ancestors() {
            self.let_in(folder)?;
        }
        let to = self.prefix().join(to);
        std::fs::copy(from, &to)
            .and_then(|_| std::fs::set_permissions(&to, PermissionsExt::from_mode(mode)))
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    }

    fn let_in(&self, folder: &Path) -> Result<()> {
        std::fs::set_permissions(self.prefix().join(folder), PermissionsExt::from_mode(0o755))
            .context("cannot open a folder to others")
    }
}
