//! TLS to collectors: rustls, with the certificates that the operator names, or else those
//! that the system trusts.
//!
//! Files are read once, when the exporter is set up, by the user that the observer has
//! become: a private key must be readable by it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use crate::options::TlsFiles;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("cannot read the {what} {}: {source}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("{} has no certificate (PEM, BEGIN CERTIFICATE)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that cannot be trusted.
    #[error("{} has a certificate that is none: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Only one of the client's two files.
    #[error(
        "{given} is set and {missing} is not: a client certificate needs its private key, and the other way round"
    )]
    Half {
        /// The variable that is set.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// Certificate and key do not fit, or are of no known kind.
    #[error("the client certificate {} cannot be used with its key: {source}", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The system trusts nobody.
    #[error(
        "no trusted certificates were found on this system{why} (install ca-certificates, or name a file with \
         OTEL_EXPORTER_OTLP_CERTIFICATE)"
    )]
    NoRoots {
        /// The first reason, if there is one.
        why: String,
    },
    /// rustls cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What a connection to a collector needs.
pub(crate) fn config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let roots = match &files.certificate {
        Some(path) => roots_of(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&files.client_certificate, &files.client_key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate, "client certificate")?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                what: "private key",
                path: key.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Identity {
                    path: certificate.clone(),
                    source,
                })
        }
        (Some(_), None) => Err(TlsError::Half {
            given: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            missing: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        }),
        (None, Some(_)) => Err(TlsError::Half {
            given: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            missing: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        }),
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "trusted certificates")? {
        roots.add(certificate).map_err(|source| TlsError::Certificate {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold old certificates of kinds that nobody accepts any more.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(TlsError::NoRoots {
            why: why.unwrap_or_default(),
        });
    }
    Ok(roots)
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File {
        what,
        path: path.to_owned(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}
