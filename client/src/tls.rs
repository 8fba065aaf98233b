//! Whom a client believes that it has reached: a node with a certificate of an authority that the system or the caller
//! trusts, or with the very certificate that the caller has.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version,
};

/// By which connections to `https://` and `wss://` are made; cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// Why the caller's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTrust {
    /// They are no PEM, or hold no certificate.
    #[error("no certificates can be read: {0}")]
    Pem(String),
    /// The library refuses them.
    #[error("the certificates cannot be used")]
    Unusable(#[source] Error),
}

impl Trust {
    /// The authorities of the system.
    pub fn system() -> Result<Self, InvalidTrust> {
        Self::with(Vec::new())
    }

    /// These as well, as PEM: authorities, or nodes that are known by their own certificate, whatever names it has
    /// and until when it is good.
    pub fn system_and(pem: &str) -> Result<Self, InvalidTrust> {
        let known = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let known = known.map_err(|error| InvalidTrust::Pem(error.to_string()))?;
        if known.is_empty() {
            return Err(InvalidTrust::Pem("there are none".to_owned()));
        }
        Self::with(known)
    }

    fn with(known: Vec<CertificateDer<'static>>) -> Result<Self, InvalidTrust> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        // What of the system's cannot be read is no authority. Without any, a node is refused by name.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // A certificate of a node itself need not be good for an authority.
        roots.add_parsable_certificates(known.iter().cloned());
        let by_authority = (!roots.is_empty()).then(|| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()
        });
        let by_authority = by_authority
            .transpose()
            .map_err(|error| InvalidTrust::Unusable(Error::General(error.to_string())))?;
        let verifier = Verifier { by_authority, known, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(InvalidTrust::Unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// For a library that makes the connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

/// Signatures are judged as ever; a certificate that the caller has needs no authority.
#[derive(Debug)]
struct Verifier {
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    known: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.known.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.by_authority {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
