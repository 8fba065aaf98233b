//! A certificate and its key, read from PEM and found to fit. Pure.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig, version};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// The one protocol that is spoken over TLS: WebSockets begin with it.
const ALPN: &[u8] = b"http/1.1";

/// Tickets for a later, shorter handshake: a client that comes back needs one.
const TICKETS: usize = 1;

/// What a listener needs to end TLS.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) config: Arc<ServerConfig>,
    /// When the certificate is good.
    pub(crate) own: Validity,
    /// When it and those behind it are good at once.
    pub(crate) chain: Validity,
    /// How its issuer numbers it.
    pub(crate) serial: String,
}

/// From when until when something is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not a second earlier.
    pub not_before: u64,
    /// Not a second later.
    pub not_after: u64,
}

impl Validity {
    fn of(certificate: &Certificate) -> Self {
        let validity = &certificate.tbs_certificate.validity;
        Self {
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
        }
    }

    /// While both are.
    fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// Why two texts are no pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPair {
    #[error("{0}")]
    Certificate(String),
    #[error("{0}")]
    Key(String),
    #[error("the key is not that of the certificate")]
    Mismatch,
}

impl Pair {
    /// Of a certificate, with those that lead to its authority behind it, and its key.
    pub(crate) fn read(certificate: &str, key: &str) -> Result<Self, NoPair> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| NoPair::Certificate(format!("is not PEM: {error}")))?;
        let Some(first) = chain.first() else {
            return Err(NoPair::Certificate("there is no certificate in it".to_owned()));
        };
        let read = Certificate::from_der(first)
            .map_err(|error| NoPair::Certificate(format!("its first certificate cannot be read: {error}")))?;
        let own = Validity::of(&read);
        // What cannot be read of those behind it is for the peers to judge, who may not even need it.
        let behind = chain[1..].iter().filter_map(|der| Certificate::from_der(der).ok());
        let all = behind.fold(own, |all, certificate| all.and(Validity::of(&certificate)));
        let serial = read.tbs_certificate.serial_number.to_string();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| {
            NoPair::Key(match error {
                pem::Error::NoItemsFound => "there is no key in it that needs no password".to_owned(),
                // What else it says might show a part of it.
                _ => "is not PEM".to_owned(),
            })
        })?;
        let config = server(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => NoPair::Mismatch,
            Error::InvalidCertificate(error) => {
                NoPair::Certificate(format!("its certificate cannot be used: {error:?}"))
            }
            error => NoPair::Key(format!("its key cannot be used: {error}")),
        })?;
        Ok(Self { config: Arc::new(config), own, chain: all, serial })
    }
}

fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, Error> {
    // Named, because it is the one of the process: nobody else may choose another.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Encrypted to keys that live and change in this process: the node remembers nobody. A new certificate comes with
    // new ones, so that nobody resumes beyond it.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}
