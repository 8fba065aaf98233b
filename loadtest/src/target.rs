//! The server's address as the command line gives it: `ws://host:port/path?query` or `http://host:port`, and
//! `nats://host:port` or `nchan://host:port/path` for publishing to servers of another kind.
//! Only plain TCP is spoken: encryption would be measured as well, and is not what the tests are about.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::peer::Dialect;

/// How long the first connection to a server may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server listens, and the path that the tests ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, as the `Host` header has it.
    pub(crate) authority: String,
    /// Path and query, beginning with `/`.
    path: String,
    /// What it speaks, by the scheme.
    pub(crate) dialect: Dialect,
}

impl Target {
    /// A server of the contract.
    pub(crate) fn new(authority: &str, path: &str) -> Self {
        Self { authority: authority.to_owned(), path: path.to_owned(), dialect: Dialect::Contract }
    }

    /// The path, with `query` added to the query it already has.
    pub(crate) fn path_with(&self, query: Option<&str>) -> String {
        match query {
            None => self.path.clone(),
            Some(query) if self.path.contains('?') => format!("{}&{query}", self.path),
            Some(query) => format!("{}?{query}", self.path),
        }
    }

    /// The first address of the host.
    pub(crate) fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let mut addresses =
            self.authority.to_socket_addrs().with_context(|| format!("cannot resolve {}", self.authority))?;
        addresses.next().with_context(|| format!("{} has no address", self.authority))
    }

    /// Connects once, so that a server that is not there is one clear error and not thousands.
    pub(crate) fn probe(&self) -> anyhow::Result<SocketAddr> {
        let address = self.resolve()?;
        TcpStream::connect_timeout(&address, PROBE_TIMEOUT)
            .with_context(|| format!("cannot connect to {address}; is the server running there?"))?;
        Ok(address)
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            bail!("`{url}` is not a URL: it must begin with ws:// or http://");
        };
        let dialect = match scheme {
            "ws" | "http" => Dialect::Contract,
            "nats" => Dialect::Nats,
            "nchan" => Dialect::Nchan,
            _ => bail!("scheme `{scheme}` is not supported: only plain ws:// and http:// are measured"),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'?' => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        if authority.is_empty() || authority.contains('@') {
            bail!("`{url}` must name a host, and no user");
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("`{url}` has characters that a request line cannot carry");
        }
        // The colon of a port stands behind the bracket of an IPv6 address.
        let has_port = authority.rfind(':') > authority.rfind(']');
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { authority, path, dialect })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, authority: &str, path: &str) {
        assert_eq!(url.parse::<Target>().unwrap(), Target::new(authority, path), "{url}");
    }

    #[test]
    fn a_url_is_split_into_authority_and_path() {
        check("ws://127.0.0.1:8000/a/b?c=d", "127.0.0.1:8000", "/a/b?c=d");
        check("http://localhost", "localhost:80", "/");
        check("http://host?x=1", "host:80", "/?x=1");
        check("ws://[::1]:9/x", "[::1]:9", "/x");
        check("ws://[::1]/x", "[::1]:80", "/x");
    }

    #[test]
    fn what_is_not_plain_tcp_to_a_host_is_refused() {
        for bad in ["127.0.0.1:8000", "wss://host/", "https://host", "ws:///x", "ws://a@b/", "ws://h/a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn the_scheme_tells_what_is_spoken() {
        let dialect = |url: &str| url.parse::<Target>().unwrap().dialect;
        assert_eq!(dialect("http://h"), Dialect::Contract);
        assert_eq!(dialect("nats://h:4222"), Dialect::Nats);
        assert_eq!(dialect("nchan://h/pub?id=tasks"), Dialect::Nchan);
    }

    #[test]
    fn a_query_is_added_to_the_one_that_is_there() {
        let target: Target = "ws://h:1/p?a=1".parse().unwrap();
        assert_eq!(target.path_with(Some("b=2")), "/p?a=1&b=2");
        assert_eq!(Target::new("h:1", "/p").path_with(Some("b=2")), "/p?b=2");
        assert_eq!(Target::new("h:1", "/p").path_with(None), "/p");
    }
}
