//! How replicas reach each other: the routes between them, the headers of every message, and the client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;

use crate::config::{Config, Secret};

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
    http: reqwest::Client,
    secret: Option<Secret>,
    id: u64,
    /// Other addresses for some replicas, as seen from this one.
    routes: Arc<BTreeMap<u64, String>>,
    /// Held by whoever learns which cluster this is.
    cluster: Arc<Mutex<Option<String>>>,
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
        let routes = config.routes.as_ref().map(|routes| routes.addresses().clone()).unwrap_or_default();
        Ok(Self {
            http,
            secret: config.secret.clone(),
            id: config.id,
            routes: Arc::new(routes),
            cluster: Arc::new(Mutex::new(cluster)),
        })
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
    ) -> Result<(StatusCode, Bytes), reqwest::Error> {
        let address = self.route(to, address);
        let request = self.http.post(format!("http://{address}{path}")).header(TO_HEADER, to).body(body);
        self.send(request, timeout).await
    }

    /// Asks whoever is at a replica's address.
    pub(crate) async fn get(
        &self,
        address: &str,
        id: u64,
        path: &str,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), reqwest::Error> {
        let address = self.route(id, address);
        self.send(self.http.get(format!("http://{address}{path}")), timeout).await
    }

    fn route<'a>(&'a self, id: u64, address: &'a str) -> &'a str {
        self.routes.get(&id).map_or(address, String::as_str)
    }

    async fn send(
        &self,
        mut request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), reqwest::Error> {
        request = request.timeout(timeout).header(FROM_HEADER, self.id);
        if let Some(cluster) = self.cluster() {
            request = request.header(CLUSTER_HEADER, cluster);
        }
        if let Some(secret) = &self.secret {
            request = request.bearer_auth(secret.expose());
        }
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        Ok((status, response.bytes().await.map_err(reqwest::Error::without_url)?))
    }
}
