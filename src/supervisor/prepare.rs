//! A generation before it serves: read, checked and set up beside the one that does, and
//! taken down again if it is not to be.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use glasspool_abi::PoolId;

use super::engines::GroupId;
use super::error::StartError;
use super::generation::{Draft, Telemetry};
use super::output::wants_lines;
use super::own_pid;
use super::pid_file::PidFile;
use super::pools::{Common, Life};
use super::reload::{Adoption, Candidate, Order};
use super::run::Supervisor;
use super::sockets::{self, Listener, listen_for_scrapes};
use crate::config::{Global, ListenAddress};
use crate::logs::Errno;

impl Supervisor {
    /// Reads the configuration, or takes what is in force, and sets up what it asks for.
    pub(super) fn prepare(&mut self) {
        let prepared = match self.reloading.order {
            Some(Order::All) => self.prepare_all(),
            Some(Order::Engine(group)) => self.prepare_engine(group),
            None => Err("nothing was asked for".to_owned()),
        };
        match prepared {
            Ok(candidate) => {
                self.reloading.tell("the configuration is accepted; starting PHP");
                self.reloading.candidate = Some(candidate);
            }
            Err(why) => self.fail_reload(why),
        }
    }

    fn prepare_all(&mut self) -> Result<Candidate, String> {
        let settings = (self.reread)().map_err(|lines| {
            for (level, text) in &lines {
                self.log.at(*level, text);
            }
            lines.into_iter().next().map_or_else(
                || "the configuration is refused".to_owned(),
                |(_, text)| format!("the configuration is refused: {text}"),
            )
        })?;
        for notice in settings.notices.iter().chain(&settings.start_notices) {
            self.log.at(notice.level, &notice.text);
        }
        for name in unchangeable(&self.global, &settings.global) {
            self.log.notice(format_args!(
                "{name} has changed, which takes effect when the program is started anew"
            ));
        }
        let telemetry = Telemetry::of(&settings).map_err(|e| e.to_string())?;
        telemetry
            .warnings
            .iter()
            .for_each(|warning| self.log.warning(warning));
        let common = Common::new(
            &settings,
            self.invocation.allow_root,
            telemetry.sampling,
            wants_lines(&telemetry.observer),
        );
        let scrapes = self
            .scrapes_at(telemetry.scrape.as_ref())
            .map_err(|e| e.to_string())?;
        let log = self
            .log
            .prepare(&settings.global)
            .map_err(|e| format!("failed to open error_log: {}", Errno(&e)))?;
        let recipe = self.invocation.recipe(&settings);
        let pools = settings.pools.into_iter().map(Arc::new);
        let pools = pools.map(|pool| (recipe.of_pool(&pool.php), pool));
        let (numbers, sockets) = (&mut self.numbers, &mut self.sockets);
        let draft = self
            .log
            .with_original_stderr(|| numbers.draft(pools, &common, sockets, &self.log));
        let draft = draft.map_err(|e| e.to_string())?;
        let adoption = Adoption {
            pid_file: self.new_pid_file(settings.global.pid.as_deref())?,
            global: settings.global,
            common,
            observer: telemetry.observer,
            scrapes,
            waits: self.prepare_waits(telemetry.programs),
            log,
        };
        let serving = self.pools.values().filter(|pool| pool.life == Life::Serving);
        let replaces = serving.map(|pool| pool.spec.pool).collect();
        Ok(self.install(draft, replaces, Some(adoption)))
    }

    fn prepare_engine(&mut self, group: GroupId) -> Result<Candidate, String> {
        let concerned = self.pools.values();
        let concerned = concerned.filter(|pool| pool.group == group && pool.life == Life::Serving);
        let (ids, pools): (BTreeSet<PoolId>, Vec<_>) = concerned
            .map(|pool| (pool.spec.pool, Arc::clone(&pool.config)))
            .unzip();
        let Some(recipe) = self.engines.recipe(group).filter(|_| !ids.is_empty()).cloned() else {
            return Err("it was replaced meanwhile".to_owned());
        };
        let pools = pools.into_iter().map(|pool| (recipe.clone(), pool));
        let (numbers, sockets) = (&mut self.numbers, &mut self.sockets);
        let draft = self
            .log
            .with_original_stderr(|| numbers.draft(pools, &self.common, sockets, &self.log));
        Ok(self.install(draft.map_err(|e| e.to_string())?, ids, None))
    }

    /// Where metrics are to be fetched: where they are, or a new socket.
    fn scrapes_at(&self, address: Option<&ListenAddress>) -> Result<Option<Arc<Listener>>, StartError> {
        let Some(address) = address else {
            return Ok(None);
        };
        let current = self.observer.scrapes_at(&sockets::name(address));
        current
            .map_or_else(|| listen_for_scrapes(address).map(Arc::new), Ok)
            .map(Some)
    }

    /// The pid file of a new configuration, where it is another one.
    fn new_pid_file(&self, path: Option<&Path>) -> Result<Option<PidFile>, String> {
        let path = path.filter(|path| self.global.pid.as_deref() != Some(path));
        let written = path.map(|path| PidFile::write(path, own_pid())).transpose();
        written.map_err(|e: StartError| e.to_string())
    }

    fn install(&mut self, draft: Draft, replaces: BTreeSet<PoolId>, adoption: Option<Adoption>) -> Candidate {
        draft.add_groups(&mut self.engines);
        let groups = draft.groups.into_iter().map(|(group, _)| group).collect();
        let mut pools = Vec::with_capacity(draft.pools.len());
        for mut pool in draft.pools {
            pool.life = Life::Proving;
            pools.push(pool.spec.pool);
            self.pools.insert(pool.spec.pool, pool);
        }
        Candidate {
            unproven: pools.iter().copied().collect(),
            pools,
            groups,
            replaces,
            out: 0,
            patience: self.global.process_control_timeout,
            adoption,
        }
    }

    /// Ends what there is of a generation that will not serve.
    pub(super) fn tear_down(&mut self) {
        self.condemn_canaries();
        self.loader.give_up();
        let Some(candidate) = self.reloading.candidate.take() else {
            return;
        };
        for pool in &candidate.pools {
            self.pools.remove(pool);
        }
        for group in &candidate.groups {
            self.engines.discard(*group);
        }
        if let Some(file) = candidate.adoption.and_then(|adoption| adoption.pid_file) {
            file.remove(&self.log);
        }
    }
}

/// Settings that differ and that a running process does not change.
fn unchangeable<'a>(before: &Global, after: &Global) -> impl Iterator<Item = &'a str> {
    let all = [
        ("daemonize", before.daemonize != after.daemonize),
        ("process.priority", before.priority != after.priority),
        ("rlimit_files", before.rlimit_files != after.rlimit_files),
        ("rlimit_core", before.rlimit_core != after.rlimit_core),
    ];
    let changed = all.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_told() {
        let before = Global::default();
        let after = Global {
            rlimit_files: Some(7),
            log_limit: 4096,
            ..Global::default()
        };
        assert_eq!(unchangeable(&before, &before).count(), 0);
        let told: Vec<&str> = unchangeable(&before, &after).collect();
        assert_eq!(told, ["rlimit_files"]);
    }
}
