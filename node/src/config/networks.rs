//! Networks, as an operator lists them: single addresses and CIDR blocks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A deployment has a handful of balancers; each address of a request may be compared with all of these.
const NETWORKS_MAX: usize = 256;

/// Bits that an IPv4 address has before it when it is written as an IPv6 one.
const MAPPED_BITS: u8 = 96;

/// Networks whose machines are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

/// Why a list of networks cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetworks {
    /// One of its parts is none.
    #[error("`{0}` is neither an address nor a network, such as 10.0.0.0/8 or 2001:db8::/32")]
    Malformed(String),
    /// Anybody could say to be anybody.
    #[error("`{0}` believes everybody: list the addresses of your proxies")]
    Everybody(String),
    /// There are more than anybody has.
    #[error("lists more than {NETWORKS_MAX} networks")]
    TooMany,
}

impl Networks {
    /// Whether the address is in one of them. An IPv4 address is the same however it is written.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Networks {
    type Err = InvalidNetworks;

    /// Reads a comma list; an empty one is none.
    fn from_str(text: &str) -> Result<Self, InvalidNetworks> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks: Vec<IpNet> = parts.map(network).collect::<Result<_, _>>()?;
        if networks.len() > NETWORKS_MAX { Err(InvalidNetworks::TooMany) } else { Ok(Self(networks)) }
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// One network; a single address is the network of itself.
fn network(text: &str) -> Result<IpNet, InvalidNetworks> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let Ok(given) = text.parse::<IpNet>().or_else(|_| address()) else {
        return Err(InvalidNetworks::Malformed(text.to_owned()));
    };
    let network = canonical(given).trunc();
    if network.prefix_len() == 0 { Err(InvalidNetworks::Everybody(text.to_owned())) } else { Ok(network) }
}

/// A network of IPv4 addresses that is written in IPv6 is one of IPv4: addresses are compared as such.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    let mapped = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    mapped.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_networks_contain_what_they_say() {
        let listed = networks("10.0.0.0/8, 192.0.2.7,2001:db8::/32, ::1 ,::ffff:203.0.113.0/120");
        for inside in ["10.1.2.3", "192.0.2.7", "2001:db8:1::9", "::1", "::ffff:10.9.9.9", "203.0.113.5"] {
            assert!(listed.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1", "203.0.114.1"] {
            assert!(!listed.contains(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(listed.to_string(), "10.0.0.0/8,192.0.2.7/32,2001:db8::/32,::1/128,203.0.113.0/24");
        assert_eq!(networks(&listed.to_string()), listed);
        assert_eq!(
            networks("10.1.2.3/8"),
            networks("10.0.0.0/8"),
            "what lies behind the prefix says nothing"
        );
    }

    #[test]
    fn nobody_is_believed_unless_somebody_says_so() {
        assert!(networks("").is_empty() && networks(" , ").is_empty());
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for bad in
            ["proxy", "10.0.0.0/33", "10.0.0", "10.0.0.1:80", "[::1]", "::1/129", "10.0.0.0/8;::1", "*"]
        {
            assert_eq!(bad.parse::<Networks>(), Err(InvalidNetworks::Malformed(bad.to_owned())));
        }
        for all in ["0.0.0.0/0", "::/0", "1.2.3.4/0", "::ffff:0.0.0.0/96"] {
            assert_eq!(all.parse::<Networks>(), Err(InvalidNetworks::Everybody(all.to_owned())));
        }
        assert_eq!(vec!["10.0.0.1"; 257].join(",").parse::<Networks>(), Err(InvalidNetworks::TooMany));
    }
}
