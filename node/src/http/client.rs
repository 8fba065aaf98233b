//! Where a request comes from: the peer of its connection, or, where that is a proxy that is believed, whom it
//! names in `X-Forwarded-For`. Worked out once per request by the accept loop; nothing else looks at either.
//!
//! Whatever a client writes into the header stands to the left of what the proxies append, so it is read from
//! the right, and nothing to the left of the first address that is not a proxy's is looked at.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::HeaderName;
use http::request::Parts;
use prometheus::IntCounterVec;

use super::problem::ApiError;
use crate::config::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies between a client and a node at most; a longer way is a loop, or made up.
const HOPS_MAX: usize = 16;

/// The address of a client: what caps per address count, logins are throttled by, and logs show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Why the header of a request says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// Whoever sent it is no proxy of ours.
    UntrustedPeer,
    /// An entry that counts is no address.
    Malformed,
    /// More proxies than there can be.
    TooManyHops,
}

impl Ignored {
    pub(crate) const ALL: [Self; 3] = [Self::UntrustedPeer, Self::Malformed, Self::TooManyHops];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UntrustedPeer => "untrusted_peer",
            Self::Malformed => "malformed",
            Self::TooManyHops => "too_many_hops",
        }
    }
}

/// The proxies that are believed.
pub(crate) struct Proxies {
    networks: Networks,
    /// By [`Ignored`].
    ignored: IntCounterVec,
    /// Which reasons have been in the log: once is enough for somebody to look at the counter.
    told: [AtomicBool; Ignored::ALL.len()],
}

impl Proxies {
    pub(crate) fn new(networks: Networks, ignored: IntCounterVec) -> Arc<Self> {
        Arc::new(Self { networks, ignored, told: Default::default() })
    }

    /// Whether whoever connects from there speaks for others.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.networks.contains(peer)
    }

    /// Where a request on a connection of `peer` comes from.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let named = forwarded(&self.networks, peer, headers).unwrap_or_else(|ignored| {
            self.count(ignored, peer);
            None
        });
        ClientAddress(named.unwrap_or(peer.to_canonical()))
    }

    fn count(&self, ignored: Ignored, peer: IpAddr) {
        self.ignored.with_label_values(&[ignored.as_str()]).inc();
        if !self.told[ignored as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = ignored.as_str(),
                peer = %peer,
                "X-Forwarded-For is ignored, and this is said once (HIVEOPS_TRUSTED_PROXIES)"
            );
        }
    }
}

/// Whom the header names; none where there is no header.
fn forwarded(trusted: &Networks, peer: IpAddr, headers: &HeaderMap) -> Result<Option<IpAddr>, Ignored> {
    if !headers.contains_key(FORWARDED_FOR) {
        return Ok(None);
    }
    if !trusted.contains(peer) {
        return Err(Ignored::UntrustedPeer);
    }
    // Several lines are one list, in their order.
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut furthest = None;
    for (hops, entry) in entries.enumerate() {
        if hops == HOPS_MAX {
            return Err(Ignored::TooManyHops);
        }
        let address = address(entry).ok_or(Ignored::Malformed)?;
        if !trusted.contains(address) {
            return Ok(Some(address));
        }
        // Its right neighbour is believed, so it is one of ours that asks for itself, unless there are more.
        furthest = Some(address);
    }
    Ok(furthest)
}

/// One entry: an address, alone or with a port, as proxies write it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(bracketed).or_else(with_port)?;
    Some(address.to_canonical())
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or_else(|| ApiError::internal(&MissingAddress))
    }
}

