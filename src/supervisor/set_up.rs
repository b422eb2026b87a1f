//! Everything about a start that can fail before there is a process to end again.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::Launch;
use super::companion::Companion;
use super::cursors::Cursors;
use super::engines::Engines;
use super::error::StartError;
use super::generation::{Invocation, Numbers, Telemetry};
use super::heartbeat::Heartbeat;
use super::last_look::LastLooks;
use super::loading::Loader;
use super::notify::Notifier;
use super::observer::Observer;
use super::output::{Wire, wants_lines};
use super::phase::Phase;
use super::pools::Common;
use super::programs::Waits;
use super::raising::{self, Raising};
use super::reload::Reloading;
use super::run::{Event, Supervisor};
use super::sockets::{Sockets, listen_for_scrapes};
use super::successor::Call;

impl Supervisor {
    /// Everything that can fail without a process having been started.
    pub(super) fn set_up(launch: Launch, events: mpsc::Sender<Event>) -> Result<Supervisor, StartError> {
        let Launch {
            mut settings,
            log,
            allow_root,
            engine,
            ini,
            no_ini,
            extended_info,
            define,
            companion,
            announce,
            argv,
            reload,
        } = launch;
        let wire = Wire::default();
        wire.disconnect(true);
        log.tell(Box::new(wire.clone()));
        for notice in &settings.notices {
            log.at(notice.level, &notice.text);
        }
        let invocation = Invocation {
            allow_root,
            engine,
            ini,
            no_ini,
            extended_info,
            define,
        };
        let telemetry = Telemetry::of(&settings)?;
        telemetry.warnings.iter().for_each(|warning| log.warning(warning));
        let common = Common::new(
            &settings,
            allow_root,
            telemetry.sampling,
            wants_lines(&telemetry.observer),
        );
        let pools = std::mem::take(&mut settings.pools).into_iter().map(Arc::new);
        let (mut numbers, mut engines) = (Numbers::default(), Engines::default());
        let mut sockets = Sockets::from_environment(std::env::vars_os(), &log);
        let recipe = invocation.recipe(&settings);
        let pools = pools.map(|pool| (recipe.of_pool(&pool.php), pool));
        let draft = numbers.draft(pools, &common, &mut sockets, &log)?;
        sockets.settle(&log);
        draft.add_groups(&mut engines);
        let cursors = Cursors::create().map_err(|e| std::io::Error::other(e.to_string()));
        let cursors = cursors.map_err(StartError::system("make the cursor table"))?;
        let scrapes = telemetry.scrape.as_ref().map(listen_for_scrapes).transpose()?;
        let observer = Observer::new(telemetry.observer, cursors, scrapes.map(Arc::new), wire);
        let mut loader = Loader::default();
        loader.wish(telemetry.programs);
        let notifier = Notifier::from_environment(
            std::env::vars_os(),
            settings.global.systemd_interval,
            Instant::now(),
            &log,
        );
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        Ok(Supervisor {
            phase: Phase::Starting,
            pools: draft
                .pools
                .into_iter()
                .map(|pool| (pool.spec.pool, pool))
                .collect(),
            workers: BTreeMap::new(),
            requested: 0,
            next_worker: 1,
            engines,
            observer: observer.map_err(StartError::system("make the doorbell"))?,
            loader,
            waits: Waits::NotWanted,
            companion: companion.map(Companion::new),
            events,
            null: Arc::new(null.map_err(StartError::system("open /dev/null"))?.into()),
            last_looks: LastLooks::default(),
            pushed: None,
            sweep: false,
            fatal: None,
            due: None,
            stop_by: None,
            pid_file: None,
            announce,
            told: watch::Sender::new(false),
            heartbeat: Heartbeat::default(),
            maintenance_due: Instant::now(),
            told_of_most: false,
            crashes: BTreeMap::new(),
            is_up: false,
            leaving: false,
            global: settings.global,
            invocation,
            common,
            numbers,
            sockets,
            call: Call::new(argv).map_err(StartError::system("find the working directory"))?,
            reread: reload,
            reloading: Reloading::default(),
            reloads: [0; 2],
            canaries: BTreeMap::new(),
            drains: Vec::new(),
            raising: Raising::new(std::env::var_os(raising::VARIABLE).as_deref(), &log),
            becomes: None,
            notifier,
            log,
        })
    }
}
