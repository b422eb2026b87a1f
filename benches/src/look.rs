//! What it costs to look into PHP processes, and whether what is seen is right.
//!
//! - `costs`: one look: the reader is called directly, on scripts of known depth, because starting a program for
//!   each look would measure the start. Every stack is compared with the one that the script is known to have: a
//!   cheap look at the wrong thing is none. `words` is the yardstick, the usual way of such readers;
//! - `pause`: how long a running worker stands still for a slow request's stack, seen from inside it, against stock
//!   php-fpm's slow log;
//! - `watch`: what `top` and `record` cost;
//! - [`torn`], a case of its own: whether unstopped looks are ever wrong.

pub mod costs;
pub mod pause;
mod script;
pub mod torn;
pub mod watch;
mod words;

use std::time::Duration;

use serde::Serialize;

use crate::BenchError;
use crate::bench::Setup;

/// All of it but [`torn`].
#[derive(Debug, Clone, Serialize)]
pub struct LookResult {
    /// What one look costs, in the order of the measurements.
    pub rows: Vec<costs::Row>,
    /// How long a worker stands still.
    pub pause: pause::PauseResult,
    /// What watching costs.
    pub watch: watch::WatchResult,
}

/// Measures everything.
///
/// # Errors
/// No PHP on the command line, a server or script that does not start or cannot be looked into, or a signal.
pub fn measure(setup: &Setup<'_>) -> Result<LookResult, BenchError> {
    Ok(LookResult {
        rows: costs::measure(setup)?,
        pause: pause::measure(setup)?,
        watch: watch::measure(setup)?,
    })
}

impl LookResult {
    /// The median of a row, microseconds.
    #[must_use]
    pub fn p50_us(&self, what: &str, frames: usize) -> Option<f64> {
        let row = self
            .rows
            .iter()
            .find(|row| row.what == what && row.frames == frames);
        row.filter(|row| row.looks > row.partial).map(|row| row.p50_us)
    }
}

/// Of sorted times; 0 if there is none.
fn percentile_us(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(
            (percentile_us(&times, 50), percentile_us(&times, 99)),
            (51.0, 100.0)
        );
        assert_eq!(
            (percentile_us(&times[..1], 99), percentile_us(&[], 50)),
            (1.0, 0.0)
        );
    }
}
