//! Nodes that borrow from the cluster-wide limits as `hiveops_proto::lease` says, with clocks that are slow,
//! sockets that take their time, and lives that end. They use all that they may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::NodeId;
use hiveops_proto::id::UserId;
use hiveops_proto::lease::{LeaseAsk, LeaseGrant, Wanted};
use hiveops_proto::path::CONTROL_COMMANDS;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::clients::Client;
use super::history::Rule;
use super::world::{CONNECTIONS, CONNECTIONS_OF_USER};
use crate::replica::ask::Decided;
use crate::state::{Action, LEASE_MS, Reply};

/// A thousand milliseconds of the slowest clock take so many.
const SLOWEST: u64 = 1_200;
/// Until the last socket is closed.
const CLOSING_MAX_MS: u64 = 1_000;
/// Between two looks of a node at what it may hold.
const TICK: Duration = Duration::from_millis(100);
/// Before so many of a thousand asks a node is cut off from all replicas for a while.
const CUT_OFF: u64 = 120;
/// Nobody wants more for one node.
const DEMAND_MAX: u64 = 20;

/// What all nodes together have open; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<BTreeMap<u64, (u64, u64)>>>);

/// One of the two limits, as one life of a node sees it.
#[derive(Debug, Default)]
struct Budget {
    granted: u64,
    /// By ask: what it promised to stay below until it is answered.
    promised: BTreeMap<u64, u64>,
}

/// One life of a node.
struct Life {
    incarnation: u64,
    seq: u64,
    total: Budget,
    user: Budget,
    /// When the last grant ends, by the node's clock.
    until: Instant,
    open: (u64, u64),
}

impl Budget {
    fn allowed(&self) -> u64 {
        self.promised.values().copied().fold(self.granted, u64::min)
    }

    fn answered(&mut self, seq: u64, granted: u64) {
        self.promised.retain(|ask, _| *ask > seq);
        self.granted = granted;
    }
}

impl Sockets {
    fn set(&self, client: &Client, open: (u64, u64)) {
        let mut sockets = self.0.lock();
        sockets.insert(client.number, open);
        let sum = |of: fn(&(u64, u64)) -> u64| sockets.values().map(of).sum::<u64>();
        let (total, user) = (sum(|open| open.0), sum(|open| open.1));
        let history = &client.world.history;
        if total > CONNECTIONS || user > CONNECTIONS_OF_USER {
            let how = format_args!("{total} are connected, {user} of them one user's: {sockets:?}");
            history.broke(Rule::WithinLimit, how);
        }
    }
}

impl Client {
    /// Is a node as long as the run lasts.
    pub(crate) async fn hold(self, sockets: Sockets) {
        let slow = self.chance.between(1_000, SLOWEST);
        for incarnation in 1_u64.. {
            let mut life = Life {
                incarnation,
                seq: 0,
                total: Budget::default(),
                user: Budget::default(),
                until: Instant::now(),
                open: (0, 0),
            };
            let dies = Instant::now() + self.chance.millis(3_000, 40_000);
            self.live(&mut life, &sockets, slow, dies).await;
            self.world.history.note(format_args!("node {} is killed", self.number));
            sockets.set(&self, (0, 0));
            sleep(self.chance.millis(100, 3_000)).await;
        }
    }

    async fn live(&self, life: &mut Life, sockets: &Sockets, slow: u64, dies: Instant) {
        let by_its_clock = |ms: u64| Duration::from_millis(ms * slow / 1_000);
        let mut next_ask = Instant::now();
        let mut demand = (0, 0);
        while Instant::now() < dies {
            if Instant::now() >= life.until && life.total.granted + life.user.granted > 0 {
                sleep(self.chance.millis(0, CLOSING_MAX_MS)).await;
                (life.total.granted, life.user.granted) = (0, 0);
                self.world.history.note(format_args!("node {} has lost its lease", self.number));
            }
            if self.chance.in_thousand(50) {
                demand.0 = self.chance.below(DEMAND_MAX);
                demand.1 = self.chance.below(demand.0 + 1);
            }
            life.open.0 = demand.0.min(life.total.allowed());
            life.open.1 = demand.1.min(life.user.allowed());
            sockets.set(self, life.open);
            if Instant::now() >= next_ask {
                if self.chance.in_thousand(CUT_OFF) {
                    next_ask = Instant::now() + self.chance.millis(LEASE_MS / 2, 2 * LEASE_MS);
                    self.world.history.note(format_args!("node {} reaches nobody", self.number));
                    continue;
                }
                let asked = Instant::now();
                let answered = self.ask(life, demand).await;
                if let Some(grant) = answered {
                    let until = asked + by_its_clock(grant.lease_ms);
                    self.take(life, &grant, until);
                    next_ask = asked + by_its_clock(LEASE_MS / 3);
                }
            }
            sleep(TICK).await;
        }
    }

    /// Asks once. While it waits nothing is opened, and what it promised it has kept before.
    async fn ask(&self, life: &mut Life, demand: (u64, u64)) -> Option<LeaseGrant> {
        life.seq += 1;
        life.total.promised.insert(life.seq, life.open.0);
        life.user.promised.insert(life.seq, life.open.1);
        let wanted = |keep: u64, want: u64| Wanted { keep, want: want.max(keep) };
        let ask = LeaseAsk {
            node: NodeId::new(&format!("n{}", self.number)).unwrap(),
            incarnation: life.incarnation,
            seq: life.seq,
            total: wanted(life.open.0, demand.0),
            users: BTreeMap::from([(UserId::new("ada").unwrap(), wanted(life.open.1, demand.1))]),
        };
        let body = Bytes::from(serde_json::to_vec(&Action::RenewLease(Box::new(ask))).unwrap());
        let to = self.any();
        let (status, body) = self.call(to, Method::POST, CONTROL_COMMANDS, None, body).await?;
        if status != StatusCode::OK {
            return None;
        }
        let decided: Decided = serde_json::from_slice(&body).unwrap();
        match decided.reply {
            Reply::Lease(grant) if grant.seq == life.seq => Some(grant),
            other => panic!("a lease was asked for, and the answer is {other:?}"),
        }
    }

    fn take(&self, life: &mut Life, grant: &LeaseGrant, until: Instant) {
        // One that comes after its end is none.
        if until <= Instant::now() {
            return;
        }
        life.until = until;
        life.total.answered(grant.seq, grant.total.unwrap());
        let of_user = grant.users.as_ref().and_then(|users| users.values().next().copied());
        life.user.answered(grant.seq, of_user.unwrap());
        let (total, user) = (life.total.granted, life.user.granted);
        self.world.history.note(format_args!("node {} may hold {total}, {user} of the user", self.number));
    }
}
