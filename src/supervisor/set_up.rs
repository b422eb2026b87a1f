//! Everything about a start that can fail before there is a process to end again.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::sync::Arc;

use glasspool_abi::PoolId;
use glasspool_abi::control::ObserverStart;
use tokio::sync::mpsc;

use super::companion::Companion;
use super::cursors::Cursors;
use super::error::StartError;
use super::hosting::Hosting;
use super::observer::Observer;
use super::phase::Phase;
use super::pools::LivePool;
use super::run::{Event, Supervisor};
use super::{Launch, identity, telemetry};

impl Supervisor {
    /// Everything that can fail without a process having been started.
    pub(super) fn set_up(launch: Launch, events: mpsc::Sender<Event>) -> Result<Supervisor, StartError> {
        let Launch {
            settings,
            log,
            allow_root,
            engine,
            ini,
            define,
            companion,
            announce,
        } = launch;
        for notice in &settings.notices {
            log.at(notice.level, &notice.text);
        }
        let overlay = &settings.overlay;
        let (otel_env, otel_file) = (
            telemetry::from_env(std::env::vars_os()),
            telemetry::from_overlay(overlay),
        );
        let (sampler, warnings) = telemetry::sampler(&otel_env, &otel_file);
        warnings.iter().for_each(|warning| log.warning(warning));
        let mut pools = Vec::with_capacity(settings.pools.len());
        for (number, pool) in (0..).zip(&settings.pools) {
            pools.push(LivePool::set_up(PoolId(number), pool, allow_root, sampler, &log)?);
        }
        let most_workers = pools
            .iter()
            .map(|pool| usize::try_from(pool.wanted).unwrap_or(usize::MAX))
            .sum();
        let start = ObserverStart {
            cursors: 0,
            identity: identity::of_observer(overlay.observer.user.as_deref())?,
            otel_env,
            otel_file,
            queue_bytes: overlay.otel.queue_bytes,
            colour: false,
        };
        let cursors = Cursors::create(most_workers).map_err(|e| std::io::Error::other(e.to_string()));
        let cursors = cursors.map_err(StartError::system("make the cursor table"))?;
        let observer = Observer::new(start, cursors, most_workers);
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let php = &overlay.php;
        Ok(Supervisor {
            phase: Phase::Starting,
            pools,
            workers: BTreeMap::new(),
            requested: 0,
            next_worker: 1,
            hosting: Hosting::new(
                engine,
                ini.or_else(|| php.ini.clone()),
                php.define.iter().cloned().chain(define).collect(),
            ),
            observer: observer.map_err(StartError::system("make the doorbell"))?,
            companion: companion.map(Companion::new),
            events,
            null: Arc::new(null.map_err(StartError::system("open /dev/null"))?.into()),
            stop_signal: None,
            sweep: false,
            fatal: None,
            due: None,
            stop_by: None,
            pid_path: settings.global.pid.clone(),
            pid_file: None,
            announce,
            leaving: false,
            log,
        })
    }
}
