//! The early span of a request that is past its limit: sent at the first look at it, so
//! that a request that never ends is in the backend before it ends. Counted apart from the
//! spans of requests, of which each request has one.

use glasspool_otel::options::ExporterKind;
use glasspool_otel::span::Facts;
use glasspool_otel::still_running::still_running_span;

use super::report::{Report, has_ids};
use super::sampler::{Rules, Seen, Why};

impl Report {
    /// A request was looked at for this reason; its pool may want an early span of that. To
    /// a terminal none goes: there the log record says the same.
    pub(super) fn still_running(&mut self, why: Why, rules: &Rules, seen: &Seen, facts: &Facts) {
        let is_wanted = rules.still_running && matches!(why, Why::Slow { first: true });
        let is_sent = self.pipeline.takes_spans() && self.options.traces.exporter != ExporterKind::Console;
        if !(is_wanted && is_sent && has_ids(&seen.begin)) {
            return;
        }
        let span = still_running_span(&seen.begin, facts, &seen.event, &self.options.conventions);
        self.pipeline.push_span_now(span);
        self.counters.still_running += 1;
    }
}
