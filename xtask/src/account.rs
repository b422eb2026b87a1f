//! Who runs the programs under test: root with php-fpm's usual change of user, or a user
//! with no capability at all.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Whose rights the programs under test have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Account {
    /// Root; pools and nginx's workers run as that user.
    Root { web: User },
    /// Whoever runs this, who is not root.
    Caller,
    /// Another user, without capabilities and without a way to get any.
    Dropped { user: User },
}

/// A line of the password database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// `unprivileged` names the user to become; without root it is the caller in any case.
    pub(crate) fn choose(unprivileged: Option<&str>) -> Result<Account> {
        let is_root = rustix::process::geteuid().is_root();
        Ok(match unprivileged {
            _ if !is_root => Account::Caller,
            Some(name) => Account::Dropped { user: find(name)? },
            None => Account::Root {
                web: find("www-data")?,
            },
        })
    }

    /// A command with this account's rights.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Account::Dropped { user } = self else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .args([
                "--clear-groups",
                "--inh-caps=-all",
                "--ambient-caps=-all",
                "--bounding-set=-all",
            ])
            .arg("--no-new-privs")
            .arg(program)
            .env("USER", &user.name)
            .env("HOME", "/nonexistent");
        command
    }

    /// Who must own what the programs write at the start, if that is not the caller.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Account::Dropped { user } => Some((user.uid, user.gid)),
            Account::Root { .. } | Account::Caller => None,
        }
    }

    /// Makes a file or folder the account's own.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        match self.owner() {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} away", path.display())),
            None => Ok(()),
        }
    }

    /// A word for file names and messages.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Account::Root { .. } => "root",
            Account::Caller | Account::Dropped { .. } => "unprivileged",
        }
    }
}

fn find(wanted: &str) -> Result<User> {
    let text = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, ..] = fields.as_slice() else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
            continue;
        };
        if name == wanted {
            return Ok(User {
                name: name.to_owned(),
                uid,
                gid,
            });
        }
    }
    bail!("no user {wanted} in /etc/passwd (name another with --user)")
}
