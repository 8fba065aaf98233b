//! How replicas reach each other: the routes between them, the headers of every message, and the client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode, request};
use parking_lot::Mutex;

use crate::config::{Config, Secret};
use crate::raft::chain;

/// Who is there.
pub(crate) const HELLO: &str = "/api/control/replica/hello";
/// Be part of this cluster.
pub(crate) const ADOPT: &str = "/api/control/replica/adopt";
/// Do what only a leader can, if you lead.
pub(crate) const ASK: &str = "/api/control/replica/ask";
/// Have done what only a leader can, whoever leads.
pub(crate) const ASK_ANY: &str = "/api/control/replica/ask-any";
/// Try to become the leader now.
pub(crate) const ELECT: &str = "/api/control/replica/elect";
/// Entries from a leader.
pub(crate) const APPEND: &str = "/api/control/replica/append";
/// A candidate's question.
pub(crate) const VOTE: &str = "/api/control/replica/vote";
/// A snapshot from a leader.
pub(crate) const SNAPSHOT: &str = "/api/control/replica/snapshot";

/// Names the cluster of a message.
pub(crate) const CLUSTER_HEADER: &str = "x-hiveops-cluster";
/// Names the replica that a message comes from.
pub(crate) const FROM_HEADER: &str = "x-hiveops-from";
/// Names the replica that a message is for.
pub(crate) const TO_HEADER: &str = "x-hiveops-to";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Idle connections to one replica: a few, as messages to it are sent one after the other.
const IDLE_MAX: usize = 4;

/// The way to other replicas; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    carrier: Carrier,
    secret: Option<Secret>,
    id: u64,
    /// Other addresses for some replicas, as seen from this one.
    routes: Arc<BTreeMap<u64, String>>,
    /// Held by whoever learns which cluster this is.
    cluster: Arc<Mutex<Option<String>>>,
}

/// What carries messages.
#[derive(Debug, Clone)]
enum Carrier {
    Http(reqwest::Client),
    #[cfg(test)]
    Simulated(crate::sim::net::Port),
}

/// A message, or the answer to it, did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Lost {
    pub(crate) kind: LostKind,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostKind {
    /// Nobody is there.
    NoConnection,
    /// Nobody knows whether the message arrived.
    Timeout,
    Other,
}

impl From<reqwest::Error> for Lost {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = match () {
            () if error.is_connect() => LostKind::NoConnection,
            () if error.is_timeout() => LostKind::Timeout,
            () => LostKind::Other,
        };
        Self { kind, text: chain(&error) }
    }
}

impl Link {
    pub(crate) fn new(config: &Config, cluster: Option<String>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            // A replica is reached directly; a proxy of the environment is for other traffic.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self::over(Carrier::Http(http), config, cluster))
    }

    #[cfg(test)]
    pub(crate) fn simulated(port: crate::sim::net::Port, config: &Config, cluster: Option<String>) -> Self {
        Self::over(Carrier::Simulated(port), config, cluster)
    }

    fn over(carrier: Carrier, config: &Config, cluster: Option<String>) -> Self {
        let routes = config.routes.as_ref().map(|routes| routes.addresses().clone()).unwrap_or_default();
        Self {
            carrier,
            secret: config.secret.clone(),
            id: config.id,
            routes: Arc::new(routes),
            cluster: Arc::new(Mutex::new(cluster)),
        }
    }

    pub(crate) fn cluster(&self) -> Option<String> {
        self.cluster.lock().clone()
    }

    pub(crate) fn set_cluster(&self, cluster: &str) {
        *self.cluster.lock() = Some(cluster.to_owned());
    }

    /// Sends a message to a replica and returns the answer's status and body.
    pub(crate) async fn post(
        &self,
        address: &str,
        to: u64,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let request = self.request(Method::POST, address, to, path).header(TO_HEADER, to);
        self.send(request, body, timeout).await
    }

    /// Asks whoever is at a replica's address.
    pub(crate) async fn get(
        &self,
        address: &str,
        id: u64,
        path: &str,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        self.send(self.request(Method::GET, address, id, path), Bytes::new(), timeout).await
    }

    fn request(&self, method: Method, address: &str, to: u64, path: &str) -> request::Builder {
        let address = self.routes.get(&to).map_or(address, String::as_str);
        Request::builder().method(method).uri(format!("http://{address}{path}"))
    }

    async fn send(
        &self,
        mut request: request::Builder,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let malformed = |error: http::Error| Lost { kind: LostKind::Other, text: error.to_string() };
        request = request.header(FROM_HEADER, self.id);
        if let Some(cluster) = self.cluster() {
            request = request.header(CLUSTER_HEADER, cluster);
        }
        if let Some(secret) = &self.secret {
            let value = HeaderValue::try_from(format!("Bearer {}", secret.expose()));
            let mut value = value.map_err(|error| malformed(error.into()))?;
            // So that it does not show where a request is logged.
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(body).map_err(malformed)?;
        match &self.carrier {
            Carrier::Http(http) => {
                let mut request = reqwest::Request::try_from(request)?;
                *request.timeout_mut() = Some(timeout);
                let response = http.execute(request).await?;
                let status = response.status();
                Ok((status, response.bytes().await?))
            }
            #[cfg(test)]
            Carrier::Simulated(port) => port.send(request, timeout).await,
        }
    }
}
