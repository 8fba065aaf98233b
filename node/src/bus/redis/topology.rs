//! Which server has a log. It is asked anew for every connection, because it changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, Value};

use super::fault::Fault;
use super::server::{Login, ask_once};
use crate::config::{Address, RedisLayout, Servers};

/// How the servers stand to each other, and how to log in to them.
pub(super) struct Topology {
    layout: RedisLayout,
    addresses: Vec<Address>,
    pub(super) login: Login,
    /// Who is asked first. It moves on when that one did not know.
    first: AtomicUsize,
}

impl Topology {
    pub(super) fn new(layout: RedisLayout, servers: Servers) -> Self {
        let database = match layout {
            RedisLayout::Single { database } => database,
            RedisLayout::Sentinel { .. } | RedisLayout::Cluster => 0,
        };
        let Servers { tls: _, user, password, addresses } = servers;
        let login = Login { user, password, database };
        Self { layout, addresses, login, first: AtomicUsize::new(0) }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.layout == RedisLayout::Cluster
    }

    /// Whether sentinels may choose another master while the old one takes itself for one.
    pub(super) fn is_watched(&self) -> bool {
        matches!(self.layout, RedisLayout::Sentinel { .. })
    }

    /// The server that has the slot now.
    pub(super) async fn owner(&self, slot: u16) -> Result<Address, Fault> {
        match &self.layout {
            RedisLayout::Single { .. } => self.addresses.first().cloned().ok_or(Fault::Nowhere),
            RedisLayout::Sentinel { master } => self.newest_master(master).await,
            RedisLayout::Cluster => self.ask_all(|address| self.slot_owner(address, slot)).await,
        }
    }

    /// The first answer that any of the servers has. The next question goes to another one first: a server
    /// that is cut off from the others answers, too, and names who is gone.
    async fn ask_all<'a, F>(&'a self, ask: impl Fn(&'a Address) -> F) -> Result<Address, Fault>
    where
        F: Future<Output = Result<Address, Fault>>,
    {
        let count = self.addresses.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut last = Fault::Nowhere;
        for turn in 0..count {
            let index = first.wrapping_add(turn) % count;
            match ask(&self.addresses[index]).await {
                Ok(found) => {
                    self.first.store(index.wrapping_add(1), Ordering::Relaxed);
                    return Ok(found);
                }
                Err(fault) => last = fault,
            }
        }
        self.first.store(first.wrapping_add(1), Ordering::Relaxed);
        Err(last)
    }

    /// The master that was chosen last, as far as a majority of the sentinels knows: one that was cut off
    /// still names the one before.
    async fn newest_master(&self, name: &str) -> Result<Address, Fault> {
        let mut answers: FuturesUnordered<_> =
            self.addresses.iter().map(|sentinel| self.master(sentinel, name)).collect();
        let (mut found, mut last): (Vec<(u64, Address)>, _) = (Vec::new(), Fault::Nowhere);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => found.push(answer),
                Err(fault) => last = fault,
            }
            if found.len() * 2 > self.addresses.len() {
                break;
            }
        }
        found.into_iter().max_by_key(|(chosen, _)| *chosen).map(|(_, address)| address).ok_or(last)
    }

    /// The master that a sentinel knows, and the number of the choice that made it one.
    async fn master(&self, sentinel: &Address, name: &str) -> Result<(u64, Address), Fault> {
        const COMMAND: &str = "SENTINEL MASTER";
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(name);
        let mut answer = ask_once(sentinel, &self.login, COMMAND, &question).await;
        if matches!(answer, Err(Fault::Open { .. })) && self.login.password.is_some() {
            // Sentinels need not have the password of the servers that they watch.
            let nobody = Login { user: None, password: None, database: 0 };
            answer = ask_once(sentinel, &nobody, COMMAND, &question).await;
        }
        let fields: HashMap<String, String> = answer?;
        master_of(&fields).ok_or(Fault::Answer { command: COMMAND })
    }

    async fn slot_owner(&self, server: &Address, slot: u16) -> Result<Address, Fault> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let answer: Value = ask_once(server, &self.login, "CLUSTER SLOTS", &question).await?;
        let owner = owner_of(answer, slot).ok_or(Fault::Answer { command: "CLUSTER SLOTS" })?;
        let (host, port) = owner.ok_or(Fault::Nowhere)?;
        // A server that does not know its own name leaves it to us how we have reached it.
        Ok(address(if host.is_empty() { server.host.clone() } else { host }, port))
    }
}

fn address(host: String, port: u16) -> Address {
    // Servers give IPv6 addresses without brackets.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Address { host, port }
}

fn master_of(fields: &HashMap<String, String>) -> Option<(u64, Address)> {
    let chosen = fields.get("config-epoch")?.parse().ok()?;
    Some((chosen, address(fields.get("ip")?.clone(), fields.get("port")?.parse().ok()?)))
}

/// The master of a slot in the answer to `CLUSTER SLOTS`: `[from, to, [host, port, …], …]` per range. `None`
/// when it has another form, `Some(None)` when nobody has the slot.
fn owner_of(answer: Value, slot: u16) -> Option<Option<(String, u16)>> {
    let Value::Array(ranges) = answer else { return None };
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = &range[..] else { return None };
        if !(*from..=*to).contains(&i64::from(slot)) {
            continue;
        }
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        let host = Option::<String>::from_redis_value(host.clone()).ok()?.unwrap_or_default();
        return match (host.as_str(), u16::try_from(*port)) {
            // `?` stands for a name that nobody knows yet.
            ("?", _) => Some(None),
            (_, Ok(port)) => Some(Some((host, port))),
            (_, Err(_)) => None,
        };
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: i64, to: i64, host: Value, port: i64) -> Value {
        let id = Value::BulkString(b"id".to_vec());
        let node = Value::Array(vec![host, Value::Int(port), id]);
        Value::Array(vec![Value::Int(from), Value::Int(to), node])
    }

    #[test]
    fn the_owner_of_a_slot_is_found() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answer = Value::Array(vec![
            range(0, 5_460, text("10.0.0.1"), 7_000),
            range(5_461, 10_922, Value::Nil, 7_001),
            range(10_923, 10_923, text("?"), 7_002),
        ]);
        let owner = |slot| owner_of(answer.clone(), slot).unwrap();
        assert_eq!(owner(5_460), Some(("10.0.0.1".to_owned(), 7_000)));
        assert_eq!(owner(5_461), Some((String::new(), 7_001)));
        assert_eq!((owner(10_923), owner(16_383)), (None, None));
        assert_eq!(owner_of(Value::Okay, 0), None);
    }

    #[test]
    fn a_sentinel_names_the_master_and_its_choice() {
        let fields = [("ip", "::1"), ("port", "7000"), ("config-epoch", "3"), ("flags", "master")];
        let fields: HashMap<String, String> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (chosen, address) = master_of(&fields).unwrap();
        assert_eq!((chosen, address.to_string().as_str()), (3, "[::1]:7000"));
        assert_eq!(master_of(&HashMap::new()), None);
    }

    #[test]
    fn an_address_of_ipv6_gets_brackets() {
        assert_eq!(address("::1".to_owned(), 1).to_string(), "[::1]:1");
        assert_eq!(address("a.example".to_owned(), 1).to_string(), "a.example:1");
    }
}
