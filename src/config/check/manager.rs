//! `pm` and its numbers.

use std::num::NonZeroU32;
use std::time::Duration;

use super::pool::Checker;
use super::{or, seconds};
use crate::config::directives::Slot;
use crate::config::effective::{Backlog, LogLevel, ProcessManager};
use crate::config::error::{ConfigError, PoolFault};
use crate::config::values::ManagerName;

/// php-fpm's `pm.max_spawn_rate`.
pub(in crate::config) const MAX_SPAWN_RATE: i32 = 32;
/// php-fpm's `pm.process_idle_timeout`.
pub(in crate::config) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

impl Checker<'_> {
    /// The manager, and the most workers it may have.
    pub(super) fn manager(&mut self) -> Result<(ProcessManager, NonZeroU32), ConfigError> {
        let lines = &self.raw.lines;
        let Some(manager) = &lines.pm else {
            return Err(self.missing(PoolFault::NoProcessManager));
        };
        let children = self.positive("pm.max_children", &lines.max_children, 0, PoolFault::MaxChildren)?;
        let manager = match manager.value {
            ManagerName::Static => ProcessManager::Static,
            ManagerName::Dynamic => self.dynamic(or(&lines.max_children, 0))?,
            ManagerName::OnDemand => self.on_demand()?,
        };
        Ok((manager, children))
    }

    fn dynamic(&mut self, children: i32) -> Result<ProcessManager, ConfigError> {
        const MIN: &str = "pm.min_spare_servers";
        const MAX: &str = "pm.max_spare_servers";
        let lines = &self.raw.lines;
        let (min_slot, max_slot) = (&lines.min_spare_servers, &lines.max_spare_servers);
        let (min, max) = (or(min_slot, 0), or(max_slot, 0));
        let min_spare = self.positive(MIN, min_slot, 0, PoolFault::MinSpare { min })?;
        let max_spare = self.positive(MAX, max_slot, 0, PoolFault::MaxSpare { max })?;
        if min > children || max > children {
            let (name, slot) = if min > children {
                (MIN, min_slot)
            } else {
                (MAX, max_slot)
            };
            return Err(self.fault(name, slot, PoolFault::SpareAboveChildren { min, max, children }));
        }
        if max < min {
            return Err(self.fault(MAX, max_slot, PoolFault::SpareOrder { min, max }));
        }
        let start = or(&lines.start_servers, 0);
        let start_servers = match NonZeroU32::new(u32::try_from(start).unwrap_or(0)) {
            None => {
                let start = middle(min_spare, max_spare);
                let place = lines.start_servers.as_ref().map(|start| start.place.clone());
                let text = format!("pm.start_servers is not set. It's been set to {start}.");
                self.notice(LogLevel::Notice, place, &text);
                start
            }
            Some(_) if !(min..=max).contains(&start) => {
                let fault = PoolFault::StartServers { start, min, max };
                return Err(self.fault("pm.start_servers", &lines.start_servers, fault));
            }
            Some(start) => start,
        };
        let rate = (&lines.max_spawn_rate, MAX_SPAWN_RATE);
        Ok(ProcessManager::Dynamic {
            start_servers,
            min_spare,
            max_spare,
            max_spawn_rate: self.positive("pm.max_spawn_rate", rate.0, rate.1, PoolFault::SpawnRate)?,
        })
    }

    fn on_demand(&mut self) -> Result<ProcessManager, ConfigError> {
        let lines = &self.raw.lines;
        let idle_timeout = or(&lines.process_idle_timeout, IDLE_TIMEOUT);
        if idle_timeout.is_zero() {
            let fault = PoolFault::IdleTimeout { seconds: 0 };
            return Err(self.fault(
                "pm.process_idle_timeout",
                &seconds(&lines.process_idle_timeout),
                fault,
            ));
        }
        if let Some(backlog) = lines.listen_backlog.as_ref().filter(|backlog| backlog.value < -1) {
            let text = format!(
                "listen.backlog({}) was too low for the ondemand process manager. I updated it for you to -1.",
                backlog.value
            );
            let place = Some(backlog.place.clone());
            self.notice(LogLevel::Warning, place, &text);
        }
        Ok(ProcessManager::OnDemand { idle_timeout })
    }

    fn positive(
        &self,
        name: &str,
        slot: &Slot<i32>,
        default: i32,
        fault: PoolFault,
    ) -> Result<NonZeroU32, ConfigError> {
        let number = u32::try_from(or(slot, default)).ok().and_then(NonZeroU32::new);
        number.ok_or_else(|| self.fault(name, slot, fault))
    }
}

/// php-fpm's choice for `pm.start_servers`: half way from the fewest to the most idle workers.
fn middle(min: NonZeroU32, max: NonZeroU32) -> NonZeroU32 {
    min.saturating_add((max.get() - min.get()) / 2)
}

/// Any negative number asks for the kernel's maximum.
pub(super) fn backlog(slot: &Slot<i32>) -> Backlog {
    let asked = u32::try_from(or(slot, -1));
    asked.map_or(Backlog::KernelMaximum, Backlog::Connections)
}
