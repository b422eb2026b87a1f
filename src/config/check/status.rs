//! The pools of `pm.status_listen`: two workers on an address of their own that report another pool's status.
//!
//! Deliberately more than in php-fpm, which leaves these workers without their pool's chroot, chdir, allowed suffixes,
//! environment, limits and INI values although they run every script that they are sent.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use super::manager::IDLE_TIMEOUT;
use super::{blamed, pool_fault};
use crate::config::directives::RawPool;
use crate::config::effective::{ListenAddress, Pool, ProcessManager};
use crate::config::error::{ConfigError, PoolFault, Shown};

/// php-fpm's number of workers for such a pool.
const WORKERS: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");

/// The pool that reports the status of `main` on `listen`.
pub(super) fn of(main: &Pool, listen: ListenAddress) -> Pool {
    Pool {
        socket_owner: main.socket_owner.clone(),
        socket_group: main.socket_group.clone(),
        socket_mode: main.socket_mode,
        socket_acl_users: main.socket_acl_users.clone(),
        socket_acl_groups: main.socket_acl_groups.clone(),
        allowed_clients: main.allowed_clients.clone(),
        user: main.user.clone(),
        group: main.group.clone(),
        manager: ProcessManager::OnDemand {
            idle_timeout: IDLE_TIMEOUT,
        },
        status_path: main.status_path.clone(),
        status_of: Some(main.name.clone()),
        ping_path: main.ping_path.clone(),
        ping_response: main.ping_response.clone(),
        // From here on what php-fpm leaves out.
        chroot: main.chroot.clone(),
        chdir: main.chdir.clone(),
        clear_env: main.clear_env,
        env: main.env.clone(),
        php_values: main.php_values.clone(),
        limit_extensions: main.limit_extensions.clone(),
        apparmor_hat: main.apparmor_hat.clone(),
        priority: main.priority,
        dumpable: main.dumpable,
        rlimit_files: main.rlimit_files,
        rlimit_core: main.rlimit_core,
        terminate_after: main.terminate_after,
        terminate_finished: main.terminate_finished,
        php: main.php.clone(),
        ..Pool::new(format!("{}_status", main.name), listen, WORKERS)
    }
}

/// A pool by the name that a status pool gets would make two pools one in logs and titles. php-fpm lets it pass.
pub(super) fn refuse_taken_names<'a>(
    sections: &[RawPool],
    made: impl Iterator<Item = (&'a RawPool, &'a Pool)>,
) -> Result<(), ConfigError> {
    let lower = |name: &str| name.to_ascii_lowercase();
    let mut names: BTreeSet<String> = sections.iter().map(|raw| lower(&raw.name)).collect();
    for (raw, pool) in made {
        if !names.insert(lower(&pool.name)) {
            let name = Shown::from(pool.name.as_str());
            let fault = pool_fault(&raw.name, PoolFault::StatusName { name });
            return Err(blamed(
                &raw.place,
                "pm.status_listen",
                &raw.lines.status_listen,
                fault,
            ));
        }
    }
    Ok(())
}
