//! A simulation of a control cluster: what the binary runs, on disks that lose what was not synced, a network
//! that loses and delays, and a time that only passes when nobody has anything to do. A seed decides everything,
//! so that what went wrong once goes wrong again. docs/decisions/0012-simulated-control-cluster.md says what it
//! is and what it does not show.

pub(crate) mod chance;
mod clients;
pub(crate) mod disk;
mod finish;
mod history;
mod holders;
mod nemesis;
pub(crate) mod net;
pub(crate) mod planted;
pub(crate) mod process;
mod tests;
mod world;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::sleep;

use clients::Client;
use history::{Broken, History, Rule};
use holders::Sockets;
use nemesis::Nemesis;
use planted::Planted;
use world::World;

/// Things are broken for so long; a lease, and half a lease after it, pass three times.
const RAGES_FOR: Duration = Duration::from_secs(40);
const WRITERS: u64 = 3;
const READERS: u64 = 2;
const HOLDERS: u64 = 3;

/// What a run was.
#[derive(Debug)]
struct Run {
    seed: u64,
    broken: Option<Broken>,
    /// The number of events, and what they were.
    fingerprint: (u64, u64),
    last_events: String,
}

/// Runs a seed, with a bug planted or as things are, and keeps so many of the last events to show.
fn run(seed: u64, planted: Option<Planted>, shown: usize) -> Run {
    let _planted = planted::plant(planted);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let chance = chance::Seeded::new(seed, "world");
        let replicas = if seed % 5 == 4 { 5 } else { 3 };
        let world = World::new(seed, replicas, chance.between(20, 120), shown);
        tokio::select! {
            biased;
            () = world.history.broken() => {}
            () = live(&world) => {}
        }
        Run {
            seed,
            broken: world.history.verdict(),
            fingerprint: world.history.fingerprint(),
            last_events: world.history.last_events(),
        }
    })
}

async fn live(world: &World) {
    for id in world.first() {
        world.start(*id);
    }
    let (history, mut clients) = (world.history.clone(), JoinSet::new());
    for number in 0..WRITERS {
        clients.spawn(watched(&history, Client::new(world, number).write()));
    }
    for number in 10..10 + READERS {
        clients.spawn(watched(&history, Client::new(world, number).read()));
    }
    for at in world.first() {
        clients.spawn(watched(&history, Client::new(world, 20 + at).watch(*at)));
    }
    let sockets = Sockets::default();
    for number in 40..40 + HOLDERS {
        clients.spawn(watched(&history, Client::new(world, number).hold(sockets.clone())));
    }
    let nemesis = Nemesis::new(world);
    tokio::select! {
        biased;
        () = nemesis.rage() => {}
        () = nemesis.revive() => {}
        () = sleep(RAGES_FOR) => {}
    }
    clients.shutdown().await;
    finish::finish(world).await;
}

/// A mistake of the simulation itself is not to be taken for a quiet client.
fn watched<F: Future<Output = ()>>(history: &History, client: F) -> impl Future<Output = ()> + use<F> {
    let history = history.clone();
    AssertUnwindSafe(client).catch_unwind().map(move |ended| {
        if ended.is_err() {
            history.broke(Rule::Runs, "a client panicked");
        }
    })
}
