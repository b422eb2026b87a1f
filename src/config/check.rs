//! What only the whole configuration can tell, in php-fpm's order, so that the same mistake is named first.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use super::directives::{Placed, RawGlobal, RawPool, Slot};
use super::effective::{
    Backlog, DEFAULT_SLOW_DEPTH, Global, Identity, ListenAddress, LogLevel, Notice, Pool, Settings,
};
use super::error::{ConfigError, Fault, Place, PoolFault, Shown};
use super::fpm::RawFpm;
use super::overlay::{Overlay, Slow};
use super::{LoadRequest, Prefixes, listen, php_values};

/// Makes checked settings of what was read.
pub(super) fn settings(
    raw: RawFpm,
    overlay: Overlay,
    request: &LoadRequest<'_>,
    prefixes: &Prefixes,
) -> Result<Settings, ConfigError> {
    let RawFpm {
        global,
        pools: raw_pools,
        mut notices,
    } = raw;
    let global = self::global(global, &prefixes.state);
    if raw_pools.is_empty() {
        let file = Shown::from(request.fpm_conf.as_path());
        return Err(ConfigError::without_place(Fault::NoPool { file }));
    }
    let mut pools = Vec::with_capacity(raw_pools.len());
    for raw in &raw_pools {
        let slow = overlay.pool(&raw.name).map(|pool| &pool.slow);
        let mut checker = Checker {
            raw,
            prefix: &prefixes.install,
            request,
            notices: &mut notices,
        };
        pools.push(checker.pool(slow, &overlay.slow)?);
    }
    refuse_shared_addresses(&raw_pools, &pools)?;
    Ok(Settings {
        global,
        pools,
        overlay,
        notices,
    })
}

fn global(raw: RawGlobal, state: &Path) -> Global {
    let error_log = raw
        .error_log
        .map_or_else(|| "log/php-fpm.log".to_owned(), |log| log.value);
    Global {
        error_log: Some(state.join(error_log)),
        pid: raw.pid.map(|pid| state.join(pid.value)),
        log_level: raw.log_level.map_or(LogLevel::default(), |level| level.value),
    }
}

struct Checker<'a> {
    raw: &'a RawPool,
    request: &'a LoadRequest<'a>,
    prefix: &'a Path,
    notices: &'a mut Vec<Notice>,
}

