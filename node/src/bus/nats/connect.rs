//! One connection to a NATS server, which is not made again when it ends.
//!
//! The library would reconnect by itself and send late what it had accepted meanwhile. A client here is
//! for one connection: when that is lost it is dropped with all that waits in it, and the link makes
//! another. The library tries once more before it gives up, which takes `ATTEMPT` at most, and that is
//! how long a message may wait in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;

use super::LinkError;
use crate::config::{BusFiles, Servers};

/// For one attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(1);

/// An answer to a question that is not a publication.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// Without any sign of life for two of these the library calls the connection lost.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Messages of one subscription that wait for this node; the library drops what is more and says so.
const WAITING_MAX: usize = 16_384;

/// Where to connect, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) servers: Servers,
    pub(super) files: BusFiles,
    pub(super) node: String,
}

/// What the library says about a connection. Levels, not queues: the library says some of it once for every
/// message.
pub(super) struct Notices {
    /// Why it ended, once it has.
    pub(super) ended: watch::Receiver<Option<String>>,
    /// How many messages for this node were dropped.
    pub(super) dropped: watch::Receiver<u64>,
}

/// Connects to one of the servers.
pub(super) async fn connect(to: &Destination) -> Result<(Client, Notices), LinkError> {
    let (end, ended) = watch::channel(None);
    let (drop, dropped) = watch::channel(0_u64);
    let (end, drop) = (Arc::new(end), Arc::new(drop));
    let options = options(to).await?.event_callback(move |event| {
        match event {
            Event::Connected => {}
            Event::SlowConsumer(_) => drop.send_modify(|count| *count += 1),
            Event::ServerError(error) => tracing::warn!(error = %error, "bus server complains"),
            other => {
                end.send_replace(Some(other.to_string()));
            }
        }
        std::future::ready(())
    });
    let notices = Notices { ended, dropped };
    let scheme = if to.servers.tls { "tls" } else { "nats" };
    let addresses = to.servers.addresses.iter().map(|address| format!("{scheme}://{address}").parse());
    let addresses: Vec<async_nats::ServerAddr> =
        addresses.collect::<Result<_, std::io::Error>>().map_err(|error| {
            LinkError::Permanent(format!("a server's address is not usable (HIVEOPS_BUS): {error}"))
        })?;
    // Each server may be slow to refuse.
    let patience = ATTEMPT.saturating_mul(u32::try_from(addresses.len()).unwrap_or(u32::MAX)) + ATTEMPT;
    let connected = tokio::time::timeout(patience, options.connect(addresses)).await;
    match connected {
        Ok(Ok(client)) => Ok((client, notices)),
        Ok(Err(error)) => Err(LinkError::broker("no NATS server can be reached (HIVEOPS_BUS)", error)),
        Err(_) => Err(LinkError::Broker("no NATS server answers (HIVEOPS_BUS)".to_owned())),
    }
}

async fn options(to: &Destination) -> Result<ConnectOptions, LinkError> {
    let unreadable = |name: &str, path: &Path, error: std::io::Error| {
        LinkError::Permanent(format!("{} cannot be used ({name}): {error}", path.display()))
    };
    let mut options = match &to.files.credentials {
        None => ConnectOptions::new(),
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|error| unreadable("HIVEOPS_BUS_CREDENTIALS", path, error))?,
    };
    match (&to.servers.user, &to.servers.password) {
        (None, None) => {}
        // The configuration makes a token of it; a user without a password is none that NATS knows.
        (Some(_), None) => {}
        (None, Some(token)) => options = options.token(token.expose().to_owned()),
        (Some(user), Some(password)) => {
            options = options.user_and_password(user.clone(), password.expose().to_owned());
        }
    }
    for (name, path) in [
        ("HIVEOPS_BUS_CA", &to.files.ca),
        ("HIVEOPS_BUS_CERT", &to.files.cert),
        ("HIVEOPS_BUS_KEY", &to.files.key),
    ] {
        if let Some(path) = path {
            tokio::fs::metadata(path).await.map_err(|error| unreadable(name, path, error))?;
        }
    }
    if let Some(path) = &to.files.ca {
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(cert), Some(key)) = (&to.files.cert, &to.files.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    let attempts = to.servers.addresses.len();
    Ok(options
        .name(format!("hiveops node {}", to.node))
        .require_tls(to.servers.tls)
        .max_reconnects(attempts)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .connection_timeout(ATTEMPT)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(ANSWER))
        .subscription_capacity(WAITING_MAX)
        // Ours are given; what a cluster calls its servers may not be reachable from here.
        .ignore_discovered_servers())
}
