//! Which request of a worker wrote a line. Pure but for one look into the worker's slot.
//!
//! On standard error the worker marks the end of each request, so the supervisor counts
//! them and the answer is exact. On standard output there are no marks: there it is the
//! request that ran when the line was read, or the last before it.

use std::collections::VecDeque;

use glasspool_abi::control::{OutputStream, WorkerLine};
use glasspool_abi::record::{Begin, Context};
use glasspool_abi::slot::SlotReader;
use glasspool_otel::line::Owner;

/// Requests that have ended and are remembered, 4 KiB a worker. A line is told within some
/// milliseconds, in which a worker serves a few; an observer that starts or has much to do
/// is later.
const REMEMBERED: usize = 64;

/// A worker's last requests, the newest last.
#[derive(Debug, Default)]
pub(in crate::observer) struct Recent(VecDeque<Context>);

impl Recent {
    /// A request has ended, as its record says.
    pub(in crate::observer) fn extend(&mut self, context: Option<Context>) {
        let Some(context) = context else { return };
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(context);
    }

    /// The request that wrote the line, if it can be told now.
    pub(super) fn find(&self, line: &WorkerLine, slot: &SlotReader) -> Found {
        let progress = slot.in_progress();
        let newest = slot.requests();
        let number = line.ended.saturating_add(1);
        // Above it, the last request should have ended: or a script has written such marks.
        let is_counted = line.stream == OutputStream::Stderr && number <= newest;
        if let Some(progress) = progress
            && progress.start_mono_ns <= line.mono_ns
            && (!is_counted || progress.number == number)
        {
            return match slot.read_begin() {
                Some(begin) if begin.number == progress.number => Found::Owner(owner_of(&begin)),
                // It ends right now: its record is there in a moment.
                _ => Found::NotYet,
            };
        }
        let is_above = line.stream == OutputStream::Stderr && !is_counted;
        let mut known = self.0.iter().rev();
        let context = known.find(|context| {
            let is_it = !is_counted || context.number == number;
            // With marks that count too much, only what ran when it was read.
            let ran = !is_above || line.mono_ns <= context.end_mono_ns;
            is_it && ran && context.start_mono_ns <= line.mono_ns
        });
        let is_read = self.0.back().is_some_and(|context| context.number >= newest);
        match context {
            Some(context) => Found::Owner(owner(context)),
            None if is_above && (is_read || newest == 0) => Found::Nobody,
            None => Found::NotYet,
        }
    }
}

/// What is known of a line's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Owner(Owner),
    /// It was written between two requests, or before the first.
    Nobody,
    /// Its request has ended, and its record may not have been read yet.
    NotYet,
}

fn owner(context: &Context) -> Owner {
    Owner {
        trace_id: context.trace_id,
        span_id: context.span_id,
        sampled: context.sampled,
        random: context.random,
    }
}

fn owner_of(begin: &Begin) -> Owner {
    Owner {
        trace_id: begin.trace_id,
        span_id: begin.span_id,
        sampled: begin.sampled,
        random: begin.random,
    }
}