impl Checker<'_> {
    fn pool(&mut self, own: Option<&Slow>, common: &Slow) -> Result<Pool, ConfigError> {
        let raw = self.raw;
        self.user_present()?;
        let listen = self.listen()?;
        if raw.pm.is_none() {
            return Err(self.fault(None, PoolFault::NoProcessManager));
        }
        let max_children = raw.max_children.as_ref();
        let count = max_children.and_then(|max| NonZeroU32::new(u32::try_from(max.value).ok()?));
        let count =
            count.ok_or_else(|| self.fault(max_children.map(|max| &max.place), PoolFault::MaxChildren))?;
        let (slowlog, slow_depth) = self.slowlog()?;
        let (chroot, chdir) = self.directories()?;
        self.accounts(&listen)?;

        let timeout = raw.slow_timeout.as_ref().map(|timeout| timeout.value);
        let slow_after = own.and_then(|slow| slow.after).or(common.after).or(timeout);
        Ok(Pool {
            backlog: backlog(&raw.listen_backlog),
            socket_owner: identity(&raw.listen_owner),
            socket_group: identity(&raw.listen_group),
            socket_mode: raw
                .listen_mode
                .as_ref()
                .map(|mode| mode.value)
                .unwrap_or_default(),
            user: identity(&raw.user),
            group: identity(&raw.group),
            clear_env: raw.clear_env.as_ref().is_none_or(|clear| clear.value),
            env: self.environment(),
            max_requests: raw.max_requests.as_ref().and_then(|max| {
                // php-fpm accepts a negative limit, which no count ever reaches.
                NonZeroU64::new(u64::try_from(max.value).unwrap_or(0))
            }),
            php_values: php_values::in_order(raw, chroot.is_none().then_some(self.prefix)),
            chroot,
            chdir,
            slowlog,
            slow_after: slow_after.filter(|after| !after.is_zero()),
            slow_depth: own
                .and_then(|slow| slow.depth)
                .or(common.depth)
                .unwrap_or(slow_depth),
            slow_stop: own.and_then(|slow| slow.stop).or(common.stop).unwrap_or_default(),
            catch_workers_output: raw.catch_workers_output.as_ref().is_some_and(|on| on.value),
            ..Pool::new(raw.name.as_str(), listen, count)
        })
    }

    fn user_present(&self) -> Result<(), ConfigError> {
        if self.request.euid_root && self.raw.user.is_none() {
            return Err(self.fault(None, PoolFault::NoUser));
        }
        Ok(())
    }

    fn listen(&self) -> Result<ListenAddress, ConfigError> {
        let Some(Placed { value, place }) = &self.raw.listen else {
            return Err(self.fault(None, PoolFault::NoListen));
        };
        listen::parse(value, self.prefix).map_err(|fault| self.fault(Some(place), fault))
    }

    fn slowlog(&self) -> Result<(Option<PathBuf>, NonZeroU32), ConfigError> {
        let raw = self.raw;
        let slowlog = raw
            .slowlog
            .as_ref()
            .map(|slowlog| self.prefix.join(&slowlog.value));
        let timeout = raw
            .slow_timeout
            .as_ref()
            .filter(|timeout| !timeout.value.is_zero());
        if let (None, Some(timeout)) = (&slowlog, timeout) {
            let fault = PoolFault::NoSlowlog {
                directive: "request_slowlog_timeout",
            };
            return Err(self.fault(Some(&timeout.place), fault));
        }
        let Some(Placed { value, place }) = &raw.slow_depth else {
            return Ok((slowlog, DEFAULT_SLOW_DEPTH));
        };
        if slowlog.is_none() && *value != 0 {
            let fault = PoolFault::NoSlowlog {
                directive: "request_slowlog_trace_depth",
            };
            return Err(self.fault(Some(place), fault));
        }
        let negative = |_| self.fault(Some(place), PoolFault::TraceDepth { found: *value });
        let depth = u32::try_from(*value).map_err(negative)?;
        Ok((slowlog, NonZeroU32::new(depth).unwrap_or(DEFAULT_SLOW_DEPTH)))
    }

    fn directories(&self) -> Result<(Option<PathBuf>, Option<PathBuf>), ConfigError> {
        let chroot = match &self.raw.chroot {
            None => None,
            Some(Placed { value, place }) => {
                let path = match value.strip_prefix("$prefix") {
                    Some(rest) => self.prefix.join(rest.trim_start_matches('/')),
                    None => self.prefix.join(value),
                };
                let shown = Shown::from(path.as_path());
                if !path.is_dir() {
                    return Err(self.fault(Some(place), PoolFault::ChrootMissing { path: shown }));
                }
                Some(path)
            }
        };
        let Some(Placed { value, place }) = &self.raw.chdir else {
            return Ok((chroot, None));
        };
        let chdir = self.prefix.join(value);
        let shown = Shown::from(chdir.as_path());
        let missing = match &chroot {
            None => (!chdir.is_dir()).then_some(PoolFault::ChdirMissing { path: shown }),
            Some(root) => {
                let whole = root.join(chdir.strip_prefix("/").unwrap_or(&chdir));
                (!whole.is_dir()).then(|| PoolFault::ChdirInChroot {
                    chdir: shown,
                    chroot: Shown::from(root.as_path()),
                    whole: Shown::from(whole.as_path()),
                })
            }
        };
        missing.map_or(Ok((chroot, Some(chdir))), |fault| {
            Err(self.fault(Some(place), fault))
        })
    }

    /// Whether everybody named exists. php-fpm ignores identities when it is not root, and says so.
    fn accounts(&mut self, listen: &ListenAddress) -> Result<(), ConfigError> {
        let (raw, lookup) = (self.raw, self.request.lookup);
        if self.request.euid_root {
            let user = self.uid(&raw.user)?;
            let group = self.gid(&raw.group)?;
            // A user given by number has no known group here: the supervisor asks when it starts the worker.
            let primary = raw
                .user
                .as_ref()
                .and_then(|user| lookup.user(&user.value))
                .map(|user| user.gid);
            let place = raw.user.as_ref().map(|user| &user.place);
            if user == Some(0) || group.or(primary) == Some(0) {
                return Err(self.fault(place, PoolFault::Root));
            }
        } else {
            for (name, slot) in [
                ("user", &raw.user),
                ("group", &raw.group),
                ("chroot", &raw.chroot),
            ] {
                if let Some(Placed { place, .. }) = slot {
                    let pool = Shown::from(raw.name.as_str());
                    let text = format!(
                        "[pool {pool}] '{name}' directive is ignored when FPM is not running as root"
                    );
                    self.notices.push(Notice {
                        level: LogLevel::Notice,
                        place: Some(place.clone()),
                        text,
                    });
                }
            }
        }
        if matches!(listen, ListenAddress::Unix(_)) {
            self.uid(&raw.listen_owner)?;
            self.gid(&raw.listen_group)?;
        }
        Ok(())
    }

    fn uid(&self, slot: &Slot<String>) -> Result<Option<u32>, ConfigError> {
        self.id(
            slot,
            |name| self.request.lookup.user(name).map(|user| user.uid),
            |name| PoolFault::UnknownUser { name },
        )
    }

    fn gid(&self, slot: &Slot<String>) -> Result<Option<u32>, ConfigError> {
        self.id(
            slot,
            |name| self.request.lookup.group(name),
            |name| PoolFault::UnknownGroup { name },
        )
    }

    fn id(
        &self,
        slot: &Slot<String>,
        find: impl Fn(&str) -> Option<u32>,
        unknown: impl Fn(Shown) -> PoolFault,
    ) -> Result<Option<u32>, ConfigError> {
        let Some(Placed { value, place }) = slot else {
            return Ok(None);
        };
        let id = numeric(value).or_else(|| find(value));
        id.map(Some)
            .ok_or_else(|| self.fault(Some(place), unknown(Shown::from(value.as_str()))))
    }

    /// Each variable once, the first line wins; `$NAME` is taken from the supervisor's environment.
    fn environment(&self) -> Vec<(String, String)> {
        let mut seen = BTreeSet::new();
        let first = self.raw.env.iter().filter(|(name, _)| seen.insert(name.as_str()));
        let looked_up = first.map(|(name, value)| {
            let value = match value.strip_prefix('$') {
                Some(variable) => self
                    .request
                    .environment
                    .get(variable)
                    .cloned()
                    .unwrap_or_default(),
                None => value.clone(),
            };
            (name.clone(), value)
        });
        looked_up.collect()
    }

    fn fault(&self, place: Option<&Place>, fault: PoolFault) -> ConfigError {
        pool_error(self.raw, place, fault)
    }
}

