//! Where to connect to reach a listener of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hiveops_node::config::TlsFiles;

/// The address of all interfaces is no place to connect to.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{}", reachable(address))
}

/// The same for a node, which may end TLS.
pub(crate) fn node_url(address: SocketAddr, tls: Option<&TlsFiles>) -> String {
    let scheme = if tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", reachable(address))
}
