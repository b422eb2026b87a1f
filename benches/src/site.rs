//! The scripts that are served, and where.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::BenchError;

/// Name and text of every script.
const SCRIPTS: [(&str, &str); 12] = [
    ("hello.php", include_str!("../php/hello.php")),
    ("page.php", include_str!("../php/page.php")),
    ("cpu.php", include_str!("../php/cpu.php")),
    ("facts.php", include_str!("../php/facts.php")),
    ("pid.php", include_str!("../php/pid.php")),
    ("slow-busy.php", include_str!("../php/slow-busy.php")),
    ("deep.php", include_str!("../php/deep.php")),
    ("chains.php", include_str!("../php/chains.php")),
    ("chunks.php", include_str!("../php/chunks.php")),
    ("slow-wait.php", include_str!("../php/slow-wait.php")),
    ("outcome.php", include_str!("../php/outcome.php")),
    ("waits.php", include_str!("../php/waits.php")),
];

/// A folder for everything that a run writes, removed when dropped. The pools' user can read it, which is
/// why scripts are copied here: a home directory often cannot be entered by others.
#[derive(Debug)]
pub struct Workspace {
    dir: TempDir,
}

impl Workspace {
    /// Makes one in the system's folder for temporary files; short, as socket paths have at most 107 bytes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create() -> Result<Self, BenchError> {
        let parent = std::env::temp_dir();
        let made = tempfile::Builder::new()
            .prefix("glasspool-bench-")
            .tempdir_in(&parent);
        let workspace = Self {
            dir: made.map_err(BenchError::file("make a folder in", &parent))?,
        };
        let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755));
        open(workspace.path()).map_err(BenchError::file("chmod", workspace.path()))?;
        let scripts = workspace.scripts();
        fs::create_dir(&scripts)
            .and_then(|()| open(&scripts))
            .map_err(BenchError::file("make", &scripts))?;
        for (name, text) in SCRIPTS {
            let path = scripts.join(name);
            let readable = Permissions::from_mode(0o644);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, readable))
                .map_err(BenchError::file("write", &path))?;
        }
        Ok(workspace)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the scripts are.
    pub fn scripts(&self) -> PathBuf {
        self.path().join("docroot")
    }
}
