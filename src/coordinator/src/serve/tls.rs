//! TLS of the listeners: what is made of certificate files, and who a verified certificate says the peer is.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use crate::domain::Principal;

/// What gRPC clients speak: HTTP/2, and gRPC-web over what browsers and proxies have.
const GRPC_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
const HTTP_PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Why files make no TLS: nothing of what is in them is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate in the file.
    #[error("it has no certificate in PEM form")]
    NoCertificate,
    /// A damaged one.
    #[error("a certificate in it cannot be read")]
    BadCertificate,
    /// No private key in the file.
    #[error("it has no private key in PEM form")]
    NoKey,
    /// The two do not belong together, or the key is of a kind that is not supported.
    #[error("the key is not that of the certificate, or of a kind that is not supported")]
    Pair(#[source] rustls::Error),
    /// The client CAs cannot be used.
    #[error("no client can be verified by it")]
    ClientCa,
    /// A fault of this build.
    #[error("the TLS library does not support its own defaults")]
    Build(#[source] rustls::Error),
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) certificates: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

/// Which file of the three an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Certificate,
    Key,
    ClientCa,
}

/// What new connections are met with.
#[derive(Debug)]
pub(super) struct Faces {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Faces {
    /// With client CAs gRPC demands a certificate of one of them. HTTP asks for one, and each route that
    /// needs to know who calls refuses those without: probes have none.
    pub(super) fn new(pem: &Pem) -> Result<Self, (Which, TlsError)> {
        let provider = Arc::new(ring::default_provider());
        let certificates = certificates(&pem.certificates).map_err(|e| (Which::Certificate, e))?;
        let key =
            PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| (Which::Key, TlsError::NoKey))?;
        let (strict, lenient) = match &pem.client_ca {
            None => (None, None),
            Some(ca) => {
                let verifier =
                    |demands| verifier(ca, &provider, demands).map_err(|e| (Which::ClientCa, e));
                (Some(verifier(true)?), Some(verifier(false)?))
            }
        };
        let config = |verifier, protocols: &[&[u8]]| {
            config(&provider, &certificates, &key, verifier, protocols).map_err(|e| (Which::Key, e))
        };
        Ok(Self {
            grpc: config(strict, &GRPC_PROTOCOLS)?,
            http: config(lenient, &HTTP_PROTOCOLS)?,
        })
    }
}

/// The faces of now; whoever is connected already keeps what it came in by.
pub(super) type Live = Arc<ArcSwap<Faces>>;

/// TLS of one listener.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    live: Live,
    is_grpc: bool,
}

impl Tls {
    pub(super) fn grpc(live: &Live) -> Self {
        Self {
            live: Arc::clone(live),
            is_grpc: true,
        }
    }

    pub(super) fn http(live: &Live) -> Self {
        Self {
            live: Arc::clone(live),
            is_grpc: false,
        }
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let faces = self.live.load();
        Arc::clone(if self.is_grpc {
            &faces.grpc
        } else {
            &faces.http
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|_| TlsError::BadCertificate)?;
    let first = all.first().ok_or(TlsError::NoCertificate)?;
    EndEntityCert::try_from(first).map_err(|_| TlsError::BadCertificate)?;
    Ok(all)
}

fn verifier(
    ca: &[u8],
    provider: &Arc<CryptoProvider>,
    demands: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|_| TlsError::BadCertificate)?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if demands {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|_| TlsError::ClientCa)
}

fn config(
    provider: &Arc<CryptoProvider>,
    certificates: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifies = verifier.is_some();
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Build)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates.to_vec(), key.clone_key())
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    if verifies {
        // A resumed connection would not be verified again, however long its certificate is over.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Who a verified certificate says the peer is: its first URI, else its first DNS name.
pub(super) fn principal(certificate: &CertificateDer<'_>) -> Option<Principal> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let name = certificate
        .valid_uri_names()
        .next()
        .or_else(|| certificate.valid_dns_names().next())?;
    Some(Principal::named(name)).filter(Principal::is_nameable)
}
