//! `HIVEOPS_BUS`: which bus a node follows, and where it is.

use std::fmt;
use std::str::FromStr;

use super::Secret;

/// Where publications go.
#[derive(Debug, Clone)]
pub enum BusUrl {
    /// Inside this process.
    Embedded,
    /// NATS with JetStream.
    Nats(Servers),
    /// Redis 7.
    Redis(RedisLayout, Servers),
}

/// How the Redis servers stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisLayout {
    /// One server, in this database.
    Single {
        /// The number of the database.
        database: u8,
    },
    /// Sentinels that know the server with this name.
    Sentinel {
        /// The name of the set that the sentinels watch.
        master: String,
    },
    /// A Redis Cluster.
    Cluster,
}

/// Servers of one bus, and how to log in to them.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Whether the connection must be TLS.
    pub tls: bool,
    /// The user's name.
    pub user: Option<String>,
    /// The user's password; without a user, a NATS token.
    pub password: Option<Secret>,
    /// Hosts and ports, at least one.
    pub addresses: Vec<Address>,
}

/// One server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

const NATS_PORT: u16 = 4_222;
const REDIS_PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;
/// A typing error would try them one after the other.
const ADDRESSES_MAX: usize = 32;

const FORMS: &str = "must be `embedded`, nats://host:port[,host:port] (or tls://), redis://host:port[/database], \
                     redis+sentinel://host:port,…/master or redis+cluster://host:port,…";

impl BusUrl {
    /// The kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Nats(_) => "nats",
            Self::Redis(..) => "redis",
        }
    }

    /// Whether other nodes can follow the same bus.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Embedded)
    }

    /// NATS writes a token in the place of the user: where no password follows, it is one, and secret.
    pub(crate) fn hide_token(&mut self) {
        if let Self::Nats(servers) = self
            && servers.password.is_none()
        {
            servers.password = servers.user.take().map(Secret::new);
        }
    }

    pub(super) fn servers_mut(&mut self) -> Option<&mut Servers> {
        match self {
            Self::Embedded => None,
            Self::Nats(servers) | Self::Redis(_, servers) => Some(servers),
        }
    }
}

impl FromStr for BusUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        match scheme {
            "nats" | "tls" => {
                let (servers, path) = Servers::parse(rest, scheme == "tls", NATS_PORT)?;
                if path.is_empty() {
                    Ok(Self::Nats(servers))
                } else {
                    Err("has a path after the port".into())
                }
            }
            "redis" => {
                let (servers, path) = Servers::parse(rest, false, REDIS_PORT)?;
                if servers.addresses.len() > 1 {
                    return Err("names several servers: say redis+sentinel:// or redis+cluster://".to_owned());
                }
                let database = if path.is_empty() { Ok(0) } else { path.parse() };
                let database =
                    database.map_err(|_| "the database after the port must be a number up to 255")?;
                Ok(Self::Redis(RedisLayout::Single { database }, servers))
            }
            "redis+sentinel" => {
                let (servers, path) = Servers::parse(rest, false, SENTINEL_PORT)?;
                let named = !path.is_empty() && path.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
                if !named {
                    return Err(
                        "lacks the name of the master after the sentinels: …:26379/mymaster".to_owned()
                    );
                }
                Ok(Self::Redis(RedisLayout::Sentinel { master: path.to_owned() }, servers))
            }
            "redis+cluster" => {
                let (servers, path) = Servers::parse(rest, false, REDIS_PORT)?;
                if !path.is_empty() {
                    return Err("has a path after the port: a cluster has one database".to_owned());
                }
                Ok(Self::Redis(RedisLayout::Cluster, servers))
            }
            "rediss" => Err("TLS to Redis is not supported: use a TLS proxy beside the node".to_owned()),
            _ => Err(FORMS.to_owned()),
        }
    }
}

impl Servers {
    /// Reads `[user[:password]@]host[:port][,host[:port]][/path]`, and gives the path as well.
    fn parse(text: &str, tls: bool, port: u16) -> Result<(Self, &str), String> {
        let (userinfo, rest) = match text.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, text),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let addresses: Vec<Address> =
            hosts.split(',').map(|host| Address::parse(host, port)).collect::<Result<_, _>>()?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(format!("names more than {ADDRESSES_MAX} servers"));
        }
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            None => (None, None),
            Some((user, password)) => {
                let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                (given(user), given(password).map(Secret::new))
            }
        };
        Ok((Self { tls, user, password, addresses }, path))
    }
}

impl Address {
    fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no host and port");
        // The colons of an IPv6 address are inside brackets.
        let after_host = text.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match text[after_host..].find(':') {
            Some(at) => {
                let (host, port) = text.split_at(after_host + at);
                (host, port[1..].parse().map_err(|_| invalid())?)
            }
            None => (text, default_port),
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if host.is_empty() || port == 0 || !host.bytes().all(fits) {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// As it was written, without the password.
impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Nats(servers) => {
                write!(f, "{}://{servers}", if servers.tls { "tls" } else { "nats" })
            }
            Self::Redis(RedisLayout::Single { database: 0 }, servers) => write!(f, "redis://{servers}"),
            Self::Redis(RedisLayout::Single { database }, servers) => {
                write!(f, "redis://{servers}/{database}")
            }
            Self::Redis(RedisLayout::Sentinel { master }, servers) => {
                write!(f, "redis+sentinel://{servers}/{master}")
            }
            Self::Redis(RedisLayout::Cluster, servers) => write!(f, "redis+cluster://{servers}"),
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, &self.password) {
            (None, None) => {}
            (user, None) => write!(f, "{}@", user.as_deref().unwrap_or_default())?,
            (user, Some(_)) => write!(f, "{}:***@", user.as_deref().unwrap_or_default())?,
        }
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        text.parse::<BusUrl>().map(|url| url.to_string())
    }

    #[test]
    fn a_bus_is_shown_as_it_was_written_without_its_password() {
        for same in [
            "embedded",
            "nats://127.0.0.1:4222",
            "tls://a.example:4222,b.example:4333",
            "redis://[::1]:6380/2",
            "redis+sentinel://a:26379,b:26379/mymaster",
            "redis+cluster://a:7000,b:7001",
        ] {
            assert_eq!(parse(same).unwrap(), same);
        }
        assert_eq!(parse("nats://host").unwrap(), "nats://host:4222");
        assert_eq!(parse("redis://:s3cret@host").unwrap(), "redis://:***@host:6379");
        assert_eq!(parse("nats://me:s3c@ret@host").unwrap(), "nats://me:***@host:4222");
        assert!(!format!("{:?}", "redis://:s3cret@host".parse::<BusUrl>().unwrap()).contains("s3cret"));
    }

    #[test]
    fn what_is_no_bus_is_refused_with_what_would_be() {
        for (text, why) in [
            ("kafka://x", "must be"),
            ("nats", "must be"),
            ("nats://host:0", "host and port"),
            ("nats://host:99999", "host and port"),
            ("nats://", "host and port"),
            ("nats://host/x", "path"),
            ("redis://a,b", "redis+cluster"),
            ("redis://a/x", "database"),
            ("redis+sentinel://a", "master"),
            ("redis+cluster://a/1", "one database"),
            ("rediss://a", "TLS"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
