//! One request to a collector: a POST of protobuf, or a unary gRPC call. No retries here.

use std::{io::Write, sync::Arc, time::Duration, time::SystemTime};

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use super::{
    PipelineError,
    answer::{self, Answer},
    tls,
};
use crate::options::{OtlpTarget, Protocol};

/// Longest answer that is read: what the specification allows a collector to send.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// As the specification wants exporters to name themselves ("User Agent").
const AGENT: &str = concat!("Glasspool-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));
/// A connection on which an HTTP/2 ping is not answered is given up: without this, one that
/// the network swallowed would be used until TCP gives up, a quarter of an hour later.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A collector's address for one signal, and the connections to it.
pub(crate) enum Client {
    Grpc {
        calls: Grpc<Hyper<HttpsConnector<HttpConnector>, tonic::body::Body>>,
        path: PathAndQuery,
        metadata: MetadataMap,
    },
    Http {
        hyper: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
        uri: Uri,
        headers: HeaderMap,
        gzip: bool,
    },
}

impl Client {
    /// Connects to nothing yet. `path` is that of the signal's gRPC method.
    pub(crate) fn new(target: &OtlpTarget, path: &'static str) -> Result<Client, PipelineError> {
        let (uri, secure) = address(target)?;
        let headers = headers(target)?;
        let config = if secure {
            tls::config(&target.tls).map_err(|source| PipelineError::Tls {
                endpoint: target.endpoint.clone(),
                source: Box::new(source),
            })?
        } else {
            no_tls().map_err(|source| PipelineError::Tls {
                endpoint: target.endpoint.clone(),
                source: Box::new(source.into()),
            })?
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(target.timeout));
        tcp.set_nodelay(true);
        let mut builder = Hyper::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        Ok(match target.protocol {
            Protocol::Grpc => {
                let hyper = builder
                    .http2_only(true)
                    .http2_keep_alive_interval(PING_EVERY)
                    .http2_keep_alive_timeout(PING_ANSWERED_WITHIN)
                    .build(connector.enable_http2().wrap_connector(tcp));
                let calls = Grpc::with_origin(hyper, uri).max_decoding_message_size(MAX_ANSWER_BYTES);
                Client::Grpc {
                    calls: if target.gzip {
                        calls.send_compressed(CompressionEncoding::Gzip)
                    } else {
                        calls
                    },
                    path: PathAndQuery::from_static(path),
                    metadata: MetadataMap::from_headers(headers),
                }
            }
            Protocol::HttpProtobuf => Client::Http {
                hyper: builder.build(connector.enable_http1().wrap_connector(tcp)),
                uri,
                headers,
                gzip: target.gzip,
            },
        })
    }

    /// The bytes to send, the same for each try.
    pub(crate) fn pack(&self, message: Vec<u8>) -> Bytes {
        match self {
            Client::Http { gzip: true, .. } => {
                let mut packed = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::fast());
                packed
                    .write_all(&message)
                    .and_then(|()| packed.finish())
                    .expect("writing to memory does not fail")
                    .into()
            }
            _ => message.into(),
        }
    }

    /// Sends packed bytes once.
    pub(crate) async fn send(&self, body: Bytes) -> Answer {
        match self {
            Client::Grpc {
                calls,
                path,
                metadata,
            } => {
                let request =
                    tonic::Request::from_parts(metadata.clone(), tonic::Extensions::default(), body);
                match calls.clone().unary(request, path.clone(), Raw).await {
                    Ok(response) => Answer::Taken(response.into_inner()),
                    Err(status) => answer::of_grpc(&status),
                }
            }
            Client::Http {
                hyper,
                uri,
                headers,
                gzip,
            } => {
                let mut request = Request::new(Full::new(body));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = uri.clone();
                *request.headers_mut() = headers.clone();
                let protobuf = HeaderValue::from_static("application/x-protobuf");
                request.headers_mut().insert(CONTENT_TYPE, protobuf);
                if *gzip {
                    let gzip = HeaderValue::from_static("gzip");
                    request.headers_mut().insert(CONTENT_ENCODING, gzip);
                }
                let response = match hyper.request(request).await {
                    Ok(response) => response,
                    Err(error) => return answer::lost_connection(&error),
                };
                let (head, body) = response.into_parts();
                // The status decides; a body that is too long or breaks off changes nothing.
                let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
                let body = body.map(|whole| whole.to_bytes()).unwrap_or_default();
                answer::of_http(head.status, &head.headers, body, SystemTime::now())
            }
        }
    }
}

/// Where to connect to, and whether with TLS.
fn address(target: &OtlpTarget) -> Result<(Uri, bool), PipelineError> {
    let endpoint = &target.endpoint;
    let refused = || PipelineError::Endpoint {
        endpoint: endpoint.clone(),
    };
    let with_scheme = match endpoint.split_once("://") {
        Some(_) => endpoint.clone(),
        // Only gRPC addresses may lack a scheme, and only for them `insecure` means
        // something (specification/protocol/exporter.md, "Configuration Options").
        None if target.protocol == Protocol::Grpc && target.insecure => format!("http://{endpoint}"),
        None if target.protocol == Protocol::Grpc => format!("https://{endpoint}"),
        None => return Err(refused()),
    };
    let uri: Uri = with_scheme.parse().map_err(|_| refused())?;
    let host = uri.host().is_some_and(|host| !host.is_empty());
    match uri.scheme_str() {
        Some("http") if host => Ok((uri, false)),
        Some("https") if host => Ok((uri, true)),
        _ => Err(refused()),
    }
}

fn headers(target: &OtlpTarget) -> Result<HeaderMap, PipelineError> {
    let mut headers = HeaderMap::with_capacity(target.headers.len() + 4);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in &target.headers {
        let refused = || PipelineError::Header {
            endpoint: target.endpoint.clone(),
            name: name.clone(),
        };
        let key = HeaderName::try_from(name).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refused())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// The connector wants a configuration also where it will never use one.
fn no_tls() -> Result<ClientConfig, rustls::Error> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    )
}

/// Hands on bytes that are protobuf already: a request is encoded once, not once per try.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
