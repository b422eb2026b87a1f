//! Users and groups: the question the checks ask, and the system's answer.

use nix::unistd::{Group, User};

/// An account database. Tests bring their own, so that they need neither root nor certain accounts.
pub trait AccountLookup {
    /// The user of that name, if there is one.
    fn user(&self, name: &str) -> Option<Account>;
    /// The id of the group of that name, if there is one.
    fn group(&self, name: &str) -> Option<u32>;
}

/// What is known of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// The accounts of this machine (getpwnam(3), getgrnam(3): these may ask a directory server, so not in a hot path).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemAccounts;

impl AccountLookup for SystemAccounts {
    fn user(&self, name: &str) -> Option<Account> {
        // A database that cannot be read knows nobody; php-fpm does not tell the two apart either.
        let user = User::from_name(name).ok().flatten()?;
        Some(Account {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }
}
