//! One reading of the configuration brought to life: its pools, and the engine that each
//! group of them shares. A start makes one; a reload makes another beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::PoolId;
use glasspool_abi::control::{LookBudget, ObserverStart, Scraped, WaitPrograms};

use super::engine::EngineSource;
use super::engines::{Engines, GroupId};
use super::error::StartError;
use super::pm::drain::{self, Push, Reason};
use super::pools::{Common, Life, LivePool};
use super::programs::Wish;
use super::recipe::{PhpOptions, Recipe};
use super::run::Supervisor;
use super::sampling::Sampling;
use super::scheduling::limit_first;
use super::sockets::{self, Sockets};
use super::{identity, telemetry};
use crate::config::{EbpfMode, ListenAddress, Pool, PoolTrace, Settings, Trace};
use crate::logs::ErrorLog;

/// What the command line says and no reading of the configuration changes.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    /// Whether pools may run as root.
    pub(super) allow_root: bool,
    pub(super) engine: EngineSource,
    /// Before `[php] ini`.
    pub(super) ini: Option<PathBuf>,
    pub(super) no_ini: bool,
    pub(super) extended_info: bool,
    /// After, and so over, `[php] define`.
    pub(super) define: Vec<String>,
}

impl Invocation {
    /// Everybody's PHP, before what a pool says of its own.
    pub(super) fn recipe(&self, settings: &Settings) -> Recipe {
        let php = &settings.overlay.php;
        let source = match &self.engine {
            EngineSource::Php { .. } => EngineSource::Php {
                binary: php.binary.clone(),
            },
            EngineSource::Program(program) => EngineSource::Program(program.clone()),
        };
        let options = PhpOptions {
            ini: self.ini.clone().or_else(|| php.ini.clone()),
            no_ini: self.no_ini,
            extended_info: self.extended_info,
            define: php.define.iter().chain(&self.define).cloned().collect(),
        };
        Recipe { source, options }
    }
}

/// What a reading says of telemetry.
#[derive(Debug)]
pub(super) struct Telemetry {
    /// What workers are told.
    pub(super) sampling: Sampling,
    /// What the observer is started with.
    pub(super) observer: ObserverStart,
    /// Where metrics are fetched.
    pub(super) scrape: Option<ListenAddress>,
    /// What the kernel is to tell.
    pub(super) programs: Option<Wish>,
    /// What is wrong with it.
    pub(super) warnings: Vec<String>,
}

impl Telemetry {
    pub(super) fn of(settings: &Settings) -> Result<Telemetry, StartError> {
        let overlay = &settings.overlay;
        let otel_env = telemetry::from_env(std::env::vars_os());
        let mut of_pools = settings.pools.iter().map(|pool| &pool.trace);
        let asked = overlay.trace != Trace::default() || of_pools.any(|own| *own != PoolTrace::default());
        let otel_file = telemetry::unless_asked(&otel_env, telemetry::from_overlay(overlay), asked);
        let (sampler, propagators, mut warnings) = telemetry::sampling(&otel_env, &otel_file);
        // The observer writes to the standard output that it inherits from us.
        if telemetry::is_null_device(rustix::stdio::stdout()) {
            warnings.extend(telemetry::unseen(&otel_env, &otel_file));
        }
        if overlay.otel.file.is_none() {
            warnings.extend(telemetry::without_file(&otel_env, &otel_file));
        }
        let scrape = telemetry::scrape_address(&otel_env, &otel_file, overlay)?;
        let scraped = scrape.as_ref().map(|address| Scraped {
            address: sockets::name(address),
            phpfpm_names: overlay.metrics.phpfpm_names,
        });
        let figures = scraped.is_some() || telemetry::sends_metrics(&otel_env, &otel_file);
        let observer = ObserverStart {
            cursors: 0,
            identity: identity::of_observer(overlay.observer.user.as_deref())?,
            otel_env,
            otel_file,
            redact_query: overlay.trace.redact_query.clone(),
            routes: overlay.trace.routes.clone(),
            telemetry_file: overlay.otel.file.clone(),
            queue_bytes: overlay.otel.queue_bytes,
            budget: LookBudget {
                samples_per_second: overlay.observer.samples_per_second.get(),
                stop_per_second: overlay.observer.stop_per_second,
            },
            colour: false,
            figures,
            scraped,
            history_bytes: overlay.observer.history_bytes,
            waits: WaitPrograms::NotWanted,
            wait_span_after: overlay.ebpf.span_threshold,
        };
        let programs = Wish::of(settings, sampler.is_some());
        if overlay.ebpf.mode == EbpfMode::Required && sampler.is_none() {
            warnings.push(
                "ebpf.mode is \"required\", and no spans are made that would show what the kernel tells: set \
                 otel.endpoint in glasspool.toml, or OTEL_EXPORTER_OTLP_ENDPOINT"
                    .to_owned(),
            );
        }
        Ok(Telemetry {
            sampling: Sampling {
                sampler,
                propagators,
                trace: overlay.trace.clone(),
            },
            observer,
            scrape,
            programs,
            warnings,
        })
    }
}

