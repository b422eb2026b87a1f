//! What requests are called that nobody has named: by the method that handles them, if a look
//! or a wait has shown it (`[trace] route_from_controller`).
//!
//! Only what was seen of the request itself names it. The frames are read from memory that
//! its worker can write, so names are short, and few in each pool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use glasspool_abi::control::{ControllerPattern, PoolView};
use glasspool_otel::slow::SlowEvent;
use glasspool_otel::wait_span::RequestWaits;
use glasspool_probes::{Frame, Kind};

/// Names of a pool; requests with one more have none.
const MOST_ROUTES: usize = 500;
/// Longest name in bytes, as of a route that the application tells.
const ROUTE_BYTES: usize = 128;

/// By the pool's name, of those that want it.
#[derive(Debug, Default)]
pub(super) struct Routes(HashMap<String, OfPool>);

#[derive(Debug)]
struct OfPool {
    controllers: Arc<[ControllerPattern]>,
    known: HashSet<String>,
}

impl Routes {
    /// A pool, or one anew: what is known of its requests stays.
    pub(super) fn follow(&mut self, pool: &PoolView) {
        if pool.controllers.is_empty() {
            self.0.remove(&pool.name);
            return;
        }
        let controllers = Arc::from(pool.controllers.as_slice());
        match self.0.get_mut(&pool.name) {
            Some(known) => known.controllers = controllers,
            None => {
                let known = HashSet::new();
                self.0.insert(pool.name.clone(), OfPool { controllers, known });
            }
        }
    }

    /// What a request of the pool is called, by what was seen of it.
    pub(super) fn learn(
        &mut self,
        pool: &str,
        samples: &[SlowEvent],
        waits: &RequestWaits,
    ) -> Option<String> {
        let OfPool { controllers, known } = self.0.get_mut(pool)?;
        let mut looks = samples.iter();
        let seen = looks.find_map(|look| look.controller.clone());
        let mut waits = waits.spans.iter();
        let route = seen.or_else(|| waits.find_map(|wait| of_text(controllers, &wait.stacktrace)))?;
        if !known.contains(&route) {
            if known.len() >= MOST_ROUTES {
                return None;
            }
            known.insert(route.clone());
        }
        Some(route)
    }
}

/// The method that handles the request: the outermost one of a class that does. Of a stack
/// that does not begin with the script the outermost frames are missing, and none is told.
pub(super) fn of_frames(controllers: &[ControllerPattern], frames: &[Frame]) -> Option<String> {
    if controllers.is_empty() || frames.last()?.kind != Kind::Main {
        return None;
    }
    let calls = frames.iter().rev().filter(|frame| !frame.internal);
    let mut methods = calls.filter_map(|frame| Some((frame.class.as_deref()?, frame.function.as_str())));
    methods.find_map(|(class, method)| named(controllers, class, method))
}

/// The same of a stack in words (`sighting::stacktrace`), without its depth cut.
fn of_text(controllers: &[ControllerPattern], stack: &str) -> Option<String> {
    let calls = stack.lines().rev().map(|line| {
        let call = line.rsplit_once(": ").or_else(|| line.split_once(' '));
        call.map_or("", |(_, call)| call)
    });
    let mut calls = calls.peekable();
    calls.next_if_eq(&"{main}")?;
    calls.find_map(|call| {
        let (class, method) = call.strip_suffix("()")?.rsplit_once("::")?;
        named(controllers, class, method)
    })
}

/// The method as a name, if its class handles requests. Not a closure, nor what PHP calls by
/// itself on the way there, such as a constructor.
fn named(controllers: &[ControllerPattern], class: &str, method: &str) -> Option<String> {
    let mut patterns = controllers.iter();
    let pattern = patterns.find(|pattern| pattern.class.matches(class.as_bytes()))?;
    let by_itself = method.contains('{') || (method.starts_with("__") && method != "__invoke");
    let length = class.len() + "::".len() + method.len();
    let is_good = |text: &str| !text.contains(|c: char| c.is_control() || c.is_whitespace());
    (!pattern.excluded && !by_itself && length <= ROUTE_BYTES && is_good(class) && is_good(method))
        .then(|| format!("{class}::{method}"))
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
