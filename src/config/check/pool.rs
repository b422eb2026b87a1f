//! One pool as a whole.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use super::{blamed, global, manager, or, pool_fault, priority, status};
use crate::config::directives::{Placed, RawPool, Slot, given};
use crate::config::effective::{
    DEFAULT_ACCESS_FORMAT, DEFAULT_SLOW_SAMPLES, Identity, ListenAddress, LogLevel, Notice, Pool,
};
use crate::config::error::{ConfigError, Fault, Place, PoolFault, Shown};
use crate::config::overlay::{Overlay, Slow};
use crate::config::{LoadRequest, listen, php_values, values};

/// Where the pool's relative paths start; absolute. A relative `prefix` of its own starts at `install`.
pub(super) fn prefix(raw: &RawPool, install: &Path) -> PathBuf {
    let own = given(&raw.lines.prefix);
    own.map_or(install.to_path_buf(), |own| install.join(&own.value))
}

pub(super) struct Checker<'a> {
    pub(super) raw: &'a RawPool,
    request: &'a LoadRequest<'a>,
    pub(super) prefix: PathBuf,
    pub(super) notices: &'a mut Vec<Notice>,
    start_notices: &'a mut Vec<Notice>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        raw: &'a RawPool,
        request: &'a LoadRequest<'a>,
        install: &Path,
        notices: &'a mut Vec<Notice>,
        start_notices: &'a mut Vec<Notice>,
    ) -> Result<Self, ConfigError> {
        let checker = Self {
            raw,
            request,
            prefix: prefix(raw, install),
            notices,
            start_notices,
        };
        if given(&raw.lines.prefix).is_some() && !checker.prefix.is_dir() {
            let path = Shown::from(checker.prefix.as_path());
            return Err(checker.fault("prefix", &raw.lines.prefix, PoolFault::Prefix { path }));
        }
        Ok(checker)
    }

    /// The pool, and the one that reports its status if `pm.status_listen` asks for it.
    pub(super) fn pool(mut self, overlay: &Overlay) -> Result<(Pool, Option<Pool>), ConfigError> {
        let (raw, lines) = (self.raw, &self.raw.lines);
        if self.request.euid_root && !self.request.allow_root && given(&lines.user).is_none() {
            return Err(self.missing(PoolFault::NoUser));
        }
        let listen = match given(&lines.listen) {
            None => return Err(self.missing(PoolFault::NoListen)),
            Some(_) => self.address("listen", &lines.listen)?,
        };
        let nice = priority(&lines.priority)
            .map_err(|()| self.fault("process.priority", &lines.priority, PoolFault::Priority))?;
        let (manager, max_children) = self.manager()?;
        let status_path = self.status_path()?;
        let (ping_path, ping_response) = self.ping()?;
        let access_log = self.file(&lines.access_log);
        let (slowlog, slow_depth) = self.slowlog()?;
        let (chroot, chdir) = self.directories()?;
        let reporter = match given(&lines.status_listen) {
            None => None,
            Some(_) => Some(self.address("pm.status_listen", &lines.status_listen)?),
        };
        self.clients();
        self.start_notices();

        let own = overlay.pool(&raw.name);
        let (own_slow, common) = (own.map(|own| &own.slow), &overlay.slow);
        let slow = |pick: fn(&Slow) -> Option<std::time::Duration>| own_slow.and_then(pick).or(pick(common));
        let timeout = lines.slow_timeout.as_ref().map(|timeout| timeout.value);
        let slow_after = slow(|slow| slow.after).or(timeout);
        let pool = Pool {
            backlog: manager::backlog(&lines.listen_backlog),
            socket_owner: identity(&lines.listen_owner),
            socket_group: identity(&lines.listen_group),
            // The text was found good when its line was read.
            socket_mode: text(&lines.listen_mode)
                .and_then(|mode| values::mode(&mode).ok())
                .unwrap_or_default(),
            socket_acl_users: names(&lines.listen_acl_users),
            socket_acl_groups: names(&lines.listen_acl_groups),
            allowed_clients: text(&lines.listen_allowed_clients),
            user: identity(&lines.user),
            group: identity(&lines.group),
            clear_env: or(&lines.clear_env, true),
            env: self.environment(),
            manager,
            max_requests: lines.max_requests.as_ref().and_then(|max| {
                // php-fpm accepts a negative limit, which no count ever reaches.
                NonZeroU64::new(u64::try_from(max.value).unwrap_or(0))
            }),
            php_values: php_values::in_order(lines),
            chroot,
            chdir,
            slowlog,
            slow_after: slow_after.filter(|after| !after.is_zero()),
            slow_depth: own_slow
                .and_then(|slow| slow.depth)
                .or(common.depth)
                .unwrap_or(slow_depth),
            slow_samples: own_slow
                .and_then(|slow| slow.samples)
                .or(common.samples)
                .unwrap_or(DEFAULT_SLOW_SAMPLES),
            slow_stop: own_slow
                .and_then(|slow| slow.stop)
                .or(common.stop)
                .unwrap_or_default(),
            still_running: own_slow
                .and_then(|slow| slow.still_running)
                .or(common.still_running)
                .unwrap_or(true),
            catch_workers_output: or(&lines.catch_workers_output, false),
            decorate_workers_output: or(&lines.decorate_workers_output, true),
            priority: nice.filter(|_| self.request.euid_root),
            dumpable: or(&lines.dumpable, false),
            apparmor_hat: text(&lines.apparmor_hat),
            rlimit_files: global::files(&lines.rlimit_files),
            rlimit_core: global::core(&lines.rlimit_core),
            status_path,
            ping_path,
            ping_response,
            access_log,
            access_format: match &lines.access_format {
                // Empty is allowed: nothing is written then.
                Some(format) => format.value.clone(),
                None => DEFAULT_ACCESS_FORMAT.to_owned(),
            },
            access_form: own
                .and_then(|own| own.access_format.clone())
                .or_else(|| overlay.logs.access_format.clone()),
            slow_form: overlay.logs.slow_format,
            access_suppress: lines.access_suppress.clone(),
            terminate_after: global::positive(&lines.terminate_timeout),
            terminate_finished: or(&lines.terminate_finished, false),
            limit_extensions: extensions(&lines.limit_extensions),
            trace: own.map(|own| own.trace.clone()).unwrap_or_default(),
            php: own.map(|own| own.php.clone()).unwrap_or_default(),
            ..Pool::new(raw.name.as_str(), listen, max_children)
        };
        let reporter = reporter.map(|address| status::of(&pool, address));
        Ok((pool, reporter))
    }

    fn address(&mut self, directive: &str, slot: &Slot<String>) -> Result<ListenAddress, ConfigError> {
        let Some(Placed { value, place }) = slot else {
            return Err(self.missing(PoolFault::NoListen));
        };
        listen::parse(value, &self.prefix, |text| {
            self.notices.push(Notice {
                level: LogLevel::Warning,
                place: Some(place.clone()),
                text,
            });
        })
        .map_err(|fault| address_error(self.raw, directive, slot, fault))
    }

    /// php-fpm leaves it to its workers to say that an address is none, and then to refuse everybody.
    fn clients(&mut self) {
        let Some(Placed { value, place }) = given(&self.raw.lines.listen_allowed_clients) else {
            return;
        };
        let wrong = value
            .split(',')
            .filter(|client| client.parse::<IpAddr>().is_err());
        for client in wrong {
            let (client, at) = (Shown::from(client), Some(place.clone()));
            let text = format!(
                "'{client}' in listen.allowed_clients at {place} is no IP address, so it lets nobody in"
            );
            self.notice(LogLevel::Warning, at, &text);
        }
    }

    /// Each variable once, the first line wins; `$NAME` is taken from the supervisor's environment.
    fn environment(&self) -> Vec<(String, String)> {
        let environment = &self.request.environment;
        let mut seen = BTreeSet::new();
        let lines = self.raw.lines.env.iter();
        let first = lines.filter(|(name, _)| seen.insert(name.as_str()));
        let looked_up = first.map(|(name, value)| {
            let value = match value.strip_prefix('$') {
                Some(variable) => environment.get(variable).cloned().unwrap_or_default(),
                None => value.clone(),
            };
            (name.clone(), value)
        });
        looked_up.collect()
    }

    /// What only root can give effect to is told when the pool starts, in php-fpm's words and order.
    fn start_notices(&mut self) {
        if self.request.euid_root {
            return;
        }
        let lines = &self.raw.lines;
        let texts = [
            ("user", &lines.user),
            ("group", &lines.group),
            ("chroot", &lines.chroot),
        ];
        let texts = texts.map(|(directive, slot)| (directive, given(slot).map(|text| &text.place)));
        let nice = lines.priority.as_ref().map(|nice| &nice.place);
        let pool = Shown::from(self.raw.name.as_str());
        for (directive, place) in texts.into_iter().chain([("process.priority", nice)]) {
            self.start_notices.extend(place.map(|place| Notice {
                level: LogLevel::Notice,
                place: Some(place.clone()),
                text: format!(
                    "[pool {pool}] '{directive}' directive is ignored when FPM is not running as root"
                ),
            }));
        }
    }

    pub(super) fn file(&self, slot: &Slot<String>) -> Option<PathBuf> {
        given(slot).map(|file| self.prefix.join(&file.value))
    }

    pub(super) fn notice(&mut self, level: LogLevel, place: Option<Place>, text: &str) {
        let pool = Shown::from(self.raw.name.as_str());
        self.notices.push(Notice {
            level,
            place,
            text: format!("[pool {pool}] {text}"),
        });
    }

    /// Blames the section for a line that it lacks.
    pub(super) fn missing(&self, fault: PoolFault) -> ConfigError {
        ConfigError::at(&self.raw.place, pool_fault(&self.raw.name, fault))
    }

    pub(super) fn fault<T: Display>(&self, directive: &str, slot: &Slot<T>, fault: PoolFault) -> ConfigError {
        blamed(
            &self.raw.place,
            directive,
            slot,
            pool_fault(&self.raw.name, fault),
        )
    }
}