fn pool_error(raw: &RawPool, place: Option<&Place>, fault: PoolFault) -> ConfigError {
    let pool = Shown::from(raw.name.as_str());
    ConfigError::at(place.unwrap_or(&raw.place), Fault::Pool { pool, fault })
}

fn backlog(slot: &Slot<i32>) -> Backlog {
    let asked = slot
        .as_ref()
        .and_then(|backlog| u32::try_from(backlog.value).ok());
    asked.map_or(Backlog::KernelMaximum, Backlog::Connections)
}

fn identity(slot: &Slot<String>) -> Option<Identity> {
    let name = &slot.as_ref()?.value;
    Some(numeric(name).map_or_else(|| Identity::Name(name.clone()), Identity::Id))
}

/// Digits alone are an id and always pass, as in php-fpm.
fn numeric(name: &str) -> Option<u32> {
    name.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| name.parse().ok())
        .flatten()
}

/// php-fpm compares the texts; comparing what they mean also finds `/run/x` and `/run//x` written twice.
fn refuse_shared_addresses(raw: &[RawPool], pools: &[Pool]) -> Result<(), ConfigError> {
    let mut taken: BTreeMap<&ListenAddress, &str> = BTreeMap::new();
    for (raw, pool) in raw.iter().zip(pools) {
        if let Some(other) = taken.insert(&pool.listen, &pool.name) {
            let place = raw.listen.as_ref().map(|listen| &listen.place);
            return Err(pool_error(
                raw,
                place,
                PoolFault::ListenTwice {
                    other: Shown::from(other),
                },
            ));
        }
    }
    Ok(())
}
