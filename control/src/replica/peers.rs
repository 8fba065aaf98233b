//! The list of replicas that a replica is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// More would not make a cluster safer, only slower.
const PEERS_MAX: usize = 9;

/// Which replicas there are at the beginning, and where: `1=host:port,2=host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(BTreeMap<u64, String>);

impl Peers {
    /// By id.
    pub fn addresses(&self) -> &BTreeMap<u64, String> {
        &self.0
    }

    /// Whether all of them are on this machine.
    pub fn are_loopback(&self) -> bool {
        self.0.values().all(|address| {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
        })
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut peers: BTreeMap<u64, String> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (id, address) = one(part)?;
            if let Some((other, _)) = peers.iter().find(|(_, known)| **known == address) {
                return Err(format!("has {address} for replica {other} and for replica {id}"));
            }
            if peers.insert(id, address).is_some() {
                return Err(format!("has replica {id} twice"));
            }
        }
        match peers.len() {
            0 => Err("names no replica".to_owned()),
            1..=PEERS_MAX => Ok(Self(peers)),
            count => Err(format!("has {count} replicas, and {PEERS_MAX} are the most")),
        }
    }
}

/// One replica: `id=host:port`.
pub(crate) fn one(text: &str) -> Result<(u64, String), String> {
    let shape = || format!("has `{text}`, which is not id=host:port");
    let (id, address) = text.split_once('=').ok_or_else(shape)?;
    let id: u64 = id.trim().parse().map_err(|_| shape())?;
    let address = address.trim();
    check_address(address).map_err(|()| shape())?;
    if id == 0 {
        return Err("has replica 0, but ids begin at 1".to_owned());
    }
    Ok((id, address.to_owned()))
}

/// A host and a port, as it stands in a URL.
pub(crate) fn check_address(address: &str) -> Result<(), ()> {
    let authority: http::uri::Authority = address.parse().map_err(|_| ())?;
    let (host, port) = address.rsplit_once(':').ok_or(())?;
    let fits = authority.host() == host && port.parse::<u16>().is_ok_and(|port| port > 0);
    if fits && !host.is_empty() { Ok(()) } else { Err(()) }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|(id, address)| format!("{id}={address}")).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_shown_in_order() {
        let peers: Peers = "2=b.example:7102, 1=127.0.0.1:7101,3=[::1]:7103".parse().unwrap();
        assert_eq!(peers.to_string(), "1=127.0.0.1:7101,2=b.example:7102,3=[::1]:7103");
        assert!(!peers.are_loopback());
        assert!("1=127.0.0.1:1,2=[::1]:1,3=localhost:1".parse::<Peers>().unwrap().are_loopback());
    }

    #[test]
    fn what_is_wrong_with_a_list_is_named() {
        for (text, problem) in [
            ("", "names no replica"),
            ("1=a:1,1=b:1", "has replica 1 twice"),
            ("1=a:1,2=a:1", "has a:1 for replica 1 and for replica 2"),
            ("0=a:1", "ids begin at 1"),
            ("1=a", "which is not id=host:port"),
            ("a:1", "which is not id=host:port"),
            ("1=http://a:1", "which is not id=host:port"),
            ("1=a:0", "which is not id=host:port"),
            ("1=:5", "which is not id=host:port"),
            ("x=a:1", "which is not id=host:port"),
        ] {
            let error = text.parse::<Peers>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
