//! A pool's settings in the words of the control protocol, and what the supervisor
//! holds for it: listener, logs, workers wanted.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use glasspool_abi::PoolId;
use glasspool_abi::control::{
    self, AccessLog, Channel, Limits, Pages, PhpSetting, PoolSpec, PoolView, Severity, ToEngine,
};
use glasspool_abi::slot::{SLOT_HEAD_BYTES, ring_bytes};

use super::backoff::Backoff;
use super::engines::GroupId;
use super::error::StartError;
use super::identity::{self, Become};
use super::management::Management;
use super::sampling::Sampling;
use super::sockets::{Listener, Sockets};
use super::status::Hearing;
use crate::config::{AccessForm, ListenAddress, LogForm, Pool, Settings, SlowStop};
use crate::logs::{self, ErrorLog};

/// Addresses of web servers that may connect, in the environment: what a pool without
/// `listen.allowed_clients` uses, as in php-fpm.
const WEB_SERVERS: &str = "FCGI_WEB_SERVER_ADDRS";

/// A pool that is set up.
#[derive(Debug)]
pub(super) struct LivePool {
    pub(super) name: String,
    /// As configured.
    pub(super) config: Arc<Pool>,
    pub(super) life: Life,
    /// Whose engine its workers come from.
    pub(super) group: GroupId,
    /// What engines are told.
    pub(super) spec: PoolSpec,
    /// What the observer is told.
    pub(super) view: PoolView,
    pub(super) slow_log: Option<Arc<OwnedFd>>,
    pub(super) access_log: Option<Arc<OwnedFd>>,
    /// Where its workers ask, and our end of that.
    pub(super) ask: Arc<OwnedFd>,
    pub(super) asked_here: Option<Channel>,
    /// What reads the latter, once the run loop runs.
    pub(super) hearing: Option<Hearing>,
    pub(super) listener: Arc<Listener>,
    /// How many workers it has, and what is counted of them.
    pub(super) management: Management,
    pub(super) catch_output: bool,
    pub(super) slot_bytes: usize,
    /// Starts that failed.
    pub(super) backoff: Backoff,
}

/// Where a pool is between two readings of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Read and set up; its only worker is the canary.
    Proving,
    /// Its workers serve, and are replaced.
    Serving,
    /// A successor serves; its workers end with the request they have.
    Draining,
}

/// What all pools of one reading share.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) allow_root: bool,
    /// Which requests are sampled, and whose traces are gone on with.
    sampling: Sampling,
    /// Whether somebody wants to know what PHP logs.
    tell_lines: bool,
    log_limit: u32,
    log_level: Severity,
    web_servers: Option<String>,
    /// Most workers of all pools together.
    pub(super) process_max: Option<NonZeroU32>,
}

impl Common {
    pub(super) fn new(settings: &Settings, allow_root: bool, sampling: Sampling, tell_lines: bool) -> Common {
        Common {
            allow_root,
            sampling,
            tell_lines,
            log_limit: u32::try_from(settings.global.log_limit).unwrap_or(u32::MAX),
            log_level: settings.global.log_level.into(),
            web_servers: std::env::var(WEB_SERVERS).ok(),
            process_max: settings.global.process_max,
        }
    }
}

impl LivePool {
    /// Works out everything about a pool and opens its socket and logs.
    pub(super) fn set_up(
        id: PoolId,
        pool: &Arc<Pool>,
        group: GroupId,
        common: &Common,
        sockets: &mut Sockets,
        log: &ErrorLog,
    ) -> Result<LivePool, StartError> {
        let slow_log = match (&pool.slowlog, pool.slow_after) {
            (Some(path), Some(_)) => Some(open_slow_log(&pool.name, path)?),
            (Some(_), None) | (None, _) => None,
        };
        let access_log = pool.access_log.as_deref().map(open_access_log).transpose()?;
        let who = identity::of_pool(pool, common.allow_root)?;
        let ask = Channel::pair().map_err(StartError::system("make a pool's control socket"))?;
        Ok(LivePool {
            name: pool.name.clone(),
            config: Arc::clone(pool),
            life: Life::Serving,
            group,
            spec: spec(id, pool, who, common),
            view: PoolView {
                pool: id,
                name: pool.name.clone(),
                slow_after: pool.slow_after,
                slow_depth: pool.slow_depth.get(),
                slow_json: pool.slow_form == LogForm::Json,
                slow_samples: pool.slow_samples.get(),
                slow_stop: match pool.slow_stop {
                    SlowStop::IfNeeded => control::SlowStop::IfNeeded,
                    SlowStop::Never => control::SlowStop::Never,
                    SlowStop::Always => control::SlowStop::Always,
                },
                still_running: pool.still_running,
                controllers: common.sampling.controllers(&pool.trace),
            },
            slow_log,
            access_log,
            asked_here: Some(ask.0),
            hearing: None,
            ask: Arc::new(ask.1.into()),
            listener: sockets.open(pool, log)?,
            management: Management::new(pool),
            catch_output: pool.catch_workers_output,
            slot_bytes: SLOT_HEAD_BYTES + ring_bytes(pool.max_children.get()),
            backoff: Backoff::default(),
        })
    }

