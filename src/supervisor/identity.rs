//! Whom workers, sockets and the observer belong to: names from the configuration
//! turned into numbers by the system's accounts, once, at start.

use std::ffi::CString;

use glasspool_abi::control::Identity;
use nix::unistd::{Gid, Group, Uid, User};

use crate::config::{self, Pool};

/// Why somebody cannot be become.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such user. The words are php-fpm's.
    #[error("{whose} cannot get uid for user '{name}'")]
    NoUser {
        /// For whom it was looked up, as a log prefix.
        whose: String,
        /// What was looked up.
        name: String,
    },
    /// No such group. The words are php-fpm's.
    #[error("{whose} cannot get gid for group '{name}'")]
    NoGroup {
        /// For whom it was looked up, as a log prefix.
        whose: String,
        /// What was looked up.
        name: String,
    },
    /// Nobody to give a socket to; php-fpm tells the reason with these.
    #[error("{unknown}: no such account (create it, or correct {directive})")]
    Socket {
        /// Which directive.
        directive: &'static str,
        /// Whose name is unknown.
        unknown: Box<IdentityError>,
    },
    /// Root was asked for without `-R`. The words are php-fpm's.
    #[error("[pool {pool}] please specify user and group other than root")]
    Root {
        /// Which pool.
        pool: String,
    },
}

/// A worker's identity and what its environment says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Become {
    /// Whom to become; `None` stays who the supervisor is.
    pub(super) identity: Option<Identity>,
    /// USER and HOME, where they are known.
    pub(super) env: Vec<(String, String)>,
}

/// Works out whom the pool's workers become.
pub(super) fn of_pool(pool: &Pool, allow_root: bool) -> Result<Become, IdentityError> {
    let whose = format!("[pool {}]", pool.name);
    if !nix::unistd::geteuid().is_root() {
        // That user, group and chroot are without effect is among the configuration's notices.
        let own = User::from_uid(nix::unistd::geteuid()).ok().flatten();
        return Ok(Become {
            identity: None,
            env: own.as_ref().map(env_of).unwrap_or_default(),
        });
    }
    let group = pool.group.as_ref().map(|group| gid(&whose, group)).transpose()?;
    let (uid, account) = match &pool.user {
        Some(user) => uid_of(&whose, user)?,
        None => (Uid::from_raw(0), User::from_uid(Uid::from_raw(0)).ok().flatten()),
    };
    let gid = group
        .or(account.as_ref().map(|account| account.gid))
        .unwrap_or(Gid::from_raw(uid.as_raw()));
    if (uid.is_root() || gid.as_raw() == 0) && !allow_root {
        return Err(IdentityError::Root {
            pool: pool.name.clone(),
        });
    }
    // A user by number gets no USER and HOME, as in php-fpm.
    let by_number = matches!(pool.user, Some(config::Identity::Id(_)));
    let env = account
        .as_ref()
        .filter(|_| !by_number)
        .map(env_of)
        .unwrap_or_default();
    if uid.is_root() && pool.group.is_none() {
        return Ok(Become { identity: None, env });
    }
    Ok(Become {
        identity: Some(with_groups(uid, gid, account.as_ref())),
        env,
    })
}

/// Whom the observer becomes when the supervisor is root: the named user, else nobody.
pub(super) fn of_observer(user: Option<&str>) -> Result<Option<Identity>, IdentityError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let (uid, account) = match user {
        None => match User::from_name("nobody").ok().flatten() {
            Some(nobody) => (nobody.uid, Some(nobody)),
            // The number is the kernel's own idea of nobody (overflowuid).
            None => (Uid::from_raw(65_534), None),
        },
        Some(name) => {
            let wanted = match name.parse() {
                Ok(number) => config::Identity::Id(number),
                Err(_) => config::Identity::Name(name.to_owned()),
            };
            uid_of("[observer]", &wanted)?
        }
    };
    let gid = account
        .as_ref()
        .map_or(Gid::from_raw(uid.as_raw()), |account| account.gid);
    Ok(Some(with_groups(uid, gid, account.as_ref())))
}

/// Owner and group for the pool's unix socket; an owner by name brings its primary
/// group along.
pub(super) fn socket_owner(pool: &Pool) -> Result<(Option<u32>, Option<u32>), IdentityError> {
    let whose = format!("[pool {}]", pool.name);
    let group = pool.socket_group.as_ref().map(|group| gid(&whose, group));
    let group = group.transpose().map_err(IdentityError::on("listen.group"))?;
    let Some(owner) = &pool.socket_owner else {
        return Ok((None, group.map(Gid::as_raw)));
    };
    let (uid, account) = uid_of(&whose, owner).map_err(IdentityError::on("listen.owner"))?;
    let by_name = matches!(owner, config::Identity::Name(_));
    let primary = account.filter(|_| by_name).map(|account| account.gid);
    Ok((Some(uid.as_raw()), group.or(primary).map(Gid::as_raw)))
}

