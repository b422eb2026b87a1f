//! TLS and mutual TLS to a real server on loopback, with certificates made here.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use glasspool_otel::{
    export::{Counters, Pipeline, Terminal},
    metrics::{Figure, Metric, Snapshot, instruments},
    options::{FileDefaults, Options},
    resource::{Runtime, resource},
};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::collector::{Collector, taken};

const PATIENCE: Duration = Duration::from_secs(30);
const VARIABLES: [&str; 3] = [
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

/// An authority, and files with what it has signed.
struct Authority {
    folder: tempfile::TempDir,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signs");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("writes");
        Authority {
            folder,
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        (certificate, key)
    }

    /// Writes `client.pem` and `client.key`.
    fn sign_client(&self) {
        let (certificate, key) = self.sign("glasspool.example");
        std::fs::write(self.file("client.pem"), certificate.pem()).expect("writes");
        std::fs::write(self.file("client.key"), key.serialize_pem()).expect("writes");
    }

    /// A server for 127.0.0.1; with `clients`, one that takes only clients of ours.
    fn server(&self, clients: bool) -> ServerConfig {
        let (certificate, key) = self.sign("127.0.0.1");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).expect("is one");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("has a root"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

fn pipeline(variables: &[(&str, String)]) -> Result<Pipeline, String> {
    let mut variables: HashMap<_, _> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone()))
        .collect();
    for signal in ["TRACES", "LOGS"] {
        variables.insert(format!("OTEL_{signal}_EXPORTER"), "none".to_owned());
    }
    let (options, warnings) = Options::from_env(&variables, FileDefaults::default());
    assert_eq!(warnings, []);
    let runtime = Runtime {
        php_version: None,
        host_name: None,
        instance_id: "i".into(),
        ..Runtime::default()
    };
    let terminal = Terminal {
        out: Box::new(std::io::sink()),
        colours: false,
    };
    Pipeline::new(&options, &resource(&options, &runtime), terminal).map_err(|error| {
        let cause = std::error::Error::source(&error);
        format!("{error}: {}", cause.map(ToString::to_string).unwrap_or_default())
    })
}

/// Sends one snapshot; the files are those of [`VARIABLES`], as far as there are.
async fn send(grpc: bool, collector: &Collector, files: &[PathBuf]) -> Counters {
    let protocol = if grpc { "grpc" } else { "http/protobuf" };
    // Without a scheme a gRPC endpoint is a secure one.
    let scheme = if grpc { "" } else { "https://" };
    let mut variables = vec![
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("{scheme}{}", collector.address),
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000".to_owned()),
    ];
    let files = files.iter().map(|file| file.display().to_string());
    variables.extend(VARIABLES.into_iter().zip(files));
    let pipeline = pipeline(&variables).expect("is set up");
    let mut metric = Metric::new(&instruments::LOOKS);
    metric.add(Vec::new(), Figure::from(1));
    pipeline.push_metrics(Snapshot {
        start_unix_ns: 1,
        time_unix_ns: 2,
        metrics: vec![metric],
    });
    pipeline.shutdown(PATIENCE).await
}

#[tokio::test]
async fn a_collector_is_trusted_if_its_authority_is() {
    let (authority, other) = (Authority::new(), Authority::new());
    for grpc in [true, false] {
        let mut collector = Collector::start(Some(authority.server(false)), move |_, _| taken(grpc)).await;
        let counters = send(grpc, &collector, &[authority.file("ca.pem")]).await;
        assert_eq!(counters.metrics.exported, 1, "gRPC {grpc}");
        assert_eq!(collector.seen().len(), 1, "gRPC {grpc}");
        let counters = send(grpc, &collector, &[other.file("ca.pem")]).await;
        assert_eq!(counters.metrics.failed, 1, "gRPC {grpc}: a stranger was trusted");
        assert_eq!(collector.seen().len(), 0, "gRPC {grpc}");
    }
}

#[tokio::test]
async fn a_collector_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    authority.sign_client();
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| authority.file(name));
    for grpc in [true, false] {
        let collector = Collector::start(Some(authority.server(true)), move |_, _| taken(grpc)).await;
        let counters = send(grpc, &collector, &[ca.clone(), certificate.clone(), key.clone()]).await;
        assert_eq!(counters.metrics.exported, 1, "gRPC {grpc}");
        let counters = send(grpc, &collector, std::slice::from_ref(&ca)).await;
        assert_eq!(counters.metrics.failed, 1, "gRPC {grpc}: it had no certificate");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    authority.sign_client();
    let path = |name: &str| authority.file(name).display().to_string();
    std::fs::write(authority.file("empty.pem"), "nothing\n").expect("writes");
    let (_, other) = authority.sign("other.example");
    std::fs::write(authority.file("other.key"), other.serialize_pem()).expect("writes");
    for (files, said) in [
        (vec![(0, "gone.pem")], "gone.pem"),
        (vec![(0, "empty.pem")], "empty.pem has no certificate"),
        (
            vec![(0, "ca.pem"), (1, "client.pem")],
            "OTEL_EXPORTER_OTLP_CLIENT_KEY is not",
        ),
        (
            vec![(0, "ca.pem"), (2, "client.key")],
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is not",
        ),
        (
            vec![(0, "ca.pem"), (1, "client.pem"), (2, "other.key")],
            "cannot be used with its key",
        ),
        (
            vec![(0, "ca.pem"), (1, "client.pem"), (2, "client.pem")],
            "cannot read the private key",
        ),
    ] {
        let mut variables = vec![(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://collector.example".to_owned(),
        )];
        variables.extend(files.iter().map(|(at, name)| (VARIABLES[*at], path(name))));
        let error = pipeline(&variables).expect_err("refused");
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn grpc_without_a_scheme_is_plain_only_where_that_is_asked_for() {
    let collector = Collector::start(None, |_, _| taken(true)).await;
    for (insecure, arrives) in [("true", 1), ("false", 0)] {
        let authority = Authority::new();
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.to_string()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            ("OTEL_EXPORTER_OTLP_INSECURE", insecure.to_owned()),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000".to_owned()),
            (VARIABLES[0], authority.file("ca.pem").display().to_string()),
        ];
        let pipeline = pipeline(&variables).expect("is set up");
        let mut metric = Metric::new(&instruments::LOOKS);
        metric.add(Vec::new(), Figure::from(1));
        pipeline.push_metrics(Snapshot {
            start_unix_ns: 1,
            time_unix_ns: 2,
            metrics: vec![metric],
        });
        let counters = pipeline.shutdown(PATIENCE).await;
        assert_eq!(counters.metrics.exported, arrives, "insecure = {insecure}");
    }
}
