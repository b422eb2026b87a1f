//! Spans, log records and metrics as OTLP requests, and what their answers say.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::{
    tonic::{
        collector::{
            logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
            metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
            trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
        },
        metrics::v1::{ResourceMetrics, ScopeMetrics},
        resource::v1::Resource as ResourceMessage,
    },
    transform::{
        common::tonic::ResourceAttributesWithSchema, logs::tonic::group_logs_by_resource_and_scope,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    logs::{LogBatch, SdkLogRecord},
    trace::SpanData,
};
use prost::Message;

use super::{EncodedSpan, Messages, Protobuf, Signal, answer::short, encode, limits};
use crate::{
    export::lane::Sent,
    metrics::{Snapshot, wire},
    options::{Limits, Temporality},
    span::scope,
};

/// Spans as messages.
pub(crate) struct Spans {
    resource: ResourceAttributesWithSchema,
    limits: Limits,
}

impl Spans {
    pub(crate) fn new(resource: &Resource, limits: Limits) -> Spans {
        Spans {
            resource: resource.into(),
            limits,
        }
    }
}

impl Signal for Spans {
    type Item = SpanData;
}

impl Messages for Spans {
    type Request = ExportTraceServiceRequest;

    fn request(&self, batch: Vec<SpanData>) -> ExportTraceServiceRequest {
        let mut resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        resource_spans
            .iter_mut()
            .flat_map(|of_resource| &mut of_resource.scope_spans)
            .flat_map(|of_scope| &mut of_scope.spans)
            .for_each(|span| limits::cut_span(span, &self.limits));
        ExportTraceServiceRequest { resource_spans }
    }
}

/// Spans that were encoded, and cut, when they came.
pub(crate) struct EncodedSpans {
    resource: ResourceAttributesWithSchema,
}

impl EncodedSpans {
    pub(crate) fn new(resource: &Resource) -> EncodedSpans {
        EncodedSpans {
            resource: resource.into(),
        }
    }
}

impl Signal for EncodedSpans {
    type Item = EncodedSpan;
}

impl Protobuf for EncodedSpans {
    const GRPC_PATH: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    const OPTIONAL: bool = false;

    fn encode(&self, batch: Vec<EncodedSpan>) -> Vec<u8> {
        encode::request(&batch, &self.resource)
    }

    fn read(&self, answer: Bytes) -> Sent {
        let answer = ExportTraceServiceResponse::decode(answer);
        let partial = answer.ok().and_then(|answer| answer.partial_success);
        partial.map_or_else(Sent::default, |partial| {
            sent(partial.rejected_spans, &partial.error_message)
        })
    }
}

/// Log records.
pub(crate) struct Logs {
    resource: ResourceAttributesWithSchema,
    scope: InstrumentationScope,
    limits: Limits,
}

impl Logs {
    pub(crate) fn new(resource: &Resource, limits: Limits) -> Logs {
        Logs {
            resource: resource.into(),
            scope: scope(),
            limits,
        }
    }
}

impl Signal for Logs {
    type Item = SdkLogRecord;
}

impl Messages for Logs {
    type Request = ExportLogsServiceRequest;

    fn request(&self, batch: Vec<SdkLogRecord>) -> ExportLogsServiceRequest {
        let batch: Vec<_> = batch.iter().map(|record| (record, &self.scope)).collect();
        let mut resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(&batch), &self.resource);
        resource_logs
            .iter_mut()
            .flat_map(|of_resource| &mut of_resource.scope_logs)
            .flat_map(|of_scope| &mut of_scope.log_records)
            .for_each(|record| limits::cut_record(record, &self.limits));
        ExportLogsServiceRequest { resource_logs }
    }
}

impl Protobuf for Logs {
    const GRPC_PATH: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const OPTIONAL: bool = true;

    fn encode(&self, batch: Vec<SdkLogRecord>) -> Vec<u8> {
        self.request(batch).encode_to_vec()
    }

    fn read(&self, answer: Bytes) -> Sent {
        let answer = ExportLogsServiceResponse::decode(answer);
        let partial = answer.ok().and_then(|answer| answer.partial_success);
        partial.map_or_else(Sent::default, |partial| {
            sent(partial.rejected_log_records, &partial.error_message)
        })
    }
}

/// Metrics. Each snapshot holds totals since the start, so of several only the newest is
/// sent, and differences are made against the last one that was taken: a snapshot that is
/// lost on the way makes the next difference larger, and nothing is missing.
pub(crate) struct Metrics {
    resource: ResourceAttributesWithSchema,
    temporality: Temporality,
    sent: Mutex<Snapshots>,
}

#[derive(Default)]
struct Snapshots {
    taken: Option<Snapshot>,
    under_way: Option<Snapshot>,
}

impl Metrics {
    pub(crate) fn new(resource: &Resource, temporality: Temporality) -> Metrics {
        Metrics {
            resource: resource.into(),
            temporality,
            sent: Mutex::default(),
        }
    }
}

impl Signal for Metrics {
    type Item = Snapshot;

    fn taken(&self) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.taken = sent.under_way.take();
    }
}

impl Messages for Metrics {
    type Request = ExportMetricsServiceRequest;

    fn request(&self, batch: Vec<Snapshot>) -> ExportMetricsServiceRequest {
        let Some(newest) = batch.into_iter().next_back() else {
            return ExportMetricsServiceRequest::default();
        };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = wire::metrics(&newest, sent.taken.as_ref(), self.temporality);
        sent.under_way = Some(newest);
        let of_resource = ResourceMetrics {
            resource: Some(ResourceMessage {
                attributes: self.resource.attributes.0.clone(),
                ..ResourceMessage::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some((&scope(), None).into()),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: self.resource.schema_url.clone().unwrap_or_default(),
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![of_resource],
        }
    }
}

impl Protobuf for Metrics {
    const GRPC_PATH: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const OPTIONAL: bool = true;

    fn encode(&self, batch: Vec<Snapshot>) -> Vec<u8> {
        self.request(batch).encode_to_vec()
    }

    /// What is counted is snapshots, and one that lost points has still arrived.
    fn read(&self, answer: Bytes) -> Sent {
        let answer = ExportMetricsServiceResponse::decode(answer);
        let Some(partial) = answer.ok().and_then(|answer| answer.partial_success) else {
            return Sent::default();
        };
        let Sent { rejected, advice } = sent(partial.rejected_data_points, &partial.error_message);
        let advice = match (rejected, advice) {
            (0, advice) => advice,
            (points, why) => Some(format!(
                "{points} data points rejected: {}",
                why.unwrap_or_default()
            )),
        };
        Sent { rejected: 0, advice }
    }
}

fn sent(rejected: i64, message: &str) -> Sent {
    let message = message.trim();
    Sent {
        rejected: u64::try_from(rejected).unwrap_or(0),
        advice: (!message.is_empty()).then(|| short(message)),
    }
}
