//! OTLP by the exporters of `opentelemetry-otlp`, called directly: they are given
//! batches by our lane, inside the caller's runtime (where their async clients work; on the
//! SDK's own threads they do not).
//!
//! Theirs are encoding, compression, and retries with back-off within the timeout. No TLS is
//! built in: a collector on the same machine, or a sidecar, is the way out.
//!
//! That crate also reads `OTEL_EXPORTER_OTLP_HEADERS` and `…_COMPRESSION` from the process's
//! environment by itself. As variables win over the file here too, both come to the same.

use std::{collections::HashMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, Protocol as Wire, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig, tonic_types::metadata::MetadataMap,
};
use opentelemetry_sdk::{
    Resource,
    logs::{LogBatch, LogExporter as _, SdkLogRecord},
    trace::{SpanData, SpanExporter as _},
};

use super::lane::Sink;
use crate::{
    options::{OtlpTarget, Protocol},
    span,
};

/// Why a [`super::Pipeline`] cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// [`super::Pipeline::new`] was called outside a tokio runtime.
    #[error("cannot start the exporters outside a tokio runtime")]
    NoRuntime,
    /// The endpoint wants TLS.
    #[error(
        "cannot export to {endpoint}: this build speaks no TLS (send to a collector on this machine over http, \
         and let it encrypt)"
    )]
    Tls {
        /// As configured.
        endpoint: String,
    },
    /// The endpoint is not an address.
    #[error("cannot export to {endpoint:?}: not an http address (write it as http://HOST:PORT)")]
    Endpoint {
        /// As configured.
        endpoint: String,
    },
    /// A header that cannot be sent.
    #[error("cannot export to {endpoint}: header {name:?} has a name or value that HTTP does not allow")]
    Header {
        /// As configured.
        endpoint: String,
        /// The header's name; its value may be a secret.
        name: String,
    },
    /// The OTLP crate refused.
    #[error("cannot export to {endpoint}")]
    Build {
        /// As configured.
        endpoint: String,
        /// Its reason.
        source: ExporterBuildError,
    },
}

/// Sends spans.
pub(crate) struct Spans(SpanExporter);

/// Sends log records.
pub(crate) struct Logs {
    exporter: LogExporter,
    scope: InstrumentationScope,
}

pub(crate) fn spans(target: &OtlpTarget, resource: &Resource) -> Result<Spans, PipelineError> {
    let checked = Checked::new(target)?;
    let mut exporter = match target.protocol {
        Protocol::Grpc => checked.grpc(SpanExporter::builder().with_tonic()).build(),
        Protocol::HttpProtobuf => checked.http(SpanExporter::builder().with_http()).build(),
    }
    .map_err(|source| PipelineError::Build {
        endpoint: target.endpoint.clone(),
        source,
    })?;
    exporter.set_resource(resource);
    Ok(Spans(exporter))
}

pub(crate) fn logs(target: &OtlpTarget, resource: &Resource) -> Result<Logs, PipelineError> {
    let checked = Checked::new(target)?;
    let mut exporter = match target.protocol {
        Protocol::Grpc => checked.grpc(LogExporter::builder().with_tonic()).build(),
        Protocol::HttpProtobuf => checked.http(LogExporter::builder().with_http()).build(),
    }
    .map_err(|source| PipelineError::Build {
        endpoint: target.endpoint.clone(),
        source,
    })?;
    exporter.set_resource(resource);
    Ok(Logs {
        exporter,
        scope: span::scope(),
    })
}

impl Sink<SpanData> for Spans {
    async fn send(&self, batch: Vec<SpanData>) -> Result<(), String> {
        self.0.export(batch).await.map_err(|error| error.to_string())
    }
}

impl Sink<SdkLogRecord> for Logs {
    async fn send(&self, batch: Vec<SdkLogRecord>) -> Result<(), String> {
        let batch: Vec<_> = batch.iter().map(|record| (record, &self.scope)).collect();
        self.exporter
            .export(LogBatch::new(&batch))
            .await
            .map_err(|error| error.to_string())
    }
}

/// A target in the words of the builders, checked for what they would only notice when
/// sending, or pass over in silence.
struct Checked {
    endpoint: String,
    headers: Vec<(String, String)>,
    metadata: MetadataMap,
    timeout: Duration,
    gzip: bool,
}

impl Checked {
    fn new(target: &OtlpTarget) -> Result<Checked, PipelineError> {
        let mut endpoint = target.endpoint.clone();
        match endpoint
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase())
            .as_deref()
        {
            Some("http") => {}
            Some("https") => return Err(PipelineError::Tls { endpoint }),
            // gRPC addresses are often written without a scheme.
            None if target.protocol == Protocol::Grpc => endpoint.insert_str(0, "http://"),
            _ => return Err(PipelineError::Endpoint { endpoint }),
        }
        let mut metadata = HeaderMap::with_capacity(target.headers.len());
        for (name, value) in &target.headers {
            let refused = || PipelineError::Header {
                endpoint: endpoint.clone(),
                name: name.clone(),
            };
            let key = HeaderName::try_from(name).map_err(|_| refused())?;
            metadata.insert(key, HeaderValue::try_from(value).map_err(|_| refused())?);
        }
        let metadata = MetadataMap::from_headers(metadata);
        Ok(Checked {
            endpoint,
            headers: target.headers.clone(),
            metadata,
            timeout: target.timeout,
            gzip: target.gzip,
        })
    }

    fn grpc<B: WithExportConfig + WithTonicConfig>(self, builder: B) -> B {
        let builder = builder
            .with_endpoint(self.endpoint)
            .with_timeout(self.timeout)
            .with_metadata(self.metadata);
        if self.gzip {
            builder.with_compression(Compression::Gzip)
        } else {
            builder
        }
    }

    fn http<B: WithExportConfig + WithHttpConfig>(self, builder: B) -> B {
        // The builder percent-decodes values once more than the one who read the variable.
        let headers = self
            .headers
            .into_iter()
            .map(|(name, value)| (name, value.replace('%', "%25")));
        let builder = builder
            .with_protocol(Wire::HttpBinary)
            .with_endpoint(self.endpoint)
            .with_timeout(self.timeout)
            .with_headers(headers.collect::<HashMap<_, _>>());
        if self.gzip {
            builder.with_compression(Compression::Gzip)
        } else {
            builder
        }
    }
}
