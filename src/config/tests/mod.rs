//! The configuration room as its callers see it: text in, settings or one message out.

mod accounts;
mod dialect;
mod golden;
mod hostile;
mod overlay;
mod pools;

use std::path::PathBuf;

use super::{Account, AccountLookup, ConfigError, Environment, LoadRequest, Pool, Settings, load};

/// A machine with the users `www-data` (33, group 33) and `root`, and the groups `www-data`, `adm` and `root`.
struct Machine;

impl AccountLookup for Machine {
    fn user(&self, name: &str) -> Option<Account> {
        match name {
            "www-data" => Some(Account { uid: 33, gid: 33 }),
            "root" => Some(Account { uid: 0, gid: 0 }),
            _ => None,
        }
    }

    fn group(&self, name: &str) -> Option<u32> {
        [("www-data", 33), ("adm", 4), ("root", 0)]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, id)| *id)
    }
}

/// A directory with configuration files, and what a load of them is asked with.
struct Fixture {
    directory: tempfile::TempDir,
    environment: Environment,
    euid_root: bool,
    prefix: Option<PathBuf>,
    overlay: Option<PathBuf>,
}

impl Fixture {
    fn new(fpm_conf: &str) -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
            environment: [("SPACED", "ex y"), ("YES", "Yes"), ("EMPTY", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            euid_root: false,
            prefix: None,
            overlay: None,
        };
        fixture.write("php-fpm.conf", fpm_conf);
        fixture
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        load(&LoadRequest {
            fpm_conf: self.path("php-fpm.conf"),
            overlay: self.overlay.clone(),
            prefix: self.prefix.clone(),
            environment: self.environment.clone(),
            euid_root: self.euid_root,
            lookup: &Machine,
        })
    }

    /// The message of the refusal, with the directory's name taken out.
    fn refusal(&self) -> String {
        let message = self
            .load()
            .expect_err("this configuration must be refused")
            .to_string();
        assert_eq!(message.lines().count(), 1, "not one line: {message}");
        message.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

/// The lines of one pool that is complete without them, as pool settings.
fn pool_with(lines: &str) -> Result<Pool, ConfigError> {
    Fixture::new(&pool_text(lines))
        .load()
        .map(|settings| settings.pools[0].clone())
}

/// The refusal of a pool with these lines; they begin at line 5.
fn pool_refusal(lines: &str) -> String {
    Fixture::new(&pool_text(lines)).refusal()
}

fn pool_text(lines: &str) -> String {
    format!("[www]\nlisten = 9000\npm = static\npm.max_children = 2\n{lines}\n")
}