/// The mistake in an address, blamed on its line.
fn address_error(
    raw: &RawPool,
    directive: &str,
    slot: &Slot<String>,
    bad: listen::BadAddress,
) -> ConfigError {
    let fault = match bad {
        listen::BadAddress::Port { found } => Fault::Port { found },
        listen::BadAddress::Resolve { reason } => Fault::Resolve { reason },
    };
    blamed(&raw.place, directive, slot, fault)
}

/// The suffixes of `security.limit_extensions`; blank allows every script.
fn extensions(slot: &Slot<String>) -> Vec<String> {
    const DEFAULT: &str = ".php .phar";
    let written = slot.as_ref().map_or(DEFAULT, |list| list.value.as_str());
    let suffixes = written.split([' ', '\t']).filter(|suffix| !suffix.is_empty());
    suffixes.map(str::to_owned).collect()
}

/// A list with commas; blanks belong to the names, as in php-fpm.
fn names(slot: &Slot<String>) -> Vec<String> {
    let list = given(slot).map_or("", |list| list.value.as_str());
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn text(slot: &Slot<String>) -> Option<String> {
    given(slot).map(|text| text.value.clone())
}

fn identity(slot: &Slot<String>) -> Option<Identity> {
    let name = &given(slot)?.value;
    let by_name = || Identity::Name(name.clone());
    Some(crate::config::accounts::numeric(name).map_or_else(by_name, Identity::Id))
}
