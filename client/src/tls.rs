//! Whom a client believes that it has reached: a node with a certificate of an authority that the system or the caller
//! trusts, or with the very certificate that the caller has; on its own machine whoever listens there, if it says so.

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

    /// Whoever listens on this machine, with any certificate whose key it has. For a caller that connects to an
    /// address of this machine, sends no credential, and wants to know no more than how its node is: which certificate
    /// that node shows cannot be known from files, because it keeps the old one when those are bad.
    pub fn of_this_machine() -> Result<Self, InvalidTrust> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self::by(Verifier { whom: Whom::Anybody, provider })
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
        Self::by(Verifier { whom: Whom::Known { by_authority, certificates: known }, provider })
    }

    fn by(verifier: Verifier) -> Result<Self, InvalidTrust> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
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

/// Signatures are judged as ever, whoever is believed.
#[derive(Debug)]
struct Verifier {
    whom: Whom,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Whom {
    /// A certificate that the caller has needs no authority.
    Known {
        by_authority: Option<Arc<WebPkiServerVerifier>>,
        certificates: Vec<CertificateDer<'static>>,
    },
    Anybody,
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
        match &self.whom {
            Whom::Anybody => Ok(ServerCertVerified::assertion()),
            Whom::Known { certificates, .. } if certificates.contains(end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            Whom::Known { by_authority: Some(verifier), .. } => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Whom::Known { by_authority: None, .. } => Err(CertificateError::UnknownIssuer.into()),
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

#[cfg(test)]
mod tests {
    use hiveops_testkit::certificates::{Authority, Identity};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    /// Shows a certificate, whether or not the key is that of it.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// A server with the certificate of the one and the key of the other.
    fn server(certificate: &Identity, key: &Identity) -> ServerConnection {
        let certificate = CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.key.as_bytes()).unwrap();
        let shows = CertifiedKey::new(vec![certificate], aws_lc_rs::sign::any_supported_type(&key).unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(Arc::new(shows))));
        ServerConnection::new(Arc::new(config)).unwrap()
    }

    /// What the client says of the server in the end.
    fn shake(trust: &Trust, mut server: ServerConnection) -> Result<(), Error> {
        let mut client =
            ClientConnection::new(trust.config(), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
            }
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(())
    }

    #[test]
    fn on_this_machine_any_certificate_will_do_and_its_key_is_needed() {
        let authority = Authority::new().unwrap();
        let (one, other) = (authority.issue(&["a"]).unwrap(), authority.issue(&["b"]).unwrap());
        let anybody = Trust::of_this_machine().unwrap();
        assert_eq!(shake(&anybody, server(&one, &one)), Ok(()));
        let stolen = shake(&anybody, server(&one, &other));
        assert!(
            matches!(stolen, Err(Error::InvalidCertificate(CertificateError::BadSignature))),
            "{stolen:?}"
        );
    }

    #[test]
    fn a_certificate_that_the_caller_has_is_believed_and_another_is_not() {
        let authority = Authority::new().unwrap();
        let (one, other) = (authority.issue(&["a"]).unwrap(), authority.issue(&["b"]).unwrap());
        let trust = Trust::system_and(&one.certificate).unwrap();
        assert_eq!(shake(&trust, server(&one, &one)), Ok(()));
        assert!(matches!(shake(&trust, server(&other, &other)), Err(Error::InvalidCertificate(_))));
    }
}
