//! The configuration room as its callers see it: text in, settings or one message out.

mod access_format;
mod accounts;
mod addresses;
mod dialect;
mod dump;
mod global;
mod golden;
mod hostile;
mod lines;
mod managers;
mod overlay;
mod pools;
mod refusals;
mod status;

use std::path::PathBuf;

use super::{
    Account, AccountLookup, Environment, LoadFailure, LoadRequest, LogLevel, Pool, Settings, check_accounts,
    load,
};

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
    allow_root: bool,
    prefix: Option<PathBuf>,
    overlay: Option<PathBuf>,
    pid: Option<PathBuf>,
    daemonize: Option<bool>,
}

impl Fixture {
    fn new(fpm_conf: &str) -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
            environment: [("SPACED", "ex y"), ("YES", "Yes"), ("EMPTY", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            euid_root: false,
            allow_root: false,
            prefix: None,
            overlay: None,
            pid: None,
            daemonize: None,
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

    fn request(&self) -> LoadRequest<'_> {
        LoadRequest {
            fpm_conf: self.path("php-fpm.conf"),
            overlay: self.overlay.clone(),
            prefix: self.prefix.clone(),
            pid: self.pid.clone(),
            daemonize: self.daemonize,
            environment: self.environment.clone(),
            euid_root: self.euid_root,
            allow_root: self.allow_root,
            lookup: &Machine,
        }
    }

    fn load(&self) -> Result<Settings, LoadFailure> {
        load(&self.request())
    }

    /// As `-t`: the load, and then the accounts.
    fn test(&self) -> Result<Settings, LoadFailure> {
        let settings = self.load()?;
        check_accounts(&settings, &self.request())?;
        Ok(settings)
    }

    /// The message of the refusal, with the directory's name taken out.
    fn refusal(&self) -> String {
        let failure = self.load().expect_err("this configuration must be refused");
        let message = self.anonymous(&failure.to_string());
        assert_eq!(message.lines().count(), 1, "not one line: {message}");
        message
    }

    /// What is logged for the refusal of a test, with the directory's name taken out.
    fn lines(&self) -> Vec<String> {
        let failure = self.test().expect_err("this configuration must be refused");
        let lines = failure.lines();
        let shown = |(level, text): &(LogLevel, String)| {
            assert_eq!(text.lines().count(), 1, "not one line: {text}");
            format!("{level:?}: {}", self.anonymous(text))
        };
        lines.iter().map(shown).collect()
    }

    fn anonymous(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

/// The lines of one pool that is complete without them, as pool settings.
fn pool_with(lines: &str) -> Result<Pool, LoadFailure> {
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
