//! Who is connected to this node: names are unique here, and the caps of the node are counted here. Places
//! under the limits of the whole cluster are counted by `admission`, unless the node is alone.
//!
//! A [`Registration`] is a place in the registry; it ends when it is dropped, however the session ends.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use hiveops_proto::id::UserId;
use hiveops_proto::path::Endpoint;
use hiveops_proto::{ConnectionId, DisconnectReason, Limits, Timestamp};
use parking_lot::Mutex;

use crate::admission::{Era, Place};

/// What the registry tells about a session.
#[derive(Debug, Clone)]
pub(crate) struct SessionInfo {
    pub(crate) endpoint: Endpoint,
    pub(crate) connected_at: Timestamp,
}

/// All sessions of the node; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    /// Held for one lookup or change, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<ConnectionId, Entry>,
    per_address: HashMap<IpAddr, u64>,
    per_user: HashMap<UserId, u64>,
    /// The number of the next place.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    info: SessionInfo,
    shard: usize,
    user: Option<UserId>,
    /// A later place has a greater number.
    number: u64,
    era: Era,
    /// There are more sessions than the cluster allows, and this is one of those that end for it.
    is_condemned: bool,
    /// It ends anyhow.
    is_ending: bool,
}

/// Which cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Node,
    Address,
    Cluster,
    User,
}

impl Full {
    /// The limit's name.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Self::Node => "max_connections_per_node",
            Self::Address => "max_connections_per_address",
            Self::Cluster => "max_connections_total",
            Self::User => "max_connections_per_user",
        }
    }
}

/// A session's place; dropping it frees the name and the caps.
#[derive(Debug)]
pub(crate) struct Registration {
    state: Arc<Mutex<State>>,
    id: ConnectionId,
    address: IpAddr,
    /// Its place under the limits of the whole cluster; dropped after it has left the registry.
    place: Place,
}

impl Registry {
    /// Takes a place under `wanted`, or under `otherwise` when a live session has that name.
    pub(crate) fn register(
        &self,
        wanted: Option<&ConnectionId>,
        otherwise: impl FnOnce() -> ConnectionId,
        address: IpAddr,
        (info, shard): (SessionInfo, usize),
        place: Place,
        limits: &Limits,
    ) -> Result<Registration, Full> {
        let mut state = self.state.lock();
        let count = state.sessions.len() as u64;
        let from_address = state.per_address.get(&address).copied().unwrap_or(0);
        if count >= limits.max_connections_per_node {
            return Err(Full::Node);
        }
        if limits.max_connections_per_address > 0 && from_address >= limits.max_connections_per_address {
            return Err(Full::Address);
        }
        // A place that is lent is one of the whole cluster already; else this node is the cluster.
        let is_capped = limits.max_connections_total > 0 && !place.is_lent();
        if is_capped && count >= limits.max_connections_total {
            return Err(Full::Cluster);
        }
        let user = place.user().cloned();
        let of_user = user.as_ref().and_then(|user| state.per_user.get(user)).copied().unwrap_or(0);
        let is_capped = limits.max_connections_per_user > 0 && user.is_some() && !place.is_lent();
        if is_capped && of_user >= limits.max_connections_per_user {
            return Err(Full::User);
        }
        let free = wanted.filter(|id| !state.sessions.contains_key(*id));
        let id = free.cloned().unwrap_or_else(otherwise);
        let number = state.next;
        state.next += 1;
        let era = place.era();
        if let Some(user) = &user {
            *state.per_user.entry(user.clone()).or_default() += 1;
        }
        let entry = Entry { info, shard, user, number, era, is_condemned: false, is_ending: false };
        state.sessions.insert(id.clone(), entry);
        *state.per_address.entry(address).or_default() += 1;
        Ok(Registration { state: Arc::clone(&self.state), id, address, place })
    }

    /// Chooses so many sessions of an era to end, the youngest first, among those that do not end anyhow: of all,
    /// or of a user. Returns whose were found.
    pub(super) fn condemn(&self, count: u64, era: Era, user: Option<&UserId>) -> Vec<Option<UserId>> {
        let mut state = self.state.lock();
        let stays = |entry: &&mut Entry| {
            let is_meant = user.is_none() || entry.user.as_ref() == user;
            is_meant && entry.era == era && !entry.is_ending && !entry.is_condemned
        };
        let mut young: Vec<&mut Entry> = state.sessions.values_mut().filter(stays).collect();
        young.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
        young.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        young.iter_mut().for_each(|entry| entry.is_condemned = true);
        young.iter().map(|entry| entry.user.clone()).collect()
    }

    /// The shard that holds a session.
    pub(crate) fn shard_of(&self, id: &ConnectionId) -> Option<usize> {
        self.state.lock().sessions.get(id).map(|entry| entry.shard)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().sessions.len()
    }

    /// How many sessions came in by each route, and when the oldest did.
    pub(crate) fn summary(&self) -> Summary {
        let state = self.state.lock();
        let mut summary = Summary::default();
        for entry in state.sessions.values() {
            summary.total += 1;
            *summary.by_type.entry(entry.info.endpoint.as_str()).or_default() += 1;
            let connected = entry.info.connected_at;
            summary.oldest = Some(summary.oldest.map_or(connected, |oldest| oldest.min(connected)));
        }
        summary
    }
}

/// Figures over all sessions.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) total: u64,
    pub(crate) by_type: std::collections::BTreeMap<&'static str, u64>,
    pub(crate) oldest: Option<Timestamp>,
}

impl Registration {
    pub(crate) fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Why its session has to end, if it has to.
    pub(super) fn verdict(&self) -> Option<DisconnectReason> {
        if self.place.is_lost() {
            return Some(DisconnectReason::LeaseLost);
        }
        let state = self.state.lock();
        let is_condemned = state.sessions.get(&self.id).is_some_and(|entry| entry.is_condemned);
        is_condemned.then_some(DisconnectReason::ConnectionLimit)
    }

