//! What telemetry costs, and whether it counts right: measured on Glasspool alone.
//!
//! - [`counts`]: requests of every outcome; what the clients sent, the spans, the metrics and the access log agree;
//! - [`black_hole`]: a collector that takes connections and never answers, at full load;
//! - [`cost`]: tracing on against tracing off, and the observer's share of a processor.

pub mod black_hole;
pub mod cost;
pub mod counts;
mod mix;

use std::num::NonZeroU32;

use crate::BenchError;
use crate::bench::Setup;
use crate::server::{More, Server, Side, Spec, Tracing};

/// Spans that the observer's last words say are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Losses {
    /// Records that were overwritten in the rings before they were read: requests, which neither
    /// spans nor metrics know, and lines of PHP's log.
    pub overwritten: u64,
    /// Spans that were dropped, or that no collector took.
    pub undelivered: u64,
    /// Log records of any kind that were dropped, or that no collector took.
    pub lines: u64,
}

impl Losses {
    /// Both kinds of spans.
    #[must_use]
    pub fn total(self) -> u64 {
        self.overwritten + self.undelivered
    }

    /// From an error log; each observer that lost something says so when it ends.
    fn told_in(log: &str) -> Losses {
        let mut losses = Losses::default();
        for told in log
            .lines()
            .filter_map(|line| Some(line.split_once("; lost: ")?.1))
        {
            for part in told.split(", ") {
                let Some((count, what)) = part.split_once(' ') else {
                    continue;
                };
                let count = count.parse().unwrap_or(0);
                match what {
                    "records overwritten in the rings" => losses.overwritten += count,
                    "spans not delivered" => losses.undelivered += count,
                    "log records not delivered" => losses.lines += count,
                    _ => {}
                }
            }
        }
        losses
    }
}

/// Glasspool, with this to say beside what all servers are told.
fn start(
    setup: &Setup<'_>,
    side: Side,
    workers: u32,
    tracing: Tracing,
    more: More<'_>,
) -> Result<Server, BenchError> {
    let spec = Spec {
        side,
        program: setup.candidate,
        php: setup.stock,
        ini: setup.ini,
        dir: setup.dir,
        scripts: setup.scripts,
        tcp: false,
        workers: NonZeroU32::new(workers).expect("written by the caller"),
        tracing,
        slow_after_s: None,
        hold: false,
        ebpf: crate::server::Ebpf::Auto,
        more,
    };
    Server::start(&spec, setup.stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_from_the_last_words() {
        let log = "NOTICE: ready\nNOTICE: the observer ends after 9 spans; lost: 3 records overwritten in the rings, \
                   40 spans not delivered, 2 log records not delivered\n";
        let losses = Losses::told_in(log);
        assert_eq!(
            (
                losses.overwritten,
                losses.undelivered,
                losses.lines,
                losses.total()
            ),
            (3, 40, 2, 43)
        );
        assert_eq!(
            Losses::told_in("WARNING: telemetry was lost, lost: 5"),
            Losses::default()
        );
    }
}
