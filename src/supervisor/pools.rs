//! A pool's settings in the words of the control protocol, and what the supervisor
//! holds for it: listener, slow log, workers wanted.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::PoolId;
use glasspool_abi::control::{PhpSetting, PoolSpec, PoolView};
use glasspool_abi::slot::{SLOT_HEAD_BYTES, ring_bytes};
use glasspool_abi::trace::Sampler;

use super::backoff::Backoff;
use super::error::StartError;
use super::identity::{self, Become};
use super::listener::Listener;
use crate::config::{Pool, SlowStop};
use crate::logs::{self, ErrorLog};

/// php-fpm's `security.limit_extensions` where nothing else is said.
const LIMIT_EXTENSIONS: [&str; 2] = [".php", ".phar"];

/// A pool that is set up.
#[derive(Debug)]
pub(super) struct LivePool {
    pub(super) name: String,
    /// What engines are told.
    pub(super) spec: PoolSpec,
    /// What the observer is told.
    pub(super) view: PoolView,
    pub(super) slow_log: Option<Arc<OwnedFd>>,
    pub(super) listener: Listener,
    pub(super) wanted: u32,
    /// Workers that exist or were asked for.
    pub(super) present: u32,
    /// First workers that were asked for.
    pub(super) asked: u32,
    /// First workers that have neither served nor failed yet, asked for or not.
    pub(super) unsettled: u32,
    pub(super) catch_output: bool,
    pub(super) slot_bytes: usize,
    /// Starts that failed.
    pub(super) backoff: Backoff,
}

impl LivePool {
    /// Works out everything about a pool and opens its socket and slow log.
    pub(super) fn set_up(
        id: PoolId,
        pool: &Pool,
        allow_root: bool,
        sampler: Option<Sampler>,
        log: &ErrorLog,
    ) -> Result<LivePool, StartError> {
        let who = identity::of_pool(pool, allow_root)?;
        let slow_log = match (&pool.slowlog, pool.slow_after) {
            (Some(path), Some(_)) => {
                let opened = logs::open_log(path).map_err(|source| {
                    let (pool, path) = (pool.name.clone(), path.clone());
                    StartError::SlowLog { pool, path, source }
                })?;
                Some(Arc::new(opened.into()))
            }
            (Some(_), None) | (None, _) => None,
        };
        Ok(LivePool {
            name: pool.name.clone(),
            spec: spec(id, pool, who, sampler),
            view: PoolView {
                pool: id,
                name: pool.name.clone(),
                slow_after: pool.slow_after,
                slow_depth: pool.slow_depth.get(),
                slow_stop: pool.slow_stop == SlowStop::IfNeeded,
            },
            slow_log,
            listener: Listener::open(pool, log)?,
            wanted: pool.max_children.get(),
            present: 0,
            asked: 0,
            unsettled: pool.max_children.get(),
            catch_output: pool.catch_workers_output,
            slot_bytes: SLOT_HEAD_BYTES + ring_bytes(pool.max_children.get()),
            backoff: Backoff::default(),
        })
    }
}

fn spec(id: PoolId, pool: &Pool, who: Become, sampler: Option<Sampler>) -> PoolSpec {
    let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let is_root = nix::unistd::geteuid().is_root();
    let mut env = pool.env.clone();
    let configured: Vec<String> = env.iter().map(|(name, _)| name.clone()).collect();
    env.extend(who.env.into_iter().filter(|(name, _)| !configured.contains(name)));
    let php_values = pool.php_values.iter().map(|value| PhpSetting {
        name: value.name.clone(),
        value: value.value.clone(),
        admin: value.admin,
    });
    PoolSpec {
        pool: id,
        name: pool.name.clone(),
        identity: who.identity,
        chroot: pool.chroot.as_ref().filter(|_| is_root).map(path),
        chdir: pool.chdir.as_ref().map(path),
        clear_env: pool.clear_env,
        env,
        php_values: php_values.collect(),
        max_requests: pool.max_requests.map_or(0, |most| most.get()),
        limit_extensions: LIMIT_EXTENSIONS.map(str::to_owned).to_vec(),
        sampler: sampler.unwrap_or_default(),
        tracing: sampler.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::ListenAddress;

    #[test]
    fn configured_variables_are_not_replaced_by_the_accounts() {
        let mut pool = Pool::new("www", ListenAddress::TcpPort(9000), NonZeroU32::MIN);
        pool.env = vec![("HOME".into(), "/mine".into()), ("A".into(), "b".into())];
        let env = vec![
            ("USER".into(), "www-data".into()),
            ("HOME".into(), "/var/www".into()),
        ];
        let who = Become { identity: None, env };
        let spec = spec(PoolId(3), &pool, who, None);
        let expected: Vec<(String, String)> = [("HOME", "/mine"), ("A", "b"), ("USER", "www-data")]
            .map(|(n, v)| (n.into(), v.into()))
            .into();
        assert_eq!(spec.env, expected);
        assert_eq!(spec.limit_extensions, [".php", ".phar"]);
        assert_eq!((spec.pool, spec.max_requests), (PoolId(3), 0));
        assert!(!spec.tracing);
    }
}