/// What would be told to whom with this configuration in this environment, a line each for
/// people, and then what is wrong with it.
///
/// # Errors
/// What keeps it from a start.
pub fn describe_telemetry(settings: &Settings) -> Result<(Vec<String>, Vec<String>), StartError> {
    let telemetry = Telemetry::of(settings)?;
    let start = &telemetry.observer;
    let (mut lines, found) = telemetry::describe(&start.otel_env, &start.otel_file);
    lines.extend(
        telemetry
            .scrape
            .map(|address| format!("metrics: fetched at http://{}/metrics", sockets::name(&address))),
    );
    let mut wrong = telemetry.warnings;
    wrong.extend(found);
    wrong.sort();
    wrong.dedup();
    Ok((lines, wrong))
}

/// Pools that are set up, and the engines that they want; nothing is running yet, and
/// dropping it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) pools: Vec<LivePool>,
    pub(super) groups: Vec<(GroupId, Recipe)>,
}

/// Numbers that are never given twice.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next_pool: u32,
    next_group: u32,
}

impl Numbers {
    /// Sets up pools that are configured so.
    ///
    /// # Errors
    /// The first pool that cannot be; then nothing has changed.
    pub(super) fn draft(
        &mut self,
        pools: impl IntoIterator<Item = (Recipe, Arc<Pool>)>,
        common: &Common,
        sockets: &mut Sockets,
        log: &ErrorLog,
    ) -> Result<Draft, StartError> {
        let mut draft = Draft {
            pools: Vec::new(),
            groups: Vec::new(),
        };
        for (recipe, pool) in pools {
            let known = draft.groups.iter().find(|(_, known)| *known == recipe);
            let group = match known {
                Some((group, _)) => *group,
                None => {
                    let group = GroupId(self.next_group);
                    self.next_group += 1;
                    draft.groups.push((group, recipe));
                    group
                }
            };
            let id = PoolId(self.next_pool);
            self.next_pool += 1;
            draft
                .pools
                .push(LivePool::set_up(id, &pool, group, common, sockets, log)?);
        }
        limit_first(&mut draft.pools, common.process_max);
        Ok(draft)
    }
}

impl Draft {
    /// Its engines are wanted from now on.
    pub(super) fn add_groups(&self, engines: &mut Engines) {
        for (group, recipe) in &self.groups {
            engines.add(*group, recipe.clone());
        }
    }
}

impl Supervisor {
    /// The group's engine has PHP up: it is told the pools, and the observer what it hosts.
    pub(super) fn employ(&mut self, group: GroupId) {
        self.introduce_pools(group);
        if self.is_up {
            if let Some(engine) = self.engines.up(group) {
                self.introduce_engine(engine);
            }
        } else {
            self.come_up();
        }
    }

    /// Comes up, once PHP has in every engine and it is known what the kernel tells.
    pub(super) fn come_up(&mut self) {
        if !self.is_up && self.engines.are_proven() && self.loader.is_done() {
            self.came_up();
        }
    }

