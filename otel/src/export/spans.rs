//! The way out of spans, which wait as they will be sent.

use opentelemetry_sdk::{Resource, trace::SpanData};
use tokio::time::Instant;

use super::{
    lane::{Delivery, Lane},
    otlp::{EncodedSpan, EncodedSpans, PipelineError, Spans},
    size,
    ways::{Way, Ways},
};
use crate::{
    options::{ExporterKind, Limits},
    queue::Priority,
};

/// See the module.
#[derive(Debug)]
pub(super) enum SpanLane {
    /// To a collector.
    Encoded { lane: Lane<EncodedSpan>, limits: Limits },
    /// To who shows or writes them otherwise.
    Whole(Lane<SpanData>),
}

impl SpanLane {
    /// `None` if spans go nowhere.
    pub(super) fn start(
        ways: &Ways,
        way: Way<'_>,
        resource: &Resource,
        limits: Limits,
    ) -> Result<Option<SpanLane>, PipelineError> {
        Ok(match way.options.exporter {
            ExporterKind::Otlp => {
                let lane = ways.send(way, EncodedSpan::bytes, EncodedSpans::new(resource))?;
                Some(SpanLane::Encoded { lane, limits })
            }
            _ => ways
                .write(way, size::of_span, Spans::new(resource, limits))?
                .map(SpanLane::Whole),
        })
    }

    pub(super) fn push(&self, span: SpanData, priority: Priority) {
        match self {
            SpanLane::Encoded { lane, limits } => lane.push(EncodedSpan::new(&span, limits), priority),
            SpanLane::Whole(lane) => lane.push(span, priority),
        }
    }

    pub(super) fn push_now(&self, span: SpanData) {
        match self {
            SpanLane::Encoded { lane, limits } => lane.push_now(EncodedSpan::new(&span, limits)),
            SpanLane::Whole(lane) => lane.push_now(span),
        }
    }

    pub(super) fn delivery(&self) -> Delivery {
        match self {
            SpanLane::Encoded { lane, .. } => lane.delivery(),
            SpanLane::Whole(lane) => lane.delivery(),
        }
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        match self {
            SpanLane::Encoded { lane, .. } => lane.waiting_bytes(),
            SpanLane::Whole(lane) => lane.waiting_bytes(),
        }
    }

    pub(super) async fn finish(self, deadline: Instant) -> Delivery {
        match self {
            SpanLane::Encoded { lane, .. } => lane.finish(deadline).await,
            SpanLane::Whole(lane) => lane.finish(deadline).await,
        }
    }
}
