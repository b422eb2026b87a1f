//! What became of everything that passed through an observer.

use glasspool_otel::export;

/// Totals over this observer's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Spans of requests handed to the pipeline, those of killed workers included.
    pub(super) spans: u64,
    /// Of these, spans of requests whose worker ended first.
    pub(super) killed: u64,
    /// Early spans of requests past their limit, beside their own.
    pub(super) still_running: u64,
    /// Spans of work after a response, handed over as well.
    pub(super) post_response: u64,
    /// Spans of waits handed to the pipeline, which are none of the above.
    pub(super) wait_spans: u64,
    /// Requests that ended and were neither sampled nor slow, failed or aborted.
    pub(super) unsampled: u64,
    /// Connections that failed before they became requests.
    pub(super) incidents: u64,
    /// Of these, those without a log line.
    pub(super) incidents_unlogged: u64,
    /// Records that were overwritten before they were read.
    pub(super) lost: u64,
    /// Records and slots that made no sense.
    pub(super) garbled: u64,
    /// Samples of requests over their limit.
    pub(super) samples: Samples,
}

/// Looks into workers, by what came of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Samples {
    /// The worker slept all the while.
    pub(super) exact: u64,
    /// It ran, and the read passed the check.
    pub(super) checked: u64,
    /// It was stopped for the read.
    pub(super) stopped: u64,
    /// Frames are missing.
    pub(super) partial: u64,
    /// The stack could not be read, and the kernel programs had noted it.
    pub(super) noted: u64,
    /// The stack could not be read.
    pub(super) failed: u64,
    /// The request was over before the look was.
    pub(super) too_late: u64,
    /// Put off because too many were due at once.
    pub(super) postponed: u64,
    /// Not taken because the budget was used up.
    pub(super) skipped: u64,
}

impl Counters {
    /// One line for the log if anything was lost, else nothing.
    pub(super) fn losses(&self, delivery: &export::Counters) -> Option<String> {
        let losses = [
            ("records overwritten in the rings", self.lost),
            ("garbled records", self.garbled),
            ("spans not delivered", delivery.spans.lost()),
            ("spans of waits not delivered", delivery.waits.lost()),
            ("log records not delivered", delivery.logs.lost()),
            ("slow requests whose stack could not be read", self.samples.failed),
            ("looks beyond the budget", self.samples.skipped),
            ("dropped connections without a log line", self.incidents_unlogged),
        ];
        let losses: Vec<_> = losses
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{n} {what}"))
            .collect();
        if losses.is_empty() {
            return None;
        }
        let Samples {
            exact,
            checked,
            stopped,
            partial,
            ..
        } = self.samples;
        Some(format!(
            "the observer ends after {} spans ({} of killed workers), {} early spans of slow requests, {} unsampled \
             requests, {} dropped connections, {exact} exact, {checked} checked, {stopped} stopped and {partial} partial samples; lost: {}",
            self.spans,
            self.killed,
            self.still_running,
            self.unsampled,
            self.incidents,
            losses.join(", "),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_without_losses_needs_no_line() {
        let mut counters = Counters {
            spans: 5,
            unsampled: 7,
            ..Counters::default()
        };
        let mut delivery = export::Counters::default();
        delivery.spans.exported = 5;
        assert_eq!(counters.losses(&delivery), None);
        counters.lost = 3;
        delivery.spans.failed = 2;
        let line = counters.losses(&delivery).expect("there are losses");
        assert!(
            line.ends_with("lost: 3 records overwritten in the rings, 2 spans not delivered"),
            "{line}"
        );
    }
}
