//! How many connections each peer has at the accept loop: those that are not a session (yet). One address must
//! not hold all the places there are by connecting and saying nothing.
//!
//! Sessions are counted apart, by the registry, and by the address of the client rather than of its proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::time::Moment;

/// Where `max_connections_per_address` is small, a peer may still have so many connections: the files of a
/// page, a health check, and the handshake that is told that there are too many.
const LEAST: usize = 16;

/// Between two lines in the log about refused connections.
const TELL_EVERY_MS: u64 = 60_000;

/// Connections by peer; cheap to clone.
#[derive(Clone)]
pub(super) struct Peers {
    /// What a peer may have where nothing else is said.
    share: usize,
    /// Held for one lookup or change, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// As many entries as connections at most.
    counts: HashMap<IpAddr, usize>,
    told_at: Option<Moment>,
}

/// One connection; it counts until this is dropped.
pub(super) struct Counted {
    peer: IpAddr,
    peers: Peers,
}

impl Peers {
    /// Of `places`, one peer may have a quarter where addresses have a cap at all.
    pub(super) fn of(places: usize) -> Self {
        Self { share: places / 4, state: Arc::default() }
    }

    /// Counts a connection, unless its peer has as many as it may. `per_address` is the cap of sessions, 0 for
    /// none: then an address may well be a balancer that nobody told the node of, with everybody behind it. A
    /// peer of this machine is held to the cap and not to a share.
    pub(super) fn admit(&self, peer: IpAddr, per_address: u64) -> Option<Counted> {
        let peer = peer.to_canonical();
        let allowed = self.allowed(peer, per_address);
        let mut state = self.state.lock();
        let count = state.counts.entry(peer).or_default();
        if *count >= allowed {
            return None;
        }
        *count += 1;
        Some(Counted { peer, peers: self.clone() })
    }

    /// Whether it is time to say in the log that connections are refused.
    pub(super) fn tell(&self, now: Moment) -> bool {
        let mut state = self.state.lock();
        let is_due = state.told_at.is_none_or(|at| now.millis_since(at) >= TELL_EVERY_MS);
        if is_due {
            state.told_at = Some(now);
        }
        is_due
    }

    fn allowed(&self, peer: IpAddr, per_address: u64) -> usize {
        let share = if peer.is_loopback() { usize::MAX } else { self.share };
        match usize::try_from(per_address).unwrap_or(usize::MAX) {
            0 => usize::MAX,
            cap => cap.max(LEAST).min(share),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.peers.state.lock();
        if let Some(count) = state.counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand connections at once are let in.
    fn admitted(peer: &str, per_address: u64) -> usize {
        let (peers, peer) = (Peers::of(2_048), peer.parse().unwrap());
        (0..1_000).map_while(|_| peers.admit(peer, per_address)).collect::<Vec<_>>().len()
    }

    #[test]
    fn a_peer_has_a_quarter_of_the_places_or_what_the_cap_per_address_says() {
        assert_eq!(["203.0.113.9", "2001:db8::9", "127.0.0.1"].map(|peer| admitted(peer, 0)), [1_000; 3]);
        assert_eq!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|peer| admitted(peer, 900)), [900; 3]);
        for peer in ["203.0.113.9", "127.0.0.1"] {
            assert_eq!([1, 16, 17, 200].map(|cap| admitted(peer, cap)), [16, 16, 17, 200], "{peer}");
        }
        assert_eq!(["203.0.113.9", "2001:db8::9"].map(|peer| admitted(peer, 900)), [512, 512]);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_gone_and_belongs_to_its_peer() {
        let peers = Peers::of(8);
        let admit = |peer: &str| peers.admit(peer.parse().unwrap(), 200);
        let (first, second) = (admit("203.0.113.9").unwrap(), admit("::ffff:203.0.113.9").unwrap());
        assert!(admit("203.0.113.9").is_none(), "an address is the same however it is written");
        assert!(admit("203.0.113.10").is_some());
        drop(first);
        assert!(admit("203.0.113.9").is_some());
        drop(second);
        assert!(
            peers.state.lock().counts.values().all(|count| *count > 0),
            "nothing is left of who has gone"
        );
    }

    #[test]
    fn refusals_are_told_once_a_minute() {
        let peers = Peers::of(8);
        let at = |ms| peers.tell(Moment::from_millis(ms));
        assert_eq!([at(5), at(6), at(60_004), at(60_005), at(60_006)], [true, false, false, true, false]);
    }
}