    /// The session ends. Its name and its share of the caps are taken until the connection has gone.
    pub(super) fn ends(&mut self) {
        if self.mark_ending() == Some(false) {
            self.place.ends();
        }
    }

    /// Whether it was condemned; none when it is not there or ended before.
    fn mark_ending(&self) -> Option<bool> {
        let mut state = self.state.lock();
        let entry = state.sessions.get_mut(&self.id)?;
        (!std::mem::replace(&mut entry.is_ending, true)).then_some(entry.is_condemned)
    }

    /// Gives the place another name, one that no session has. Whatever it holds of the caps stays held.
    pub(crate) fn rename(&mut self, id: ConnectionId) {
        let mut state = self.state.lock();
        if let Some(entry) = state.sessions.remove(&self.id) {
            state.sessions.insert(id.clone(), entry);
        }
        self.id = id;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        let entry = state.sessions.remove(&self.id);
        if entry.is_some_and(|entry| entry.is_condemned) {
            self.place.was_told();
        }
        leave(&mut state.per_address, &self.address);
        if let Some(user) = self.place.user() {
            leave(&mut state.per_user, user);
        }
    }
}

/// One less; nothing is kept of whoever has none.
fn leave<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Budget;
    use crate::time::Clock;

    fn register(registry: &Registry, id: &str, address: &str, limits: &Limits) -> Result<Registration, Full> {
        let info = SessionInfo { endpoint: Endpoint::Dashboard, connected_at: Timestamp::from_millis(7) };
        let wanted = ConnectionId::new(id).unwrap();
        let made = || ConnectionId::new("made").unwrap();
        let place = Budget::new(None, Clock::start()).place();
        registry.register(Some(&wanted), made, address.parse().unwrap(), (info, 0), place, limits)
    }

    #[test]
    fn a_name_belongs_to_one_live_session() {
        let (registry, limits) = (Registry::default(), Limits::default());
        let first = register(&registry, "me", "127.0.0.1", &limits).unwrap();
        let second = register(&registry, "me", "127.0.0.1", &limits).unwrap();
        assert_eq!((first.id().as_str(), second.id().as_str()), ("me", "made"));
        drop(first);
        assert_eq!(register(&registry, "me", "127.0.0.1", &limits).unwrap().id().as_str(), "me");
        drop(second);
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_place_that_gets_another_name_gives_the_first_one_back_and_stays_the_same_place() {
        let registry = Registry::default();
        let limits = Limits { max_connections_per_address: 1, ..Limits::default() };
        let mut first = register(&registry, "me", "127.0.0.1", &limits).unwrap();
        first.rename(ConnectionId::new("made").unwrap());
        assert_eq!((registry.shard_of(&ConnectionId::new("me").unwrap()), registry.len()), (None, 1));
        assert_eq!(registry.shard_of(first.id()), Some(0));
        assert_eq!(register(&registry, "me", "127.0.0.1", &limits).unwrap_err(), Full::Address);
        drop(first);
        assert_eq!((registry.len(), register(&registry, "me", "127.0.0.1", &limits).is_ok()), (0, true));
    }

    #[test]
    fn each_cap_is_freed_with_the_session_that_filled_it() {
        let registry = Registry::default();
        let limits =
            Limits { max_connections_per_address: 1, max_connections_per_node: 2, ..Limits::default() };
        let first = register(&registry, "a", "127.0.0.1", &limits).unwrap();
        assert_eq!(register(&registry, "b", "127.0.0.1", &limits).unwrap_err(), Full::Address);
        let _other = register(&registry, "c", "127.0.0.2", &limits).unwrap();
        assert_eq!(register(&registry, "d", "127.0.0.3", &limits).unwrap_err(), Full::Node);
        drop(first);
        assert!(register(&registry, "b", "127.0.0.1", &limits).is_ok());
        let total = Limits { max_connections_total: 1, ..Limits::default() };
        assert_eq!(register(&registry, "e", "127.0.0.4", &total).unwrap_err(), Full::Cluster);
    }

    #[test]
    fn a_users_cap_is_the_users_own_and_is_freed_with_a_session() {
        let registry = Registry::default();
        let limits = Limits { max_connections_per_user: 2, ..Limits::default() };
        let budget = Budget::new(None, Clock::start());
        let register = |user: Option<&str>| {
            let info = SessionInfo { endpoint: Endpoint::Dashboard, connected_at: Timestamp::from_millis(7) };
            let clock = Clock::start();
            let place = user.map_or_else(|| budget.place(), |user| budget.place_of(user));
            let made = || clock.connection_id();
            registry.register(None, made, "127.0.0.1".parse().unwrap(), (info, 0), place, &limits)
        };
        let (first, second) = (register(Some("ada")).unwrap(), register(Some("ada")).unwrap());
        assert_eq!(register(Some("ada")).unwrap_err(), Full::User);
        let _others = [register(Some("bob")).unwrap(), register(None).unwrap(), register(None).unwrap()];
        let nobody = register(None).unwrap();
        drop((first, nobody));
        let again = register(Some("ada")).unwrap();
        assert_eq!(register(Some("ada")).unwrap_err(), Full::User);
        let era = Era::default();
        let ada = UserId::new("ada").unwrap();
        assert_eq!(registry.condemn(9, era, Some(&ada)), [Some(ada.clone()), Some(ada.clone())]);
        assert_eq!(again.verdict(), Some(DisconnectReason::ConnectionLimit));
        drop((second, again));
        assert_eq!(registry.state.lock().per_user.len(), 1);
    }
}
