//! TLS on the node's own listeners: the certificate that new handshakes are shown, and how another takes its place.
//!
//! The accept loop shakes hands with it, and the shards go on with what TLS knows of a connection; neither knows of
//! files.

mod pair;
mod reload;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

pub use pair::Validity;
pub(crate) use pair::{NoPair, Pair};
pub(crate) use reload::{Keeper, LoadError, Reload};

/// What new handshakes go by; cheap to clone. The keeper puts another there, every connection that is open goes on
/// with its own.
#[derive(Clone)]
pub(crate) struct Certificates(Arc<ArcSwap<ServerConfig>>);

impl Certificates {
    fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }

    fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }
}
