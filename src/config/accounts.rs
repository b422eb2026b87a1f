//! Users and groups: the question the checks ask, the system's answer, and the checks of a configuration test.

use std::io;

use nix::errno::Errno;
use nix::unistd::{Group, User};

use super::directives::{Placed, RawPool, Slot, given};
use super::effective::{ListenAddress, MAX_SOCKET_PATH_BYTES, Settings};
use super::error::{ConfigError, Fault, PoolFault, Shown};
use super::{LoadFailure, LoadRequest};

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

/// Whether everybody whom the pools name exists, as `-t` asks; also for those who are not root and could not become
/// them. A start does not need it: there whoever is missing is found when the pools are made.
///
/// Beyond php-fpm, `-t` also refuses what a start would refuse: pools of root without `-R`.
///
/// # Errors
/// The first name that nobody has, as php-fpm words it.
pub fn check_accounts(settings: &Settings, request: &LoadRequest<'_>) -> Result<(), LoadFailure> {
    let sections = settings.written.iter().flat_map(|written| &written.pools);
    let lookup = request.lookup;
    let listen = |raw: &RawPool| {
        let pool = settings.pools.iter().find(|pool| pool.name == raw.name);
        pool.map(|pool| &pool.listen)
    };
    let accounts = sections.map(|raw| Accounts {
        raw,
        listen: listen(raw),
        lookup,
    });
    let accounts: Vec<Accounts<'_>> = accounts.collect();
    let mut checked = accounts.iter().try_for_each(Accounts::all_exist);
    if request.euid_root && !request.allow_root {
        checked = checked.and_then(|()| accounts.iter().try_for_each(Accounts::not_root));
    }
    checked.map_err(|error| LoadFailure {
        notices: Vec::new(),
        error,
        global: Some(Box::new(settings.global.clone())),
        file: request.fpm_conf.clone(),
    })
}

struct Accounts<'a> {
    raw: &'a RawPool,
    listen: Option<&'a ListenAddress>,
    lookup: &'a dyn AccountLookup,
}

impl Accounts<'_> {
    fn all_exist(&self) -> Result<(), ConfigError> {
        let lines = &self.raw.lines;
        let user = |name: &str| self.lookup.user(name).is_some();
        let group = |name: &str| self.lookup.group(name).is_some();
        let no_user = |name| PoolFault::UnknownUser { name };
        let no_group = |name| PoolFault::UnknownGroup { name };
        self.exists(&lines.user, user, no_user)?;
        self.exists(&lines.group, group, no_group)?;
        self.socket_path_fits()?;
        // Names of ACL lists are left to the start, as php-fpm's own test of them expects.
        let owner = self.exists(&lines.listen_owner, user, no_user);
        owner.map_err(|e| of_socket(e, "listen.owner"))?;
        let owner = self.exists(&lines.listen_group, group, no_group);
        owner.map_err(|e| of_socket(e, "listen.group"))
    }

    fn exists(
        &self,
        slot: &Slot<String>,
        known: impl Fn(&str) -> bool,
        unknown: impl Fn(Shown) -> PoolFault,
    ) -> Result<(), ConfigError> {
        match given(slot) {
            Some(placed) if numeric(&placed.value).is_none() && !known(&placed.value) => {
                Err(self.fault(placed, unknown(Shown::from(placed.value.as_str()))))
            }
            _ => Ok(()),
        }
    }

    fn socket_path_fits(&self) -> Result<(), ConfigError> {
        let (Some(ListenAddress::Unix(path)), Some(placed)) = (self.listen, given(&self.raw.lines.listen))
        else {
            return Ok(());
        };
        let (found, limit) = (path.as_os_str().len(), MAX_SOCKET_PATH_BYTES);
        if found <= limit {
            return Ok(());
        }
        let path = Shown::from(path.as_path());
        let error = self.fault(placed, PoolFault::LongSocketPath { path, found, limit });
        Err(error.because(Errno::ENAMETOOLONG.into()))
    }

    fn not_root(&self) -> Result<(), ConfigError> {
        let lines = &self.raw.lines;
        let (user, group) = (given(&lines.user), given(&lines.group));
        let account = user.and_then(|user| self.lookup.user(&user.value));
        let uid = user
            .and_then(|user| numeric(&user.value))
            .or(account.map(|account| account.uid));
        // A user given by number has no known group here: the supervisor asks when it starts the worker.
        let gid = match group {
            Some(group) => numeric(&group.value).or_else(|| self.lookup.group(&group.value)),
            None => account.map(|account| account.gid),
        };
        match user.or(group) {
            Some(placed) if uid == Some(0) || gid == Some(0) => Err(self.fault(placed, PoolFault::Root)),
            _ => Ok(()),
        }
    }

    fn fault(&self, blamed: &Placed<String>, fault: PoolFault) -> ConfigError {
        let pool = Shown::from(self.raw.name.as_str());
        ConfigError::at(&blamed.place, Fault::Pool { pool, fault })
    }
}

/// php-fpm ends these two with the text of an `errno` that nobody set; here stands what it is about.
fn of_socket(error: ConfigError, directive: &str) -> ConfigError {
    let place = error.place().map(ToString::to_string).unwrap_or_default();
    error.because(io::Error::other(format!("no such name ({directive} in {place})")))
}

/// Digits alone are an id and always pass, as in php-fpm.
pub(super) fn numeric(name: &str) -> Option<u32> {
    name.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| name.parse().ok())
        .flatten()
}