/// The request did not come through the accept loop.
#[derive(Debug, thiserror::Error)]
#[error("nobody has said where this request comes from")]
struct MissingAddress;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use prometheus::Opts;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| (FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        let mut headers = HeaderMap::new();
        lines.iter().map(value).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn named(peer: &str, lines: &[&[u8]]) -> Result<Option<String>, Ignored> {
        let trusted = "10.0.0.0/8, fd00::/8".parse().unwrap();
        let found = forwarded(&trusted, peer.parse().unwrap(), &headers(lines));
        found.map(|named| named.map(|address| address.to_string()))
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        let cases: &[(&[&[u8]], &str)] = &[
            (&[b"203.0.113.9"], "203.0.113.9"),
            (&[b"198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            (&[b"203.0.113.9, 10.0.0.7,\t10.0.0.8"], "203.0.113.9"),
            (&[b"1.1.1.1, 10.0.0.7", b"203.0.113.9", b"10.0.0.8"], "203.0.113.9"),
            // What stands to the left of it is the client's own, whatever it is.
            (&[b"unknown, <script>, , 203.0.113.9"], "203.0.113.9"),
            (&[b"\xff\xfe, 203.0.113.9"], "203.0.113.9"),
            (&[b"\xff\xfe", b"203.0.113.9,10.0.0.2"], "203.0.113.9"),
            // With ports, and IPv6 in every way in which it is written.
            (&[b"203.0.113.9:4711"], "203.0.113.9"),
            (&[b"2001:db8::9"], "2001:db8::9"),
            (&[b"[2001:db8::9]"], "2001:db8::9"),
            (&[b"[2001:db8::9]:443, fd00::1, [fd00::2]:80"], "2001:db8::9"),
            (&[b"::ffff:203.0.113.9"], "203.0.113.9"),
            // One of ours that asks for itself.
            (&[b"10.0.0.7"], "10.0.0.7"),
            (&[b"10.9.9.9, 10.0.0.7"], "10.9.9.9"),
        ];
        for (lines, client) in cases {
            assert_eq!(named(PROXY, lines), Ok(Some((*client).to_owned())), "{lines:?}");
        }
        assert_eq!(named(PROXY, &[]), Ok(None));
        assert_eq!(named("::ffff:10.0.0.1", &[b"203.0.113.9"]), Ok(Some("203.0.113.9".to_owned())));
    }

    #[test]
    fn whoever_is_no_proxy_speaks_for_nobody() {
        for peer in ["203.0.113.9", "127.0.0.1", "::1", "2001:db8::1"] {
            assert_eq!(named(peer, &[b"10.0.0.5"]), Err(Ignored::UntrustedPeer), "{peer}");
            assert_eq!(named(peer, &[]), Ok(None));
        }
    }

    #[test]
    fn an_entry_that_counts_and_is_no_address_makes_the_header_absent() {
        let garbage: &[&[u8]] = &[
            b"",
            b" ",
            b",",
            b"203.0.113.9,",
            b"203.0.113.9, unknown",
            b"203.0.113.9, 10.0.0.7, _hidden",
            b"203.0.113.9 10.0.0.7",
            b"203.0.113.256",
            b"203.0.113",
            b"0313.0.113.9",
            b"203.0.113.9:port",
            b"203.0.113.9:70000",
            b"2001:db8::9]",
            b"[203.0.113.9]",
            b"fe80::1%eth0",
            b"for=203.0.113.9",
            b"\"203.0.113.9\"",
            b"203.0.113.9/32",
            b"203.0.113.\xff",
        ];
        for line in garbage {
            assert_eq!(named(PROXY, &[line]), Err(Ignored::Malformed), "{:?}", String::from_utf8_lossy(line));
        }
        assert_eq!(named(PROXY, &[b"203.0.113.9", b"unknown"]), Err(Ignored::Malformed));
    }

    #[test]
    fn a_thousand_entries_cost_no_more_than_the_hops_there_can_be() {
        let list = |entry: &str, count: usize| vec![entry; count].join(", ");
        let foreign = list("203.0.113.9", 1_000);
        assert_eq!(named(PROXY, &[foreign.as_bytes()]), Ok(Some("203.0.113.9".to_owned())));
        let ours = list("10.0.0.7", 1_000);
        assert_eq!(named(PROXY, &[ours.as_bytes()]), Err(Ignored::TooManyHops));
        let lines = vec![&b"10.0.0.7"[..]; 1_000];
        assert_eq!(named(PROXY, &lines), Err(Ignored::TooManyHops));
        let most = format!("203.0.113.9, {}", list("10.0.0.7", HOPS_MAX - 1));
        assert_eq!(named(PROXY, &[most.as_bytes()]), Ok(Some("203.0.113.9".to_owned())));
    }

    #[test]
    fn what_is_ignored_is_counted_and_the_peer_is_the_client() {
        let ignored = IntCounterVec::new(Opts::new("ignored", "x"), &["reason"]).unwrap();
        let proxies = Proxies::new("10.0.0.0/8".parse().unwrap(), ignored.clone());
        let client =
            |peer: &str, line: &[u8]| proxies.client(peer.parse().unwrap(), &headers(&[line])).0.to_string();
        assert_eq!(client("203.0.113.9", b"10.0.0.5"), "203.0.113.9");
        assert_eq!(client(PROXY, b"unknown"), PROXY);
        assert_eq!(client(PROXY, b"nonsense"), PROXY);
        assert_eq!(client("::ffff:10.0.0.1", b"203.0.113.9"), "203.0.113.9");
        let count = |reason: Ignored| ignored.with_label_values(&[reason.as_str()]).get();
        assert_eq!(Ignored::ALL.map(count), [1, 2, 0]);
    }
}
