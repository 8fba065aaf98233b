//! What a caller decides about a connection, and the address and headers that follow from it.

use std::time::Duration;

use hiveops_proto::path::Endpoint;
use hiveops_proto::position::format_since;
use hiveops_proto::{ConnectionId, ContractVersion, Positions};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use url::Url;

use crate::tls::{InvalidTrust, Trust};

/// From the first SYN to the answer of the handshake. A node gives up on a handshake after 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect. [`Options::new`] has the defaults.
#[derive(Clone)]
pub struct Options {
    /// The node: `ws://host:port` or `http://host:port`, or `wss://` or `https://` where it ends TLS, with a path when
    /// a proxy puts one in front.
    pub url: String,
    /// The route; it decides what is joined when `subscriptions` is empty.
    pub endpoint: Endpoint,
    /// What to join; empty for the route's defaults.
    pub subscriptions: Vec<String>,
    /// Whom to believe over TLS; the system's authorities when left out.
    pub trust: Option<Trust>,
    /// The credential, sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// The contract version to ask for.
    pub contract_version: Option<ContractVersion>,
    /// The name of the session to ask for.
    pub connection_id: Option<ConnectionId>,
    /// Where to go on, from an earlier [`crate::Client::positions`]. The client then has only what comes
    /// after: [`crate::Client::state`] begins empty when the node can continue.
    pub since: Positions,
    /// Whether to come back after a connection ends in a way that allows it.
    pub reconnect: bool,
    /// How long one attempt may take.
    pub connect_timeout: Duration,
}

/// Why no connection can be made with the options, whatever the node does.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOptions {
    /// The address is no URL.
    #[error("invalid url `{url}`")]
    Syntax {
        /// What was given.
        url: String,
        /// What the parser says.
        #[source]
        source: url::ParseError,
    },
    /// The address is of another kind.
    #[error("url `{0}` must begin with ws://, wss://, http:// or https://")]
    Scheme(String),
    /// There is nobody to believe.
    #[error(transparent)]
    Trust(#[from] InvalidTrust),
    /// The token cannot stand in a header.
    #[error("the token must be visible ASCII characters")]
    Token,
    /// The address cannot be asked for.
    #[error("no request can be made for url `{0}`")]
    Request(String),
}

impl Options {
    /// The node at `url`, the dashboard route with its default subscriptions, and reconnecting.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: Endpoint::Dashboard,
            subscriptions: Vec::new(),
            trust: None,
            token: None,
            contract_version: None,
            connection_id: None,
            since: Positions::new(),
            reconnect: true,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// The handshake for a connection that joins `subscriptions` and goes on at `since`.
    pub(crate) fn request(
        &self,
        subscriptions: Option<&[String]>,
        since: &Positions,
    ) -> Result<Request, InvalidOptions> {
        let url = self.address(subscriptions, since)?;
        let mut request =
            url.as_str().into_client_request().map_err(|_| InvalidOptions::Request(self.url.clone()))?;
        // The subprotocol stays out: it is for those who can set no header, and optional for the others.
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| InvalidOptions::Token)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// By whom the node must be known; none for an address without TLS.
    pub(crate) fn trust(&self) -> Result<Option<Trust>, InvalidOptions> {
        if self.address(None, &Positions::new())?.scheme() != "wss" {
            return Ok(None);
        }
        Ok(Some(match &self.trust {
            Some(trust) => trust.clone(),
            None => Trust::system()?,
        }))
    }

    fn address(&self, subscriptions: Option<&[String]>, since: &Positions) -> Result<Url, InvalidOptions> {
        let mut url = Url::parse(&self.url)
            .map_err(|source| InvalidOptions::Syntax { url: self.url.clone(), source })?;
        let scheme_is_set = match url.scheme() {
            "ws" | "wss" => true,
            "http" => url.set_scheme("ws").is_ok(),
            "https" => url.set_scheme("wss").is_ok(),
            _ => false,
        };
        if !scheme_is_set {
            return Err(InvalidOptions::Scheme(self.url.clone()));
        }
        let prefix = url.path().trim_end_matches('/').to_owned();
        if !Endpoint::ALL.iter().any(|endpoint| prefix.ends_with(endpoint.path())) {
            url.set_path(&format!("{prefix}{}", self.endpoint.path()));
        }
        let mut query = url.query_pairs_mut();
        if let Some(names) = subscriptions {
            query.append_pair("subscriptions", &names.join(","));
        }
        if let Some(version) = self.contract_version {
            query.append_pair("contract_version", &version.to_string());
        }
        if let Some(id) = &self.connection_id {
            query.append_pair("connection_id", id.as_str());
        }
        if !since.is_empty() {
            query.append_pair("since", &format_since(since));
        }
        drop(query);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }
}

/// By hand, so that no token ever reaches a log.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("subscriptions", &self.subscriptions)
            .field("contract_version", &self.contract_version)
            .field("connection_id", &self.connection_id)
            .field("since", &self.since)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> String {
        Options::new(url).address(None, &Positions::new()).unwrap().to_string()
    }

    #[test]
    fn the_route_follows_the_base_and_its_prefix() {
        assert_eq!(address("http://h:8000"), "ws://h:8000/api/dashboard/ws/dashboard");
        assert_eq!(address("ws://h/hive/"), "ws://h/hive/api/dashboard/ws/dashboard");
        assert_eq!(address("ws://h/api/dashboard/ws/tasks"), "ws://h/api/dashboard/ws/tasks");
        assert_eq!(address("https://h"), "wss://h/api/dashboard/ws/dashboard");
        assert_eq!(address("wss://h:8000"), "wss://h:8000/api/dashboard/ws/dashboard");
        for bad in ["ftp://h", "h:8000", ""] {
            assert!(Options::new(bad).address(None, &Positions::new()).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_query_and_the_headers_carry_the_options() {
        let mut options = Options::new("ws://h:1");
        options.contract_version = Some("1.0.0".parse().unwrap());
        options.connection_id = Some(ConnectionId::new("c1").unwrap());
        options.token = Some("s3cret".to_owned());
        let since = hiveops_proto::position::parse_since("tasks:e1:7").unwrap();
        let request = options.request(Some(&["tasks".to_owned(), "agents".to_owned()]), &since).unwrap();
        assert_eq!(
            request.uri().query().unwrap(),
            "subscriptions=tasks%2Cagents&contract_version=1.0.0&connection_id=c1&since=tasks%3Ae1%3A7"
        );
        assert_eq!(request.headers()["authorization"], "Bearer s3cret");
        assert!(!format!("{options:?} {request:?}").contains("s3cret"));
    }
}