    /// What makes an engine know the pool, or know it anew.
    pub(super) fn introduction(&self, doorbell: &Arc<OwnedFd>) -> (ToEngine, Vec<Arc<OwnedFd>>) {
        let fds = [&self.listener.socket, doorbell, &self.ask].into_iter();
        (
            ToEngine::AddPool(Box::new(self.spec.clone())),
            fds.chain(&self.access_log).cloned().collect(),
        )
    }
}

/// Opens a pool's access log; its workers write to the descriptor, so it appends.
pub(super) fn open_access_log(path: &Path) -> Result<Arc<OwnedFd>, StartError> {
    let opened = logs::open_log(path).map_err(|source| StartError::AccessLog {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(Arc::new(opened.into()))
}

/// Opens a pool's slow log, which the observer writes.
pub(super) fn open_slow_log(pool: &str, path: &Path) -> Result<Arc<OwnedFd>, StartError> {
    let opened = logs::open_log(path).map_err(|source| StartError::SlowLog {
        pool: pool.to_owned(),
        path: path.to_path_buf(),
        source,
    })?;
    Ok(Arc::new(opened.into()))
}

fn spec(id: PoolId, pool: &Pool, who: Become, common: &Common) -> PoolSpec {
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
    let is_tcp = !matches!(pool.listen, ListenAddress::Unix(_));
    let web_servers = common.web_servers.clone().filter(|_| is_tcp);
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
        limit_extensions: pool.limit_extensions.clone(),
        sampler: common.sampling.sampler(&pool.trace),
        tracing: common.sampling.sampler.is_some(),
        trace: common.sampling.policy(&pool.name),
        pages: Pages {
            status_path: pool.status_path.clone(),
            ping_path: pool.ping_path.clone(),
            ping_response: pool.ping_response.clone(),
        },
        allowed_clients: pool.allowed_clients.clone().or(web_servers),
        access_log: pool.access_log.as_ref().map(|_| AccessLog {
            format: match &pool.access_form {
                Some(AccessForm::Codes(format)) => format.clone(),
                Some(AccessForm::Json) | None => pool.access_format.clone(),
            },
            json: pool.access_form == Some(AccessForm::Json),
            suppress: pool.access_suppress.clone(),
        }),
        limits: Limits {
            files: pool.rlimit_files,
            core: pool.rlimit_core,
            priority: pool.priority.filter(|_| is_root),
            dumpable: pool.dumpable,
            apparmor_hat: pool.apparmor_hat.clone(),
        },
        catch_output: pool.catch_workers_output,
        tell_lines: common.tell_lines,
        log_limit: common.log_limit,
        log_level: common.log_level,
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
        let settings = Settings::single(pool.clone());
        let spec = spec(
            PoolId(3),
            &pool,
            who,
            &Common::new(&settings, false, Sampling::default(), true),
        );
        let expected: Vec<(String, String)> = [("HOME", "/mine"), ("A", "b"), ("USER", "www-data")]
            .map(|(n, v)| (n.into(), v.into()))
            .into();
        assert_eq!(spec.env, expected);
        assert_eq!(spec.limit_extensions, [".php", ".phar"]);
        assert_eq!((spec.pool, spec.max_requests), (PoolId(3), 0));
        assert!(!spec.tracing);
    }
}