/// Users and groups that get access to the pool's unix socket by its ACL.
pub(super) fn socket_acl(pool: &Pool) -> Result<(Vec<u32>, Vec<u32>), IdentityError> {
    let whose = format!("[pool {}]", pool.name);
    let named = |name: &String| config::Identity::Name(name.clone());
    let user = |name| Ok(uid_of(&whose, &named(name))?.0.as_raw());
    let group = |name| Ok(gid(&whose, &named(name))?.as_raw());
    let users: Result<_, _> = pool.socket_acl_users.iter().map(user).collect();
    let groups: Result<_, _> = pool.socket_acl_groups.iter().map(group).collect();
    Ok((
        users.map_err(IdentityError::on("listen.acl_users"))?,
        groups.map_err(IdentityError::on("listen.acl_groups"))?,
    ))
}

impl IdentityError {
    fn on(directive: &'static str) -> impl FnOnce(IdentityError) -> IdentityError {
        move |unknown| IdentityError::Socket {
            directive,
            unknown: Box::new(unknown),
        }
    }
}

fn with_groups(uid: Uid, gid: Gid, account: Option<&User>) -> Identity {
    let groups = account
        .and_then(|account| CString::new(account.name.as_str()).ok())
        .and_then(|name| nix::unistd::getgrouplist(&name, gid).ok())
        // Unknown to the accounts: no supplementary groups, and above all not root's.
        .unwrap_or_else(|| vec![gid]);
    Identity {
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    }
}

fn env_of(account: &User) -> Vec<(String, String)> {
    let home = account.dir.to_string_lossy().into_owned();
    vec![
        ("USER".to_owned(), account.name.clone()),
        ("HOME".to_owned(), home),
    ]
}

fn uid_of(whose: &str, user: &config::Identity) -> Result<(Uid, Option<User>), IdentityError> {
    match user {
        config::Identity::Id(number) => {
            let uid = Uid::from_raw(*number);
            Ok((uid, User::from_uid(uid).ok().flatten()))
        }
        config::Identity::Name(name) => match User::from_name(name).ok().flatten() {
            Some(account) => Ok((account.uid, Some(account))),
            None => Err(IdentityError::NoUser {
                whose: whose.to_owned(),
                name: name.clone(),
            }),
        },
    }
}

fn gid(whose: &str, group: &config::Identity) -> Result<Gid, IdentityError> {
    match group {
        config::Identity::Id(number) => Ok(Gid::from_raw(*number)),
        config::Identity::Name(name) => match Group::from_name(name).ok().flatten() {
            Some(group) => Ok(group.gid),
            None => Err(IdentityError::NoGroup {
                whose: whose.to_owned(),
                name: name.clone(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::ListenAddress;

    fn pool() -> Pool {
        Pool::new("www", ListenAddress::TcpPort(9000), NonZeroU32::MIN)
    }

    #[test]
    fn an_owner_by_name_brings_its_group_and_one_by_number_does_not() {
        let mut pool = pool();
        assert_eq!(socket_owner(&pool).expect("nothing asked"), (None, None));
        pool.socket_owner = Some(config::Identity::Name("root".into()));
        assert_eq!(socket_owner(&pool).expect("exists"), (Some(0), Some(0)));
        pool.socket_group = Some(config::Identity::Id(7));
        assert_eq!(socket_owner(&pool).expect("exists"), (Some(0), Some(7)));
        pool.socket_group = None;
        pool.socket_owner = Some(config::Identity::Id(0));
        assert_eq!(socket_owner(&pool).expect("a number"), (Some(0), None));
        pool.socket_owner = Some(config::Identity::Name("no-such-user".into()));
        let e = socket_owner(&pool).expect_err("unknown");
        let php_fpms = "[pool www] cannot get uid for user 'no-such-user': ";
        assert!(e.to_string().starts_with(php_fpms), "{e}");
    }

    #[test]
    fn an_acl_is_of_names_and_all_of_them_are_known() {
        let mut pool = pool();
        assert_eq!(socket_acl(&pool).expect("nothing asked"), (vec![], vec![]));
        pool.socket_acl_users = vec!["root".into()];
        pool.socket_acl_groups = vec!["root".into(), "no-such-group".into()];
        let e = socket_acl(&pool).expect_err("unknown");
        let php_fpms = "[pool www] cannot get gid for group 'no-such-group': ";
        assert!(e.to_string().starts_with(php_fpms), "{e}");
        pool.socket_acl_groups.pop();
        assert_eq!(socket_acl(&pool).expect("known"), (vec![0], vec![0]));
    }

    #[test]
    fn root_needs_to_be_allowed() {
        let mut pool = pool();
        pool.user = Some(config::Identity::Id(0));
        let as_root = nix::unistd::geteuid().is_root();
        assert_eq!(of_pool(&pool, false).is_err(), as_root);
        let become_ = of_pool(&pool, true).expect("allowed");
        assert_eq!(become_.identity, None);
        pool.user = Some(config::Identity::Id(12_345));
        let become_ = of_pool(&pool, false).expect("allowed");
        let groups = vec![12_345];
        let expected = Identity {
            uid: 12_345,
            gid: 12_345,
            groups,
        };
        assert_eq!(become_.identity, as_root.then_some(expected));
    }
}