    /// Tells the group's engine those of its pools that are to serve.
    pub(super) fn introduce_pools(&mut self, group: GroupId) {
        self.introduce_raised(group);
        let pools = self.pools.values();
        let pools = pools.filter(|pool| pool.group == group && pool.life == Life::Serving);
        let messages: Vec<_> = pools
            .map(|pool| pool.introduction(&self.observer.doorbell))
            .collect();
        for (message, fds) in messages {
            self.tell_engine(group, message, fds);
        }
    }

    /// A group's first engine has not come up.
    pub(super) fn first_engine_failed(&mut self, group: GroupId, error: StartError) {
        if self.reloading.is_candidate(group) {
            self.fail_reload(error.to_string());
        } else {
            self.fatal.get_or_insert(error);
        }
    }

    /// An engine that had come up is gone.
    pub(super) fn engine_was_lost(&mut self, group: GroupId, how: &str) {
        if self.reloading.is_candidate(group) {
            self.fail_reload(how.to_owned());
        } else {
            self.log.warning(format_args!(
                "{how}; running workers go on, starting a new engine"
            ));
        }
    }

    // === Seeing the old ones off ===

    /// Lets the workers of pools that have successors end.
    pub(super) fn drain(&mut self, pools: BTreeSet<PoolId>, patience: Option<Duration>) {
        let groups = pools.iter().filter_map(|id| self.pools.get(id));
        let groups = groups.map(|pool| pool.group).collect();
        let mut drain = Drain {
            pools,
            groups,
            push: drain::first(Reason::Graceful, patience),
            due: None,
        };
        self.push_drain(&mut drain);
        self.drains.push(drain);
    }

    /// Whether a worker of these pools waits for a connection.
    pub(super) fn take_connections(&self, pools: &BTreeSet<PoolId>) -> bool {
        self.workers
            .values()
            .any(|worker| pools.contains(&worker.pool()) && worker.waits_for_connection())
    }

    fn push_drain(&mut self, drain: &mut Drain) {
        let pools = &drain.pools;
        let Push { signal, doom, .. } = drain.push;
        self.signal_workers(signal, doom, |pool| pools.contains(&pool.spec.pool));
        drain.due = drain.push.patience.map(|patience| Instant::now() + patience);
    }

    /// Pushes those whose time is over; forgets what nobody comes from any more.
    pub(super) fn keep_drains(&mut self, now: Instant) {
        let mut drains = std::mem::take(&mut self.drains);
        for drain in &mut drains {
            // When everything stops, every worker is pushed.
            if drain.due.is_some_and(|due| due <= now) && self.phase.wants_workers() {
                drain.push = drain::next(drain.push.signal);
                self.push_drain(drain);
            }
            drain.pools.retain(|pool| !self.forget_pool(*pool));
            let mut starting = self.workers.values().filter(|worker| worker.is_starting());
            if !drain.groups.is_empty() && !starting.any(|worker| drain.pools.contains(&worker.pool())) {
                for group in std::mem::take(&mut drain.groups) {
                    self.crashes.remove(&group);
                    self.engines.retire(group, now);
                }
            }
        }
        drains.retain(|drain| !drain.pools.is_empty() || !drain.groups.is_empty());
        self.drains = drains;
    }

    /// Forgets a pool if it has no worker; whether it is forgotten.
    fn forget_pool(&mut self, id: PoolId) -> bool {
        match self.pools.remove(&id) {
            Some(pool) if pool.management.present() > 0 => {
                self.pools.insert(id, pool);
                false
            }
            Some(pool) => {
                self.tell_last_figures(&pool);
                self.observer.pool_gone(pool.view, pool.slow_log, &self.log);
                true
            }
            None => true,
        }
    }
}

/// Pools that end because they have successors.
#[derive(Debug)]
pub(super) struct Drain {
    /// Those that still have workers.
    pools: BTreeSet<PoolId>,
    /// Their engines, until no worker is being started any more.
    groups: BTreeSet<GroupId>,
    /// What their workers were sent last.
    push: Push,
    /// When they are sent the next.
    pub(super) due: Option<Instant>,
}
