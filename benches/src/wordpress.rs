//! WordPress with a database of its own, made by a tool that is not part of this project.
//!
//! The tool understands `provision DIR` (makes the site, starts the database, prints the document root last) and
//! `db-stop DIR`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::BenchError;
use crate::process::run_tool;
use crate::stop::Stop;

/// It may have to install packages.
const PROVISION_LIMIT: Duration = Duration::from_secs(900);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A provisioned site; its database is stopped when dropped.
#[derive(Debug)]
pub struct WordPress {
    tool: PathBuf,
    dir: PathBuf,
    output: PathBuf,
    docroot: PathBuf,
}

impl WordPress {
    /// Makes the site in `dir`, or uses the one that is there.
    ///
    /// # Errors
    /// The tool fails.
    pub fn provision(tool: &Path, dir: &Path, output: &Path, stop: &Stop) -> Result<Self, BenchError> {
        fs::create_dir_all(dir).map_err(BenchError::file("make", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
            .map_err(BenchError::file("chmod", dir))?;
        // From here on the database may run.
        let mut site = Self {
            tool: tool.to_owned(),
            dir: dir.to_owned(),
            output: output.to_owned(),
            docroot: PathBuf::new(),
        };
        let mut command = Command::new(tool);
        command.arg("provision").arg(dir);
        let text = run_tool(command, output, PROVISION_LIMIT, stop)?;
        site.docroot = text.lines().next_back().map(PathBuf::from).unwrap_or_default();
        if site.docroot.join("index.php").is_file() {
            return Ok(site);
        }
        Err(BenchError::Tool {
            program: tool.display().to_string(),
            reason: "did not print the document root of a site as its last line".to_owned(),
            output: text,
        })
    }

    /// Where its index.php is.
    pub fn docroot(&self) -> &Path {
        &self.docroot
    }
}

impl Drop for WordPress {
    fn drop(&mut self) {
        let mut command = Command::new(&self.tool);
        command.arg("db-stop").arg(&self.dir);
        // Also after Ctrl-C, so the stop request that ended us does not count here.
        if let Ok(stop) = Stop::never() {
            run_tool(command, &self.output, STOP_LIMIT, &stop)
                .map(|_| ())
                .unwrap_or_default();
        }
    }
}
