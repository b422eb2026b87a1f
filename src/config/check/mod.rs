//! What only the whole configuration can tell, in php-fpm's order, so that the same mistake is named first:
//! `[global]`, each pool in file order, the pools of `pm.status_listen`, shared addresses, log files, log formats.

mod directories;
mod global;
mod logs;
mod manager;
mod pool;
mod requests;
mod status;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

pub(super) use manager::{IDLE_TIMEOUT, MAX_SPAWN_RATE};

use super::directives::{Placed, RawPool, Slot, given};
use super::effective::{Global, ListenAddress, Notice, Pool, Settings};
use super::error::{ConfigError, Fault, Place, PoolFault, Shown};
use super::fpm::RawFpm;
use super::overlay::Overlay;
use super::{LoadRequest, Prefixes, php_values};

/// Makes checked settings of what was read; `global_checked` gets `[global]` as soon as it is known to be in order.
pub(super) fn settings(
    mut raw: RawFpm,
    overlay: Overlay,
    request: &LoadRequest<'_>,
    prefixes: &Prefixes,
    notices: &mut Vec<Notice>,
    global_checked: &mut Option<Global>,
) -> Result<Settings, ConfigError> {
    let mut global = global::check(&raw.global, request, &prefixes.state, notices)?;
    global.error_form = overlay.logs.error_format;
    *global_checked = Some(global.clone());
    if raw.pools.is_empty() {
        let file = Shown::from(request.fpm_conf.as_path());
        return Err(ConfigError::without_place(Fault::NoPool { file }));
    }
    raw.pools.iter_mut().for_each(|raw| expand_paths(raw, prefixes));
    let (mut pools, mut status) = (Vec::with_capacity(raw.pools.len()), Vec::new());
    let mut start_notices = Vec::new();
    for raw in &raw.pools {
        let checker = pool::Checker::new(raw, request, &prefixes.install, notices, &mut start_notices)?;
        let (pool, reporter) = checker.pool(&overlay)?;
        pools.push(pool);
        status.extend(reporter.map(|reporter| (raw, reporter)));
    }
    let reporters = || status.iter().map(|(raw, pool)| (*raw, pool));
    status::refuse_taken_names(&raw.pools, reporters())?;
    let own = raw.pools.iter().zip(&pools).map(Named::own);
    refuse_shared_addresses(own.chain(reporters().map(Named::status)))?;
    for (raw, pool) in raw.pools.iter().zip(&pools) {
        logs::openable(raw, pool)?;
    }
    for (raw, pool) in raw.pools.iter().zip(&pools) {
        logs::format(raw, pool, notices)?;
    }
    pools.extend(status.into_iter().map(|(_, pool)| pool));
    Ok(Settings {
        global,
        pools,
        overlay,
        notices: Vec::new(),
        start_notices,
        written: Some(Box::new(raw)),
    })
}

/// Makes paths absolute that are kept as written.
fn expand_paths(raw: &mut RawPool, prefixes: &Prefixes) {
    let prefix = pool::prefix(raw, &prefixes.install);
    if given(&raw.lines.chroot).is_none() {
        php_values::expand_paths(&mut raw.lines, &prefix);
    }
    if let Some(own) = raw.lines.prefix.as_mut().filter(|own| !own.value.is_empty()) {
        own.value = prefix.to_string_lossy().into_owned();
    }
}

/// A pool's address and the line it comes from.
struct Named<'a> {
    pool: &'a Pool,
    raw: &'a RawPool,
    directive: &'static str,
    written: &'a Slot<String>,
}

impl<'a> Named<'a> {
    fn own((raw, pool): (&'a RawPool, &'a Pool)) -> Self {
        let (directive, written) = ("listen", &raw.lines.listen);
        Self {
            pool,
            raw,
            directive,
            written,
        }
    }

    fn status((raw, pool): (&'a RawPool, &'a Pool)) -> Self {
        let (directive, written) = ("pm.status_listen", &raw.lines.status_listen);
        Self {
            pool,
            raw,
            directive,
            written,
        }
    }
}

/// php-fpm compares the texts; comparing what they mean also finds `/run/x` and `/run//x` written twice.
fn refuse_shared_addresses<'a>(named: impl Iterator<Item = Named<'a>>) -> Result<(), ConfigError> {
    let mut taken: BTreeMap<&ListenAddress, &str> = BTreeMap::new();
    for named in named {
        if let Some(other) = taken.insert(&named.pool.listen, &named.pool.name) {
            let other = Shown::from(other);
            let fault = pool_fault(&named.pool.name, PoolFault::ListenTwice { other });
            return Err(blamed(&named.raw.place, named.directive, named.written, fault));
        }
    }
    Ok(())
}

fn pool_fault(pool: &str, fault: PoolFault) -> Fault {
    let pool = Shown::from(pool);
    Fault::Pool { pool, fault }
}

/// Blames the line of a directive, or the section where the directive is missing.
fn blamed<T: Display>(section: &Place, directive: &str, slot: &Slot<T>, fault: Fault) -> ConfigError {
    match slot {
        None => ConfigError::at(section, fault),
        Some(Placed { value, place }) => {
            let found = Shown::from(format!("{directive} = {value}").as_str());
            ConfigError::at(place, fault).found(found)
        }
    }
}

/// A time as its number of seconds, to be shown.
fn seconds(slot: &Slot<Duration>) -> Slot<u64> {
    slot.as_ref().map(|time| Placed {
        value: time.value.as_secs(),
        place: time.place.clone(),
    })
}

/// The value of a slot that can be copied, or `default`.
fn or<T: Copy>(slot: &Slot<T>, default: T) -> T {
    slot.as_ref().map_or(default, |placed| placed.value)
}

/// `process.priority`, of `[global]` or a pool: −19 to 20. php-fpm keeps 64 for "not set", so it takes 64 written.
fn priority(slot: &Slot<i32>) -> Result<Option<i32>, ()> {
    match slot.as_ref().map(|priority| priority.value) {
        None | Some(64) => Ok(None),
        Some(nice @ -19..=20) => Ok(Some(nice)),
        Some(_) => Err(()),
    }
}
